# SPDX-License-Identifier: Apache-2.0
# Shared by the tests of nt-tweak: TAP, a scratch directory, tokens of the tiny model and its 3-bit codes.
set -u
M=tests/data/collect/tiny J=tests/data/tweak/model.json
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
count=0 failures=0
ok() { # STATUS NAME
    count=$((count + 1))
    if [ "$1" = 0 ]; then echo "ok $count - $2"; else failures=$((failures + 1)); echo "not ok $count - $2"; fi
}
finish() { echo "1..$count"; exit $((failures > 0)); }
# try NAME CODE PATTERN COMMAND...: exit status, the last line of stderr matches, no output file is left
try() {
    local name=$1 code=$2 pattern=$3 rc; shift 3
    "$@" >"$tmp/stdout" 2>"$tmp/stderr" </dev/null; rc=$?
    [ "$rc" = "$code" ] && tail -n 1 "$tmp/stderr" | grep -qE "$pattern" && [ -z "$(ls "$tmp" | grep '^out')" ]
    ok $? "$name (exit $rc: $(tail -n 1 "$tmp/stderr" | cut -c 1-180))"
    rm -f "$tmp"/out*
}
py() { "$PYTHON" tests/cli/nt-tweak/qweights.py "$@" >"$tmp/py" 2>&1; }
if ! "$PYTHON" -c 'import ctypes, msgpack, numpy; ctypes.CDLL("libxxhash.so.0")' 2>/dev/null; then
    echo "ok 1 # SKIP $PYTHON lacks msgpack, numpy or libxxhash"; echo "1..1"; exit 0
fi
tokens() { "$PYTHON" tests/cli/nt-collect/tokens.py "$@"; }
tokens tests/data/collect/ids.json 2 "$tmp/c.nts" || exit 1
nt-quant --progress none -m $M -q rtn -b 3 -g 16 -o "$tmp/q.nts" || exit 1
