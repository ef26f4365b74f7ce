# SPDX-License-Identifier: Apache-2.0
# Shared by the tests of nt-tweak: TAP, a scratch directory, tokens of the tiny model and its 3-bit codes.
. tests/tap.bash
M=tests/data/collect/tiny J=tests/data/tweak/model.json
py() { "$PYTHON" tests/cli/nt-tweak/qweights.py "$@" >"$tmp/py" 2>&1; }
need_python
tokens() { "$PYTHON" tests/cli/nt-collect/tokens.py "$@"; }
tokens tests/data/collect/ids.json 2 "$tmp/c.nts" || exit 1
nt-quant --progress none -m $M -q rtn -b 3 -g 16 -o "$tmp/q.nts" || exit 1
