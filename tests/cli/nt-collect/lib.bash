# SPDX-License-Identifier: Apache-2.0
# Shared by the tests of nt-collect: a scratch directory, TAP, the tiny model, its tokens.
set -u
PYTHON=${PYTHON:-python3} O=${O:-build}
here=tests/cli/nt-collect tiny=tests/data/collect/tiny ids=tests/data/collect/ids.json
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
count=0 failures=0
ok() { # STATUS NAME
    count=$((count + 1))
    if [ "$1" = 0 ]; then echo "ok $count - $2"; else failures=$((failures + 1)); echo "not ok $count - $2"; fi
}
finish() { echo "1..$count"; exit $((failures > 0)); }
# try NAME CODE PATTERN COMMAND...: exit status, one sentence that matches, no output file left
try() {
    local name=$1 code=$2 pattern=$3 rc; shift 3
    "$@" >"$tmp/stdout" 2>"$tmp/stderr"; rc=$?
    [ "$rc" = "$code" ] && grep -qE "$pattern" "$tmp/stderr" && [ ! -e "$tmp/out.nts" ]
    ok $? "$name (exit $rc: $(tail -n 1 "$tmp/stderr" | cut -c 1-150))"
    rm -f "$tmp/out.nts"
}
if ! "$PYTHON" -c 'import ctypes, msgpack, numpy; ctypes.CDLL("libxxhash.so.0")' 2>/dev/null; then
    echo "ok 1 # SKIP $PYTHON lacks msgpack, numpy or libxxhash"; echo "1..1"; exit 0
fi
"$PYTHON" $here/tokens.py $ids 2 "$tmp/c.nts" || exit 1
quiet='--progress none'
