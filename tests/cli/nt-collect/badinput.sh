# SPDX-License-Identifier: Apache-2.0
# Bad options, bad tokens, bad models, too little memory, a full disk, a dead reader, a signal: one sentence, the exit
# code, no file.
. tests/cli/nt-collect/lib.bash
run=(nt-collect $quiet -m $tiny -o "$tmp/out.nts")
make_tokens() { "$PYTHON" $here/tokens.py "$1" "$2" "$3" ${4:-}; }

try "no model" 2 '\-m MODEL' nt-collect "$tmp/c.nts" -o "$tmp/out.nts"
try "unknown statistic" 2 "'variance'" "${run[@]}" "$tmp/c.nts" --want hessian,variance
try "rows without a number" 2 "'rows'" "${run[@]}" "$tmp/c.nts" --want rows
try "bad shard" 2 "'3/3'" "${run[@]}" "$tmp/c.nts" --shard 3/3
try "empty shard" 2 'shard 0/9 of 8' "${run[@]}" "$tmp/c.nts" --shard 0/9
try "two tokens streams" 2 'more than one' "${run[@]}" "$tmp/c.nts" --tokens "$tmp/c.nts"
try "layers the model lacks" 2 'layers' "${run[@]}" "$tmp/c.nts" --layers 2:5
try "unknown option" 2 'frobnicate' "${run[@]}" "$tmp/c.nts" --frobnicate

try "no such tokens file" 74 'nowhere' "${run[@]}" "$tmp/nowhere.nts"
: >"$tmp/empty"
try "empty tokens file" 65 'empty' "${run[@]}" "$tmp/empty"
try "empty stdin" 65 'stdin' "${run[@]}"
head -c 700 "$tmp/c.nts" >"$tmp/cut.nts"
try "tokens cut in a record" 65 'cut.nts.*(truncated|ends)' "${run[@]}" "$tmp/cut.nts"
head -c -64 "$tmp/c.nts" >"$tmp/cut.nts"
try "tokens cut in the trailer" 65 'cut.nts.*(truncated|ends)' "${run[@]}" "$tmp/cut.nts"
make_tokens $ids 2 "$tmp/kind.nts" acts
try "a stream of another kind" 65 'kind.nts.*acts' "${run[@]}" "$tmp/kind.nts"
echo '[[1, 2, 96]]' >"$tmp/ids"; make_tokens "$tmp/ids" 0 "$tmp/vocab.nts"
try "tokens of another vocabulary" 65 '96.*vocabulary' "${run[@]}" "$tmp/vocab.nts"
echo '[[1, 2, -1]]' >"$tmp/ids"; make_tokens "$tmp/ids" 0 "$tmp/vocab.nts"
try "a negative id" 65 'vocab.nts' "${run[@]}" "$tmp/vocab.nts"
echo '[]' >"$tmp/ids"; make_tokens "$tmp/ids" 0 "$tmp/none.nts"
try "no sequence" 65 'none.nts' "${run[@]}" "$tmp/none.nts"
make_tokens $ids 10 "$tmp/held.nts"
try "nothing but held-out sequences" 65 'no training sequence' "${run[@]}" "$tmp/held.nts"
"$PYTHON" -c 'import json; print(json.dumps([[i % 96 for i in range(65)]] * 2))' >"$tmp/ids"
make_tokens "$tmp/ids" 0 "$tmp/long.nts"
try "longer than the model's positions" 65 '65 tokens.*64 positions' "${run[@]}" "$tmp/long.nts"

# a model whose weights are damaged: TENSOR VALUE, the first element replaced by a bf16 value
damage() {
    rm -rf "$tmp/bad"; cp -r $tiny "$tmp/bad"
    "$PYTHON" $here/damage.py "$tmp/bad/model.safetensors" "$1" "$2"
}
bad=(nt-collect $quiet -m "$tmp/bad" -o "$tmp/out.nts" "$tmp/c.nts")
damage model.layers.1.mlp.down_proj.weight nan
try "NaN weight" 65 'model.layers.1.mlp.down_proj.weight.*finite' "${bad[@]}"
damage model.layers.0.self_attn.v_proj.weight inf
try "infinite weight" 65 'model.layers.0.self_attn.v_proj.weight.*finite' "${bad[@]}"
damage model.layers.0.mlp.down_proj.weight 3e38
try "activations that overflow" 65 'layer [01].*finite' "${bad[@]}"
damage model.layers.1.mlp.up_proj.weight 1e30
try "X'X that overflows" 65 'layer 1.*finite' "${bad[@]}"
rm -rf "$tmp/bad"; mkdir "$tmp/bad"; cp $tiny/config.json "$tmp/bad/"; head -c 20000 $tiny/model.safetensors >"$tmp/bad/model.safetensors"
try "model file cut" 65 'model.safetensors' "${bad[@]}"

try "more memory than allowed" 75 'max-mem' "${run[@]}" "$tmp/c.nts" --max-mem 4M
try "no directory for the output" 74 'missing' nt-collect $quiet -m $tiny "$tmp/c.nts" -o "$tmp/missing/out.nts"
[ -e /dev/full ] && try "full disk" 74 'No space' nt-collect $quiet -m $tiny "$tmp/c.nts" -o /dev/full
try "imatrix that cannot be written" 74 'missing' "${run[@]}" "$tmp/c.nts" --imatrix "$tmp/missing/im.gguf"

# a reader that is gone
unread nt-collect $quiet -m $tiny "$tmp/c.nts" 2>"$tmp/stderr"; rc=$?
[ "$rc" = 74 ]; ok $? "a dead reader ends the run (exit $rc)"

# a signal in the middle of the work: the trailer carries the reason, a file does not appear
"$PYTHON" -c 'import json; print(json.dumps([[(7 * i + j) % 96 for j in range(64)] for i in range(6000)]))' >"$tmp/ids"
make_tokens "$tmp/ids" 0 "$tmp/many.nts"
for i in 1 2 3 4; do cat "$tmp/many.nts"; done >"$tmp/more.nts"
terminated() { # ARGUMENTS: SIGTERM once the header is written
    struck TERM '[ -s "$tmp/stdout" ] || compgen -G "$tmp/.*out.nts*"' nt-collect $quiet -j 1 -m $tiny "$tmp/more.nts" "$@"; rc=$?
}
terminated
[ "$rc" = 143 ]; ok $? "SIGTERM ends the run (exit $rc: $(tail -n 1 "$tmp/stderr"))"
"$PYTHON" $here/stats.py status "$tmp/stdout" >"$tmp/status"
grep -q '^error .*signal' "$tmp/status"; ok $? "and its trailer says so ($(cat "$tmp/status"))"
terminated -o "$tmp/out.nts"
[ "$rc" = 143 ] && [ -z "$(ls -A "$tmp" | grep out.nts)" ]; ok $? "no file and no temporary is left (exit $rc)"
finish
