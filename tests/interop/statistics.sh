#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Statistics of the real model beside those of transformers in float32.
. tests/interop/lib.bash
need NT_SMOLLM2 NT_INTEROP_PYTHON
need_python
here=tests/cli/nt-collect
"$PYTHON" -c 'import json; print(json.dumps([[(i * 7919 + j * (j + 31)) % 49000 for j in range(256)] for i in range(4)]))' >"$tmp/ids"
"$PYTHON" $here/tokens.py "$tmp/ids" 0 "$tmp/c.nts"
check "nt-collect on 4 sequences of 256 tokens" nt-collect --progress none -m "$NT_SMOLLM2" "$tmp/c.nts" -o "$tmp/s.nts"
check "transformers on the same" "$NT_INTEROP_PYTHON" tests/interop/torch_stats.py "$NT_SMOLLM2" "$tmp/ids" "$tmp/ref.npz" 0 14 29
check "both are read" "$PYTHON" $here/stats.py compare "$tmp/s.nts" "$tmp/ref.npz"
cp "$tmp/stdout" "$tmp/cmp"
check "every statistic is there" grep -qx 'missing 0' "$tmp/cmp"
for stat in hessian sums absmax; do
    d=$(awk -v s=$stat '$1 == s { print $2 }' "$tmp/cmp")
    check "$stat of layers 0, 14, 29 (largest difference $d of the largest value)" awk -v d="$d" 'BEGIN { exit !(d != "" && d < 2e-4) }'
done
finish
