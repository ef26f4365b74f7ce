# SPDX-License-Identifier: Apache-2.0
# The importance matrix of nt-collect beside llama-imatrix's on the same tokens, and in llama-quantize's hands.
. tests/cli/nt-collect/lib.bash
if [ -z "${NT_SMOLLM2:-}" ] || [ -z "${NT_LLAMA_BIN:-}" ] || [ -z "${NT_TEXT:-}" ]; then
    echo "ok 1 # SKIP NT_SMOLLM2, NT_LLAMA_BIN or NT_TEXT is not set"; echo "1..1"; exit 0
fi
model=$NT_SMOLLM2 chunks=4
"$NT_LLAMA_BIN/llama-tokenize" -m "$model" -f "$NT_TEXT" --ids --no-bos --log-disable 2>/dev/null >"$tmp/all.ids"
"$PYTHON" -c 'import json, sys
ids = json.loads(sys.stdin.read())
print(json.dumps([ids[512 * i:512 * (i + 1)] for i in range(int(sys.argv[1]))]))' $chunks <"$tmp/all.ids" >"$tmp/ids"
"$PYTHON" $here/tokens.py "$tmp/ids" 0 "$tmp/c.nts"; ok $? "tokens by llama-tokenize"
nt-collect $quiet -m "$model" "$tmp/c.nts" --want sums --imatrix "$tmp/ours.gguf" -o "$tmp/s.nts"; ok $? "nt-collect --imatrix"

# llama.cpp multiplies in the type of its weights; float ones keep its activations near ours
"$NT_LLAMA_BIN/llama-quantize" --allow-requantize "$model" "$tmp/f32.gguf" F32 >"$tmp/log" 2>&1
"$NT_LLAMA_BIN/llama-imatrix" -m "$tmp/f32.gguf" -f "$NT_TEXT" -c 512 --chunks $chunks --no-ppl -o "$tmp/ref.gguf" >"$tmp/log" 2>&1
ok $? "llama-imatrix on the same text"
"$PYTHON" $here/imatrix.py "$tmp/ours.gguf" "$tmp/ref.gguf" >"$tmp/cmp" 2>"$tmp/err"
ok $? "both have the same entries and counts $(tail -n 1 "$tmp/err")"
d=$(awk '$1 == "worst" { print $2 }' "$tmp/cmp")
awk -v d="$d" 'BEGIN { exit !(d != "" && d < 0.02) }'; ok $? "sums agree (largest difference $d of the tensor's largest sum)"

"$NT_LLAMA_BIN/llama-quantize" --allow-requantize --imatrix "$tmp/ours.gguf" "$model" "$tmp/q2.gguf" Q2_K >"$tmp/log" 2>&1
ok $? "llama-quantize --imatrix takes it"
entries=$(grep -o 'loaded [0-9]* importance matrix entries.*' "$tmp/log" | head -n 1)
case $entries in "loaded 210 "*"on $chunks chunks"*) true;; *) false;; esac; ok $? "and finds every linear: $entries"
finish
