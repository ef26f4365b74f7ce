# SPDX-License-Identifier: Apache-2.0
# NT_KILLS random kills in the ring (8; NT_SEED=1 seeds them); then the moments that chance seldom finds.
. tests/cli/ring/lib.bash
L=16
make_model $L || exit 1
mkdir "$tmp/k"
"$PYTHON" $here/kill.py "$M" "$C" "$tmp/k" "${NT_KILLS:-8}" "${NT_SEED:-1}"
