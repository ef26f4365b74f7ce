# SPDX-License-Identifier: Apache-2.0
# Statistics of the real model beside those of transformers in float32.
. tests/cli/nt-collect/lib.bash
if [ -z "${NT_SMOLLM2:-}" ] || [ -z "${NT_INTEROP_PYTHON:-}" ]; then
    echo "ok 1 # SKIP NT_SMOLLM2 or NT_INTEROP_PYTHON is not set"; echo "1..1"; exit 0
fi
"$PYTHON" -c 'import json; print(json.dumps([[(i * 7919 + j * (j + 31)) % 49000 for j in range(256)] for i in range(4)]))' >"$tmp/ids"
"$PYTHON" $here/tokens.py "$tmp/ids" 0 "$tmp/c.nts"
nt-collect $quiet -m "$NT_SMOLLM2" "$tmp/c.nts" -o "$tmp/s.nts"; ok $? "nt-collect on 4 sequences of 256 tokens"
"$NT_INTEROP_PYTHON" tests/interop/torch_stats.py "$NT_SMOLLM2" "$tmp/ids" "$tmp/ref.npz" 0 14 29 >"$tmp/log" 2>&1
rc=$?
ok $rc "transformers on the same"
[ $rc = 0 ] || tail -n 5 "$tmp/log" | sed 's/^/# /'
"$PYTHON" $here/stats.py compare "$tmp/s.nts" "$tmp/ref.npz" >"$tmp/cmp"; ok $? "both are read"
grep -qx 'missing 0' "$tmp/cmp"; ok $? "every statistic is there"
for stat in hessian sums absmax; do
    d=$(awk -v s=$stat '$1 == s { print $2 }' "$tmp/cmp")
    awk -v d="$d" 'BEGIN { exit !(d != "" && d < 2e-4) }'; ok $? "$stat of layers 0, 14, 29 (largest difference $d of the largest value)"
done
finish
