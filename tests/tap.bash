# SPDX-License-Identifier: Apache-2.0
# Sourced by every test script (cwd: the repository): TAP lines, a scratch directory $tmp, the Python of the oracles.
set -u
PYTHON=${PYTHON:-python3} O=${O:-build}
tmp=$(mktemp -d "${TMPDIR:-/tmp}/nt-test.XXXXXX"); trap 'rm -rf "$tmp"' EXIT
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
