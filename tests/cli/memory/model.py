# SPDX-License-Identifier: Apache-2.0
"""model.py DIR LAYERS HIDDEN FEED_FORWARD HEADS KV_HEADS SEQUENCES TOKENS [EXPERTS]: a llama, or mixtral, with seeded random
weights of any size, as an HF directory (BF16 safetensors written tensor by tensor); and ids.json beside it."""
import json
import struct
import sys
from pathlib import Path

import numpy as np

VOCAB, PIECE = 512, 1 << 22


def uniform(rng, n, width):
    """n BF16 values from -width .. width: the upper halves of as many floats."""
    x = rng.random(n, dtype=np.float32)
    x -= 0.5
    x *= 2 * width
    return (x.view("<u4") >> 16).astype("<u2")


def feed_forward(D, F, experts):
    if not experts:
        return ("mlp.gate_proj", (F, D)), ("mlp.up_proj", (F, D)), ("mlp.down_proj", (D, F))
    p = "block_sparse_moe."
    return [(p + "gate", (experts, D))] + [(p + "experts.%d.%s" % (x, n), (D, F) if n == "w2" else (F, D))
                                           for x in range(experts) for n in ("w1", "w2", "w3")]


def main(out, layers, D, F, heads, kv_heads, n, T, experts=0):
    out, rng, E = Path(out), np.random.Generator(np.random.SFC64(layers)), D // heads
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": D, "intermediate_size": F,
              "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": E,
              "vocab_size": VOCAB, "max_position_embeddings": max(T, 64), "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
              "hidden_act": "silu", "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2}
    if experts:
        config.update(architectures=["MixtralForCausalLM"], model_type="mixtral", num_local_experts=experts, num_experts_per_tok=2)
    shapes = {"model.embed_tokens.weight": (VOCAB, D), "model.norm.weight": (D,)}
    for i in range(layers):
        p = f"model.layers.{i}."
        for name, shape in (("self_attn.q_proj", (heads * E, D)), ("self_attn.k_proj", (kv_heads * E, D)),
                            ("self_attn.v_proj", (kv_heads * E, D)), ("self_attn.o_proj", (D, heads * E)),
                            *feed_forward(D, F, experts), ("input_layernorm", (D,)), ("post_attention_layernorm", (D,))):
            shapes[p + name + ".weight"] = shape
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(config))
    (out / "ids.json").write_text(json.dumps(rng.integers(3, VOCAB, (n, T)).tolist()))
    with open(out / "model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            left = int(np.prod(shape))
            while left:
                k = min(left, PIECE)
                # a norm's gain: one; a linear: outputs of about the size of its inputs
                f.write(np.full(k, 0x3F80, "<u2") if len(shape) == 1 else uniform(rng, k, (3 / shape[1]) ** 0.5))
                left -= k


main(sys.argv[1], *map(int, sys.argv[2:]))
