#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Checkpoints of a tiny model that bitsandbytes and hqq wrote: nt-eval has their logits, of the directory as it lies and of the
# stream that nt-quant -q import makes of it; of that stream alone nt-pack makes the directory again.
. tests/interop/lib.bash
need NT_INTEROP_PYTHON
"$NT_INTEROP_PYTHON" -c 'import bitsandbytes, hqq' 2>/dev/null || skip_all "the packages bitsandbytes and hqq are not installed"
other() { "$NT_INTEROP_PYTHON" tests/interop/other.py "$@"; }
kinds=$(other make "$tmp" 2>"$tmp/log"); ok $? "checkpoints are made"
[ -n "$kinds" ] || sed 's/^/# /' "$tmp/log"
dump() { nt-eval -m "$tmp/$1" --ids "$tmp/ids.json" --dump logits --progress none "${@:2}"; }
for kind in $kinds; do
    check "$kind: a model" dump "$kind" -o "$tmp/$kind.directory.safetensors"
    check "$kind: imported" nt-quant -q import "$tmp/$kind" -o "$tmp/$kind.nts" --progress none
    check "$kind: --format same" again "$tmp/$kind"
    check "$kind: the stream" dump "$kind" --qweights "$tmp/$kind.nts" -o "$tmp/$kind.stream.safetensors"
done
while read -r verdict rest; do [ "$verdict" = ok ]; ok $? "$rest"; done < <(other close "$tmp")
finish
