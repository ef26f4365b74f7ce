# SPDX-License-Identifier: Apache-2.0
# Bad input: one sentence, the right exit code, nothing left behind.
. tests/cli/nt-pack/lib.bash

quant -b 4 -g 32 --sym -o "$tmp/w4.nts" && quant -b 4 -g 32 --sym --layers 0:1 -o "$tmp/l0.nts" && quant -b 5 -g 32 -o "$tmp/w5.nts"
ok $? "streams made"
p="pack -m $hf --format hf -o $tmp/out"
size=$(stat -c %s "$tmp/w4.nts")
for n in 0 5 100 4096 $((size / 2)) $((size - 64)) $((size - 1)); do
    head -c "$n" "$tmp/w4.nts" >"$tmp/cut.nts"
    try "stream cut at byte $n" 65 'cut.nts' $p "$tmp/cut.nts"
done
cp "$tmp/w4.nts" "$tmp/flip.nts"; printf 'x' | dd of="$tmp/flip.nts" bs=1 seek=$((size / 2)) conv=notrunc 2>/dev/null
try "a damaged stream" 65 'flip.nts' $p "$tmp/flip.nts"
try "a missing layer" 65 'layer 1 is missing' $p "$tmp/l0.nts"
run "a missing layer that --layers allows" pack -m $hf --format hf --layers 0:1 -o "$tmp/part" "$tmp/l0.nts"
try "another model's stream" 65 'another model' pack -m tests/data/model/bias.gguf --format hf -o "$tmp/out" "$tmp/w4.nts"
try "no stream at all" 65 'stdin' $p </dev/null
try "no stream but text" 65 'no NTS stream|not an NTS stream' $p <(printf 'hello, this is a text of some length')
"$PYTHON" tests/cli/nt-collect/tokens.py tests/data/collect/ids.json 2 "$tmp/tokens.nts"
try "a stream of another kind" 65 'tokens.nts: .*qweights' $p "$tmp/tokens.nts"
try "a model that is not there" 65 'nowhere' pack -m "$tmp/nowhere" --format hf -o "$tmp/out" "$tmp/w4.nts"
mkdir "$tmp/cutmodel"; cp $hf/config.json "$tmp/cutmodel"; head -c 20000 $hf/model.safetensors >"$tmp/cutmodel/model.safetensors"
try "a model cut short" 65 'truncated' pack -m "$tmp/cutmodel" --format hf -o "$tmp/out" "$tmp/w4.nts"
try "an unknown format" 2 'unknown format' pack -m $hf --format zip -o "$tmp/out" "$tmp/w4.nts"
try "no format" 2 'one of --format' pack -m $hf -o "$tmp/out" "$tmp/w4.nts"
try "two actions" 2 'one of --format' pack -m $hf --format hf -t -o "$tmp/out" "$tmp/w4.nts"
try "no model" 2 'no model' pack --format hf -o "$tmp/out" "$tmp/w4.nts"
try "no output" 2 'no output' pack -m $hf --format hf "$tmp/w4.nts"
try "a template that is no GGUF" 65 'no GGUF' pack -m $hf --format gguf --like $hf -o "$tmp/out" "$tmp/w4.nts"
try "a template of another model" 65 'is no tensor of|another shape|with .* of the model' pack -m $hf --format gguf --like tests/data/model/bias.gguf -o "$tmp/out" "$tmp/w4.nts"
try "five bits as GPTQ" 65 'bits other than' pack -m $hf --format gptq -o "$tmp/out" "$tmp/w5.nts"
try "new norms that are not there" 65 'no tweaked norms' pack -m $hf --norms new --format hf -o "$tmp/out" "$tmp/w4.nts"
try "too little memory" 75 'memory' pack -m $hf --max-mem 1K --format hf -o "$tmp/out" "$tmp/w4.nts"
try "-t of no stream" 65 'stdin' pack -t </dev/null
nt-pack -t "$tmp/w4.nts" >/dev/full 2>"$tmp/stderr"; rc=$?; [ $rc = 74 ]; ok $? "-t to a full disk (exit $rc: $(tail -n 1 "$tmp/stderr"))"
nt-pack -m $gguf --format gguf "$tmp/w4.nts" -o /dev/full --progress none 2>"$tmp/stderr"; rc=$?
[ $rc = 74 ]; ok $? "gguf to a full disk (exit $rc: $(tail -n 1 "$tmp/stderr"))"
finish
