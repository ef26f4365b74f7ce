# SPDX-License-Identifier: Apache-2.0
# Sourced by every test script (cwd: the repository): TAP lines, a scratch directory $tmp, the Python of the oracles.
set -u
PYTHON=${PYTHON:-python3} O=${O:-build}
tmp=$(mktemp -d "${TMPDIR:-/tmp}/nt-test.XXXXXX") at_end=:
# a child that is killed before it has become another program runs this, too, in a state where "[" cannot be relied on
trap 'case $BASHPID in $$) eval "$at_end"; rm -rf "$tmp";; esac' EXIT
count=0 failures=0
ok() { # STATUS NAME
    count=$((count + 1))
    if [ "$1" = 0 ]; then echo "ok $count - $2"; else failures=$((failures + 1)); echo "not ok $count - $2"; fi
}
skip() { count=$((count + 1)); echo "ok $count # SKIP $*"; }
finish() { echo "1..$count"; exit $((failures > 0)); }
skip_all() { skip "$*"; finish; }
# need VARIABLE...: skips the file when one is unset or empty
need() { local v; for v in "$@"; do [ -n "${!v:-}" ] || skip_all "$v is not set"; done; }
need_python() { # the modules that read streams without us
    "$PYTHON" -c 'import ctypes, msgpack, numpy; ctypes.CDLL("libxxhash.so.0")' 2>/dev/null ||
        skip_all "$PYTHON lacks msgpack, numpy or libxxhash"
}
# check NAME COMMAND...: ok when it succeeds; what it printed is shown otherwise
check() {
    local name=$1; shift
    "$@" >"$tmp/stdout" 2>"$tmp/stderr"; ok $? "$name"
    [ "$failures" = "${shown:-0}" ] || { shown=$failures; tail -n 12 "$tmp/stderr" "$tmp/stdout" | sed 's/^/# /'; }
}
# try NAME CODE PATTERN COMMAND...: that exit status, a last line of stderr that matches, no $tmp/out* and no temporary file left
try() {
    local name=$1 code=$2 pattern=$3 rc; shift 3
    "$@" >"$tmp/stdout" 2>"$tmp/stderr" </dev/null; rc=$?
    [ "$rc" = "$code" ] && tail -n 1 "$tmp/stderr" | grep -qE "$pattern" && ! compgen -G "$tmp/out*" >/dev/null &&
        ! compgen -G "$tmp/.*.nt-*" >/dev/null
    ok $? "$name (exit $rc: $(tail -n 1 "$tmp/stderr" | cut -c 1-160))"
    rm -rf "$tmp"/out*
}
# What follows waits for what can be seen, never for a time: a machine may be fifty times slower, or stand still for seconds.
# soon COMMAND...: until it succeeds; fails after a minute or more
soon() { local i; for ((i = 0; i < 3000; i++)); do "$@" && return; sleep 0.02; done; return 1; }
# ended PID...: whether or not anybody waited for them
ended() {
    local pid stat
    for pid in "$@"; do
        read -r stat 2>/dev/null <"/proc/$pid/stat" || continue
        [[ ${stat##*) } == [ZX]* ]] || return 1
    done
}
# group_ended PGID: no process of the group runs
group_ended() {
    local f stat
    for f in /proc/[0-9]*/stat; do
        { read -r stat <"$f"; } 2>/dev/null || continue
        stat=(${stat##*) }) # state, parent, group
        [[ ${stat[0]} == [ZX]* || ${stat[2]} != "$1" ]] || return 1
    done
}
# has_open PID FILE
has_open() { local fd; for fd in /proc/"$1"/fd/*; do [ "$fd" -ef "$2" ] && return; done; return 1; }
# waits PID: it is another program than this one by now, and sleeps
waits() {
    local stat
    [ "$(readlink "/proc/$1/exe")" != "$(readlink "/proc/$$/exe")" ] && read -r stat <"/proc/$1/stat" && [[ ${stat##*) } == S* ]]
}
# struck SIGNAL READY PROGRAM...: starts the program, sends the signal when the condition READY holds, returns its exit
# status; $tmp/stdout and $tmp/stderr have what it said. One that ends before the signal comes is started again, after the
# command in $fresh if there is one.
struck() {
    local sig=$1 ready=$2 i pid rc; shift 2
    for i in {1..10}; do
        eval "${fresh:-:}"
        : >"$tmp/stdout" 2>"$tmp/stderr"
        (exec "$@") >"$tmp/stdout" 2>"$tmp/stderr" </dev/null &
        pid=$!
        soon eval "$ready || ended $pid"
        kill "-$sig" $pid 2>/dev/null; wait $pid 2>/dev/null; rc=$?
        [ $rc = 0 ] || return $rc
    done
    return 0
}
# unread COMMAND...: with a stdout whose reader has gone
unread() {
    local rc
    mkfifo "$tmp/unread"; exec 8<>"$tmp/unread" 9>"$tmp/unread" 8<&-
    "$@" >&9; rc=$?
    exec 9>&-; rm "$tmp/unread"
    return $rc
}
