#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Random tiny models of every family against transformers in float64 (sweep.py): logits, hidden states, norm gradients. And the GGUF
# files of tests/cli/families/gguf.py as nt-quant -q import and nt-pack make directories of them, in transformers.
# NT_SWEEP models of each family (3), NT_SEED which (1); SWEEP_FAMILIES limits it to some.
. tests/interop/lib.bash
need NT_INTEROP_PYTHON
need_python
q="--progress none"
export TRANSFORMERS_VERBOSITY=error PYTHONWARNINGS=ignore HF_HUB_DISABLE_PROGRESS_BARS=1 OMP_NUM_THREADS=1

mkdir "$tmp/s"
"$NT_INTEROP_PYTHON" tests/interop/sweep.py make "$tmp/s" "${NT_SEED:-1}" "${NT_SWEEP:-3}" ${SWEEP_FAMILIES:-} >"$tmp/s/names" 2>"$tmp/stderr"
ok $? "transformers computes $(wc -l <"$tmp/s/names") random models"
while read -r name _; do
    [ ! -e "$tmp/s/$name.ids" ] || nt-eval $q -m "$tmp/s/$name" --ids "$tmp/s/$name.ids" --dump logits,hidden,norm-grads -o "$tmp/s/$name.out" 2>&1 |
        sed "s|^|# $name: |"
done <"$tmp/s/names"
"$PYTHON" tests/interop/sweep.py compare "$tmp/s" >"$tmp/verdict" 2>"$tmp/stderr" || { tail -n 2 "$tmp/stderr"; false; }; ok $? "compared"
while read -r status text; do
    ok "$status" "$text"
    [ "$status" = 0 ] || tr -d '\n' <"$tmp/s/${text%% *}/config.json" 2>&1 | sed 's/^/# /;s/  */ /g;s/$/\n/'
done <"$tmp/verdict"
[ -z "${SWEEP_FAMILIES:-}" ] || finish

mkdir "$tmp/g"
"$PYTHON" tests/cli/families/gguf.py make "$tmp/g" >"$tmp/g/names"
while read -r name; do
    nt-quant $q -m "$tmp/g/$name.gguf" -q import 2>"$tmp/stderr" | nt-pack $q --format hf --dtype f32 -o "$tmp/g/$name.hf" 2>"$tmp/stderr" || tail -n 1 "$tmp/stderr"
done <"$tmp/g/names"
"$NT_INTEROP_PYTHON" tests/interop/sweep.py packed "$tmp/g" >"$tmp/verdict" 2>"$tmp/stderr" || { tail -n 2 "$tmp/stderr"; false; }; ok $? "compared"
while read -r status text; do ok "$status" "from GGUF, $text"; done <"$tmp/verdict"
finish
