# SPDX-License-Identifier: Apache-2.0
# Every output format, read back by an oracle of its own (oracle.py).
. tests/cli/nt-pack/lib.bash

quant -b 4 -g 32 --sym -o "$tmp/w4.nts" && quant -b 3 -g 64 -o "$tmp/w3.nts" && quant -b 4 -g 0 -o "$tmp/w4a.nts" &&
    quant -b 8 -g 32 --sym -o "$tmp/w8.nts" && quant -b 2 -g 32 --sym -o "$tmp/w2.nts"
ok $? "streams made"
oracle retune "$tmp/w4.nts" "$tmp/good.nts" positive new && oracle retune "$tmp/w4.nts" "$tmp/bad.nts" negative old
ok $? "tweaked streams made"

for t in f32 f16 bf16; do
    run "hf $t" pack -m $hf "$tmp/w3.nts" --format hf --dtype $t -o "$tmp/hf-$t"
    run "hf $t: values" oracle hf "$tmp/w3.nts" $hf "$tmp/hf-$t" ${t^^}
done
run "hf from a GGUF model" pack -m $gguf "$tmp/w3.nts" --format hf -o "$tmp/hf-g"
run "hf from a GGUF model: values" oracle hf "$tmp/w3.nts" $hf "$tmp/hf-g" F32
cmp -s "$tmp/hf-g/model.safetensors" "$tmp/hf-f32/model.safetensors"; ok $? "the model's format does not matter"

run "hf in shards" pack -m $hf "$tmp/w3.nts" --format hf --max-shard-size 16K -o "$tmp/hf-s"
run "hf in shards: files and index" oracle shards "$tmp/hf-s" 16384
[ "$(cat "$tmp/stdout")" -gt 2 ]; ok $? "hf in shards: $(cat "$tmp/stdout") of them"
run "hf in shards: values" oracle hf "$tmp/w3.nts" $hf "$tmp/hf-s" F32
nt-quant --progress none -m "$tmp/hf-f32" -q rtn -b 4 -g 32 -o "$tmp/again.nts" 2>/dev/null
run "hf in shards: as a model, equal to the one file" pack -m "$tmp/hf-s" "$tmp/again.nts" --format hf -o "$tmp/hf-whole"
run "hf in shards: as a model, values" oracle hf "$tmp/again.nts" "$tmp/hf-f32" "$tmp/hf-whole" F32
run "gptq in shards" pack -m $hf "$tmp/w3.nts" --format gptq --max-shard-size 16K -o "$tmp/gptq-s"
run "gptq in shards: files and index" oracle shards "$tmp/gptq-s" 16384
run "gptq in shards: values" oracle gptq "$tmp/w3.nts" $hf "$tmp/gptq-s"

types() { oracle types "$1"; }
want() { [ "$(types "$1")" = "$2" ]; ok $? "$3: $(types "$1")"; }
run "gguf Q4_0" pack -m $gguf "$tmp/w4.nts" --format gguf -o "$tmp/w4.gguf"
run "gguf Q4_0: values" oracle gguf "$tmp/w4.nts" $hf "$tmp/w4.gguf" 16 $gguf
want "$tmp/w4.gguf" "BF16:2 F32:5 Q4_0:14" "symmetric 4-bit groups of 32 are Q4_0"
run "gguf from an HF model" pack -m $hf --like $gguf "$tmp/w4.nts" --format gguf -o "$tmp/w4h.gguf"
cmp -s "$tmp/w4.gguf" "$tmp/w4h.gguf"; ok $? "the model's format does not matter for GGUF"
run "gguf 3 bits" pack -m $gguf "$tmp/w3.nts" --format gguf -o "$tmp/w3.gguf"
run "gguf 3 bits: values" oracle gguf "$tmp/w3.nts" $hf "$tmp/w3.gguf" 16 $gguf
want "$tmp/w3.gguf" "BF16:2 F32:5 Q4_0:14" "asymmetric 3-bit groups of 64 are Q4_0"
run "gguf 4 bits per row" pack -m $gguf "$tmp/w4a.nts" --format gguf -o "$tmp/w4a.gguf"
run "gguf 4 bits per row: values" oracle gguf "$tmp/w4a.nts" $hf "$tmp/w4a.gguf" 16 $gguf
run "gguf 8 bits" pack -m $gguf "$tmp/w8.nts" --format gguf -o "$tmp/w8.gguf"
run "gguf 8 bits: values" oracle gguf "$tmp/w8.nts" $hf "$tmp/w8.gguf" 16 $gguf
want "$tmp/w8.gguf" "BF16:2 F32:5 Q8_0:14" "symmetric 8-bit groups of 32 are Q8_0"
quant -b 4 -g 24 -o "$tmp/odd.nts"
try "gguf, groups of 24 are refused" 65 'fit no block type .*--loose' pack -m $gguf "$tmp/odd.nts" --format gguf -o "$tmp/out.gguf"
run "gguf, groups of 24, --loose" pack --loose -m $gguf "$tmp/odd.nts" --format gguf -o "$tmp/odd.gguf"
grep -q 'fit no block type' "$tmp/stderr"; ok $? "codes that fit no block type are said aloud: $(grep -o '[0-9]* quantized tensors.*' "$tmp/stderr")"
run "gguf, groups of 24: values" oracle gguf "$tmp/odd.nts" $hf "$tmp/odd.gguf" 16 $gguf

for b in 2 3 4 8; do
    s=$tmp/w$b.nts
    run "gptq $b bits" pack -m $hf "$s" --format gptq -o "$tmp/gptq$b"
    run "gptq $b bits: values" oracle gptq "$s" $hf "$tmp/gptq$b"
done
run "gptq per row" pack -m $gguf "$tmp/w4a.nts" --format gptq -o "$tmp/gptq4a"
run "gptq per row: values" oracle gptq "$tmp/w4a.nts" $hf "$tmp/gptq4a"
run "gptq-v2, asymmetric" pack -m $hf "$tmp/w3.nts" --format gptq-v2 -o "$tmp/gptq-v2"
run "gptq-v2: values" oracle gptq "$tmp/w3.nts" $hf "$tmp/gptq-v2"
grep -q '"checkpoint_format": "gptq_v2"' "$tmp/gptq-v2/quantize_config.json"; ok $? "gptq-v2: it says so"
grep -q '"group_size": -1' "$tmp/gptq4a/quantize_config.json"; ok $? "group_size of whole rows is -1"

for w in good:new bad:old; do
    s=$tmp/${w%:*}.nts which=${w#*:}
    run "hf of a ${w%:*} tweak" pack -m $hf "$s" --format hf -o "$tmp/hf-${w%:*}"
    run "hf of a ${w%:*} tweak: $which norms" oracle hf "$s" $hf "$tmp/hf-${w%:*}" F32 "$which"
    run "gguf of a ${w%:*} tweak" pack -m $hf --like $gguf "$s" --format gguf -o "$tmp/${w%:*}.gguf"
    run "gguf of a ${w%:*} tweak: $which norms" oracle gguf "$s" $hf "$tmp/${w%:*}.gguf" 16 $gguf "$which"
    run "overlay of a ${w%:*} tweak" pack -m $hf "$s" --format overlay -o "$tmp/${w%:*}.safetensors"
    run "overlay of a ${w%:*} tweak: $which norms" oracle overlay "$s" "$tmp/${w%:*}.safetensors" "$which"
done
run "--norms new against the verdict" pack -m $hf "$tmp/bad.nts" --norms new --format overlay -o "$tmp/forced.safetensors"
run "--norms new: new norms" oracle overlay "$tmp/bad.nts" "$tmp/forced.safetensors" new
run "--norms old against the verdict" pack -m $hf "$tmp/good.nts" --norms old --format overlay -o "$tmp/old.safetensors"
run "--norms old: old norms" oracle overlay "$tmp/good.nts" "$tmp/old.safetensors" old

pack -m $hf --format gguf --like $gguf -j 1 -o "$tmp/j1.gguf" <"$tmp/w3.nts" && pack -m $hf --format gguf --like $gguf -j 3 -o "$tmp/j3.gguf" <"$tmp/w3.nts" &&
    cmp -s "$tmp/j1.gguf" "$tmp/j3.gguf" && cmp -s "$tmp/j1.gguf" "$tmp/w3.gguf"
ok $? "stdin, one thread, three threads: the same bytes"
pack -m $hf "$tmp/good.nts" --format overlay 2>/dev/null | cmp -s - "$tmp/good.safetensors"; ok $? "an overlay down a pipe"
pack -m $gguf "$tmp/w3.nts" --format gguf 2>/dev/null | cmp -s - "$tmp/w3.gguf"; ok $? "a GGUF down a pipe"
finish
