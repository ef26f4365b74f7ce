# SPDX-License-Identifier: Apache-2.0
# Shared by the tests of nt-eval: TAP lines, a scratch directory, and check_exit for bad input.
. tests/tap.bash
D=tests/data/model
ev() { nt-eval --progress none "$@"; }
# check_exit CODE 'WORDS' command...: that exit code, nothing on stdout, one sentence on stderr holding WORDS
check_exit() {
    local code=$1 words=$2 rc; shift 2
    "$@" >"$tmp/out" 2>"$tmp/err"; rc=$?
    [ $rc = "$code" ] && [ ! -s "$tmp/out" ] && [ "$(wc -l <"$tmp/err")" = 1 ] && grep -qF -- "$words" "$tmp/err"
    local good=$?
    ok $good "exit $code: $words"
    [ $good = 0 ] || { echo "# exit $rc"; sed 's/^/# /' "$tmp/err"; }
}
