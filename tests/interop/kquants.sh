#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# K types beside llama-quantize's with the same statistics and the same bits: divergence from the float model, of the files as they
# lie. NT_KQUANT_BITS: which (default 3); NT_KQUANT_TEXT: measured on (default the man pages); NT_KQUANT_SEQS: calibration.
. tests/interop/lib.bash
need NT_SMOLLM2 NT_LLAMA_BIN
q="--progress none" f=$tmp/f32.gguf text=${NT_KQUANT_TEXT:-$tmp/text}
prose "$tmp/text"
check "the float model" "$NT_LLAMA_BIN/llama-quantize" --allow-requantize "$NT_SMOLLM2" "$f" F32
check "calibration" nt-gen-calib $q -m "$f" -n "${NT_KQUANT_SEQS:-16}" -T 512 -o "$tmp/c.nts"
check "statistics" nt-collect $q -m "$f" "$tmp/c.nts" --want hessian --imatrix "$tmp/im.gguf" -o "$tmp/s.nts"

theirs() { # BITS NAME OPTION...
    check "llama-quantize Q$1_K $2" "$NT_LLAMA_BIN/llama-quantize" --pure --token-embedding-type f32 --output-tensor-type f32 "${@:3}" "$f" "$tmp/k.gguf" "Q$1_K"
    measure "$1" "$2"
}
ours() { # BITS NAME OPTION...
    check "$2 -b $1" nt-quant $q -m "$f" -b "$1" "${@:3}" "$tmp/s.nts" -o "$tmp/k.nts"
    check "$2 -b $1 as GGUF" nt-pack $q -m "$f" --format gguf "$tmp/k.nts" -o "$tmp/k.gguf"
    measure "$1" "$2"
}
measure() { # BITS NAME: a line "BITS NAME ppl kl top1 bits" to the table
    nt-eval $q -m "$tmp/k.gguf" --ref "$f" --ppl "$text" --windows 1 --no-drift 2>/dev/null |
        awk -F'\t' -v b="$1" -v n="$2" '{ v[$2] = $5; bits = $8 } END { print b, n, v["ppl"], v["kl"], v["top1"], bits }' >>"$tmp/table"
}
kl() { awk -v b="$1" -v n="$2" '$1 == b && $2 == n { print $4 }' "$tmp/table"; }
below() { awk -v a="$(kl "$1" "$2")" -v b="$(kl "$1" "$3")" 'BEGIN { exit !(a > 0 && a < b) }'; }
for b in ${NT_KQUANT_BITS:-3}; do
    theirs "$b" plain; theirs "$b" imatrix --imatrix "$tmp/im.gguf"
    ours "$b" krtn -q krtn; ours "$b" kquant -q kquant; ours "$b" kquant-act-order -q kquant --act-order
    [ "$(awk -v b="$b" '$1 == b { print $6 }' "$tmp/table" | sort -u | wc -l)" = 1 ]; ok $? "$b bits: all files have the same size of a weight"
    for n in krtn kquant kquant-act-order; do check "$b bits: $n diverges less than llama-quantize with its importance matrix" below "$b" $n imatrix; done
done
sed 's/^/# /' "$tmp/table"
finish
