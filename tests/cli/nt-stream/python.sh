# SPDX-License-Identifier: Apache-2.0
# Streams made with python3-msgpack are read by nt-stream; what nt-stream writes is walked by python3-msgpack, which
# checks hashes, alignment, order and counts on its own.
. tests/cli/nt-stream/lib.bash
set -o pipefail

nts sample "$tmp/s.nts"
[ "$(nt-stream verify "$tmp/s.nts")" = "$tmp/s.nts: ok, stats, 15 records, 216 bytes of payload, xxh3 $(nts walk <"$tmp/s.nts" | cut -d' ' -f4)" ]
ok $? "verify says what Python says"
[ "$(nt-stream cat "$tmp/s.nts" | nts walk)" = "$(nts walk <"$tmp/s.nts")" ]
ok $? "Python walks what nt-stream wrote; a whole copy keeps its hash"
nt-stream cat "$tmp/s.nts" -o "$tmp/a.nts" && nt-stream cat <"$tmp/s.nts" | cmp - "$tmp/a.nts"
ok $? "file and pipe have the same bytes"

want=$(printf 'layer\tseq\tkind\tname\tdtype\tshape\tbytes\n1\t0\tsums\tlayers.1.qkv.sums\tF32\t[3,5]\t60\n1\t1\tabsmax\tlayers.1.qkv.absmax\tF32\t[3]\t12\n1\t2\tnote\tno payload\t-\t-\t0\n1\t3\tEmpty\t-\tU8\t[0,4]\t0\n1\t4\tLayerEnd\t-\t-\t-\t0')
[ "$(nt-stream ls --layers 1:2 "$tmp/s.nts")" = "$want" ]; ok $? "ls of one layer"
[ "$(nt-stream ls --layers 2: --kind sums --values "$tmp/s.nts" | tail -n 3)" = "$(printf '2 3 4 5 6\n7 8 9 10 11\n12 13 14 15 16')" ]
ok $? "ls prints values row by row"
nt-stream ls --header "$tmp/s.nts" | "$PYTHON" -c 'import json, sys
h, t = map(json.loads, sys.stdin)
assert h == {"kind": "stats", "params": {"bits": 3}, "seed": 7, "model": {"arch": "llama"}, "align": 64} and t["verdict"] == "none"'
ok $? "ls prints header and trailer as JSON"

nt-stream cat --layers 1:3 --kind sums "$tmp/s.nts" | tee "$tmp/sel.nts" | nts walk | grep -q '^stats 4 120 '
ok $? "cat selects layers and a kind, layer ends count anew"
nt-stream cat --name '*.absmax' "$tmp/s.nts" | nts walk | grep -q '^stats 6 36 '
ok $? "cat selects by name"
cat "$tmp/s.nts" "$tmp/s.nts" >"$tmp/two.nts"
nt-stream verify - <"$tmp/two.nts" | grep -q '30 records, 432 bytes'
ok $? "concatenated streams are read through"
nt-stream cat "$tmp/two.nts" "$tmp/s.nts" | nts walk | grep -q '^stats 45 648 '
ok $? "cat makes one stream of three"

# several segments: rows of 1 MiB + 4 bytes do not divide 64 MiB
nts big 150000000 >"$tmp/big.nts"
[ "$(nt-stream cat "$tmp/big.nts" | nts walk)" = "$(nt-stream verify "$tmp/big.nts" | sed 's/.*: ok, \(.*\), \(.*\) records, \(.*\) bytes.* /\1 \2 \3 /')" ]
ok $? "150 MB in three segments cut at whole rows: Python walks it and finds the hash that verify finds in the original"
finish
