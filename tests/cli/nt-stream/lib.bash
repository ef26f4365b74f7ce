# SPDX-License-Identifier: Apache-2.0
# Sourced by the scripts here: TAP, a scratch directory, the Python that has msgpack and numpy.
set -u
here=$PWD/tests/cli/nt-stream PATH=$PWD/${O:-build}/bin:$PATH
command -v nt-stream >/dev/null || { echo "not ok 1 - no nt-stream in PATH"; exit 1; }
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
n=0 failures=0
ok() { # STATUS TEXT
    n=$((n + 1))
    if [ "$1" = 0 ]; then echo "ok $n - $2"; else failures=$((failures + 1)); echo "not ok $n - $2"; fi
}
finish() { echo "1..$n"; exit $((failures > 0)); }
skip_all() { echo "ok 1 # SKIP $1"; echo 1..1; exit 0; }
# try EXIT PATTERN TEXT COMMAND...: the exit status, and one sentence on stderr (none if PATTERN is empty)
try() {
    local want=$1 pattern=$2 text=$3 rc lines; shift 3
    "$@" >"$tmp/stdout" 2>"$tmp/stderr" </dev/null; rc=$?
    lines=$(wc -l <"$tmp/stderr")
    if [ -z "$pattern" ]; then [ "$rc" = "$want" ] && [ "$lines" = 0 ]
    else [ "$rc" = "$want" ] && [ "$lines" = 1 ] && grep -qe "$pattern" "$tmp/stderr"; fi
    ok $? "$text (exit $rc${pattern:+: $(head -c 160 "$tmp/stderr" | head -n 1)})"
}
nts() { "$py" "$here/nts.py" "$@"; }
for py in "${PYTHON:-python3}" /usr/bin/python3 none; do
    "$py" -c 'import msgpack, numpy, ctypes; ctypes.CDLL("libxxhash.so.0")' 2>/dev/null && break
done
[ "$py" != none ] || skip_all "no python3 with msgpack and numpy"
