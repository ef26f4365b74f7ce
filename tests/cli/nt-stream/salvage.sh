# SPDX-License-Identifier: Apache-2.0
# Damaged and cut files: everything intact is kept, every loss is said, the result is a valid stream.
. tests/cli/nt-stream/lib.bash
nts sample "$tmp/s.nts"
size=$(stat -c %s "$tmp/s.nts")
try 0 "" "a whole file: exit 0, silent" nt-stream salvage "$tmp/s.nts" -o "$tmp/o.nts"
[ "$(nts walk <"$tmp/o.nts" | cut -d' ' -f2-)" = "$(nts walk <"$tmp/s.nts" | cut -d' ' -f2-)" ]; ok $? "and all of it"

at=$(nts offset "$tmp/s.nts" layers.1.qkv.sums 0)
nts damage "$tmp/s.nts" "$at" "$tmp/d.nts"
nt-stream salvage "$tmp/d.nts" -o "$tmp/o.nts" 2>"$tmp/err"; [ $? = 1 ]; ok $? "a damaged record: exit 1"
grep -q "layer 1: 1 records are lost" "$tmp/err" && grep -q "14 records kept, 1 known to be lost" "$tmp/err"; ok $? "says what was lost"
nts walk <"$tmp/o.nts" | grep -q '^stats 14 156 '; ok $? "Python walks the rest"
nt-stream salvage --whole-layers "$tmp/d.nts" -o "$tmp/o.nts" 2>"$tmp/err"; [ $? = 1 ] && grep -q 'layer 1 is left out' "$tmp/err" &&
    [ "$(nt-stream ls "$tmp/o.nts" | cut -f1 | sort -u | tr '\n' ' ')" = "0 2 layer " ]
ok $? "--whole-layers leaves the layer out"

head -c $((at - 10)) "$tmp/s.nts" >"$tmp/c.nts"; tail -c +$((at + 100)) "$tmp/s.nts" >>"$tmp/c.nts"
nt-stream salvage "$tmp/c.nts" -o "$tmp/o.nts" 2>"$tmp/err"; [ $? = 1 ] && nts walk <"$tmp/o.nts" | grep -q '^stats 14 156 '
ok $? "a hole in the file: alignment shifts, the other records are found"

for cut in $((size / 2)) $((size - 3)) $((size - 100)); do
    head -c "$cut" "$tmp/s.nts" >"$tmp/c.nts"
    nt-stream salvage "$tmp/c.nts" -o "$tmp/o.nts" 2>"$tmp/err"; [ $? = 1 ] && grep -q 'trailer is missing' "$tmp/err" && nts walk <"$tmp/o.nts" >/dev/null
    ok $? "cut after $cut of $size bytes: a whole stream of what was there"
done
nts damage "$tmp/s.nts" 40 "$tmp/d.nts"
nt-stream salvage "$tmp/d.nts" -o "$tmp/o.nts" 2>"$tmp/err"; rc=$?
[ $rc = 1 ] || [ $rc = 65 ]; ok $? "damage in the header is noticed (exit $rc)"
cat "$tmp/s.nts" "$tmp/s.nts" >"$tmp/two.nts"; nts damage "$tmp/two.nts" "$at" "$tmp/d.nts"
nt-stream salvage "$tmp/d.nts" -o "$tmp/o.nts" 2>/dev/null; nts walk <"$tmp/o.nts" | grep -q '^stats 29 372 '
ok $? "two streams in one file"
try 65 "is not an NTS stream" "no stream at all" nt-stream salvage /etc/passwd -o "$tmp/x.nts"
try 2 "wants one file" "no pipe" nt-stream salvage - -o "$tmp/x.nts"
[ ! -e "$tmp/x.nts" ]; ok $? "no file from nothing"
finish
