#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Gemma 3 270M (tests/data/model/gemma3.py says where it is): the ids and the perplexity of llama.cpp; the whole line, short,
# to a GGUF of 4-bit codes, which both measure alike.
. tests/interop/lib.bash
need NT_GEMMA3 NT_LLAMA_BIN
m=$NT_GEMMA3 q="--progress none" chunks=4
prose "$tmp/text"

ids() {
    "$NT_LLAMA_BIN/llama-tokenize" -m "$m" -f "$tmp/text" --ids --no-bos --no-escape --log-disable 2>/dev/null | tail -n 1 | tr -d ' ' >"$tmp/a"
    "$PYTHON" -c 'import json, sys; print(json.dumps(sys.stdin.read()))' <"$tmp/text" | nt-gen-calib -m "$m" --encode | tr -d ' ' >"$tmp/b"
    [ -s "$tmp/a" ] && cmp "$tmp/a" "$tmp/b"
}
check "ids of $(wc -c <"$tmp/text") bytes of text equal llama-tokenize's" ids

same_ppl() {
    local a b
    a=$(nt-eval $q -m "$m" --ppl "$tmp/text" --protocol llama.cpp-512 --windows $chunks | value ppl)
    b=$(llama_ppl "$m" "$tmp/text" $chunks)
    echo "# nt-eval $a, llama.cpp $b" >>"$tmp/log"
    near "$a" "$b" $llama_near
}
check "perplexity equals llama.cpp's within $llama_near" same_ppl

line() {
    nt-gen-calib $q -m "$m" -n 8 -T 40 --seed 1 -o "$tmp/c.nts" &&
        nt-collect $q -m "$m" "$tmp/c.nts" | nt-quant $q -m "$m" -q gptq -b 4 -g 32 --sym --act-order -o "$tmp/w.nts" &&
        nt-tweak $q -m "$m" --tokens "$tmp/c.nts" "$tmp/w.nts" -o "$tmp/q.nts" &&
        nt-pack $q -m "$m" --norms new "$tmp/q.nts" --format gguf -o "$tmp/q.gguf"
}
check "calibrated, collected, quantized, tweaked and packed" line
m=$tmp/q.gguf chunks=2
check "perplexity of the packed file (Q4_0) equals llama.cpp's within $llama_near" same_ppl
cat "$tmp/log"
finish
