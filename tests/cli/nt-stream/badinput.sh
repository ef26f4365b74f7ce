# SPDX-License-Identifier: Apache-2.0
# Streams that are cut, damaged, hostile or come from a stage that failed; outputs that cannot be written. Each gets one
# sentence, the right exit status, and no partial file. (Every cut and every flipped bit: tests/unit/test_stream_bad.c.)
. tests/cli/nt-stream/lib.bash
nts sample "$tmp/s.nts"
head -c 1000 "$tmp/s.nts" >"$tmp/cut.nts"
nts damage "$tmp/s.nts" "$(nts offset "$tmp/s.nts" layers.1.qkv.sums 0)" "$tmp/dam.nts"
try 65 "cut.nts: record 7: truncated after 1000 bytes" "a cut file" nt-stream verify "$tmp/cut.nts"
try 65 "record 6 (sums .*): damaged: the checksum does not match" "a damaged record" nt-stream cat "$tmp/dam.nts" -o "$tmp/none.nts"
try 65 "empty: the program that should have written it died" "a dead upstream" nt-stream cat - -o "$tmp/none.nts"
try 65 "holds stats where tokens\|differ in their header's kind" "two kinds" bash -c "sed 's/stats/stotz/' $tmp/s.nts >$tmp/k.nts; nt-stream cat $tmp/s.nts $tmp/k.nts -o $tmp/none.nts"
try 65 "not an NTS stream" "a text file" nt-stream ls --kind x LICENSE
try 65 "is compressed with zstd" "a compressed stream" bash -c "zstd -q -c $tmp/s.nts >$tmp/z; nt-stream verify $tmp/z"
try 65 "is NTS version 2" "a later version" bash -c "sed 's/NTSTRM\\x01/NTSTRM\\x02/' $tmp/s.nts | nt-stream verify -"
try 0 "" "a later minor version" bash -c "sed 's/NTSTRM\\x01\\x00/NTSTRM\\x01\\x09/' $tmp/s.nts | nt-stream verify -"
try 74 "No such file or directory" "no file" nt-stream verify "$tmp/missing"
try 74 "directory" "a directory" nt-stream verify "$tmp"
try 65 "after the end of a stream" "rubbish after the end" bash -c "cat $tmp/s.nts LICENSE | nt-stream verify -"
try 2 "say what to do" "nothing to do" nt-stream
try 2 "is not ls, verify" "an unknown command" nt-stream list
try 2 "is not a range" "a wrong range" nt-stream ls --layers 3:2 "$tmp/s.nts"

try 74 "No space left on device" "a full disk by -o" nt-stream cat "$tmp/s.nts" -o /dev/full
try 74 "No space left on device" "a full disk by stdout" bash -c "nt-stream cat $tmp/s.nts >/dev/full"
try 74 "No space left on device" "a full disk for text" bash -c "nt-stream ls $tmp/s.nts >/dev/full"
try 74 "cannot create" "no such directory" nt-stream cat "$tmp/s.nts" -o "$tmp/no/such"
try 74 "is a directory" "the output is a directory" nt-stream cat "$tmp/s.nts" -o "$tmp"
nts big 70000000 >"$tmp/big.nts"
timeout 300 bash -c 'nt-stream cat "$0" 2>"$1" | head -c 100 >/dev/null; exit ${PIPESTATUS[0]}' "$tmp/big.nts" "$tmp/err"
[ $? = 74 ] && [ ! -s "$tmp/err" ]; ok $? "a closed pipe: exit 74, quietly"

# a stage that fails in the middle of a pipe: the last one has the reason of the first
bash -c "nt-stream cat $tmp/dam.nts 2>$tmp/e1 | nt-stream cat 2>$tmp/e2 | nt-stream cat -o $tmp/none.nts 2>$tmp/e3; echo \${PIPESTATUS[@]}" >"$tmp/rc"
[ "$(cat "$tmp/rc")" = "65 65 65" ] && grep -q '^nt-stream: <stdin>: upstream error: nt-stream: .*dam.nts: record 6 .*checksum' "$tmp/e3" &&
    [ "$(wc -l <"$tmp/e3")" = 1 ]
ok $? "an upstream error travels down the pipe: $(cat "$tmp/e3")"

# SIGTERM in the middle of a large record: exit 143, an error trailer behind the segment, no partial file
mkfifo "$tmp/in"
large() { [ "$(find "$tmp" -path "$1" -size +50000k)" ]; } # PATTERN
fed() { soon ended $feeder || kill $feeder; wait $feeder; } # it would write for ever if the stage were gone
exec 7<>"$tmp/in" # keeps it open when all of it is read
head -c 60000000 "$tmp/big.nts" >&7 & feeder=$!
nt-stream cat "$tmp/in" >"$tmp/term.nts" 2>"$tmp/e1" 7>&- & stage=$!
soon large "$tmp/term.nts"; fed
kill -TERM $stage; wait $stage; [ $? = 143 ]; ok $? "SIGTERM: exit 143"
try 65 "upstream error: nt-stream: terminated" "its output says why it ends" nt-stream verify "$tmp/term.nts"
[ "$(grep -c terminated "$tmp/e1")" = 1 ]; ok $? "and so does its one line"
exec 7>&- 7<>"$tmp/in"
head -c 60000000 "$tmp/big.nts" >&7 & feeder=$!
nt-stream cat "$tmp/in" -o "$tmp/none.nts" 2>/dev/null 7>&- & stage=$!
soon large "$tmp/.none*"; fed
kill -TERM $stage; wait $stage; [ $? = 143 ] && [ -z "$(find "$tmp" -name '*none*')" ]; ok $? "SIGTERM with -o: nothing is left"
exec 7>&-

(ulimit -f 10000; exec nt-stream cat "$tmp/big.nts" -o "$tmp/none.nts") 2>"$tmp/err"
[ $? = 74 ] && grep -q 'none.nts: File too large (after [0-9]* bytes)' "$tmp/err" && [ -z "$(find "$tmp" -name '*none*')" ]
ok $? "a disk that fills up in the middle: $(cat "$tmp/err")"
nt-stream verify "$tmp/in" 2>"$tmp/err" & stage=$!
soon waits $stage; kill -INT $stage 2>/dev/null; kill -TERM $stage; wait $stage; rc=$?
[ $rc = 143 ] || [ $rc = 130 ]; ok $? "a signal while waiting for a FIFO's writer: exit $rc"

mkfifo "$tmp/out"
nt-stream verify "$tmp/out" >"$tmp/v" & reader=$!
nt-stream cat "$tmp/s.nts" -o "$tmp/out"; wait $reader && [ -p "$tmp/out" ] && grep -q ok "$tmp/v"; ok $? "-o FIFO is written directly"
ln -s real.nts "$tmp/link.nts"; echo old >"$tmp/real.nts"
nt-stream cat "$tmp/s.nts" -o "$tmp/link.nts" && [ -L "$tmp/link.nts" ] && cmp -s <(nt-stream cat "$tmp/s.nts") "$tmp/real.nts"
ok $? "-o LINK replaces what it points to"
finish
