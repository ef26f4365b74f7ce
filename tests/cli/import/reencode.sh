# SPDX-License-Identifier: Apache-2.0
# One layout's codes in another: what both hold goes over number by number (reencode.py compares the imported streams, and the
# way back gives the first file's bytes), what the other does not hold is refused by a sentence that names nt-quant's option.
. tests/cli/import/lib.bash layouts.py
need_python
p() { "$PYTHON" tests/cli/import/reencode.py "$@"; }
pack() { nt-pack --progress none "$@"; }
stream() { import "$1" && [ -s "$1.nts" ]; }
for kind in gptq2 gptq3 gptq4 gptq4-sym gptq8 gptq4-order awq ct4 ct4-asym ct4-order ct8 mlx4; do
    lay "$kind" "$tmp/$kind" && stream "$tmp/$kind/q" || exit 1
done
ok 0 "checkpoints are made and imported"

# ---- GPTQ without act-order, AWQ, compressed-tensors: the same codes, scales and zeros, there and back ----

over() { # KIND FORMAT OPTION...: in that format, imported again, the same records
    pack -m "$tmp/$1/q" "$tmp/$1/q.nts" --format "$2" "${@:3}" -o "$tmp/$1/$2" && stream "$tmp/$1/$2" && p same "$tmp/$1/q.nts" "$tmp/$1/$2.nts"
}
back() { # KIND FROM TO SUFFIX...: and from there in its own again, the same bytes
    local d="$tmp/$1"
    pack -m "$d/$2" "$d/$2.nts" --format "$3" -o "$d/$2-$3" && lay compare "$d/$2-$3/model.safetensors" "$d/q/model.safetensors" "${@:4}"
}
gptq="qweight qzeros scales g_idx" awq="qweight qzeros scales" ct="weight_packed weight_scale weight_shape weight_zero_point"
for kind in gptq4:gptq:"$gptq" awq:awq:"$awq" ct4-asym:compressed-tensors:"$ct"; do
    IFS=: read -r name own parts <<<"$kind"
    for to in gptq gptq-v2 awq compressed-tensors; do
        check "$name as $to: the same codes, scales and zeros" over "$name" $to
        check "$name by way of $to: the same bytes" back "$name" $to "$own" $parts # a list of words
    done
done
check "gptq4-sym as compressed-tensors and back" eval 'over gptq4-sym compressed-tensors && back gptq4-sym compressed-tensors gptq $gptq'
check "gptq4-sym as awq: zeros of 8 are stored" over gptq4-sym awq
for kind in gptq2 gptq3 gptq8; do
    check "$kind as compressed-tensors and back" eval 'over $kind compressed-tensors && back $kind compressed-tensors gptq $gptq'
done
check "gptq4-order as compressed-tensors, with its index" over gptq4-order compressed-tensors
check "ct4-order as gptq, with its index" over ct4-order gptq

# ---- GGUF ----

hf=tests/data/pack/tiny gguf=tests/data/pack/tiny.gguf
made() { nt-quant --progress none -m $hf -q rtn "${@:2}" -o "$tmp/f.nts" && pack -m $hf "$tmp/f.nts" --format compressed-tensors -o "$tmp/$1" && stream "$tmp/$1"; }
types() { "$PYTHON" tests/cli/nt-pack/oracle.py types "$1" | grep -qw "$2"; }
as_gguf() { # NAME TYPE same|shifted OPTION...: from a checkpoint with these codes
    made "$1" "${@:4}" && pack -m "$tmp/$1" "$tmp/$1.nts" --format gguf --like $gguf -o "$tmp/$1.gguf" && types "$tmp/$1.gguf" "$2" &&
        stream "$tmp/$1.gguf" && p "$3" "$tmp/$1.nts" "$tmp/$1.gguf.nts"
}
check "symmetric 4 bits in groups of 32 are Q4_0: the same codes and scales" as_gguf s32 Q4_0 same -b 4 -g 32 --sym
check "of 64: the scale is repeated" as_gguf s64 Q4_0 same -b 4 -g 64 --sym
check "symmetric 8 bits are Q8_0: the same codes and scales" as_gguf s8 Q8_0 same -b 8 -g 32 --sym
check "asymmetric 4 bits are Q5_0: codes less their zeros, no minimum is rounded for Q4_1" as_gguf a4 Q5_0 shifted -b 4 -g 32
made a8 -b 8 -g 32
try "asymmetric 8 bits as GGUF" 65 'fit no block type of GGUF without loss: --loose stores .* nt-quant with --sym and -g 32, or from -q kquant, which quantize anew$' \
    pack -m "$tmp/a8" "$tmp/a8.nts" --format gguf --like $gguf -o "$tmp/out.gguf"
loose() {
    pack -m "$tmp/a8" "$tmp/a8.nts" --format gguf --like $gguf --loose -o "$tmp/a8.gguf" && stream "$tmp/a8.gguf" && values "$tmp/a8.gguf" "$tmp/a8.x" &&
        values "$tmp/a8" "$tmp/a8.y" && lay compare "$tmp/a8.x/model.safetensors" "$tmp/a8.y/model.safetensors" proj.weight
}
check "with --loose: floats, the same values" loose

# ---- what a layout does not hold ----

no() { try "$1 as $2" 65 "$3" pack -m "$tmp/$1/q" "$tmp/$1/q.nts" --format "$2" -o "$tmp/out" "${@:4}"; }
order='activation order, for which there is no index: not possible in --format [a-z]+ \(nt-quant -q gptq --act-order, which leaves groups in place, would quantize anew\)$'
no gptq4-order awq "$order"
no ct4-order mlx "$order"
no ct8 awq 'bits other than 4: .*\(nt-quant -b 4 would quantize anew\)$'
no mlx4 gptq 'has float minima .*\(nt-quant -q gptq would quantize anew\)$'
no mlx4 compressed-tensors 'has float minima .*\(nt-quant -q gptq would quantize anew\)$'

# ---- the layout that it came from, without a model: new norms and nothing else ----

same() { try "$1" "$2" "$3" pack --format same "${@:4}" -o "$tmp/out"; }
"$PYTHON" tests/cli/nt-pack/oracle.py rescale "$tmp/gptq4/q.nts" "$tmp/scaled.nts"
same "a scale that is another" 65 'layers.0.self_attn.q_proj.weight has other codes or scales than the checkpoint it came from' "$tmp/scaled.nts"
same "with -m" 2 'takes no -m' -m "$tmp/gptq4/q" "$tmp/gptq4/q.nts"
same "a stream that was not imported" 2 'no model: -m MODEL' <(nt-quant --progress none -m tests/data/pack/tiny -q rtn -b 4 -g 32)

# ---- BF16 scales: exact in F16 where its range has them, never clamped ----

for f in 1 2e-6 1e7; do
    p scaled "$tmp/ct4/q" "$tmp/bf$f/q" $f && stream "$tmp/bf$f/q"; ok $? "BF16 scales times $f"
    check "they stay as compressed-tensors" over bf$f compressed-tensors --dtype bf16
done
check "BF16 scales in F16's range as gptq" over bf1 gptq
check "and as awq" over bf1 awq
for f in 2e-6 1e7; do
    for to in gptq awq compressed-tensors; do
        no bf$f $to 'scales that F16 cannot hold exactly.*\(nt-quant --scale-dtype f16 would quantize anew\)$' --dtype f16
    done
done
finish
