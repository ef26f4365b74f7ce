# SPDX-License-Identifier: Apache-2.0
# A qweights stream evaluates like the float directory that NumPy makes of it; norms old, new and by verdict; pipes; bad streams.
. tests/cli/nt-eval/lib.bash
need_python
B=$D/bytes
dequant() { "$PYTHON" tests/cli/nt-eval/dequant.py "$@"; }
rows() { cut -f 2-5,7; } # without label, standard error, bits and time
args=(--ppl $B/text.txt --windows 1 --ref $B)

nt-quant --progress none -m $B -q rtn -b 3 -g 8 -o "$tmp/q.nts" 2>"$tmp/err"; ok $? "a stream to evaluate"
dequant "$tmp/q.nts" $B "$tmp/hf" old
ev -m "$tmp/hf" "${args[@]}" | rows >"$tmp/want"
ev -m $B --qweights "$tmp/q.nts" "${args[@]}" >"$tmp/table"; rows <"$tmp/table" >"$tmp/got"
[ -s "$tmp/got" ] && cmp -s "$tmp/want" "$tmp/got"; ok $? "the same rows as its dequantized directory"
awk -F'\t' '$2 == "kl" { exit !($5 > 0.01) }' "$tmp/table"; ok $? "and not the float model's"
[ "$(tail -n 1 "$tmp/table" | cut -f 8)" = "$(dequant bits "$tmp/q.nts")" ]; ok $? "bits count stored bytes"
[ "$(tail -n 1 "$tmp/table" | cut -f 1)" = q.nts ]; ok $? "the model column names the stream"
cat "$tmp/q.nts" | ev -m $B --qweights - "${args[@]}" | rows | cmp -s - "$tmp/want"; ok $? "from a pipe"
mkfifo "$tmp/fifo"; cat "$tmp/q.nts" >"$tmp/fifo" & ev -m $B --qweights "$tmp/fifo" "${args[@]}" | rows | cmp -s - "$tmp/want"
ok $? "from a named FIFO"; wait

nt-gen-calib --progress none -m $B --scheme text --text $B/text.txt -n 4 -T 64 -o "$tmp/c.nts" 2>"$tmp/err" &&
    nt-tweak --progress none -m $B --tokens "$tmp/c.nts" --lr 1e-2 "$tmp/q.nts" -o "$tmp/t.nts" 2>"$tmp/err"
ok $? "a stream with old and new norms"
for which in old new; do
    dequant "$tmp/t.nts" $B "$tmp/hf-$which" $which
    ev -m "$tmp/hf-$which" "${args[@]}" | rows >"$tmp/want-$which"
    ev -m $B --qweights "$tmp/t.nts" --norms $which "${args[@]}" | rows | cmp -s - "$tmp/want-$which"; ok $? "--norms $which"
done
! cmp -s "$tmp/want-old" "$tmp/want-new"; ok $? "old and new differ"
valid=$(nt-pack -t "$tmp/t.nts" 2>/dev/null | grep -o '"norms": *"[a-z]*"' | grep -o 'old\|new' | tail -n 1)
ev -m $B --qweights "$tmp/t.nts" "${args[@]}" | rows >"$tmp/verdict"
cmp -s "$tmp/verdict" "$tmp/want-${valid:-old}" || { [ -z "$valid" ] && cmp -s "$tmp/verdict" "$tmp/want-new"; }
ok $? "by default the norms of the verdict${valid:+ ($valid)}"
ev -m $B --tokens "$tmp/c.nts" | grep -q "	ppl	holdout		.*	63	"; ok $? "--tokens: held-out sequences"

check_exit 65 'has no new norms' ev -m $B --qweights "$tmp/q.nts" --norms new --ppl $B/text.txt
check_exit 65 'another model' ev -m $D/bytes-ref --qweights "$tmp/q.nts" --ppl $B/text.txt
size=$(stat -c %s "$tmp/q.nts")
head -c $((size - 70)) "$tmp/q.nts" >"$tmp/cut.nts"; check_exit 65 'cut.nts' ev -m $B --qweights "$tmp/cut.nts" --ppl $B/text.txt
dequant flip "$tmp/q.nts" "$tmp/flip.nts" $((size / 2)); check_exit 65 'flip.nts' ev -m $B --qweights "$tmp/flip.nts" --ppl $B/text.txt
nt-quant --progress none -m $B -q rtn -b 3 --layers 0:1 -o "$tmp/part.nts" 2>/dev/null
check_exit 65 'layer 1 is missing' ev -m $B --qweights "$tmp/part.nts" --ppl $B/text.txt
check_exit 65 'c.nts: holds tokens' ev -m $B --qweights "$tmp/c.nts" --ppl $B/text.txt
check_exit 74 '/nowhere' ev -m $B --qweights /nowhere --ppl $B/text.txt
finish
