# SPDX-License-Identifier: Apache-2.0
"""model.py DIR LAYERS [SEED [HIDDEN]]: a tiny llama with seeded random weights, as an HF directory (safetensors written by
hand); and ids.json beside it: 12 sequences of 24 token ids."""
import json
import struct
import sys
from pathlib import Path

import numpy as np


def main(out, layers, seed=0, hidden=32):
    out, layers, D = Path(out), int(layers), int(hidden)
    rng, F, V, heads = np.random.default_rng(int(seed)), D * 3 // 2, 96, 4
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": D, "intermediate_size": F,
              "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": 2, "head_dim": D // heads,
              "vocab_size": V, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
              "hidden_act": "silu", "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2}
    tensors = {"model.embed_tokens.weight": rng.standard_normal((V, D)), "model.norm.weight": np.ones(D)}
    for i in range(layers):
        p = f"model.layers.{i}."
        for name, rows, cols in (("self_attn.q_proj", D, D), ("self_attn.k_proj", D // 2, D), ("self_attn.v_proj", D // 2, D),
                                 ("self_attn.o_proj", D, D), ("mlp.gate_proj", F, D), ("mlp.up_proj", F, D),
                                 ("mlp.down_proj", D, F)):
            tensors[p + name + ".weight"] = rng.standard_normal((rows, cols)) * 0.7 / np.sqrt(cols)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[p + name + ".weight"] = 1 + 0.1 * rng.standard_normal(D)
    header, data = {}, b""
    for name, t in tensors.items():
        raw = t.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(t.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(config))
    (out / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (out / "ids.json").write_text(json.dumps(rng.integers(3, V, (12, 24)).tolist()))


main(*sys.argv[1:])
