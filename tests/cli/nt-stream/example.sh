# SPDX-License-Identifier: Apache-2.0
# The filter of man/nt-stream.5, as the page shows it, compiled without our headers and run on streams of both sides.
. tests/cli/nt-stream/lib.bash
set -o pipefail
LC_ALL=C groff -man -Tascii -P-cbou -rLL=100n man/nt-stream.5 2>/dev/null |
    sed -n '/^ *\/\* nts-halve.c/,/end of nts-halve.c/p' >"$tmp/nts-halve.c"
[ "$(wc -l <"$tmp/nts-halve.c")" -gt 100 ] && ! grep -q 'include "' "$tmp/nts-halve.c"; ok $? "the page holds the filter"
mkdir "$tmp/empty" && cd "$tmp/empty" &&
    ${CC:-cc} -std=c11 -Wall -Wextra -Werror -O1 "$tmp/nts-halve.c" -o "$tmp/nts-halve" -lmsgpackc -lxxhash 2>"$tmp/cc"
rc=$?; ok $rc "it compiles with msgpack-c and xxhash alone"; [ $rc = 0 ] || sed 's/^/# /' "$tmp/cc"
cd "$OLDPWD" || exit 1
nts sample "$tmp/s.nts"
"$tmp/nts-halve" <"$tmp/s.nts" >"$tmp/h.nts"; ok $? "it runs"
[ "$(nt-stream ls --kind sums --layers 2: --values "$tmp/h.nts" | tail -n 3)" = "$(printf '1 1.5 2 2.5 3\n3.5 4 4.5 5 5.5\n6 6.5 7 7.5 8')" ]
ok $? "nt-stream accepts the result: numbers are halved"
nts walk <"$tmp/h.nts" | grep -q '^stats 15 216 '; ok $? "Python walks it"
nt-stream ls --header "$tmp/h.nts" | tail -n 1 | grep -q '"verdict":"none".*"history":\[{"tool":"nts.py","version":"1"},{"tool":"nts-halve"}\]'
ok $? "trailer keys and history are passed on"
nt-stream cat "$tmp/s.nts" | "$tmp/nts-halve" | nt-stream verify >/dev/null; ok $? "in a pipe between our stages"
cat "$tmp/s.nts" "$tmp/s.nts" | "$tmp/nts-halve" | nt-stream verify >/dev/null; ok $? "on concatenated streams"
nts damage "$tmp/s.nts" "$(nts offset "$tmp/s.nts" layers.1.qkv.sums 0)" "$tmp/d.nts"
"$tmp/nts-halve" <"$tmp/d.nts" >"$tmp/x" 2>"$tmp/err"; [ $? = 65 ] && grep -q damaged "$tmp/err"; ok $? "it notices damage"
head -c 2000 "$tmp/s.nts" | "$tmp/nts-halve" 2>"$tmp/err" >"$tmp/x"; [ $? = 65 ] && grep -q truncated "$tmp/err"; ok $? "and truncation"
finish
