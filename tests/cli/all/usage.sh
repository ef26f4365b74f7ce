# SPDX-License-Identifier: Apache-2.0
# For every tool: the usage paragraph of -h is the SYNOPSIS of its page, -h and --version go to stdout, an unknown option
# is one sentence and exit 2, and no option of -h is missing from the page or nt(7).
set -u
n=0
check() { n=$((n + 1)); if [ "$1" = 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; fi; }
fold() { tr -s ' \n\t' ' ' | sed 's/^ //; s/ $//'; }
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
page() { LC_ALL=C groff -man -Tascii -P-cbou -rLL=100n "$1" 2>/dev/null; }
bin=${O:-build}/bin

page man/nt.7 >"$tmp/nt7" 2>/dev/null
for t in "$bin"/nt-*; do
    tool=$(basename "$t")
    "$t" -h >"$tmp/h" 2>"$tmp/err"; rc=$?
    [ $rc = 0 ] && [ ! -s "$tmp/err" ] && head -n 1 "$tmp/h" | grep -q "^usage: $tool "
    check $? "$tool -h: usage on stdout, exit 0"
    sed -n '/^$/q; s/^usage: //; p' "$tmp/h" | fold >"$tmp/usage"
    page "man/$tool.1" >"$tmp/page"
    sed -n '/^SYNOPSIS/,/^[A-Z]/p' "$tmp/page" | sed '1d; $d' | fold >"$tmp/synopsis"
    cmp -s "$tmp/usage" "$tmp/synopsis"; rc=$?
    check $rc "$tool: SYNOPSIS of man/$tool.1 is what -h prints"
    [ $rc = 0 ] || diff "$tmp/usage" "$tmp/synopsis" | sed 's/^/# /'
    missing=
    for o in $(sed -n 's/^  \(-., \|    \)\(--[a-z0-9-]*\).*/\2/p' "$tmp/h"); do
        cat "$tmp/page" "$tmp/nt7" | sed '/^SYNOPSIS/,/^[A-Z][A-Z]* *[A-Z]*$/{/^SYNOPSIS/d;}' | grep -qe "$o" ||
            { short=$(sed -n "s/^  \(-.\), $o.*/\1/p" "$tmp/h"); [ -n "$short" ] && cat "$tmp/page" "$tmp/nt7" | grep -qe "$short"; } ||
            missing="$missing $o"
    done
    [ -z "$missing" ]; check $? "$tool: every option is explained in its page or nt(7)${missing:+ (missing:$missing)}"
    out=$("$t" --version); [ $? = 0 ] && [[ $out == "$tool "* ]]; check $? "$tool --version"
    "$t" --no-such-option >"$tmp/out" 2>"$tmp/err"; rc=$?
    [ $rc = 2 ] && [ ! -s "$tmp/out" ] && [ "$(wc -l <"$tmp/err")" = 1 ] && grep -q "^$tool: .*no-such-option" "$tmp/err"
    check $? "$tool: an unknown option is one sentence and exit 2"
    "$t" -h >/dev/full 2>"$tmp/err"; [ $? = 74 ]; check $? "$tool -h >/dev/full is exit 74"
done
[ $n -gt 0 ] || echo "not ok 1 - no tools in $bin"
