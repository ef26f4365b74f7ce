# SPDX-License-Identifier: Apache-2.0
# Sourced by the scripts here: TAP, a scratch directory, the Python that has msgpack and numpy.
. tests/tap.bash
here=$PWD/tests/cli/nt-stream PATH=$PWD/${O:-build}/bin:$PATH
command -v nt-stream >/dev/null || { echo "not ok 1 - no nt-stream in PATH"; exit 1; }
# try EXIT PATTERN TEXT COMMAND...: the exit status, and one sentence on stderr (none if PATTERN is empty)
try() {
    local want=$1 pattern=$2 text=$3 rc lines; shift 3
    "$@" >"$tmp/stdout" 2>"$tmp/stderr" </dev/null; rc=$?
    lines=$(wc -l <"$tmp/stderr")
    if [ -z "$pattern" ]; then [ "$rc" = "$want" ] && [ "$lines" = 0 ]
    else [ "$rc" = "$want" ] && [ "$lines" = 1 ] && grep -qe "$pattern" "$tmp/stderr"; fi
    ok $? "$text (exit $rc${pattern:+: $(head -c 160 "$tmp/stderr" | head -n 1)})"
}
nts() { "$PYTHON" "$here/nts.py" "$@"; }
need_python
