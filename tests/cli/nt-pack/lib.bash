# SPDX-License-Identifier: Apache-2.0
# Shared by the tests of nt-pack: a scratch directory, TAP, the tiny model, streams of it.
set -u
here=tests/cli/nt-pack hf=tests/data/pack/tiny gguf=tests/data/pack/tiny.gguf
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
count=0 failures=0
ok() { # STATUS NAME
    count=$((count + 1))
    if [ "$1" = 0 ]; then echo "ok $count - $2"; else failures=$((failures + 1)); echo "not ok $count - $2"; fi
}
finish() { echo "1..$count"; exit $((failures > 0)); }
# run NAME COMMAND...: exit 0; stderr shown otherwise
run() { local name=$1; shift; "$@" >"$tmp/stdout" 2>"$tmp/stderr"; local rc=$?; ok $rc "$name$([ $rc = 0 ] || tail -n 2 "$tmp/stderr")"; }
# try NAME CODE PATTERN COMMAND...: exit status, one sentence that matches, nothing left at $tmp/out
try() {
    local name=$1 code=$2 pattern=$3 rc; shift 3
    "$@" >"$tmp/stdout" 2>"$tmp/stderr"; rc=$?
    [ "$rc" = "$code" ] && grep -qE "^nt-pack: .*($pattern)" "$tmp/stderr" && [ ! -e "$tmp/out" ] && [ -z "$(ls -A "$tmp" | grep '^\.')" ]
    ok $? "$name (exit $rc: $(tail -n 1 "$tmp/stderr" | cut -c 1-160))"
    rm -rf "$tmp/out"
}
if ! "$PYTHON" -c 'import ctypes, msgpack, numpy; ctypes.CDLL("libxxhash.so.0")' 2>/dev/null; then
    echo "ok 1 # SKIP $PYTHON lacks msgpack, numpy or libxxhash"; echo "1..1"; exit 0
fi
oracle() { "$PYTHON" $here/oracle.py "$@"; }
pack() { nt-pack --progress none "$@"; }
quant() { nt-quant --progress none -m $hf -q rtn "$@" 2>/dev/null; }
