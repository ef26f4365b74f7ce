# SPDX-License-Identifier: Apache-2.0
# What the opt-in tests share: TAP, skipping with a reason, a scratch directory, a text everybody has.
set -u
n=0 failed=0
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
check() { # check DESCRIPTION COMMAND...: ok when the command succeeds
    local what=$1; shift
    n=$((n + 1))
    if "$@" >"$tmp/out" 2>"$tmp/err"; then echo "ok $n - $what"
    else failed=1; echo "not ok $n - $what"; tail -n 15 "$tmp/err" "$tmp/out" | sed 's/^/# /'; fi
}
skip_all() { echo "ok 1 # SKIP $*"; echo "1..1"; exit 0; }
need() { # need VARIABLE...: skip the file when one is unset
    local v
    for v in "$@"; do [ -n "${!v:-}" ] || skip_all "$v unset"; done
}
near() { # near A B RELATIVE: |A - B| <= RELATIVE * |B|
    awk -v a="$1" -v b="$2" -v r="$3" 'BEGIN { d = a > b ? a - b : b - a; exit !(a == a + 0 && b == b + 0 && d <= r * (b < 0 ? -b : b)) }' ||
        { echo "$1 is not within $3 of $2" >&2; return 1; }
}
finish() { echo "1..$n"; exit "$failed"; }
# English prose of a few ten thousand tokens that is always there: the project's own man pages.
prose() { for p in man/*.[157]; do MANWIDTH=100 man -l "$p" 2>/dev/null | col -b; done >"$1"; }
value() { awk -F'\t' -v m="$1" '$2 == m { print $5; exit }'; } # value METRIC <table of nt-eval
