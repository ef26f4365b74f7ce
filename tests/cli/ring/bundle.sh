# SPDX-License-Identifier: Apache-2.0
# nt-pack --bundle and norm-tweak.recipe from=: equal bytes, a run that goes on elsewhere, and what is refused.
. tests/cli/ring/lib.bash
command -v zstd >/dev/null || skip_all zstd is not installed
L=3
make_model $L || exit 1
D=$tmp/o
run() { recipe MODEL="$M" TOKENS="$C" GROUP=16 TWEAK_OPTS='--lr 1e-3' COLLECT_OPTS="$q" QUANT_OPTS="--damp 0.02 $q" DIR="$@"; }
bundle() { nt-pack $q --bundle "$@"; }

run "$tmp/whole"; ok $? "the run in one piece $(tail -n 1 "$tmp/log")"
run "$D" "$D/q.0.nts"; ok $? "another one, stopped after the first of three layers"
run "$D" bundle to="$tmp/b.tar.zst" && [ -s "$tmp/b.tar.zst" ]; ok $? "bundled by make $(tail -n 1 "$tmp/log")"

# equal bytes
zstd -qdc "$tmp/b.tar.zst" >"$tmp/b.tar"
check "the tar inside, read by Python: no owner, no time, hashes right" "$PYTHON" $here/bundle.py check "$tmp/b.tar"
cp -a "$D" "$tmp/copy"; chmod 600 "$tmp"/copy/*; touch "$tmp/copy/paths.stamp"; echo x >"$tmp/copy/input.mk"; : >"$tmp/copy/.q.nts.nt-1"
for f in "$tmp"/copy/*.nts; do mv "$f" "$f.x"; mv "$f.x" "$f"; done
(umask 077; TZ=Asia/Tokyo LC_ALL=C.UTF-8 bundle "$tmp/again" -j 1 "$C" "$tmp/copy"); cmp -s "$tmp/b.tar.zst" "$tmp/again"
ok $? "a copy of the directory, other modes, order, threads, umask: the same bytes"
bundle - "$D" "$C" | cmp -s - "$tmp/again"; ok $? "to a pipe: the same bytes"
SOURCE_DATE_EPOCH=1000000000 bundle "$tmp/epoch" "$D" "$C" && zstd -qdc "$tmp/epoch" >"$tmp/epoch.tar"
check "SOURCE_DATE_EPOCH is the members' time" "$PYTHON" $here/bundle.py check "$tmp/epoch.tar" 1000000000

# elsewhere: the model at another path, nothing else of the first machine
mkdir "$tmp/far"; cp -r "$M" "$tmp/far/model"; cp "$tmp/b.tar.zst" "$tmp/far/run.tar.zst"; N=$tmp/far/model F=$tmp/far/run.tar.zst
mv "$C" "$tmp/hidden"
recipe from="$F" MODEL="$N" DIR="$tmp/out"; ok $? "goes on from the bundle $(grep -h '\*\*\*\|^nt-.*:' "$tmp/log" | tail -n 1)"
[ "$(ran nt-collect)|$(ran nt-quant)|$(ran nt-tweak)" = "1 2|1 2|1 2" ]; ok $? "with layers $(ran nt-tweak), not with layer 0"
cmp -s "$tmp/out/q.nts" "$tmp/whole/q.nts" && cmp -s "$tmp/out/q.0.nts" "$D/q.0.nts"; ok $? "the bytes of the run in one piece"
recipe from="$F" MODEL="$N" DIR="$tmp/out" && [ ! -s "$tmp/ran" ]; ok $? "once more: nothing to do"
recipe from="$F" MODEL="$N" DIR="$tmp/out" BITS=4 && [ "$(ran nt-collect)|$(ran nt-quant)" = "1 2|0 1 2" ]
ok $? "another BITS: nt-collect for $(ran nt-collect), nt-quant for $(ran nt-quant)"
mv "$tmp/hidden" "$C"
run "$tmp/four" BITS=4; cmp -s "$tmp/out/q.nts" "$tmp/four/q.nts"; ok $? "and the bytes of a run with 4 bits"
rm -rf "$tmp"/out*
run "$D" && run "$D" bundle to="$tmp/done.tar.zst" && recipe from="$tmp/done.tar.zst" MODEL="$N" DIR="$tmp/out" && [ ! -s "$tmp/ran" ] &&
    cmp -s "$tmp/out/q.nts" "$tmp/whole/q.nts"
ok $? "a run that is done: nothing to do"
rm -rf "$tmp"/out*
run "$D" TWEAK_OPTS='--lr 2e-3' "$D/q.0.nts" && run "$D" TWEAK_OPTS='--lr 2e-3' bundle to="$tmp/half.tar.zst"
[ "$(grep -c 'out of date, left out' "$tmp/log")" -ge 3 ]; ok $? "options changed, one layer redone: what is out of date stays behind"
recipe from="$tmp/half.tar.zst" MODEL="$N" DIR="$tmp/out"; rc=$?
run "$tmp/other" TWEAK_OPTS='--lr 2e-3'
[ $rc = 0 ] && cmp -s "$tmp/out/q.nts" "$tmp/other/q.nts"; ok $? "and goes on to the bytes of a run with these options"
rm -rf "$tmp"/out*

# refused
"$PYTHON" $here/model.py "$tmp/wrong" $L 7
recipe from="$F" MODEL="$tmp/wrong" DIR="$tmp/out"; rc=$?
[ $rc = 2 ] && [ ! -s "$tmp/ran" ] && grep -q "wrong or .*tokens.nts is not what .*run.tar.zst was made with: sample_xxh3" "$tmp/log"
ok $? "another model: $(grep 'made with' "$tmp/log" | sed "s|$tmp/||g")"
recipe from="$F" MODEL="$N" DIR="$tmp/out" && cmp -s "$tmp/out/q.nts" "$tmp/whole/q.nts"; ok $? "the right one after that: the same bytes"
"$PYTHON" tests/cli/nt-collect/tokens.py "$M/ids.json" 3 "$tmp/c3.nts"
recipe from="$F" MODEL="$N" TOKENS="$tmp/c3.nts" DIR="$tmp/out"; rc=$?
[ $rc = 2 ] && [ ! -s "$tmp/ran" ] && grep -q "c3.nts is not what .*: tokens:" "$tmp/log"; ok $? "other tokens"
recipe from="$F" MODEL="$N" DIR="$tmp/four"; [ $? = 2 ] && grep -q 'four: exists already' "$tmp/log"; ok $? "a directory with something else in it: $(grep -h exists "$tmp/log" | sed "s|$tmp/||")"
rm -rf "$tmp"/out*
unpack() { nt-pack $q --unbundle "$1" -o "$tmp/out"; }
unpack "$F" && unpack "$F" && (cd "$tmp/out" && cmp -s q.0.nts "$D/../whole/q.0.nts" && [ "$(stat -c %y -- * | sort -u | wc -l)" = 1 ])
ok $? "unpacked: every file has the same time"
rm -rf "$tmp/out"
unpack - <"$F" && [ -s "$tmp/out/q.0.nts" ]; ok $? "from a pipe, too"; rm -rf "$tmp/out"
size=$(stat -c %s "$F")
for n in 0 3 100 $((size / 3)) $((size - 20)) $((size - 1)); do
    head -c "$n" "$F" >"$tmp/cut"; try "cut at byte $n" 65 'cut: ' unpack "$tmp/cut"
done
for n in 2 50 $((size / 4)) $((size / 2)) $((size * 3 / 4)); do
    cp "$F" "$tmp/flip"; printf '\x5a\xa5\x5a' | dd of="$tmp/flip" bs=1 seek=$n conv=notrunc 2>/dev/null
    try "bytes changed at $n" 65 'flip: ' unpack "$tmp/flip"
done
while IFS= read -r case; do
    "$PYTHON" $here/bundle.py bad "$case" "$tmp/b.tar" "$tmp/bad.tar" && zstd -qf "$tmp/bad.tar" -o "$tmp/bad"
    code=65; [ "$case" = "huge disk" ] && code=75
    try "hostile: $case" $code '.' unpack "$tmp/bad"
    [ "$(wc -l <"$tmp/stderr")" = 1 ] || [ $code = 75 ] || ok 1 "$case: more than one sentence"
done <<'CASES'
../escape.nts
/tmp/nt-escape.nts
sub/q.9.nts
.hidden.nts
-rf.nts
evil.mk
zz..
unlisted
unlisted ..
symlink
hardlink
directory
fifo
device
huge in the manifest
huge disk
negative
too many stamps' bytes
longer than told
shorter than told
hash
no hash
twice
order
missing
no manifest
manifest later
empty
format
no files
manifest is no JSON
manifest is a bomb
deep manifest
stamp --lr 1e-3; touch /tmp/nt-escape
stamp $(shell touch /tmp/nt-escape)
stamp `id`
stamp --acts-out /tmp/nt-escape
stamp --check=x
stamp -o x
stamp --rep x
stamp --i x
CASES
[ ! -e "$tmp/escape.nts" ] && [ ! -e /tmp/nt-escape.nts ] && [ ! -e /tmp/nt-escape ] && [ ! -e "$tmp/nt-escape" ]; ok $? "nothing escaped"
head -c 300000000 /dev/zero | zstd -q >"$tmp/zeros"
try "300 MB of zeros in $(stat -c %s "$tmp/zeros") bytes" 65 'zeros: ' unpack "$tmp/zeros"
try "no archive" 65 'q.nts: ' unpack "$tmp/whole/q.nts"
try "no such file" 74 'nosuch: ' unpack "$tmp/nosuch"
try "no place" 74 'cannot create' nt-pack $q --unbundle "$F" -o "$tmp/no/where"
try "no -o" 2 'no output' nt-pack --unbundle "$F"
# options that name files are known: none may be added to a stage and forgotten here
for o in $(for t in collect tweak; do nt-$t -h | sed -n '/^$/q; p'; done | grep -o -- '--[a-z-]* \(FILE\|DIR\|MODEL\)' | sed 's/ .*//' | sort -u) --output; do
    rm -rf "$tmp/s"; mkdir "$tmp/s"; cp "$D/q.0.nts" "$tmp/s"; echo "--lr 1 $o x" >"$tmp/s/tweak.stamp"
    try "options with $o" 65 "tweak.stamp: '$o' names a file" bundle "$tmp/out" "$tmp/s"
done
echo "--lr 'x'" >"$tmp/s/tweak.stamp"; try "options with quotes" 65 'byte 0x27' bundle "$tmp/out" "$tmp/s"
head -c 5000 "$D/q.0.nts" >"$tmp/cut.nts"; try "a cut stream" 65 'cut.nts: .*truncated' bundle "$tmp/out" "$tmp/cut.nts"
nt-quant $q -m "$tmp/wrong" -q rtn -o "$tmp/wrong.nts"
try "streams of two models" 65 'wrong.nts was made from another model' bundle "$tmp/out" "$D" "$tmp/wrong.nts"
mkdir "$tmp/none"; try "an empty directory" 65 'no streams there' bundle "$tmp/out" "$tmp/none"
try "a file that is no stream" 2 'NAME.nts' bundle "$tmp/out" "$M/config.json"
cp "$D/q.0.nts" "$tmp/q.0.nts"; try "the same name twice" 2 'same name in the bundle' bundle "$tmp/out" "$D" "$tmp/q.0.nts"
try "no operand" 2 'which directory' bundle "$tmp/out"

# a full disk: a limit on file size, and a small file system where we may mount one
full() { (trap '' XFSZ; ulimit -f 4; "$@"); }
try "no room for a bundle" 74 'File too large' full nt-pack $q --bundle "$tmp/out" "$tmp/whole"
try "no room for a stream of it" 74 'File too large' full nt-pack $q --unbundle "$F" -o "$tmp/out"
mkdir "$tmp/small"
if mount -t tmpfs -o size=32k none "$tmp/small" 2>/dev/null; then
    try "a file system that is too small is seen before" 75 'disk' nt-pack --unbundle "$F" -o "$tmp/small/o"
    [ -z "$(ls -A "$tmp/small")" ]; ok $? "and stays empty"
    umount "$tmp/small"
else
    skip "may not mount a tmpfs"
fi
finish
