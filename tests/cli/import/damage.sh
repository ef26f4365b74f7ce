# SPDX-License-Identifier: Apache-2.0
# Quantized checkpoints with one thing wrong that no shape tells: one sentence that names the checkpoint, exit 65, from the tool
# that computes with it.
. tests/tap.bash
export OMP_NUM_THREADS=1 # many short runs
"$PYTHON" -c 'import numpy' 2>/dev/null || skip_all "$PYTHON lacks numpy"
"$PYTHON" tests/cli/import/damage.py "$tmp"; ok $? "damaged checkpoints are made"
echo '[[1, 2, 3]]' >"$tmp/ids.json"
for d in "$tmp"/*/; do
    d=${d%/} bad=
    nt-eval -m "$d" --ids "$tmp/ids.json" --dump logits -o "$tmp/out" --progress none 2>"$tmp/stderr" || rc=$?
    [ "${rc:-0}" = 65 ] && [ "$(wc -l <"$tmp/stderr")" = 1 ] && grep -qF "$d" "$tmp/stderr" && [ ! -e "$tmp/out" ]
    ok $? "${d##*/}: nt-eval (exit ${rc:-0}: $(head -n 1 "$tmp/stderr" | sed "s|$tmp/||" | cut -c 1-150))"
    rm -f "$tmp/out"; rc=0
done
finish
