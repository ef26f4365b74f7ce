# SPDX-License-Identifier: Apache-2.0
# Every family of tests/data/families: logits, hidden states and norm gradients are those of transformers in float64.
. tests/tap.bash
need_python

"$PYTHON" tests/cli/families/families.py make "$tmp" >"$tmp/names"; ok $? "models are made"
while read -r name; do
    nt-eval -m "$tmp/$name" --ids "$tmp/$name.ids" --dump logits,hidden,norm-grads -o "$tmp/$name.out" 2>"$tmp/stderr" ||
        sed "s/^/# $name: /" "$tmp/stderr"
done <"$tmp/names"
"$PYTHON" tests/cli/families/families.py compare "$tmp" >"$tmp/verdict"; ok $? "dumps are compared"
while read -r status text; do ok "$status" "$text"; done <"$tmp/verdict"
[ "$count" -gt 2 ]; ok $? "there are families"
finish
