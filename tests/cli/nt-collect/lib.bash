# SPDX-License-Identifier: Apache-2.0
# Shared by the tests of nt-collect: a scratch directory, TAP, the tiny model, its tokens.
. tests/tap.bash
here=tests/cli/nt-collect tiny=tests/data/collect/tiny ids=tests/data/collect/ids.json
need_python
"$PYTHON" $here/tokens.py $ids 2 "$tmp/c.nts" || exit 1
quiet='--progress none'
