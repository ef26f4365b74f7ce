# SPDX-License-Identifier: Apache-2.0
# One record of more than 4 GiB, through pipes: Python writes it, nt-stream reads and writes it, nt-stream reads it again.
. tests/cli/nt-stream/lib.bash
set -o pipefail
nts big 4402341478 | nt-stream cat | nt-stream ls >"$tmp/ls"
[ $? = 0 ] && grep -q $'hessian\tbig\tU8\t\[4199,1048580\]\t4402987420$' "$tmp/ls"
ok $? "a record of 4402987420 bytes goes through writer and reader with its checksums"
finish
