# SPDX-License-Identifier: Apache-2.0
# --imatrix: llama.cpp's file, read from its layout by a script of its own, its sums against transformers in float64.
. tests/cli/nt-collect/lib.bash
nt-collect $quiet -m $tiny "$tmp/c.nts" --want hessian --imatrix "$tmp/im.gguf" -o "$tmp/s.nts"
ok $? "a run with --imatrix"
"$PYTHON" $here/imatrix.py "$tmp/im.gguf" tests/data/collect/expected.npz 96 >"$tmp/im.txt" 2>"$tmp/stderr"
ok $? "every linear has its sums and its count of tokens $(tail -n 1 "$tmp/stderr")"
grep -qx 'type imatrix chunks 8 of 12 datasets 1' "$tmp/im.txt"; ok $? "keys"
d=$(awk '$1 == "worst" { print $2 }' "$tmp/im.txt")
awk -v d="$d" 'BEGIN { exit !(d != "" && d < 4e-6) }'; ok $? "sums of squares (largest relative difference $d)"
nt-collect $quiet -m $tiny "$tmp/c.nts" --want hessian >"$tmp/plain"
cmp -s "$tmp/s.nts" "$tmp/plain"; ok $? "the stream is the same without it"
"$PYTHON" $here/stats.py names "$tmp/s.nts" | grep -qv hessian; [ $? = 1 ]; ok $? "what only the matrix needs stays out of it"
nt-collect $quiet -m $tiny "$tmp/c.nts" --want sums --shard 1/2 --imatrix "$tmp/half.gguf" -o /dev/null
"$PYTHON" $here/imatrix.py "$tmp/half.gguf" tests/data/collect/expected.npz 48 2>&1 | grep -q 'chunks 4 of 12'
ok $? "a shard counts its own tokens"
finish
