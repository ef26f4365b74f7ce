# SPDX-License-Identifier: Apache-2.0
# Bad input: each one sentence and the exit code of nt-eval(1), and no partial file.
. tests/cli/nt-eval/lib.bash
B=$D/bytes
head -c 2047 $B/text.txt >"$tmp/short"
check_exit 65 'too short for one window of 2048' ev -m $B --ppl "$tmp/short"
check_exit 65 'holds windows 0 to 1, not 5' ev -m $B --ppl $B/text.txt --windows 5:6
check_exit 2 'neither N nor A:B' ev -m $B --ppl $B/text.txt --windows x
check_exit 2 'neither N nor A:B' ev -m $B --ppl $B/text.txt --windows 3:1
check_exit 74 '/nowhere.txt' ev -m $B --ppl /nowhere.txt
check_exit 2 'no model' ev --ppl $B/text.txt
check_exit 2 'nothing to measure' ev -m $B
check_exit 2 'go together' ev -m $B --dump nll
check_exit 2 'measured whole' ev -m $B --ppl $B/text.txt --layers 0:1
check_exit 65 'tokenizer' ev -m $D/bias --ppl $B/text.txt
check_exit 65 'cannot be compared' ev -m $B --ppl $B/text.txt --ref $D/bias
check_exit 75 'max-mem' ev -m $B --ppl $B/text.txt --max-mem 1M
echo '{"txt": "a b"}' >"$tmp/j"; check_exit 65 'line 1: no JSON object' ev -m $B --lambada "$tmp/j"
printf '{"text": "a b c"}\n{"text": "word"}\n' >"$tmp/j"; check_exit 65 'line 2: the text has no word before' ev -m $B --lambada "$tmp/j"
: >"$tmp/j"; check_exit 65 'holds no item' ev -m $B --lambada "$tmp/j"

cp -r $B "$tmp/m"; head -c 30000 $B/model.safetensors >"$tmp/m/model.safetensors"
check_exit 65 'model.safetensors' ev -m "$tmp/m" --ppl $B/text.txt
cp $B/model.safetensors "$tmp/m/"; sed -i 's/"hidden_act": "silu"/"hidden_act": "maxout"/' "$tmp/m/config.json"
check_exit 65 'hidden_act' ev -m "$tmp/m" --ppl $B/text.txt
sed 's/"hidden_size": 24/"hidden_size": 48/; s/"head_dim": 8/"head_dim": 16/' $B/config.json >"$tmp/m/config.json"
check_exit 65 'q_proj.weight: shape [24, 24], expected [48, 48]' ev -m "$tmp/m" --ppl $B/text.txt
cp $B/config.json "$tmp/m/"; size=$(stat -c %s "$tmp/m/model.safetensors")
printf '\377\377\377\177' | dd of="$tmp/m/model.safetensors" bs=1 seek=$((size - 4)) conv=notrunc 2>/dev/null
check_exit 65 'is not finite' ev -m "$tmp/m" --ppl $B/text.txt
rm "$tmp/m/config.json"; check_exit 65 'config.json' ev -m "$tmp/m" --ppl $B/text.txt

ev -m $B --ppl $B/text.txt >/dev/full 2>"$tmp/err"; [ $? = 74 ] && [ "$(wc -l <"$tmp/err")" = 1 ]; ok $? "exit 74: a full disk"
ev -m $B --ppl $B/text.txt -o "$tmp/x.tsv" --max-mem 1M 2>/dev/null; [ ! -e "$tmp/x.tsv" ]; ok $? "no partial file"
for i in $(seq 400); do cat $B/text.txt; done >"$tmp/long"
for sig in TERM:143 INT:130; do
    struck ${sig%:*} 'grep -q predicted "$tmp/stderr"' env --default-signal=INT nt-eval --progress plain -m $B --ppl "$tmp/long" -o "$tmp/x.tsv"; rc=$?
    [ $rc = ${sig#*:} ] && [ ! -e "$tmp/x.tsv" ] && [ "$(grep -c 'stopped by a signal' "$tmp/stderr")" = 1 ]; ok $? "exit ${sig#*:}: SIG${sig%:*} (exit $rc)"
done
finish
