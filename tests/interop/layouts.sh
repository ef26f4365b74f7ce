#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Directories for other engines in the hands of their own packages: compressed-tensors unpacks every linear, transformers
# loads the directory, MLX dequantizes it (where its wheel is installed); K types by the gguf package and against
# llama-quantize.
. tests/interop/lib.bash
need NT_SMOLLM2 NT_INTEROP_PYTHON NT_LLAMA_BIN
m=$NT_SMOLLM2 q="--progress none" py=tests/interop/layouts.py
export TRANSFORMERS_VERBOSITY=error
has() { "$NT_INTEROP_PYTHON" -c "import $1" 2>/dev/null; }
for s in "4 64 --sym" "4 64" "3 32" "8 64 --sym"; do
    read -r bits group sym <<<"$s"
    name="W$bits g$group$sym"
    rm -rf "$tmp"/d-*
    nt-quant $q -m "$m" -q rtn -b "$bits" -g "$group" $sym -o "$tmp/q.nts" 2>/dev/null # $sym is one option or nothing
    for f in hf compressed-tensors mlx; do check "$name as $f" nt-pack $q -m "$m" "$tmp/q.nts" --format $f -o "$tmp/d-$f"; done
    if has compressed_tensors; then
        check "$name: compressed-tensors unpacks every linear, and packs it so" "$NT_INTEROP_PYTHON" $py ct "$tmp/d-hf" "$tmp/d-compressed-tensors"
        check "$name: transformers loads it" "$NT_INTEROP_PYTHON" $py load "$tmp/d-hf" "$tmp/d-compressed-tensors"
    else skip "the package compressed-tensors is not installed"; fi
    if has mlx.core; then check "$name: MLX dequantizes every linear" "$NT_INTEROP_PYTHON" $py mlx "$tmp/d-hf" "$tmp/d-mlx"
    else skip "the package mlx is not installed"; fi
done

prose "$tmp/text"
nt-gen-calib $q -m "$m" --scheme text --text "$tmp/text" -n 12 -T 256 -o "$tmp/c.nts" 2>/dev/null
nt-collect $q -m "$m" "$tmp/c.nts" --imatrix "$tmp/im.gguf" -o "$tmp/s.nts" 2>/dev/null
layers="--layers 0:3" # all thirty take long
for b in 2 3 4 6; do
    check "llama-quantize Q${b}_K" "$NT_LLAMA_BIN/llama-quantize" --allow-requantize --pure --imatrix "$tmp/im.gguf" "$m" "$tmp/l.gguf" Q${b}_K
    for how in kquant "kquant --act-order"; do
        check "$how, $b bits" nt-quant $q -m "$m" $layers -q $how -b $b "$tmp/s.nts" -o "$tmp/k.nts" # a method and perhaps an option
        check "$how, $b bits, as GGUF" nt-pack $q -m "$m" $layers "$tmp/k.nts" --format gguf -o "$tmp/k.gguf"
        check "$how: the gguf package reads our down projections, whose error is lower than that of llama-quantize's Q${b}_K" \
            "$NT_INTEROP_PYTHON" $py kquant "$m" "$tmp/s.nts" "$tmp/k.gguf" "$tmp/l.gguf" 3
        sed 's/^/# /' "$tmp/stdout"
    done
done
finish
