#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tiny models of the families whose GGUF files are not laid out as their own (fused, permuted, transposed), written by nt-pack
# after a template: llama.cpp loads them and computes what nt-eval does, of floats to five digits. Of Q4_0 it rounds the
# activations of experts to 8 bits.
. tests/interop/lib.bash
need NT_LLAMA_BIN
need_python
q="--progress none"
prose "$tmp/prose" && head -c 3000 "$tmp/prose" | tr -cd '[:alpha:],.' >"$tmp/text"

equal() { # FILE RELATIVE
    local a b
    a=$(nt-eval $q -m "$1" --ppl "$tmp/text" --protocol llama.cpp-512 --windows 2 | value ppl)
    b=$(llama_ppl "$1" "$tmp/text" 2)
    echo "nt-eval $a, llama.cpp $b" >&2
    near "$a" "$b" "$2"
}
written() { # NAME
    local m=$tmp/$1
    nt-quant $q -m "$m" -q rtn -b 4 -g 32 --sym -o "$m.w4.nts" && nt-quant $q -m "$m" -q rtn -b 3 -g 24 -o "$m.w3.nts" &&
        nt-pack $q -m "$m" "$m.w4.nts" --format gguf --like "$m.gguf" -o "$m.w4.gguf" &&
        nt-pack $q -m "$m" "$m.w3.nts" --format gguf --like "$m.gguf" --loose -o "$m.w3.gguf"
}
"$PYTHON" tests/cli/families/fused.py served "$tmp" >"$tmp/names"; ok $? "models are made"
while read -r name; do
    check "$name is written" written "$name"
    near=5e-5 coded=$llama_near
    case $name in mixtral | *-moe) near=1e-3 coded=1e-2 ;; esac # llama.cpp rounds activations to F16: some tokens go to another expert
    check "$name: floats, the perplexity of llama.cpp" equal "$tmp/$name.w3.gguf" $near
    check "$name: Q4_0, the perplexity of llama.cpp" equal "$tmp/$name.w4.gguf" $coded
done <"$tmp/names"

# mixtures without a template
scratch() { nt-quant $q -m "$tmp/$1" -q rtn -b 4 -g 32 --sym 2>/dev/null | nt-pack $q -m "$tmp/$1" --format gguf --loose -o "$tmp/$1.gguf" 2>/dev/null; }
"$PYTHON" tests/cli/families/scratch.py mixtures "$tmp" >"$tmp/names"; ok $? "mixtures are made"
while read -r name; do
    check "$name is written" scratch "$name"
    check "$name: the perplexity of llama.cpp" equal "$tmp/$name.gguf" 1e-2
done <"$tmp/names"
finish
