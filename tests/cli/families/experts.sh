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

# the closed form adds up over experts, each with the tokens that were routed to it
printf '*.self_attn.* keep\n' >"$tmp/plan"
for j in 1 2; do nt-quant $q -m "$m" -q rtn -b 3 -g 8 --plan "$tmp/plan" -o "$tmp/e.nts" && tweak -j $j --opt closed-form "$tmp/e.nts" -o "$tmp/cf.$j.nts" 2>"$tmp/stderr"; done
cmp "$tmp/cf.1.nts" "$tmp/cf.2.nts" && py closed "$m" "$tmp/s.nts" "$tmp/e.nts" "$tmp/cf.1.nts"
ok $? "closed form: the gain that NumPy finds, for any number of threads"

# from random weights, experts and what chooses them, too
"$PYTHON" tests/cli/families/families.py make "$tmp" >/dev/null
mkdir "$tmp/init" && "$PYTHON" -c 'import json, sys
c = json.load(open(sys.argv[1])); c.update(nt_init_seed=5, initializer_range=0.3, qkv_bias=False)
json.dump(c, open(sys.argv[2], "w"))' "$tmp/qwen2-moe-mixed/config.json" "$tmp/init/config.json"
for j in 1 2; do
    nt-tweak $q -j $j -m "$tmp/init" --tokens "$tmp/c.nts" --scope model --params all --loss ce --seq 16 --batch 2 --lr 3e-3 --steps 20 \
        --eval-every 5 --require-gain -o "$tmp/all.$j.nts" 2>"$tmp/stderr"; rc=$?
done
[ $rc = 0 ] && cmp "$tmp"/all.[12].nts; ok $? "--params all, the same bytes for any number of threads: $(tail -n 1 "$tmp/stderr" | cut -c 1-100)"
nt-pack $q -m "$tmp/init" --format hf -o "$tmp/all" "$tmp/all.1.nts" && py trained "$tmp/all" "$tmp/all.1.nts" \
    "$(nt-eval $q -m "$tmp/all" --tokens "$tmp/c.nts" --no-drift | awk -F '\t' '$2 == "ppl" { printf "%.7f", log($5) }')"
ok $? "packed: the verdict's cross-entropy, and every matrix in the stream"

# on the quantized stream: the ring, and make, layer by layer; what is done can move
quant="-b 3 -g 8 --static-groups --dead borrow $q"
ring() { # THREADS MODEL TOKENS OUT
    COLLECT_OPTS="$q -j $1" pipelines/ring.sh "$2" "$3" "$4" -q gptq -j "$1" $quant -- -j "$1" $q --lr 1e-2
}
recipe() { # DIR [VARIABLES AND TARGETS]
    "${MAKE:-make}" --no-print-directory -s -f pipelines/norm-tweak.mk DIR="$@" >"$tmp/stdout" 2>"$tmp/stderr"
}
for name in mixtral qwen2-moe-mixed qwen3-moe-mixed; do
    f=$tmp/$name c=$tmp/$name.c.nts
    "$PYTHON" tests/cli/nt-collect/tokens.py "$f.calib" 2 "$c"
    ring 1 "$f" "$c" "$tmp/r.1.nts" 2>"$tmp/stderr" && ring 2 "$f" "$c" "$tmp/r.2.nts" 2>"$tmp/stderr" && cmp "$tmp"/r.[12].nts
    ok $? "$name: the ring, the same bytes for any number of threads"
    options=(MODEL="$f" TOKENS="$c" GROUP=8 COLLECT_OPTS="$q" QUANT_OPTS="${quant#-b 3 -g 8 }" TWEAK_OPTS="$q --lr 1e-2")
    recipe "$tmp/mk" "${options[@]}" "$tmp/mk/q.0.nts" && recipe "$tmp/mk" "${options[@]}" bundle to="$tmp/b.tar.zst" &&
        recipe "$tmp/mk" "${options[@]}" && "$PYTHON" tests/cli/ring/ring.py same "$tmp/r.1.nts" "$tmp/mk/q.nts"
    ok $? "$name: make's layers are the ring's records"
    recipe "$tmp/far" from="$tmp/b.tar.zst" MODEL="$f" && cmp "$tmp/far/q.nts" "$tmp/mk/q.nts"; ok $? "$name: goes on from a bundle"
    rm -rf "$tmp"/{r.1.nts,r.2.nts,mk,far,b.tar.zst}
    for j in 1 2; do nt-eval $q -j $j -m "$f" --precision bf16 --ids "$f.ids" --dump logits,hidden,norm-grads -o "$tmp/bf16.$j" 2>"$tmp/stderr"; rc=$?; done
    if [ $rc = 71 ]; then skip "$name: no products in bf16 here"; continue; fi
    [ "$name" = qwen2-moe-mixed ] && near="0.2 0.2" || near="0.02 0.05" # there a token of the rounded model goes to another expert
    nt-eval $q -m "$f" --ids "$f.ids" --dump logits,hidden,norm-grads -o "$tmp/f32" && cmp "$tmp"/bf16.[12] && py near "$tmp/f32" "$tmp/bf16.1" $near
    ok $? "$name: bf16 is near f32, the same bytes for any number of threads"
    nt-collect $q --precision bf16 -m "$f" "$c" -o "$tmp/bs.nts" 2>"$tmp/stderr" && nt-quant $q -m "$f" -q gptq $quant "$tmp/bs.nts" -o "$tmp/bq.nts" 2>"$tmp/stderr"
    for j in 1 2; do nt-tweak $q -j $j --precision bf16 -m "$f" --tokens "$c" --lr 1e-2 "$tmp/bq.nts" -o "$tmp/bt.$j.nts" 2>"$tmp/stderr"; done
    cmp "$tmp"/bt.[12].nts; ok $? "$name: collect, gptq, tweak in bf16"
done

# K types of experts, and back from the file
py wide "$tmp/k.gguf" && nt-collect $q -m "$tmp/k.gguf" "$tmp/c.nts" -o "$tmp/ks.nts" 2>"$tmp/stderr" &&
    nt-quant $q -m "$tmp/k.gguf" -q kquant -b 3 --dead borrow "$tmp/ks.nts" -o "$tmp/kq.nts" 2>"$tmp/stderr" &&
    nt-pack $q -m "$tmp/k.gguf" "$tmp/kq.nts" --format gguf -o "$tmp/kp.gguf" 2>"$tmp/stderr" && py types "$tmp/kp.gguf" Q3_K
ok $? "kquant: experts as Q3_K $(tail -n 1 "$tmp/stderr")"
nt-eval $q -m "$tmp/k.gguf" --qweights "$tmp/kq.nts" --tokens "$tmp/c.nts" --no-drift >"$tmp/ka" && nt-eval $q -m "$tmp/kp.gguf" --tokens "$tmp/c.nts" --no-drift >"$tmp/kb" &&
    awk -F '\t' '$2 == "ppl" { n++; p[n] = $5 } END { d = p[1] / p[2] - 1; exit !(n == 2 && d < 1e-5 && d > -1e-5) }' "$tmp/ka" "$tmp/kb"
ok $? "kquant: the file's perplexity is the stream's"

# each layer's own window, rotation and experts in the quantized block: equal weights give equal outputs
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
