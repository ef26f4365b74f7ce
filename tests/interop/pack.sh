#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The real model packed in every format, read by the gguf and safetensors packages and by torch.
. tests/interop/lib.bash
need NT_SMOLLM2 NT_INTEROP_PYTHON
m=$NT_SMOLLM2 q="--progress none"
packed() { # packed FORMAT OUT [OPTION...]
    nt-pack $q -m "$m" "$tmp/q.nts" --format "$1" -o "$2" "${@:3}"
}
reads() { # reads NAME ARGUMENT... of pack.py; says what it counted
    check "$1" "$NT_INTEROP_PYTHON" tests/interop/pack.py "${@:2}"
    sed 's/^/# /' "$tmp/stdout"
}

for s in "4 32 --sym" "3 128"; do
    read -r bits group sym <<<"$s"
    name="W$bits g$group$sym" # $sym is one option or nothing
    rm -rf "$tmp/hf" "$tmp/gptq"
    nt-quant $q -m "$m" -q rtn -b "$bits" -g "$group" $sym -o "$tmp/q.nts" 2>/dev/null
    check "$name as hf" packed hf "$tmp/hf"
    check "$name as gguf" packed gguf "$tmp/q.gguf"
    check "$name as gptq, in shards" packed gptq "$tmp/gptq" --max-shard-size 20M
    reads "$name: gguf and safetensors packages agree" same "$tmp/hf" "$tmp/q.gguf" 9 3
    reads "$name: GPTQ unpacked by torch" gptq "$tmp/hf" "$tmp/gptq"
done
finish
