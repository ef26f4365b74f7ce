# SPDX-License-Identifier: Apache-2.0
# Full disks and readers that go away, in the make form and in the ring: a reason, nothing half written, and make goes on.
# (Kills: kill.sh, make.sh, script.sh.)
. tests/cli/ring/lib.bash
L=4
make_model $L || exit 1
export TMPDIR=$tmp/tmp; mkdir "$TMPDIR"
D=$tmp/o
mk() { "${MAKE:-make}" --no-print-directory -s -f pipelines/norm-tweak.mk MODEL="$M" TOKENS="$C" GROUP=16 COLLECT_OPTS="$q" QUANT_OPTS="$q" DIR="$@"; }
reason() { grep -hE '^nt-|No space left' "$tmp/log" | grep -v 'predicted memory\|verdict' | head -n 1 | cut -c 1-150; }
whole() { nt-stream verify "$1"/*.nts >"$tmp/verify" 2>&1 && ! compgen -G "$1/.*.nt-*" >/dev/null; } # DIR: no cut stream, no temporary file
mk "$tmp/want" >"$tmp/log" 2>&1; ok $? "undisturbed"
want=$tmp/want/q.nts
alike() { cmp -s "$1/q.nts" "$want"; }

# a limit on the size of files, larger and larger: every kind of file meets it
for blocks in 1 4 8 12 24; do
    (trap '' XFSZ; ulimit -f $blocks; mk "$D") >"$tmp/log" 2>&1; rc=$?
    if [ $rc != 0 ]; then
        [ $rc = 2 ] && grep -q '^nt-.*File too large' "$tmp/log" && { ! compgen -G "$D/*.nts" >/dev/null || whole "$D"; }
        ok $? "make, files of $blocks KiB at most: $(reason)"
    fi
done
mk "$D" >"$tmp/log" 2>&1 && alike "$D"; ok $? "make with room: the same bytes"

small=$tmp/small; mkdir "$small"
if mount -t tmpfs -o size=24k none "$small" 2>/dev/null; then
    at_end='umount "$small" 2>/dev/null'
    for size in 24 64 112 160; do
        mount -o remount,size=${size}k "$small"
        mk "$small/o" >"$tmp/log" 2>&1; rc=$?
        if [ $rc != 0 ]; then
            [ $rc = 2 ] && [ -n "$(reason)" ] && { ! compgen -G "$small/o/*.nts" >/dev/null || whole "$small/o"; }
            ok $? "make on a disk of $size KiB: $(reason)"
        fi
    done
    mount -o remount,size=4m "$small"; mk "$small/o" >"$tmp/log" 2>&1 && alike "$small/o"; ok $? "make on a larger one: the same bytes"
    rm -rf "${small:?}"/*; mount -o remount,size=12k "$small"
    COLLECT_OPTS="$q" pipelines/ring.sh "$M" "$C" "$small/q.nts" -q gptq -b 3 -g 16 2>"$tmp/log"; rc=$?
    [ $rc = 74 ] && grep -q '^nt-tweak: .*No space left' "$tmp/log" && [ -z "$(ls -A "$small" "$TMPDIR" | grep -v :)" ]
    ok $? "the ring on a disk of 12 KiB (exit $rc): $(grep -h '^nt-tweak: .*No space' "$tmp/log")"
    umount "$small"
else
    skip "may not mount a tmpfs"
fi

# make whose output nobody reads, and which is interrupted
rm -rf "$D"; mk "$D" 2>&1 | true; mk "$D" >"$tmp/log" 2>&1 && alike "$D"; ok $? "make whose reader went away, make again: the same bytes"
for file in input.mk q.0.nts q.2.nts; do
    for sig in TERM INT; do
        rm -rf "$D"
        setsid env --default-signal=INT "${MAKE:-make}" -s -f pipelines/norm-tweak.mk MODEL="$M" TOKENS="$C" GROUP=16 COLLECT_OPTS="$q" QUANT_OPTS="$q" DIR="$D" >"$tmp/log" 2>&1 &
        pid=$!; soon eval '[ -e "$D/$file" ] || ended $pid'
        kill -$sig -- -$pid 2>/dev/null; wait $pid; rc=$?
        soon group_ended $pid # make does not wait for what its shells started
        { ! compgen -G "$D/*.nts" >/dev/null || whole "$D"; } && [[ $rc =~ ^(0|2|130|143)$ ]]
        ok $? "make ended by SIG$sig once $file was there (exit $rc): what is there is whole"
    done
done
mk "$D" >"$tmp/log" 2>&1 && alike "$D"; ok $? "make again: the same bytes"

# a ring that writes to a pipe which closes; more than a pipe holds, so that it cannot end before
make_model 16
mkfifo "$tmp/ring"
begin=$(date +%s%N)
nt-collect $q -m "$M" --tokens "$C" --acts-in "$tmp/ring" 2>"$tmp/err1" | nt-quant $q -m "$M" -q gptq -b 3 -g 16 2>"$tmp/err2" |
    nt-tweak $q -m "$M" --tokens "$C" --iters 4 --acts-out "$tmp/ring" 2>"$tmp/err3" | head -c 100 >/dev/null
rc=("${PIPESTATUS[@]}"); took=$((($(date +%s%N) - begin) / 1000000))
[ "${rc[2]}" = 74 ] && [ "${rc[0]}" != 0 ] && [ "${rc[1]}" != 0 ]
ok $? "the reader of the ring's result goes away: all end (exits ${rc[*]} after $took ms; $(tail -qn 1 "$tmp/err1" | cut -c 1-120))"
begin=$(date +%s%N)
nt-collect $q -m "$M" --tokens "$C" --acts-in "$tmp/ring" 2>"$tmp/err1" | nt-quant $q -m "$M" -q gptq -b 3 -g 16 2>"$tmp/err2" |
    head -c 9000 | nt-tweak $q -m "$M" --tokens "$C" --acts-out "$tmp/ring" -o "$tmp/out" 2>"$tmp/err3"
rc=("${PIPESTATUS[@]}"); took=$((($(date +%s%N) - begin) / 1000000))
# 74: the ring may be gone before nt-tweak reads where its input ends
[[ ${rc[3]} =~ ^(65|74)$ ]] && [ "${rc[0]}" != 0 ] && grep -q truncated "$tmp/err3" && [ ! -e "$tmp/out" ]
ok $? "a pipe inside the ring is cut: all end (exits ${rc[*]} after $took ms; $(tail -qn 1 "$tmp/err3" | cut -c 1-120))"
finish
