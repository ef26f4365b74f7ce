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
        nt-quant $q -m "$m" -q gptq -b 3 -g 8 --dead borrow "$t.s.nts" -o "$t.w.nts" &&
        tweak "$m" "$t" &&
        nt-eval $q -m "$m" --qweights "$t.q.nts" --norms "$norms" --ids "$m.ids" --dump logits -o "$t.ours" &&
        nt-pack $q -m "$m" "$t.q.nts" --format hf --dtype f32 --norms "$norms" -o "$t.hf" &&
        nt-eval $q -m "$t.hf" --ids "$m.ids" --dump logits -o "$t.packed"
}
tweak() { # nothing to train where norms have no parameters, and that is said
    local why
    norms=new
    why=$(nt-tweak $q -m "$1" --tokens "$2.c.nts" --lr 1e-2 "$2.w.nts" -o "$2.q.nts" 2>&1) && return
    norms=old
    [[ $why == *"no norms in its blocks to train"* ]] && [[ $1 == *olmo || $1 == *olmo-clip || $1 == *opt-plain ]] && cp "$2.w.nts" "$2.q.nts"
}

"$PYTHON" tests/cli/families/families.py make "$tmp" >"$tmp/names"; ok $? "models are made"
for name in ${LINE_FAMILIES:-$(cat "$tmp/names")}; do
    check "$name: collect, gptq, tweak, eval, pack" line "$tmp/$name" "$tmp/$name-line"
    check "$name: packed as the family's files are, and computing the same" \
        "$PYTHON" tests/cli/families/families.py packed "$tmp/$name" "$tmp/$name-line"
done
finish
