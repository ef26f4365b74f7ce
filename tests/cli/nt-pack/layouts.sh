# SPDX-License-Identifier: Apache-2.0
# Linears in several tensors each: AWQ, compressed-tensors, MLX, GPTQ with settings that differ, read by numpy.
. tests/cli/nt-pack/lib.bash

for s in "2 32 --sym" "3 32" "3 32 --sym" "4 32 --sym" "4 32" "4 64" "4 0" "6 32" "8 32 --sym" "8 32" "5 32" "4 24"; do
    read -r b g sym <<<"$s"
    quant -b "$b" -g "$g" $sym -o "$tmp/w$b-$g$sym.nts" || exit 1 # $sym is one option or nothing
done
ok 0 "streams made"
# yes_ FORMAT LAYOUT NAME [OPTION...]: packs the stream and every value is as it should be
yes_() {
    local f=$1 l=$2 s=$3 d="$tmp/d-$2-$3"; shift 3
    run "$f $s $*" pack -m $hf "$tmp/w$s.nts" --format "$f" "$@" -o "$d"
    run "$f $s: values" oracle "$l" "$tmp/w$s.nts" $hf "$d"
}
no() { # no FORMAT NAME REASON [OPTION...]
    local f=$1 s=$2 why=$3; shift 3
    try "$f $s is refused" 65 "$why" pack -m $hf "$tmp/w$s.nts" --format "$f" "$@" -o "$tmp/out"
}
for s in 4-32 4-32--sym 4-64 4-0; do yes_ awq awq $s; done
no awq 3-32 'other than 4'
no awq 8-32 'other than 4'
no awq 4-24 'cut into equal ones'
for s in 2-32--sym 3-32 3-32--sym 4-32 4-32--sym 4-64 4-0 5-32 6-32 8-32 8-32--sym; do yes_ compressed-tensors ct $s; done
no compressed-tensors 4-24 'cut into equal ones'
no compressed-tensors 4-32 'BF16 cannot hold' --dtype bf16
for s in 2-32--sym 3-32 4-32 4-32--sym 4-64 4-0 6-32 8-32 8-32--sym; do yes_ mlx mlx $s; done
no mlx 5-32 'other than 2, 3, 4, 6, 8'
no mlx 4-24 'cut into ones of'
oracle kinds "$tmp/d-mlx-4-32--sym" biases F16 && oracle kinds "$tmp/d-mlx-4-32" biases F32
ok $? "mlx: biases are F16 where that holds them, else F32"

# settings that differ from linear to linear
oracle mix "$tmp/w4-32.nts" "$tmp/w8-32--sym.nts" down_proj "$tmp/wmix.nts"; ok $? "a stream of two settings"
yes_ gptq gptq mix
yes_ compressed-tensors ct mix
yes_ mlx mlx mix
no awq mix 'other than 4'
oracle mix "$tmp/w4-32.nts" "$tmp/w4-32--sym.nts" down_proj "$tmp/wmix4.nts"
no awq mix4 'one setting for all'
oracle order "$tmp/w4-32.nts" "$tmp/worder.nts"; ok $? "a stream with groups by activation order"
yes_ gptq gptq order
yes_ compressed-tensors ct order
grep -q 'weight_g_idx' "$tmp/stderr" || pack -m $hf "$tmp/worder.nts" --format compressed-tensors -o "$tmp/again" 2>&1 | grep -q weight_g_idx
ok $? "compressed-tensors warns of weight_g_idx"
no awq order 'activation order'
no mlx order 'activation order'

for s in 3-32 8-32--sym; do yes_ gptq gptq $s; done
# what nt-quant -q import reads of them leaves as it came
for x in awq:4-64 awq:4-32 gptq:3-32 gptq:8-32--sym gptq:mix gptq:order; do
    d=$tmp/d-${x/:/-}
    nt-quant --progress none -q import "$d" -o "$tmp/i.nts" 2>"$tmp/stderr" &&
        pack -m "$d" "$tmp/i.nts" --format ${x%:*} -o "$tmp/again-$x" 2>"$tmp/stderr" &&
        cmp -s "$d/model.safetensors" "$tmp/again-$x/model.safetensors"
    ok $? "$x: imported and packed again, the same bytes $(tail -n 1 "$tmp/stderr" | cut -c 1-120)"
done

for f in awq compressed-tensors mlx; do
    pack -m $hf "$tmp/w4-32.nts" --format $f -j 1 -o "$tmp/j1-$f" 2>/dev/null && pack -m $gguf "$tmp/w4-32.nts" --format $f -j 3 -o "$tmp/j3-$f" 2>/dev/null &&
        cmp -s "$tmp/j1-$f/model.safetensors" "$tmp/j3-$f/model.safetensors"
    ok $? "$f: the same bytes from one thread and three, from either form of the model"
    run "$f in shards" pack -m $hf "$tmp/w4-32.nts" --format $f --max-shard-size 16K -o "$tmp/s-$f"
    run "$f in shards: files and index" oracle shards "$tmp/s-$f" 16384
done
finish
