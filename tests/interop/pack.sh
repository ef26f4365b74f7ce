# SPDX-License-Identifier: Apache-2.0
# The real model packed in every format, read by the gguf and safetensors packages, by transformers and by llama.cpp.
# Needs NT_SMOLLM2, NT_INTEROP_PYTHON; NT_LLAMA_BIN and NT_TEXT for the part with llama.cpp.
set -u
tmp=$(mktemp -d "${TMPDIR:-/tmp}/nt-interop-XXXXXX"); trap 'rm -rf "$tmp"' EXIT
n=0 bad=0
ok() { n=$((n + 1)); if [ "$1" = 0 ]; then echo "ok $n - $2"; else bad=$((bad + 1)); echo "not ok $n - $2"; fi; }
if [ -z "${NT_SMOLLM2:-}" ] || [ -z "${NT_INTEROP_PYTHON:-}" ]; then
    echo "ok 1 # SKIP NT_SMOLLM2 or NT_INTEROP_PYTHON is not set"; echo "1..1"; exit 0
fi
py() { "$NT_INTEROP_PYTHON" tests/interop/pack.py "$@" 2>"$tmp/err"; }
m=$NT_SMOLLM2 q="--progress none"

mkdir "$tmp/ggml" && "$NT_INTEROP_PYTHON" tests/data/ggml/make.py "$tmp/ggml" 2048 11
NT_GGML_DATA=$tmp/ggml "${O:-build}/tests/unit/test_ggml_types" >"$tmp/out"; ok $? "ggml's types: $(grep -c '^ok' "$tmp/out") checks on blocks made now"

for s in "4 32 --sym" "3 128" "4 128"; do
    set -- $s
    nt-quant $q -m "$m" -q rtn -b $1 -g $2 ${3:-} -o "$tmp/q.nts" 2>/dev/null
    rm -rf "$tmp/hf" "$tmp/gptq"
    nt-pack $q -m "$m" "$tmp/q.nts" --format hf -o "$tmp/hf" && nt-pack $q -m "$m" "$tmp/q.nts" --format gguf -o "$tmp/q.gguf" &&
        nt-pack $q -m "$m" "$tmp/q.nts" --format gptq -o "$tmp/gptq"
    ok $? "W$1 g$2 ${3:-}: packed as hf, gguf, gptq"
    out=$(py same "$tmp/hf" "$tmp/q.gguf" 9 3); ok $? "W$1 g$2 ${3:-}: gguf and safetensors packages agree: $out$(tail -n 1 "$tmp/err")"
    out=$(py gptq "$tmp/hf" "$tmp/gptq"); ok $? "W$1 g$2 ${3:-}: GPTQ unpacked by torch: $out$(tail -n 1 "$tmp/err")"
done
py ids 2 96 49152 >"$tmp/ids.json"
nt-eval $q -m "$tmp/q.gguf" --ids "$tmp/ids.json" --dump logits -o "$tmp/ours.safetensors"; ok $? "nt-eval reads the GGUF"
out=$(py logits "$tmp/hf" "$tmp/ids.json" "$tmp/ours.safetensors"); ok $? "transformers on the directory: $out$(grep Error "$tmp/err" | tail -n 1)"

if [ -z "${NT_LLAMA_BIN:-}" ] || [ -z "${NT_TEXT:-}" ]; then
    n=$((n + 1)); echo "ok $n # SKIP NT_LLAMA_BIN or NT_TEXT is not set"; echo "1..$n"; exit $((bad > 0))
fi
head -c 60000 "$NT_TEXT" >"$tmp/text"
nt-quant $q -m "$m" -q rtn -b 4 -g 32 --sym -o "$tmp/q.nts" 2>/dev/null && nt-pack $q -m "$m" "$tmp/q.nts" --format gguf -o "$tmp/q4.gguf"
"$NT_LLAMA_BIN/llama-perplexity" -m "$tmp/q4.gguf" -f "$tmp/text" -c 512 -b 512 >"$tmp/out" 2>&1
theirs=$(grep -o 'Final estimate: PPL = [0-9.]*' "$tmp/out" | grep -o '[0-9.]*$')
ours=$(nt-eval $q -m "$tmp/q4.gguf" --ppl "$tmp/text" --protocol llama.cpp-512 2>"$tmp/err" | awk -F'\t' '$2 == "ppl" { print $5 }')
awk -v a="$theirs" -v b="$ours" 'BEGIN { d = a / b - 1; exit !(a > 1 && b > 1 && d < 0.01 && d > -0.01) }'
ok $? "llama.cpp loads the Q4_0 file; perplexity $theirs, ours $ours"
"$NT_LLAMA_BIN/llama-quantize" --allow-requantize "$tmp/q4.gguf" "$tmp/f32.gguf" F32 >"$tmp/out" 2>&1
nt-pack $q -m "$tmp/f32.gguf" "$tmp/q.nts" --norms-into "$tmp/f32.gguf" -o "$tmp/same.gguf" >/dev/null 2>"$tmp/err" && cmp -s "$tmp/f32.gguf" "$tmp/same.gguf"
ok $? "llama.cpp's own dequantization of it has the stream's weights$(tail -n 1 "$tmp/err" | grep -v 'no element')"
echo "1..$n"; exit $((bad > 0))
