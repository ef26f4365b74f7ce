#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# make_all.py: writes all.json, what nt-tweak --params all has to compute on three tiny random models (tied, untied, with experts):
# the initial values (its own Philox4x32-10 and the rules of common/checkpoints/init.c), cross-entropy, its gradient by
# all parameters, and their values after AdamW steps. Made with PyTorch 2.15.0 and transformers 5.23.0 in float64.
# Vectors are thinned to every 7th value; order: norms by layer, final norm, linears by layer, embedding, head.
import json, math, os
import numpy as np, torch
from transformers import AutoConfig, AutoModelForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
M32 = 0xFFFFFFFF

def philox(seed, stream, counter):
    c = [counter & M32, counter >> 32, stream & M32, stream >> 32]
    k = [seed & M32, seed >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & M32, (a >> 32) ^ c[3] ^ k[1], a & M32]
        k = [(k[0] + 0x9E3779B9) & M32, (k[1] + 0xBB67AE85) & M32]
    return c

def fnv(name):
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = (h ^ b) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h

def uniform(name, shape, std, seed):
    n, stream = math.prod(shape), fnv(name)
    r = [x for i in range((n + 3) // 4) for x in philox(seed, stream, i)][:n]
    u = [(v >> 8) * 2.0 ** -23 + 2.0 ** -24 - 1 for v in r]
    w = np.float32(u) * np.float32(std * math.sqrt(3))
    return torch.tensor(w.astype(np.float64)).reshape(shape)

ROLES = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
         "mlp.down_proj"]
NORMS = ["input_layernorm", "post_attention_layernorm"]

# Layer 0 of the model with experts has three and one that sees every token, layer 1 has none.
EXPERTS = [f"mlp.experts.{x}.{r}_proj" for x in range(3) for r in ("gate", "up", "down")] + \
          [f"mlp.shared_expert.{r}_proj" for r in ("gate", "up", "down")] + ["mlp.gate", "mlp.shared_expert_gate"]

def names(L, tied, experts):
    norms = [f"model.layers.{l}.{n}.weight" for l in range(L) for n in NORMS] + ["model.norm.weight"]
    mats = [f"model.layers.{l}.{r}.weight" for l in range(L)
            for r in (ROLES[:4] + EXPERTS if experts and l == 0 else ROLES)] + ["model.embed_tokens.weight"]
    return norms, mats + ([] if tied else ["lm_head.weight"])

def part(name, p, of):
    """A tensor of the checkpoint in the model's parameters (of: what of them), which hold experts together."""
    if ".experts." not in name:
        return of(p[name])
    head, tail = name.split(".experts.")
    x, role, _ = tail.split(".")
    if role == "down_proj":
        return of(p[head + ".experts.down_proj"])[int(x)]
    both = of(p[head + ".experts.gate_up_proj"])[int(x)]
    return both[:len(both) // 2] if role == "gate_proj" else both[len(both) // 2:]

def flat(p, order, of):
    return torch.cat([part(n, p, of).detach().reshape(-1) for n in order]).numpy()[::7]

def short(v):
    return [float(f"{x:.8g}") for x in v]

def case(tied, experts):
    config = dict(model_type="qwen2_moe" if experts else "llama", vocab_size=40, hidden_size=16, intermediate_size=24,
                  num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=32,
                  rms_norm_eps=1e-5, rope_theta=10000.0, hidden_act="silu", tie_word_embeddings=tied, initializer_range=0.3,
                  nt_init_seed=5)
    if experts:
        config.update(num_experts=3, num_experts_per_tok=2, moe_intermediate_size=10, shared_expert_intermediate_size=14,
                      mlp_only_layers=[1], qkv_bias=False, norm_topk_prob=True)
    m = AutoModelForCausalLM.from_config(AutoConfig.for_model(**{k: v for k, v in config.items() if k != "nt_init_seed"}),
                                         attn_implementation="eager", **({"experts_implementation": "eager"} if experts else {})).double()
    norms, mats = names(2, tied, experts)
    order, p = norms + mats, dict(m.named_parameters())
    assert sum(part(n, p, lambda x: x).numel() for n in order) == sum(x.numel() for x in p.values())
    with torch.no_grad():
        for n in mats:
            std = 0.3 / (math.sqrt(2 * 2) if "o_proj" in n or "down_proj" in n else 1)
            to = part(n, p, lambda x: x)
            to.copy_(uniform(n, to.shape, std, 5))
    ids = torch.tensor(np.random.default_rng(3).integers(0, 40, (3, 12)))
    def loss():
        z = m(ids).logits[:, :-1]
        return torch.nn.functional.cross_entropy(z.reshape(-1, 40), ids[:, 1:].reshape(-1))
    c = dict(config=config, ids=ids.tolist(), start=short(flat(p, order, lambda x: x)))
    l = loss()
    l.backward()
    c["ce"] = l.item()
    c["grad"] = short(flat(p, order, lambda x: x.grad))
    steps, lr, warm, clip = 10, 3e-2, 3, 0.5
    opt = torch.optim.AdamW([dict(params=[p[n] for n in norms], weight_decay=0.0),
                             dict(params=[x for n, x in p.items() if n not in norms], weight_decay=0.1)], lr=lr, eps=1e-8)
    c.update(steps=steps, lr=lr, warmup=warm, clip=clip, decay=0.1, losses=[])
    for s in range(steps):
        opt.zero_grad()
        l = loss()
        l.backward()
        torch.nn.utils.clip_grad_norm_(list(p.values()), clip)
        for g in opt.param_groups:
            g["lr"] = lr * min(1, (s + 1) / warm) * 0.5 * (1 + math.cos(math.pi * s / steps))
        opt.step()
        c["losses"].append(l.item())
    c["values"] = short(flat(p, order, lambda x: x))
    return c

json.dump([case(True, False), case(False, False), case(False, True)], open(os.path.join(HERE, "all.json"), "w"), separators=(",", ":"))
