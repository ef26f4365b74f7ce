#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The importance matrix of nt-collect beside llama-imatrix's on the same tokens, and in llama-quantize's hands.
. tests/interop/lib.bash
need NT_SMOLLM2 NT_LLAMA_BIN
need_python
model=$NT_SMOLLM2 chunks=4 here=tests/cli/nt-collect
prose "$tmp/text"
first_ids() {
    "$NT_LLAMA_BIN/llama-tokenize" -m "$model" -f "$tmp/text" --ids --no-bos --no-escape --log-disable 2>/dev/null |
        "$PYTHON" -c 'import json, sys
ids = json.loads(sys.stdin.read())
print(json.dumps([ids[512 * i:512 * (i + 1)] for i in range(int(sys.argv[1]))]))' $chunks >"$tmp/ids"
}
check "ids by llama-tokenize" first_ids
check "a tokens stream of them" "$PYTHON" $here/tokens.py "$tmp/ids" 0 "$tmp/c.nts"
check "nt-collect --imatrix" nt-collect --progress none -m "$model" "$tmp/c.nts" --want sums --imatrix "$tmp/ours.gguf" -o "$tmp/s.nts"

# llama.cpp multiplies in the type of its weights; float ones keep its activations near ours
"$NT_LLAMA_BIN/llama-quantize" --allow-requantize "$model" "$tmp/f32.gguf" F32 >"$tmp/log" 2>&1
check "llama-imatrix on the same text" "$NT_LLAMA_BIN/llama-imatrix" -m "$tmp/f32.gguf" -f "$tmp/text" -c 512 --chunks $chunks \
    --no-ppl -o "$tmp/ref.gguf"
check "both have the same entries and counts" "$PYTHON" $here/imatrix.py "$tmp/ours.gguf" "$tmp/ref.gguf"
d=$(awk '$1 == "worst" { print $2 }' "$tmp/stdout")
check "sums agree (largest difference $d of the tensor's largest sum)" awk -v d="$d" 'BEGIN { exit !(d != "" && d < 0.02) }'

check "llama-quantize --imatrix takes it" "$NT_LLAMA_BIN/llama-quantize" --allow-requantize --imatrix "$tmp/ours.gguf" "$model" \
    "$tmp/q2.gguf" Q2_K
entries=$(cat "$tmp/stdout" "$tmp/stderr" | grep -o 'loaded [0-9]* importance matrix entries.*' | head -n 1)
check "and finds every linear: $entries" grep -qE "loaded 210 .*on $chunks chunks" <<<"$entries"
finish
