# SPDX-License-Identifier: Apache-2.0
# Models of tests/data/families as GGUF files: keys, names, permuted rows and added ones are understood.
. tests/tap.bash
need_python

"$PYTHON" tests/cli/families/gguf.py make "$tmp" >"$tmp/names"; ok $? "files are made"
while read -r name; do
    nt-eval -m "$tmp/$name.gguf" --ids "$tmp/$name.ids" --dump logits,hidden -o "$tmp/$name.out" 2>"$tmp/stderr" ||
        sed "s/^/# $name: /" "$tmp/stderr"
done <"$tmp/names"
"$PYTHON" tests/cli/families/gguf.py compare "$tmp" >"$tmp/verdict"; ok $? "dumps are compared"
while read -r status text; do ok "$status" "$text"; done <"$tmp/verdict"
[ "$count" -gt 2 ]; ok $? "there are families"
while read -r name; do
    nt-quant --progress none -m "$tmp/$name.gguf" -q import 2>"$tmp/stderr" | nt-pack --progress none --format hf --dtype f32 -o "$tmp/$name.hf" 2>"$tmp/stderr" ||
        sed "s/^/# $name: /" "$tmp/stderr"
done <"$tmp/names"
"$PYTHON" tests/cli/families/gguf.py packed "$tmp" >"$tmp/verdict"; ok $? "as directories"
while read -r status text; do ok "$status" "$text"; done <"$tmp/verdict"
finish
