# SPDX-License-Identifier: Apache-2.0
"""Random tiny models of every family against transformers in float64.
sweep.py make DIR SEED N [FAMILY ...]: N of each family as DIR/NAME in one of the layouts below, NAME.ids, NAME.expected.safetensors
(as of tests/data/families/make.py), a line NAME each on stdout.
sweep.py compare DIR: DIR/NAME.out (a dump) against the latter; lines 'STATUS NAME: ...'.
sweep.py packed DIR: the directories DIR/NAME.hf compute the logits of tests/data/families in transformers.
A family is a function of a random generator that returns class, keys of config.json and, if they differ, how to compare.
Sizes are what the committed models do not have: heads that do not fill the hidden size, odd counts, prime vocabularies, 1 to 4 layers,
sequences longer than windows and than the longest position of a rope."""
import glob
import json
import os
import random
import shutil
import sys
import tempfile

import numpy as np

sys.path[:0] = [os.path.join("tests", "data", "families"), os.path.join("tests", "cli", "families")]
import families  # noqa: E402
import weights  # noqa: E402

FULL, SLIDING = "full_attention", "sliding_attention"
LAYOUTS = ("safetensors", "sharded safetensors", "bin", "sharded bin", "saved config")
ACTS = ("silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "quick_gelu", "gelu_fast", "relu2")


def sizes(r, head_dim, spelling=None):
    """head_dim: the family has that key, so that hidden is any multiple of the number of heads (which some classes insist on)."""
    G, per, E = r.choice((1, 1, 2, 3, 5)), r.choice((1, 2, 3)), r.choice((4, 6, 8, 10, 12, 18, 20))
    c = dict(vocab_size=r.choice((31, 37, 53, 61, 97)), num_hidden_layers=r.choice((1, 2, 3, 4)), num_attention_heads=G * per,
             num_key_value_heads=G, hidden_size=G * per * (r.randrange(3, 17) if head_dim else E),
             intermediate_size=r.randrange(5, 60), max_position_embeddings=r.choice((8, 16, 40)), pad_token_id=0)
    if head_dim:
        c["head_dim"] = E
    return c, E


def maybe(r, c, p=0.5, **keys):
    """Each key with probability p; a value that is a tuple is chosen from."""
    for k, v in keys.items():
        if r.random() < p:
            c[k] = r.choice(v) if isinstance(v, tuple) else v


def rope(r, c, E, partial=None):
    """One of the kinds of scaling in one of the spellings; partial: dimensions come from this share of a head."""
    dims = int(E * (partial or 1))
    kind = r.choice(("none", "theta", "linear", "dynamic", "yarn", "llama3"))
    theta = r.choice((100.0, 700.0, 50000.0))
    s = {"rope_type": kind, "factor": r.choice((1.5, 2.0, 8.0))}
    if kind == "none" or (kind == "dynamic" and dims < 4):
        return
    if kind == "theta":
        s = {"rope_type": "default"}
    if kind == "yarn":
        s["original_max_position_embeddings"] = r.choice((6, 8, 32))
        maybe(r, s, 0.3, beta_fast=(16.0, 4.0), beta_slow=(2.0, 0.5), attention_factor=1.3, truncate=False)
        if r.random() < 0.3:
            s.update(mscale=0.8, mscale_all_dim=0.5)
    if kind == "llama3":
        s.update(low_freq_factor=r.choice((1.0, 2.0)), high_freq_factor=4.0, original_max_position_embeddings=r.choice((6, 16)))
    if r.random() < 0.5:
        c["rope_parameters"] = dict(s, rope_theta=theta, **({"partial_rotary_factor": partial} if partial else {}))
    else:
        c["rope_theta"] = theta
        if kind != "theta":
            s[r.choice(("rope_type", "type"))] = s.pop("rope_type")
            c["rope_scaling"] = s


def plain(r, head_dim=True, **keys):
    c, E = sizes(r, head_dim)
    rope(r, c, E)
    maybe(r, c, hidden_act=ACTS, rms_norm_eps=(1e-5, 1e-3), tie_word_embeddings=(True, False))
    maybe(r, c, **keys)
    return c


def types(r, c, p=0.5):
    if r.random() < p:
        c["layer_types"] = [r.choice((FULL, SLIDING)) for _ in range(c["num_hidden_layers"])]


def llama(r):
    return "LlamaForCausalLM", plain(r, attention_bias=True, mlp_bias=True, pretraining_tp=1)


def mistral(r):
    return "MistralForCausalLM", dict(plain(r), sliding_window=r.choice((1, 3, 5, None)))


def qwen(n):
    def family(r):
        c = plain(r, n == 3, **({"attention_bias": True} if n == 3 else {}))
        maybe(r, c, use_sliding_window=True, sliding_window=(2, 5), max_window_layers=(0, 1, 2))
        if c.get("use_sliding_window") and c.get("sliding_window"):
            types(r, c)
        return "Qwen%dForCausalLM" % n, c
    return family


def routed(r, c, sparse, both=True):
    """both: the class knows either name of their number."""
    X = r.choice((2, 3, 7))
    c[r.choice(("num_experts", "num_local_experts")) if both else "num_experts"] = X
    c["num_experts_per_tok"] = r.randrange(1, X + 1)
    if sparse:
        c["moe_intermediate_size"] = r.randrange(3, 30)
        maybe(r, c, norm_topk_prob=(True, False), decoder_sparse_step=(1, 2), mlp_only_layers=([], [0], [1]))


def mixtral(r):
    c = plain(r, sliding_window=(3, None))
    routed(r, c, False)
    return "MixtralForCausalLM", c


def qwen2_moe(r):
    c = plain(r, False, qkv_bias=(True, False), use_sliding_window=True, sliding_window=(2, 5), max_window_layers=(0, 1, 2))
    routed(r, c, True, False)
    c["shared_expert_intermediate_size"] = r.randrange(3, 30)
    return "Qwen2MoeForCausalLM", c


def qwen3_moe(r):
    c = plain(r, attention_bias=True, use_sliding_window=True, sliding_window=(2, 5))
    routed(r, c, True)
    return "Qwen3MoeForCausalLM", c


def gemma(r):
    return "GemmaForCausalLM", plain(r, attention_bias=True)


def gemma2(r):
    c = plain(r, attention_bias=True, query_pre_attn_scalar=(7, 30), attn_logit_softcapping=(2.0, None),
              final_logit_softcapping=(1.5, None), hidden_activation=ACTS)
    types(r, c)
    return "Gemma2ForCausalLM", dict(c, sliding_window=r.choice((2, 5)))


def gemma3_text(r):
    c, E = sizes(r, True)
    maybe(r, c, attention_bias=True, query_pre_attn_scalar=(7, 30), final_logit_softcapping=(1.5, None), hidden_activation=ACTS,
          rms_norm_eps=(1e-5, 1e-3), tie_word_embeddings=(True, False))
    if r.random() < 0.5:
        c["rope_parameters"] = {FULL: {"rope_type": "linear", "factor": 4.0, "rope_theta": 9000.0},
                                SLIDING: {"rope_type": "default", "rope_theta": 80.0}}
    else:
        maybe(r, c, rope_theta=(50.0, 9000.0), rope_local_base_freq=(30.0, 500.0),
              rope_scaling=({"rope_type": "linear", "factor": 8.0}, None))
    types(r, c)
    if "layer_types" not in c:
        maybe(r, c, sliding_window_pattern=(1, 2, 3))
    return "Gemma3ForCausalLM", dict(c, sliding_window=r.choice((2, 5)))


def partial(r, c, E, shares):
    """A share of the head that gives an even number of dimensions."""
    share = r.choice([p for p in shares if int(E * p) % 2 == 0 and int(E * p) >= 2] or [1.0])
    c["partial_rotary_factor"] = share
    return share


def phi3(r):
    c, E = sizes(r, False)
    maybe(r, c, hidden_act=ACTS, rms_norm_eps=(1e-3,), tie_word_embeddings=(True, False), sliding_window=(3, None))
    share = partial(r, c, E, (0.5, 0.75, 1.0))
    if r.random() < 0.6:
        c.update(original_max_position_embeddings=r.choice((6, 8, 40)), max_position_embeddings=r.choice((40, 64)))
        n = int(E * share) // 2
        c["rope_scaling"] = {"type": "longrope", "short_factor": [1 + r.random() for _ in range(n)],
                             "long_factor": [1 + 9 * r.random() for _ in range(n)]}
    maybe(r, c, rope_theta=(300.0, 50000.0))
    return "Phi3ForCausalLM", c


def phi(r):
    c, E = sizes(r, False)
    rope(r, c, E, partial(r, c, E, (0.25, 0.4, 0.5, 1.0)))
    maybe(r, c, hidden_act=ACTS, layer_norm_eps=(1e-3,), tie_word_embeddings=(True, False), qk_layernorm=True)
    return "PhiForCausalLM", c


def stablelm(r):
    c, E = sizes(r, False)
    rope(r, c, E, partial(r, c, E, (0.25, 0.4, 0.5, 1.0)))
    maybe(r, c, hidden_act=ACTS, layer_norm_eps=(1e-3,), tie_word_embeddings=(True, False), qk_layernorm=True, use_qkv_bias=True,
          use_parallel_residual=True)
    return "StableLmForCausalLM", c


def olmo(r):
    return "OlmoForCausalLM", plain(r, False, attention_bias=True, clip_qkv=(0.3, None))


def olmo2(r):
    return "Olmo2ForCausalLM", plain(r, False, attention_bias=True)


def smollm3(r):
    c = plain(r, False, attention_bias=True, mlp_bias=True, no_rope_layer_interval=(1, 2, 3))
    if r.random() < 0.5:
        c["no_rope_layers"] = [r.choice((0, 1)) for _ in range(c["num_hidden_layers"])]
    maybe(r, c, use_sliding_window=True, sliding_window=(2, 5))
    if c.get("use_sliding_window") and c.get("sliding_window"):
        types(r, c)
    return "SmolLM3ForCausalLM", c


def granite(r):
    return "GraniteForCausalLM", plain(r, False, attention_bias=True, mlp_bias=True, embedding_multiplier=(5.0, 0.3),
                                       residual_multiplier=(0.3, 1.4), attention_multiplier=(0.1, 0.5), logits_scaling=(2.0, 0.7))


def cohere(r):
    c, E = sizes(r, False)
    rope(r, c, E)
    maybe(r, c, hidden_act=ACTS, layer_norm_eps=(1e-3,), tie_word_embeddings=(True, False), attention_bias=True, use_qk_norm=True,
          logit_scale=(0.3, 2.0))
    return "CohereForCausalLM", c


def cohere2(r):
    c, E = sizes(r, True)
    rope(r, c, E)
    maybe(r, c, hidden_act=ACTS, layer_norm_eps=(1e-3,), tie_word_embeddings=(True, False), attention_bias=True, logit_scale=(0.3, 2.0))
    types(r, c)
    if "layer_types" not in c:
        maybe(r, c, sliding_window_pattern=(1, 2, 3))
    return "Cohere2ForCausalLM", dict(c, sliding_window=r.choice((2, 5)))


def glm(hf_class):
    def family(r):
        c, E = sizes(r, True)
        rope(r, c, E, partial(r, c, E, (0.25, 0.5, 0.75, 1.0)))
        maybe(r, c, hidden_act=ACTS, rms_norm_eps=(1e-3,), tie_word_embeddings=(True, False), attention_bias=(True, False))
        return hf_class, c
    return family


def chatglm(r):
    """GLM in its authors' layout, whose class is no part of transformers: without gradients, whose names are GLM's."""
    c, E = sizes(r, True)
    c["head_dim"] = r.choice((4, 8, 12, 20))
    return "GlmForCausalLM", dict(c, attention_bias=True), {"model_type": "glm"}


def gpt_names(r, **keys):
    c, E = sizes(r, False)
    c = dict(vocab_size=c["vocab_size"], n_positions=r.choice((17, 40)), n_embd=c["hidden_size"], n_layer=c["num_hidden_layers"],
             n_head=c["num_attention_heads"])
    maybe(r, c, n_inner=(7, 41, None), activation_function=ACTS, layer_norm_epsilon=(1e-3,), tie_word_embeddings=(True, False))
    maybe(r, c, **keys)
    return c, E


def gpt2(r):
    return "GPT2LMHeadModel", gpt_names(r, scale_attn_weights=False, scale_attn_by_inverse_layer_idx=True)[0]


def gptj(r):
    c, E = gpt_names(r)
    c["rotary_dim"] = r.randrange(2, E + 1, 2)
    return "GPTJForCausalLM", c


def gpt_neox(r):
    c, E = sizes(r, False)
    del c["num_key_value_heads"]
    share = partial(r, c, E, (0.25, 0.4, 0.5, 1.0))
    c["rotary_pct"] = c.pop("partial_rotary_factor")
    c["rotary_emb_base"] = r.choice((100, 10000))
    maybe(r, c, hidden_act=ACTS, layer_norm_eps=(1e-3,), tie_word_embeddings=(True, False), use_parallel_residual=(True, False),
          attention_bias=(True, False))
    if int(E * share) >= 4:
        maybe(r, c, rope_scaling=({"type": "linear", "factor": 3.0}, {"type": "dynamic", "factor": 3.0}))
    return "GPTNeoXForCausalLM", c


def opt(r):
    c, _ = sizes(r, False)
    del c["num_key_value_heads"]
    c.update(ffn_dim=c.pop("intermediate_size"), max_position_embeddings=r.choice((17, 40)),
             word_embed_proj_dim=r.choice((c["hidden_size"], 11)))
    maybe(r, c, activation_function=ACTS, do_layer_norm_before=(True, False), enable_bias=(True, False),
          layer_norm_elementwise_affine=(True, False), _remove_final_layer_norm=True, tie_word_embeddings=(True, False))
    return "OPTForCausalLM", c


def bloom(r):
    c, E = sizes(r, False)
    c = dict(vocab_size=c["vocab_size"], hidden_size=c["hidden_size"], n_layer=c["num_hidden_layers"], n_head=c["num_attention_heads"])
    maybe(r, c, layer_norm_epsilon=(1e-3,), apply_residual_connection_post_layernorm=True, tie_word_embeddings=(True, False))
    return "BloomForCausalLM", c


def falcon(r):
    c, E = sizes(r, False)
    G = c.pop("num_key_value_heads")
    maybe(r, c, ffn_hidden_size=(13, 50), activation=ACTS, layer_norm_epsilon=(1e-3,), tie_word_embeddings=(True, False),
          bias=(True, False))
    if c["num_attention_heads"] <= 8:  # transformers rounds Falcon's ALiBi to bfloat16, which holds these slopes and positions
        maybe(r, c, alibi=(True, False))
    del c["intermediate_size"]
    if r.random() < 0.4:
        c.update(new_decoder_architecture=True, num_kv_heads=G)
        maybe(r, c, num_ln_in_parallel_attn=(1, 2))
    else:
        maybe(r, c, multi_query=(True, False), parallel_attn=(True, False))
    if not c.get("alibi"):
        rope(r, c, E)
    return "FalconForCausalLM", c, {"attention": "sdpa"}  # "eager" adds the ALiBi twice in transformers 5.23


FAMILIES = dict(bloom=bloom, chatglm=chatglm, cohere=cohere, cohere2=cohere2, falcon=falcon, gemma=gemma, gemma2=gemma2, gemma3_text=gemma3_text,
                glm=glm("GlmForCausalLM"), glm4=glm("Glm4ForCausalLM"), gpt2=gpt2, gpt_neox=gpt_neox, gptj=gptj, granite=granite,
                llama=llama, mistral=mistral, mixtral=mixtral, olmo=olmo, olmo2=olmo2, opt=opt, phi=phi, phi3=phi3, qwen2=qwen(2),
                qwen2_moe=qwen2_moe, qwen3=qwen(3), qwen3_moe=qwen3_moe, smollm3=smollm3, stablelm=stablelm)


def lay_out(directory, layout):
    """The weights again, as programs of other times save them."""
    import torch
    from safetensors.torch import load_file, save_file
    whole = os.path.join(directory, "model.safetensors")
    tensors = load_file(whole)
    os.remove(whole)
    names, kind = sorted(tensors), "bin" if "bin" in layout else "safetensors"
    parts = [names[::2], names[1::2]] if "sharded" in layout else [names]
    stem, where = "pytorch_model" if kind == "bin" else "model", {}
    for i, part in enumerate(parts):
        file = "%s-%05d-of-%05d.%s" % (stem, i + 1, len(parts), kind) if len(parts) > 1 else "%s.%s" % (stem, kind)
        where.update({n: file for n in part})
        (torch.save if kind == "bin" else save_file)({n: tensors[n] for n in part}, os.path.join(directory, file))
    if len(parts) > 1:
        with open(os.path.join(directory, "%s.%s.index.json" % (stem, kind)), "w") as f:
            json.dump({"metadata": {"total_size": 1}, "weight_map": where}, f)


def make_one(where, name, family, r):
    import make
    hf_class, config, *rest = FAMILIES[family](r)
    rest = rest[0] if rest else {}
    config = dict(model_type=rest.get("model_type", family), architectures=[hf_class], **config)
    dtype, layout = r.choice(("F32", "BF16", "F16")), r.choice(LAYOUTS)
    if family == "chatglm":
        dtype, layout = "F32", "safetensors"
    layers, vocab = config.get("num_hidden_layers", config.get("n_layer")), config["vocab_size"]
    with tempfile.TemporaryDirectory() as d:
        tensors = make.shapes(d, config)
        with open(os.path.join(d, "saved", "config.json")) as f:
            saved = json.load(f)
    ids = [[r.randrange(vocab) for _ in range(17)] for _ in range(2)]
    model = {"config": config, "dtype": dtype, "offset": 1 if family.startswith("gemma") else 0, "ids": ids, "tensors": tensors}
    path = os.path.join(where, name)
    weights.write(model, path)
    result = make.expected(path, model, layers, rest.get("attention", "eager"))
    if family == "chatglm":
        shutil.rmtree(path)
        families.chatglm(path, model)
        result = {k: x for k, x in result.items() if not k.startswith("grad.")}
    weights.write_safetensors(path + ".expected.safetensors", result)
    if layout == "saved config":
        with open(os.path.join(path, "config.json"), "w") as f:
            json.dump(saved, f)
    elif layout != "safetensors":
        lay_out(path, layout)
    with open(path + ".ids", "w") as f:
        json.dump(ids, f)
    print(name, dtype, layout.replace(" ", "-"), flush=True)


def make_all(where, seed, n, *only):
    known = {os.path.basename(p)[:-2] for p in glob.glob(os.path.join("common", "families", "*.c"))}
    assert known == set(FAMILIES), "families without random models, or the other way round: %s" % (known ^ set(FAMILIES))
    for family in only or FAMILIES:
        for i in range(int(n)):
            name = "%s-%d" % (family, i)
            try:
                make_one(where, name, family, random.Random("%s %s %d" % (seed, family, i)))
            except Exception as e:
                print(name, "reference:", str(e).replace("\n", " ")[-200:].replace(" ", "_"), flush=True)


def compare(where):
    for line in open(os.path.join(where, "names")):
        name, dtype, layout = line.split()  # layout: why there is no model, where there is none
        path = os.path.join(where, name)
        if not os.path.exists(path + ".out"):
            print(1, "%s (%s, %s): no dump" % (name, dtype, layout))
            continue
        want, got = (families.load(path + end) for end in (".expected.safetensors", ".out"))
        # logits of any size; gradients that are all but zero (keys' biases and norms) count as the largest does
        scale = max(1, want["logits"].std())
        most = max([np.abs(x).max() for k, x in want.items() if k.startswith("grad.")] or [0])
        for d in (want, got):
            d["logits"] = d["logits"] / scale
        worst, wrong = families.compare_one(want, got)
        if not most:
            wrong = [w for w in wrong if not w.startswith("unexpected grad.")]
        wrong = [w for w in wrong if not (w.startswith("grad.") and np.abs(want[w.split(" ")[0]]).max() < 1e-4 * most)]
        print(int(bool(wrong)), "%s (%s, %s): %s" % (name, dtype, layout, "; ".join(wrong[:4]) or
                                                      " ".join("%s %.1e" % i for i in worst.items())))


def packed(where):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    for name in open(os.path.join(where, "names")).read().split():
        path = os.path.join(where, name)
        with open(path + ".hf/config.json") as f:
            keys = json.load(f)
        if keys["model_type"] == "chatglm":  # no class of transformers
            continue
        # a class's own pad_token_id may be beyond so small a vocabulary, and says nothing here
        config = AutoConfig.for_model(**dict(keys, pad_token_id=0))
        plain = dict(experts_implementation="eager") if "num_experts_per_tok" in keys else {}
        m, info = AutoModelForCausalLM.from_pretrained(path + ".hf", config=config, dtype=torch.float64, attn_implementation="eager",
                                                       output_loading_info=True, **plain)
        with torch.no_grad():
            got = m.eval()(input_ids=torch.tensor(families.model(name)["ids"])).logits.numpy()
        worst = np.abs(got - families.load(os.path.join(families.DATA, name + ".expected.safetensors"))["logits"]).max()
        lost = list(info["missing_keys"]) + list(info["unexpected_keys"])
        print(int(bool(lost) or not worst < families.LOGITS), "%s: logits differ by %.1e" % (name, worst), *lost[:3], flush=True)


if __name__ == "__main__":
    {"make": make_all, "compare": compare, "packed": packed}[sys.argv[1]](*sys.argv[2:])
