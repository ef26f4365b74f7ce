# SPDX-License-Identifier: Apache-2.0
# Shards of statistics: the merged numbers against NumPy's, byte by byte, and shards that do not belong together.
. tests/cli/nt-stream/lib.bash
p=$tmp/shard
nts shards "$p"
nt-stream merge "$p"0 "$p"1 "$p"2 -o "$tmp/m.nts" && nts check-merge "$p" "$tmp/m.nts"
ok $? "sums in double, maxima, appended rows, counts: equal to NumPy"
nt-stream merge "$p"0 "$p"1 "$p"2 | cmp - "$tmp/m.nts"; ok $? "the same bytes to a pipe"
nts walk <"$tmp/m.nts" >/dev/null; ok $? "Python walks the merged stream"
try 65 "shard 2 of 3; all shards must be given, in order" "shards out of order" nt-stream merge "$p"0 "$p"2 "$p"1
try 65 "all shards must be given" "a shard twice" nt-stream merge "$p"0 "$p"1 "$p"1
try 65 "all shards must be given" "a shard missing" nt-stream merge "$p"0 "$p"1
try 65 "differ in their header's model" "another model" nt-stream merge "$p"0 "$p"1 "$p"model
try 65 "differ in their header's tokens" "other tokens" nt-stream merge "$p"0 "$p"1 "$p"tokens
try 65 "is not the record that .*shard0 has at this place" "a record missing in one" nt-stream merge "$p"0 "$p"1 "$p"drop
nts sample "$tmp/s.nts"
try 65 "says not how it merges" "a record without a rule" nt-stream merge "$tmp/s.nts" "$tmp/s.nts"
try 65 "differ in their header's model\|different parameters" "another run" nt-stream merge "$p"0 "$tmp/s.nts"
nt-stream merge "$p"0 "$p"1 "$p"model -o "$tmp/none" 2>/dev/null; [ $? = 65 ] && [ ! -e "$tmp/none" ] && [ -z "$(find "$tmp" -name '.none*')" ]
ok $? "no partial file"
finish
