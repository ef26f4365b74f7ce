# SPDX-License-Identifier: Apache-2.0
# Shared by the tests of nt-gen-calib: a scratch directory, TAP, the tiny model with its tokenizer.
. tests/tap.bash
here=tests/cli/nt-gen-calib data=tests/data/tokenizer
tiny=$tmp/tiny
cp -r tests/data/calib/tiny "$tiny" && cp $data/smollm/tokenizer.json "$tiny/"
