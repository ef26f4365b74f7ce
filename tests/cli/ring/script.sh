# SPDX-License-Identifier: Apache-2.0
# The ring in one line: pipelines/ring.sh, norm-tweak.mk ring=1, and the three commands as nt(7) has them typed.
. tests/cli/ring/lib.bash
L=4
make_model $L || exit 1
export TMPDIR=$tmp/tmp; mkdir "$TMPDIR"
say() { tail -n 1 "$tmp/err" | cut -c 1-160; }
script() { COLLECT_OPTS="$q" pipelines/ring.sh "$@" 2>"$tmp/err"; }
clean() { [ -z "$(ls -A "$TMPDIR")" ] && [ ! -e "$tmp/out" ] && ! compgen -G "$tmp/.*.nt-*" >/dev/null; }

ring 2 "$tmp/q.nts" --lr 1e-3
script "$M" "$C" "$tmp/s.nts" -q gptq -b 3 -g 16 $q -- --lr 1e-3 $q; rc=$?
[ $rc = 0 ] && cmp -s "$tmp/q.nts" "$tmp/s.nts" && clean; ok $? "ring.sh: the ring's bytes, nothing left (exit $rc: $(say))"
"${MAKE:-make}" -s -f pipelines/norm-tweak.mk ring=1 MODEL="$M" TOKENS="$C" GROUP=16 TWEAK_OPTS='--lr 1e-3' DIR="$tmp/d" >"$tmp/err" 2>&1; rc=$?
[ $rc = 0 ] && cmp -s "$tmp/q.nts" "$tmp/d/q.nts"; ok $? "norm-tweak.mk ring=1: the same (exit $rc: $(say))"
"${MAKE:-make}" -s -f pipelines/norm-tweak.mk ring=1 MODEL="$M" TOKENS="$C" GROUP=16 DIR="$tmp/d" >"$tmp/err" 2>&1
ring 2 "$tmp/q2.nts"; cmp -s "$tmp/q2.nts" "$tmp/d/q.nts"; ok $? "another option: done again"
mkfifo "$tmp/typed"
nt-collect -m "$M" --tokens "$C" --acts-in "$tmp/typed" 2>"$tmp/err1" | nt-quant -m "$M" -q gptq -b 3 -g 16 2>"$tmp/err2" |
    nt-tweak -m "$M" --tokens "$C" --acts-out "$tmp/typed" -o "$tmp/t.nts" 2>"$tmp/err"; rc=("${PIPESTATUS[@]}")
[ "${rc[*]}" = "0 0 0" ] && py same "$tmp/q2.nts" "$tmp/t.nts" >"$tmp/py" 2>&1; ok $? "as typed: the same records (exits ${rc[*]}: $(say))"
script "$M" "$C" "$tmp/r.nts" -q rtn -b 3 -g 16 $q -- $q; rc=$?
[ $rc = 0 ] && nt-quant $q -m "$M" -q rtn -b 3 -g 16 | nt-tweak $q -m "$M" --tokens "$C" 2>/dev/null | cmp -s - "$tmp/r.nts"
ok $? "a method that needs no statistics: two processes (exit $rc: $(say))"

# failures: the status of the stage that failed, its reason, and nothing left
fails() { # NAME STATUS PATTERN ARGUMENT...
    local name=$1 code=$2 pattern=$3 rc; shift 3
    script "$@"; rc=$?
    grep -qxE "$code" <<<$rc && grep -qE "$pattern" "$tmp/err" && clean; ok $? "$name (exit $rc: $(grep -hE "$pattern" "$tmp/err" | head -n 1 | cut -c 1-140))"
}
fails "a usage error of nt-quant" 2 '^nt-quant: .*no-such' "$M" "$C" "$tmp/out" -q gptq --no-such
fails "a usage error of nt-tweak" 2 '^nt-tweak: .*no-such' "$M" "$C" "$tmp/out" -q gptq -b 3 -g 16 -- --no-such
fails "no such model" '65|74' '^nt-(collect|quant|tweak): .*nowhere' "$tmp/nowhere" "$C" "$tmp/out"
fails "no such tokens" '65|74' '^nt-(collect|tweak): .*nowhere' "$M" "$tmp/nowhere" "$tmp/out" -q gptq -b 3 -g 16
fails "too few arguments" 2 'ring.sh MODEL TOKENS' "$M"
mkdir "$tmp/ro"; fails "no place for the output" 74 '^nt-tweak: .*cannot create' "$M" "$C" "$tmp/ro/no/out" -q gptq -b 3 -g 16
fails "memory that a stage is not given" 75 '^nt-quant: ' "$M" "$C" "$tmp/out" -q gptq -b 3 -g 16 --max-mem 1K
limited() { (trap '' XFSZ; ulimit -f 8; script "$@"); }
limited "$M" "$C" "$tmp/out" -q gptq -b 3 -g 16; rc=$?
[ $rc = 74 ] && grep -q '^nt-tweak: .*too large' "$tmp/err" && clean; ok $? "a full disk (exit $rc: $(grep -h '^nt-tweak' "$tmp/err" | tail -n 1))"

# a signal for all of it, and kill -9 for one of it, while it works
make_model 200 || exit 1
below() { # PID: the stages below it, a line each; without a new process, as processes may be many and the machine slow
    local f stat pid at parent=() tools=()
    for f in /proc/[0-9]*/stat; do
        { read -r stat <"$f"; } 2>/dev/null || continue
        pid=${stat%% *}; [[ $stat != *"(nt-"* ]] || tools+=("$pid")
        stat=(${stat##*) }) parent[pid]=${stat[1]}
    done
    for pid in "${tools[@]}"; do
        for ((at = pid; at > 1 && at != $1; at = parent[at])); do :; done
        [ $at != "$1" ] || echo "$pid"
    done
}
all_three() { stages=$(below $script); [ "$(wc -w <<<"$stages")" = 3 ] && compgen -G "$tmp/.out.nt-*" >/dev/null; }
at_work() { # starts it, with work for a quarter of a minute and more; the stages' ids in $stages when all three run
    # a background process of a script ignores SIGINT otherwise
    COLLECT_OPTS="$q" env --default-signal=INT pipelines/ring.sh "$M" "$C" "$tmp/out" -q gptq -b 3 -g 16 -- --iters 100 2>"$tmp/err" &
    script=$!; soon all_three
}
for sig in TERM INT HUP; do
    at_work; kill -$sig $script; begin=$(date +%s%N); wait $script; rc=$?
    took=$((($(date +%s%N) - begin) / 1000000))
    want=143; [ $sig = INT ] && want=130
    [ $rc = $want ] && ended $stages && clean
    ok $? "SIG$sig ends all of it (exit $rc after $took ms)"
done
for i in 1 2 3; do
    at_work; victim=$(sed -n ${i}p <<<"$stages"); name=$(cat "/proc/$victim/comm")
    kill -9 "$victim"; begin=$(date +%s%N); wait $script; rc=$?; took=$((($(date +%s%N) - begin) / 1000000))
    rm -f "$tmp"/.out.nt-*  # what nt-tweak cannot remove when it is killed
    [ $rc = 137 ] && [ -s "$tmp/err" ] && clean; ok $? "kill -9 of $name (exit $rc after $took ms: $(grep -h '^nt-' "$tmp/err" | grep -v predicted | tail -n 1 | cut -c 1-120))"
done
finish
