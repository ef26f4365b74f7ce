# SPDX-License-Identifier: Apache-2.0
# Shared by the tests of nt-gen-calib: a scratch directory, TAP, the tiny model with its tokenizer.
set -u
here=tests/cli/nt-gen-calib data=tests/data/tokenizer
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
count=0 failures=0
ok() { # STATUS NAME
    count=$((count + 1))
    if [ "$1" = 0 ]; then echo "ok $count - $2"; else failures=$((failures + 1)); echo "not ok $count - $2"; fi
}
finish() { echo "1..$count"; exit $((failures > 0)); }
tiny=$tmp/tiny
cp -r tests/data/calib/tiny "$tiny" && cp $data/smollm/tokenizer.json "$tiny/"
