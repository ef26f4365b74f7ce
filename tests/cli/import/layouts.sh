# SPDX-License-Identifier: Apache-2.0
# Quantized checkpoints of other tools as they lie: as models, and by -q import, they have the values of the float model that
# they stand for, which layouts.py computes from the codes.
. tests/cli/import/lib.bash layouts.py
import_all
for kind in gptq4-order awq ct-nvfp4 mlx3; do check "$kind: the logits of the float model" same_logits "$kind"; done

# ---- what nt-pack writes of imported codes is what was there, byte by byte ----

same_all

pack() { # FORMAT KIND...
    for kind in "${@:2}"; do
        nt-pack -m "$tmp/$kind/q" --format "$1" --dtype f16 "$tmp/$kind/q.nts" -o "$tmp/$kind/back" --progress none 2>"$tmp/stderr" || cat "$tmp/stderr"
    done
}
gptq="gptq2 gptq3 gptq4 gptq8 gptq4-sym gptq4-order gptq4-old" awq="awq awq-row" ct="ct4 ct4-asym ct3 ct8 ct3-asym ct4-order" mlx="mlx4 mlx3"
pack gptq $gptq gptq4-v2; pack awq $awq; pack compressed-tensors $ct; pack mlx $mlx
verdicts "codes come back as they were" < <(
    for kind in $gptq; do echo "$kind back q qweight qzeros scales g_idx"; done
    for kind in $awq; do echo "$kind back q qweight qzeros scales"; done
    for kind in $ct; do echo "$kind back q weight_packed weight_scale weight_zero_point weight_g_idx"; done
    for kind in $mlx; do echo "$kind back q proj.weight proj.scales proj.biases"; done
)
! lay compare "$tmp/gptq4-v2/back/model.safetensors" "$tmp/gptq4-v2/q/model.safetensors" qzeros >/dev/null 2>&1
ok $? "version 2 leaves as version 1: other zeros"
nt-pack -m "$tmp/gptq4-v2/q" --format gptq-v2 --dtype f16 "$tmp/gptq4-v2/q.nts" -o "$tmp/gptq4-v2/same" --progress none 2>"$tmp/stderr" || cat "$tmp/stderr"
check "and as version 2 as it was" lay compare "$tmp/gptq4-v2/same/model.safetensors" "$tmp/gptq4-v2/q/model.safetensors" qweight qzeros scales g_idx
again() {
    nt-quant -q import "$tmp/gptq4-v2/back" -o "$tmp/again.nts" --progress none &&
        nt-pack -m "$tmp/gptq4-v2/back" --format hf --dtype f32 "$tmp/again.nts" -o "$tmp/again" --progress none &&
        lay compare "$tmp/again/model.safetensors" "$tmp/gptq4-v2/f/model.safetensors" proj.weight
}
check "version 2 as version 1: the same values" again

# ---- GGUF: blocks of every type ----

lay gguf "$tmp/all.gguf" && nt-quant -q import "$tmp/all.gguf" -o "$tmp/all.nts" --progress none 2>/dev/null
ok $? "a GGUF file of every type is imported"
check "and comes back" nt-pack -m "$tmp/all.gguf" --format gguf "$tmp/all.nts" -o "$tmp/back.gguf" --progress none
"$PYTHON" - "$tmp/all.gguf" "$tmp/back.gguf" <<'EOF'
import sys  # nt-pack sets general.file_type to the commonest type: everything else is the same
a, b = (open(p, "rb").read() for p in sys.argv[1:])
key = a.index(b"general.file_type") + len("general.file_type") + 4
assert len(a) == len(b) and a[:key] == b[:key] and a[key + 4:] == b[key + 4:]
EOF
ok $? "byte by byte"
nt-pack --format gguf "$tmp/all.nts" -o "$tmp/alone.gguf" --progress none 2>"$tmp/stderr" && cmp "$tmp/all.gguf" "$tmp/alone.gguf"
ok $? "and without -m: the very bytes"
nt-quant -q import "$tmp/all.gguf" 2>/dev/null --progress none | nt-eval -m "$tmp/all.gguf" --qweights - --ids <(echo '[[1,2,3,4]]') --dump logits \
    -o "$tmp/a.logits" --progress none 2>"$tmp/stderr" &&
    nt-eval -m "$tmp/all.gguf" --ids <(echo '[[1,2,3,4]]') --dump logits -o "$tmp/b.logits" --progress none && cmp "$tmp/a.logits" "$tmp/b.logits"
ok $? "the imported stream has the logits of the file"
finish
