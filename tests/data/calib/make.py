#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tiny/: a llama model of random weights for the vocabulary of ../tokenizer/smollm, with numpy alone (made with
1.26). Two layers, grouped heads, tied embeddings, BF16. The tests copy the tokenizer beside it."""
import json, os, struct
import numpy as np

os.chdir(os.path.dirname(os.path.abspath(__file__)))
vocab = 1 + max(json.load(open("../tokenizer/smollm/tokenizer.json"))["model"]["vocab"].values())
D, H, G, E, F, L = 32, 4, 2, 8, 48, 2
rng = np.random.default_rng(3)
config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": D, "intermediate_size": F,
          "num_hidden_layers": L, "num_attention_heads": H, "num_key_value_heads": G, "head_dim": E, "vocab_size": vocab,
          "max_position_embeddings": 96, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True,
          "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "bos_token_id": 0, "eos_token_id": 1,
          "torch_dtype": "bfloat16"}


def linear(out, n):
    return rng.normal(size=(out, n)) / np.sqrt(n)


t = {"model.embed_tokens.weight": rng.normal(size=(vocab, D)), "model.norm.weight": 0.5 + rng.uniform(size=D)}
for i in range(L):
    p = "model.layers.%d." % i
    t[p + "input_layernorm.weight"] = 0.5 + rng.uniform(size=D)
    t[p + "post_attention_layernorm.weight"] = 0.5 + rng.uniform(size=D)
    for name, out, n in [("self_attn.q_proj", H * E, D), ("self_attn.k_proj", G * E, D), ("self_attn.v_proj", G * E, D),
                         ("self_attn.o_proj", D, H * E), ("mlp.gate_proj", F, D), ("mlp.up_proj", F, D), ("mlp.down_proj", D, F)]:
        t[p + name + ".weight"] = linear(out, n)
os.makedirs("tiny", exist_ok=True)
with open("tiny/config.json", "w") as f:
    json.dump(config, f, indent=1)
    f.write("\n")
head, data = {}, b""
for name in sorted(t):
    b = (t[name].astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    head[name] = {"dtype": "BF16", "shape": list(t[name].shape), "data_offsets": [len(data), len(data) + len(b)]}
    data += b
text = json.dumps(head).encode()
text += b" " * (-len(text) % 8)
with open("tiny/model.safetensors", "wb") as f:
    f.write(struct.pack("<Q", len(text)) + text + data)
