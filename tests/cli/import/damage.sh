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

# ---- zip files that unpack to far more than they are ----

"$PYTHON" - "$tmp" <<'END'
import sys, zipfile
def write(name, entries):
    with zipfile.ZipFile(f"{sys.argv[1]}/{name}.bin", "w", zipfile.ZIP_DEFLATED) as z:
        for path, mib in entries:
            with z.open(path, "w") as f:
                for _ in range(mib):
                    f.write(bytes(1 << 20))
write("storage", [("a/data/0", 100), ("a/data.pkl", 1)])
write("many", [(f"a/data/{i}", 10) for i in range(10)])
write("pickle", [("a/data.pkl", 65)])
END
mkdir "$tmp/spool"
bomb() { # NAME PATTERN
    TMPDIR="$tmp/spool" try "a zip bomb ($1)" 65 "$2" nt-eval -m "$tmp/$1.bin" --ids "$tmp/ids.json" --dump logits -o "$tmp/out" --progress none
    [ -z "$(ls -A "$tmp/spool")" ]; ok $? "nothing of it is left"
}
bomb storage 'storage.bin: unpacks to far more than its own size'
bomb many 'many.bin: unpacks to far more than its own size'
bomb pickle 'pickle.bin: .*data.pkl'
finish
