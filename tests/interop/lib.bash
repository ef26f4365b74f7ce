# SPDX-License-Identifier: Apache-2.0
# What the opt-in tests share: a text everybody has, numbers of a table, closeness.
. tests/tap.bash
near() { # near A B RELATIVE: |A - B| <= RELATIVE * |B|
    awk -v a="$1" -v b="$2" -v r="$3" 'BEGIN { d = a > b ? a - b : b - a; exit !(a == a + 0 && b == b + 0 && d <= r * (b < 0 ? -b : b)) }' ||
        { echo "$1 is not within $3 of $2" >&2; return 1; }
}
# English prose of a few ten thousand tokens that is always there: the project's own man pages.
prose() { for p in man/*.[157]; do LC_ALL=C MANWIDTH=100 man -l "$p" 2>/dev/null | col -b; done >"$1"; }
value() { awk -F'\t' -v m="$1" '$2 == m { print $5; exit }'; } # value METRIC <table of nt-eval
