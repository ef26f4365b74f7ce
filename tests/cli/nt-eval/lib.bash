# SPDX-License-Identifier: Apache-2.0
# Shared by the tests of nt-eval: TAP lines, a scratch directory, and check_exit for bad input.
set -u
n=0 D=tests/data/model PY=${PYTHON:-python3}
check() { n=$((n + 1)); if [ "$1" = 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; fi; }
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
ev() { nt-eval --progress none "$@"; }
# check_exit CODE 'WORDS' command...: that exit code, nothing on stdout, one sentence on stderr holding WORDS
check_exit() {
    local code=$1 words=$2 rc; shift 2
    "$@" >"$tmp/out" 2>"$tmp/err"; rc=$?
    [ $rc = "$code" ] && [ ! -s "$tmp/out" ] && [ "$(wc -l <"$tmp/err")" = 1 ] && grep -qF -- "$words" "$tmp/err"
    local ok=$?
    check $ok "exit $code: $words"
    [ $ok = 0 ] || { echo "# exit $rc"; sed 's/^/# /' "$tmp/err"; }
}
