# SPDX-License-Identifier: Apache-2.0
# Statistics against those of transformers in float64 (tests/data/collect/make.py), read with python3-msgpack.
. tests/cli/nt-collect/lib.bash
below() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a != "" && a + 0 <= b) }'; }

nt-collect $quiet -m $tiny "$tmp/c.nts" --want hessian,sums,absmax,rows:96,targets -o "$tmp/s.nts"
ok $? "a run on ten sequences, two held out"
"$PYTHON" $here/stats.py compare "$tmp/s.nts" tests/data/collect/expected.npz >"$tmp/cmp"
ok $? "the stream is walked by python3-msgpack"
grep -qx 'missing 0' "$tmp/cmp"; ok $? "every statistic is there"
for stat in hessian sums absmax target; do
    d=$(awk -v s=$stat '$1 == s { print $2 }' "$tmp/cmp")
    below "$d" 4e-6; ok $? "$stat as in float64 (largest relative difference $d)"
done
# with all 96 rows asked for, the rows' own X'X must be the Hessian
"$PYTHON" $here/stats.py rows "$tmp/s.nts" >"$tmp/rows"; d=$(awk '{ print $2 }' "$tmp/rows")
below "$d" 2e-6; ok $? "X'X of the sample rows is the Hessian (largest relative difference $d)"
[ "$("$PYTHON" $here/stats.py names "$tmp/s.nts" | awk '$2 != 96' | wc -l)" = 0 ]; ok $? "counts are those of the 8 training sequences"

# options
nt-collect $quiet -j 1 -m $tiny --tokens "$tmp/c.nts" --want targets,absmax,rows:96,hessian,sums >"$tmp/one" 2>"$tmp/stderr"
cmp -s "$tmp/s.nts" "$tmp/one"; ok $? "one thread, a pipe, another order of the list: the same bytes"
[ ! -s "$tmp/stderr" ]; ok $? "--progress none is silent"
nt-collect $quiet -m $tiny --layers 1: --want absmax <"$tmp/c.nts" >"$tmp/part"
"$PYTHON" $here/stats.py names "$tmp/part" >"$tmp/names"
[ "$(cut -d ' ' -f 1 "$tmp/names" | tr '\n' ' ')" = "layers.1.qkv.absmax layers.1.o.absmax layers.1.mlp.absmax layers.1.down.absmax " ]
ok $? "--layers and --want limit the records"
"$PYTHON" $here/stats.py compare "$tmp/part" tests/data/collect/expected.npz >"$tmp/cmp"
below "$(awk '$1 == "absmax" { print $2 }' "$tmp/cmp")" 4e-6; ok $? "and layer 1 saw the output of layer 0"
nt-collect $quiet -m $tiny "$tmp/c.nts" --want rows:7 >"$tmp/r0"
nt-collect $quiet -m $tiny "$tmp/c.nts" --want rows:7 --seed 1 >"$tmp/r1"
[ "$("$PYTHON" $here/stats.py same "$tmp/r0" "$tmp/r1" | awk '$1 == "worst" { print ($2 > 0.1) }')" = 1 ]
ok $? "--seed chooses the sample rows"

# more rows than one forward takes
"$PYTHON" -c 'import json; print(json.dumps([[(i * i + 5 * j) % 96 for j in range(12)] for i in range(400)]))' >"$tmp/ids"
"$PYTHON" $here/tokens.py "$tmp/ids" 40 "$tmp/many.nts"
nt-collect $quiet -m $tiny "$tmp/many.nts" --want hessian,rows:5000 -o "$tmp/many"
d=$("$PYTHON" $here/stats.py rows "$tmp/many" | awk '{ print $2 }')
below "$d" 2e-6 && "$PYTHON" $here/stats.py names "$tmp/many" | grep -qx 'layers.1.down.rows 4320'
ok $? "4320 rows in several groups: X'X of all rows is the Hessian (largest relative difference $d)"
nt-collect $quiet -m $tiny "$tmp/many.nts" --want rows:300 -o "$tmp/few"
[ "$("$PYTHON" $here/stats.py subset "$tmp/few" "$tmp/many")" = "300 rows, ascending, all found" ]
ok $? "300 sample rows are rows of the whole, in their order"

# shards: merged by hand here, because nt-stream merge has its own tests
for i in 0 1 2; do nt-collect $quiet -m $tiny "$tmp/c.nts" --want hessian,sums,absmax,rows:96,targets --shard $i/3 -o "$tmp/p$i"; done
"$PYTHON" $here/stats.py merged "$tmp/s.nts" "$tmp/p0" "$tmp/p1" "$tmp/p2" >"$tmp/cmp"
d=$(awk '$1 == "worst" { print $2 }' "$tmp/cmp")
below "$d" 1e-5; ok $? "three shards merge to the whole (largest relative difference $d)"
grep -qx 'counts equal' "$tmp/cmp"; ok $? "and their counts add"
nt-collect $quiet -j 1 -m $tiny "$tmp/c.nts" --want hessian,sums,absmax,rows:96,targets --shard 1/3 >"$tmp/again"
cmp -s "$tmp/p1" "$tmp/again"; ok $? "a shard's bytes are the same again"
finish
