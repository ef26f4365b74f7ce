# SPDX-License-Identifier: Apache-2.0
# Shared by the tests of nt-pack: a scratch directory, TAP, the tiny model, streams of it.
. tests/tap.bash
here=tests/cli/nt-pack hf=tests/data/pack/tiny gguf=tests/data/pack/tiny.gguf
# run NAME COMMAND...: exit 0; stderr shown otherwise
run() { local name=$1; shift; "$@" >"$tmp/stdout" 2>"$tmp/stderr"; local rc=$?; ok $rc "$name$([ $rc = 0 ] || tail -n 2 "$tmp/stderr")"; }
need_python
oracle() { "$PYTHON" $here/oracle.py "$@"; }
pack() { nt-pack --progress none "$@"; }
quant() { nt-quant --progress none -m $hf -q rtn "$@" 2>/dev/null; }
