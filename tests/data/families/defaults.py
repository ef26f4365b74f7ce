#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes defaults.json: what the configuration class of every family takes where config.json has no such key.
Run once, with transformers 5.23.0: python3 tests/data/families/defaults.py"""
import json
import os

from transformers import CONFIG_MAPPING

TYPES = ["bloom", "cohere", "cohere2", "falcon", "gemma", "gemma2", "gemma3_text", "glm", "glm4", "gpt2", "gpt_neox", "gptj",
         "granite", "llama", "mistral", "olmo", "olmo2", "opt", "phi", "phi3", "qwen2", "qwen3", "smollm3", "stablelm"]
FIRST = "full_attention"


def one(model_type):
    c = CONFIG_MAPPING[model_type]()
    get = lambda *names: next((getattr(c, n) for n in names if getattr(c, n, None) is not None), None)
    rope = get("rope_parameters") or {}
    rope = rope.get(FIRST, rope)
    H, D = c.num_attention_heads, c.hidden_size
    E = get("head_dim") or D // H
    groups = get("num_key_value_heads") or H
    if model_type == "falcon":
        groups = 1 if c.multi_query else H
    rot = c.rotary_dim if model_type == "gptj" else int(E * rope.get("partial_rotary_factor", 1)) if rope else 0
    return {"model_type": model_type, "layers": c.num_hidden_layers, "vocab": c.vocab_size, "hidden": D, "heads": H, "groups": groups,
            "head_dim": E, "ff": get("intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner") or 4 * D,
            "max_pos": get("max_position_embeddings", "seq_length") or 2048, "rot": rot, "theta": rope.get("rope_theta", 0),
            "eps": get("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon") or 1e-5, "tied": bool(c.tie_word_embeddings),
            "act": get("hidden_activation", "hidden_act", "activation_function", "activation"),
            "attention_bias": get("attention_bias")}


def main():
    out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "defaults.json")
    with open(out, "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(one(t)) for t in TYPES) + "\n]\n")


main()
