# SPDX-License-Identifier: Apache-2.0
# --encode and --decode: a JSON value a line, in and out; a directory that holds only tokenizer.json.
. tests/cli/nt-gen-calib/lib.bash
mkdir "$tmp/only"; cp $data/llama3/tokenizer.json "$tmp/only/"
enc() { nt-gen-calib -m "$tmp/only" --encode "$@"; }
dec() { nt-gen-calib -m "$tmp/only" --decode "$@"; }
is() { [ "$1" = "$2" ]; ok $? "$3 ($1)"; }

is "$(printf '"a<|begin|>"\n""\n' | enc)" $'[67,0]\n[]' "strings to ids, special tokens spelled out"
is "$(printf '"a"\n' | enc --special)" '[0,67]' "--special adds the template"
is "$(printf '[67,0]\n[]\n' | dec)" $'"a<|begin|>"\n""' "and back, special tokens kept"
text='"gr\u00fc\u00df \ud83d\ude00 \u0000 \"q\" \\ \n"'
is "$(printf '%s\n' "$text" | enc | dec | tr 'A-F' 'a-f')" "$(printf '%s' "$text" | tr 'A-F' 'a-f')" "round trip, ASCII out"
is "$(printf '"\xff\xc3"\n' | enc | dec)" '"\uFFFD\uFFFD"' "bad bytes become U+FFFD"
is "$(printf '"a"' | enc)" '[67]' "the last line may lack its newline"
is "$(printf '' | enc; echo $?)" '0' "no line, no output"

for m in config.json model.safetensors; do
    is "$(printf '"a"\n' | nt-gen-calib -m "$tiny/$m" --encode)" "$(printf '"a"\n' | nt-gen-calib -m "$tiny" --encode)" "-m $m"
done

bad() { # NAME PATTERN INPUT COMMAND: exit 65, one sentence that matches
    local name=$1 pattern=$2 input=$3 rc; shift 3
    printf '%s\n' "$input" | "$@" >"$tmp/stdout" 2>"$tmp/stderr"; rc=$?
    [ $rc = 65 ] && [ "$(wc -l <"$tmp/stderr")" = 1 ] && grep -qE "$pattern" "$tmp/stderr"
    ok $? "$name (exit $rc: $(cat "$tmp/stderr"))"
}
bad "no JSON" 'line 1 is not JSON' 'hello' enc
bad "a number" 'line 1 is no JSON string' '5' enc
bad "two lines, the second bad" 'line 2 is not JSON' $'"a"\n"b' enc
bad "no array" 'line 1 is no JSON array' '"a"' dec
bad "an id too large" 'line 1: item 1 .*below' '[1,99999]' dec
bad "a negative id" 'line 1: item 0 ' '[-1]' dec
bad "no number" 'line 1: item 0 ' '["a"]' dec
echo '{' >"$tmp/only/tokenizer.json"
bad "a broken tokenizer.json" 'tokenizer.json: line' '"a"' enc
rm "$tmp/only/tokenizer.json"
bad "no tokenizer.json" 'tokenizer.json: no such file' '"a"' enc
touch "$tmp/only/tokenizer.model"
bad "SentencePiece" 'SentencePiece' '"a"' enc
if [ -e /dev/full ]; then
    cp $data/llama3/tokenizer.json "$tmp/only/"
    printf '"a"\n' | enc 2>"$tmp/stderr" >/dev/full; [ $? = 74 ]; ok $? "full disk ($(cat "$tmp/stderr"))"
fi
finish
