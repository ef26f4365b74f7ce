# SPDX-License-Identifier: Apache-2.0
# Bad options, models and texts, too little memory, a full disk, a dead reader, a signal: one sentence, the exit code,
# no file.
. tests/cli/nt-gen-calib/lib.bash
run=(nt-gen-calib --progress none -j 1 -m "$tiny" -o "$tmp/out.nts")
try() { # NAME CODE PATTERN COMMAND...
    local name=$1 code=$2 pattern=$3 rc; shift 3
    "$@" >"$tmp/stdout" 2>"$tmp/stderr"; rc=$?
    [ $rc = "$code" ] && grep -qE "$pattern" "$tmp/stderr" && [ ! -e "$tmp/out.nts" ]
    ok $? "$name (exit $rc: $(tail -n 1 "$tmp/stderr" | cut -c 1-150))"
    rm -f "$tmp/out.nts"
}
try "no model" 2 '\-m MODEL' nt-gen-calib -o "$tmp/out.nts"
try "n = 0" 2 'sequences' "${run[@]}" -n 0
try "T = 1" 2 'tokens' "${run[@]}" -T 1
try "unknown scheme" 2 'scheme' "${run[@]}" --scheme c4
try "unknown language" 2 '"xx"' "${run[@]}" -n 2 -T 8 --languages en,xx
try "an empty language" 2 'language' "${run[@]}" -n 2 -T 8 --languages en,,fr
try "one sequence and a holdout" 2 'holdout 0' "${run[@]}" -n 1 -T 8
try "text without --text" 2 '\-\-text FILE' "${run[@]}" --scheme text
try "--text without its scheme" 2 'scheme text' "${run[@]}" --text x
try "--special alone" 2 'encode' "${run[@]}" --special
try "--layers" 2 'layers' "${run[@]}" --layers 0:1
try "--encode with -o" 2 'stdout' "${run[@]}" --encode
try "an operand" 2 'extra' "${run[@]}" extra
try "temperature 0" 2 'temperature' "${run[@]}" --temperature 0
try "T beyond the positions" 65 '97.*96 positions' "${run[@]}" -n 2 -T 97
try "no such model" 65 'nowhere' nt-gen-calib -m "$tmp/nowhere" -o "$tmp/out.nts"
try "no such text" 65 'nowhere' "${run[@]}" --scheme text --text "$tmp/nowhere" -n 2 -T 8
printf 'too short' >"$tmp/short"
try "text too short" 65 'short: [0-9]+ tokens.*need 64' "${run[@]}" --scheme text --text "$tmp/short" -n 2 -T 32
: >"$tmp/empty"
try "empty text" 65 'empty: 0 tokens' "${run[@]}" --scheme text --text "$tmp/empty" -n 2 -T 32
printf '{"text":"a"}\n{"txt":"b"}\n' >"$tmp/odd.jsonl"
try "a line without text" 65 'odd.jsonl: line 2' "${run[@]}" --scheme text --text "$tmp/odd.jsonl" -n 2 -T 32
try "a text that is a directory" 74 'directory' "${run[@]}" --scheme text --text "$tmp" -n 2 -T 32
try "nothing of the language" 65 'languages ka' "${run[@]}" -n 2 -T 8 --languages ka
rm "$tiny/tokenizer.json"
try "no tokenizer" 65 'tokenizer.json' "${run[@]}" -n 2 -T 8
cp $data/odd/tokenizer.json "$tiny/"
try "a tokenizer of another model" 65 'tokenizer has 702 tokens, the model 700' "${run[@]}" -n 2 -T 8
cp $data/smollm/tokenizer.json "$tiny/"
try "more memory than allowed" 75 'max-mem' "${run[@]}" -n 2 -T 8 --max-mem 100K
try "no directory for the output" 74 'missing' nt-gen-calib --progress none -m "$tiny" -n 2 -T 8 -o "$tmp/missing/out.nts"
[ -e /dev/full ] && try "full disk" 74 'No space' nt-gen-calib --progress none -m "$tiny" -n 2 -T 8 -o /dev/full
cp "$tiny/model.safetensors" "$tmp/whole"
head -c 20000 "$tmp/whole" >"$tiny/model.safetensors"
try "model file cut" 65 'model.safetensors' "${run[@]}" -n 2 -T 8
cp "$tmp/whole" "$tiny/model.safetensors"

unread nt-gen-calib --progress none -m "$tiny" -n 2 -T 8 2>"$tmp/stderr"; rc=$?
[ "$rc" = 74 ]; ok $? "a dead reader ends the run (exit $rc)"

terminated() { # ARGUMENTS: SIGTERM once the header is written
    struck TERM '[ -s "$tmp/stdout" ] || compgen -G "$tmp/.*out.nts*"' nt-gen-calib --progress none -j 1 -m "$tiny" -n 40000 -T 96 "$@"; rc=$?
}
terminated
[ "$rc" = 143 ]; ok $? "SIGTERM ends the run (exit $rc: $(tail -n 1 "$tmp/stderr"))"
grep -aq 'error' "$tmp/stdout"; ok $? "and its trailer says so"
terminated -o "$tmp/out.nts"
[ "$rc" = 143 ] && [ -z "$(ls -A "$tmp" | grep out.nts)" ]; ok $? "no file and no temporary is left (exit $rc)"
finish
