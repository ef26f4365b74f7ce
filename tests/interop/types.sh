#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A GGUF file of random blocks of every type: llama-quantize to F32, which is ggml's own dequantization, gives the same weights bit
# by bit; what llama-gguf-split makes of it is the same model.
. tests/interop/lib.bash
need NT_LLAMA_BIN
python3=${PYTHON:-python3}
hf() { # FILE: its weights as a directory beside it
    nt-quant -q import "$1" -o "$1.nts" --progress none && nt-pack -m "$1" "$1.nts" --format hf --dtype f32 -o "$1.hf" --progress none
}
"$python3" tests/cli/import/layouts.py gguf "$tmp/all.gguf"; ok $? "the file is made"
check "llama-quantize dequantizes it" "$NT_LLAMA_BIN/llama-quantize" --allow-requantize "$tmp/all.gguf" "$tmp/f32.gguf" F32
check "we do" hf "$tmp/all.gguf"
check "its F32 form is read" hf "$tmp/f32.gguf"
check "the same weights" cmp "$tmp/all.gguf.hf/model.safetensors" "$tmp/f32.gguf.hf/model.safetensors"
if [ -x "$NT_LLAMA_BIN/llama-gguf-split" ]; then
    check "llama-gguf-split cuts it" "$NT_LLAMA_BIN/llama-gguf-split" --split --split-max-tensors 15 "$tmp/all.gguf" "$tmp/part"
    check "the parts are read" hf "$tmp/part-00001-of-00003.gguf"
    check "the same weights in parts" cmp "$tmp/all.gguf.hf/model.safetensors" "$tmp/part-00001-of-00003.gguf.hf/model.safetensors"
else skip "llama-gguf-split is not there"; fi
finish
