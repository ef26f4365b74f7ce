# SPDX-License-Identifier: Apache-2.0
# Routed experts: statistics of each with its count, what nt-quant does with one that no token reached, what is refused.
. tests/tap.bash
need_python
q="--progress none"
py() { "$PYTHON" tests/cli/families/experts.py "$@"; }
m=$tmp/m
py model "$m" && "$PYTHON" - "$tmp/ids" <<'P' && "$PYTHON" tests/cli/nt-collect/tokens.py "$tmp/ids" 2 "$tmp/c.nts"; ok $? "a model, 14 sequences of 32 tokens"
import json, random, sys
random.seed(1)
json.dump([[random.randrange(43) for _ in range(32)] for _ in range(14)], open(sys.argv[1], "w"))
P
nt-collect $q -m "$m" "$tmp/c.nts" -j 1 --imatrix "$tmp/im.gguf" -o "$tmp/s.nts" 2>"$tmp/stderr" &&
    nt-collect $q -m "$m" "$tmp/c.nts" -j 3 -o "$tmp/s3.nts" 2>"$tmp/stderr" && cmp "$tmp/s.nts" "$tmp/s3.nts"
ok $? "nt-collect: the same bytes for any number of threads"
py counts "$tmp/s.nts" $((12 * 32)) 1 "$tmp/im.gguf"; ok $? "counts add up, and are those of the importance matrix"
for i in 0 1; do nt-collect $q -m "$m" "$tmp/c.nts" --shard $i/2 -o "$tmp/s.$i.nts" 2>"$tmp/stderr"; done
nt-stream merge "$tmp/s.0.nts" "$tmp/s.1.nts" -o "$tmp/merged.nts" 2>"$tmp/stderr"; ok $? "shards merge, one of them without tokens for an expert, too"

gptq() { nt-quant $q -m "$m" -q gptq -b 3 -g 8 --static-groups "$@"; }
try "a dead expert is an error" 65 "layer 1: 0 tokens were routed to expert 4, at least 1 are needed" gptq "$tmp/s.nts" -o "$tmp/out.nts"
try "of the merged shards, too" 65 "layer 1: 0 tokens were routed to expert 4" gptq "$tmp/merged.nts" -o "$tmp/out.nts"
try "too few tokens" 65 "layer 0: .* tokens were routed to expert .*, at least 100000 are" gptq "$tmp/s.nts" --dead-below 100000 -o "$tmp/out.nts"
check "--dead rtn" gptq "$tmp/s.nts" --dead rtn -o "$tmp/r.nts"
grep -q 'layer 1: 1 of 5 experts are dead and rounded to nearest: 4' "$tmp/stderr"; ok $? "that is said"
nt-quant $q -m "$m" -q rtn -b 3 -g 8 -o "$tmp/rtn.nts" && py same "$tmp/r.nts" "$tmp/rtn.nts" yes
ok $? "its codes are rtn's"
check "--dead borrow" gptq "$tmp/s.nts" --dead borrow -o "$tmp/b.nts"
py borrowed "$tmp/s.nts" "$tmp/sb.nts" && gptq "$tmp/sb.nts" -o "$tmp/bb.nts" 2>"$tmp/stderr" && py same "$tmp/b.nts" "$tmp/bb.nts" yes
ok $? "its codes are those for the sum of the experts' X'X"
py same "$tmp/b.nts" "$tmp/rtn.nts" no; ok $? "and not rtn's"
printf '*.1.*.experts.4.* rtn 3 8\n' >"$tmp/plan"
check "with a plan that rounds it, it is not dead" gptq "$tmp/s.nts" --plan "$tmp/plan" -o "$tmp/p.nts"
printf '*.1.*.experts.4.* keep\n' >"$tmp/plan"
check "nor with one that keeps it" gptq "$tmp/s.nts" --plan "$tmp/plan" -o "$tmp/k.nts"

tweak() { nt-tweak $q -m "$m" --tokens "$tmp/c.nts" "$@"; }
for j in 1 3; do tweak -j $j "$tmp/b.nts" -o "$tmp/t.$j.nts" 2>"$tmp/stderr"; done
cmp "$tmp/t.1.nts" "$tmp/t.3.nts"; ok $? "nt-tweak: the same bytes for any number of threads"
check "model scope, norms and scales" tweak "$tmp/b.nts" --scope model --params norms+scales --steps 2 --batch 1 -o "$tmp/ms.nts"
try "no closed form" 2 "closed-form does not know experts" tweak --opt closed-form "$tmp/b.nts" -o "$tmp/out.nts"

# each layer's own window, rotation and experts in the quantized block: equal weights give equal outputs
"$PYTHON" tests/cli/families/families.py make "$tmp" >/dev/null
for name in gemma3 smollm3 qwen2-moe-mixed; do
    "$PYTHON" tests/cli/nt-collect/tokens.py "$tmp/$name.calib" 2 "$tmp/g.nts" && nt-quant $q -m "$tmp/$name" -q import -o "$tmp/i.nts" &&
        nt-tweak $q -m "$tmp/$name" --tokens "$tmp/g.nts" --iters 0 "$tmp/i.nts" -o "$tmp/it.nts" 2>"$tmp/stderr" && py kl "$tmp/it.nts"
    ok $? "$name: float weights as codes differ by nothing"
done

for name in mixtral qwen2-moe-mixed; do
    nt-quant $q -m "$tmp/$name" -q rtn -b 4 -g 8 -o "$tmp/apart.nts" && py together $name "$tmp/$name-together" &&
        nt-quant $q -m "$tmp/$name-together" -q rtn -b 4 -g 8 -o "$tmp/together.nts" && cmp "$tmp/apart.nts" "$tmp/together.nts" &&
        nt-eval $q -m "$tmp/$name-together" --ids "$tmp/$name.ids" --dump logits,hidden,norm-grads -o "$tmp/$name.out" &&
        "$PYTHON" tests/cli/families/families.py compare "$tmp" "" "$name"
    ok $? "$name: experts in tensors of all of them"
    nt-pack $q -m "$tmp/$name-together" "$tmp/together.nts" --format hf --dtype f32 -o "$tmp/a" &&
        nt-pack $q -m "$tmp/$name" "$tmp/together.nts" --format hf --dtype f32 -o "$tmp/b" && cmp "$tmp"/[ab]/model.safetensors
    ok $? "$name: they leave one by one"; rm -rf "$tmp"/[ab]
done

config() { # JSON MODEL PATTERN
    mkdir -p "$tmp/bad" && cp "$tmp/$2/model.safetensors" "$tmp/bad" &&
        "$PYTHON" -c 'import json, sys; c = json.load(open(sys.argv[1])); c.update(json.loads(sys.argv[2])); json.dump(c, open(sys.argv[3], "w"))' \
            "$tmp/$2/config.json" "$1" "$tmp/bad/config.json"
    try "$2 with $1" 65 "$3" nt-quant $q -m "$tmp/bad" -q rtn -o "$tmp/out.nts"
}
config '{"num_experts_per_tok": 7}' qwen3-moe 'num_experts_per_tok: 7 of 6 experts'
config '{"num_experts": 600}' qwen3-moe 'num_experts: 600, at most 511'
config '{"num_experts": 7}' qwen3-moe 'shape \[6, 24\], expected \[7, 24\]|experts.6.gate_proj.weight is missing'
config '{"num_experts": 5}' qwen3-moe 'shape \[6, 24\], expected \[5, 24\]|experts.5.* is no part'
config '{"mlp_only_layers": "all"}' qwen3-moe 'mlp_only_layers is no list'
config '{"decoder_sparse_step": 0}' qwen3-moe 'decoder_sparse_step'
config '{"norm_topk_prob": 1}' qwen3-moe 'norm_topk_prob'
config '{"mlp_only_layers": [0]}' qwen3-moe 'layers.0.mlp.gate_proj.weight is missing'
config '{"routed_scaling_factor": 2.5}' mixtral 'routed_scaling_factor changes'
finish
