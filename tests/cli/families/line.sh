# SPDX-License-Identifier: Apache-2.0
# Collect, quantize, tweak, evaluate, pack, on the tiny model of every family: the packed directory computes what the
# stream does, and holds the tensors that the family's own files have. LINE_FAMILIES limits it to some.
. tests/tap.bash
need_python
q="--progress none"

line() { # MODEL NAME
    local m=$1 t=$2
    "$PYTHON" tests/cli/nt-collect/tokens.py "$m.calib" 2 "$t.c.nts" &&
        nt-collect $q -m "$m" "$t.c.nts" -o "$t.s.nts" &&
        nt-quant $q -m "$m" -q gptq -b 3 -g 8 "$t.s.nts" -o "$t.w.nts" &&
        nt-tweak $q -m "$m" --tokens "$t.c.nts" --lr 1e-2 "$t.w.nts" -o "$t.q.nts" &&
        nt-eval $q -m "$m" --qweights "$t.q.nts" --norms new --ids "$m.ids" --dump logits -o "$t.ours" &&
        nt-pack $q -m "$m" "$t.q.nts" --format hf --dtype f32 --norms new -o "$t.hf" &&
        nt-eval $q -m "$t.hf" --ids "$m.ids" --dump logits -o "$t.packed"
}

"$PYTHON" tests/cli/families/families.py make "$tmp" >"$tmp/names"; ok $? "models are made"
for name in ${LINE_FAMILIES:-$(cat "$tmp/names")}; do
    check "$name: collect, gptq, tweak, eval, pack" line "$tmp/$name" "$tmp/$name-line"
    check "$name: packed as the family's files are, and computing the same" \
        "$PYTHON" tests/cli/families/families.py packed "$tmp/$name" "$tmp/$name-line"
done
finish
