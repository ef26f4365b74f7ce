# SPDX-License-Identifier: Apache-2.0
# Norms into finished checkpoints: --norms-into and --apply change the norms and nothing else, or refuse.
. tests/cli/nt-pack/lib.bash

quant -b 4 -g 32 --sym -o "$tmp/w4.nts" && quant -b 3 -g 32 -o "$tmp/w3.nts" && oracle retune "$tmp/w4.nts" "$tmp/nt.nts" positive new
ok $? "streams made"
pack -m $gguf "$tmp/w4.nts" --format gguf -o "$tmp/c.gguf" && pack -m $hf "$tmp/w4.nts" --format hf -o "$tmp/c-f32" &&
    pack -m $hf "$tmp/w4.nts" --format hf --dtype bf16 -o "$tmp/c-bf16" && pack -m $hf "$tmp/w4.nts" --format gptq -o "$tmp/c-gptq" &&
    pack -m $hf "$tmp/nt.nts" --format overlay -o "$tmp/o.safetensors"
ok $? "checkpoints made"
echo '{"a": 1}' >"$tmp/c-f32/tokenizer.json"

# same NAME FROM TO: the oracle's count of changed elements is what nt-pack printed
same() {
    local n; n=$(oracle norms "$tmp/nt.nts" "$2" "$3" new 2>"$tmp/oracle") && [ "$n" -gt 0 ] && grep -q "^changed	$n\$" "$tmp/stdout"
    ok $? "$1: only the norms differ, $n elements$(tail -n 1 "$tmp/oracle")"
}
run "--norms-into a GGUF" pack "$tmp/nt.nts" --norms-into "$tmp/c.gguf" -o "$tmp/n.gguf"
same "GGUF" "$tmp/c.gguf" "$tmp/n.gguf"
for c in f32 bf16 gptq; do
    run "--norms-into a directory ($c)" pack --norms-into "$tmp/c-$c" -o "$tmp/n-$c" <"$tmp/nt.nts"
    same "directory ($c)" "$tmp/c-$c/model.safetensors" "$tmp/n-$c/model.safetensors"
    diff -rq --exclude=model.safetensors --exclude=nt-norms.json "$tmp/c-$c" "$tmp/n-$c"; ok $? "directory ($c): every other file is a copy"
done
run "--norms-into one safetensors file" pack "$tmp/nt.nts" --norms-into "$tmp/c-f32/model.safetensors" -o "$tmp/n.safetensors"
cmp -s "$tmp/n.safetensors" "$tmp/n-f32/model.safetensors"; ok $? "the file is that of the directory"

run "--apply to a GGUF" pack --apply "$tmp/o.safetensors" -m "$tmp/c.gguf" -o "$tmp/a.gguf"
cmp -s "$tmp/a.gguf" "$tmp/n.gguf"; ok $? "--apply gives what --norms-into gives"
for c in f32 gptq; do
    run "--apply to a directory ($c)" pack --apply "$tmp/o.safetensors" -m "$tmp/c-$c" -o "$tmp/a-$c"
    cmp -s "$tmp/a-$c/model.safetensors" "$tmp/n-$c/model.safetensors"; ok $? "--apply to a directory ($c) as --norms-into"
done
run "--apply --unchecked" pack --apply "$tmp/o.safetensors" --unchecked -m "$tmp/c-bf16" -o "$tmp/a-bf16"
cmp -s "$tmp/a-bf16/model.safetensors" "$tmp/n-bf16/model.safetensors"; ok $? "--unchecked as --norms-into"

pack -m $gguf "$tmp/w3.nts" --format gguf -o "$tmp/other.gguf" && pack -m $hf "$tmp/w3.nts" --format hf -o "$tmp/other-hf" &&
    pack -m $hf "$tmp/w3.nts" --format gptq -o "$tmp/other-gptq"
for c in other.gguf other-hf other-gptq; do
    try "--norms-into a checkpoint of other codes ($c)" 65 'not those of|supported|missing or of another' \
        pack "$tmp/nt.nts" --norms-into "$tmp/$c" -o "$tmp/out"
    try "--apply to a checkpoint of other codes ($c)" 65 'not those that|missing or of another' \
        pack --apply "$tmp/o.safetensors" -m "$tmp/$c" -o "$tmp/out"
done
try "--norms-into the float model" 65 'not those of' pack "$tmp/nt.nts" --norms-into $hf -o "$tmp/out"
try "--apply to bf16 without --unchecked" 65 'not those that' pack --apply "$tmp/o.safetensors" -m "$tmp/c-bf16" -o "$tmp/out"
try "--apply of a model" 65 'no overlay' pack --apply $hf/model.safetensors -m "$tmp/c.gguf" -o "$tmp/out"
try "--apply without a checkpoint" 2 'no checkpoint' pack --apply "$tmp/o.safetensors" -o "$tmp/out"
mkdir "$tmp/there"
nt-pack "$tmp/nt.nts" --norms-into "$tmp/c-f32" -o "$tmp/there" 2>"$tmp/stderr"; rc=$?
[ $rc = 74 ] && grep -q "there: exists" "$tmp/stderr" && [ -z "$(ls -A "$tmp/there")" ]; ok $? "an existing directory is refused (exit $rc: $(tail -n 1 "$tmp/stderr"))"
run "norms that are the old ones" pack "$tmp/w4.nts" --norms-into "$tmp/c.gguf" -o "$tmp/same.gguf"
cmp -s "$tmp/c.gguf" "$tmp/same.gguf" && grep -q '^changed	0$' "$tmp/stdout" && grep -q 'no element' "$tmp/stderr"
ok $? "nothing changed: the same bytes, and it is said"
finish
