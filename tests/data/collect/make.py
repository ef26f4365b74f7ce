#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the files beside it: a tiny random Llama and the statistics of its linears' inputs.

tiny/config.json, tiny/model.safetensors   the model (weights in BF16, so that every reader has the same values)
ids.json                                   10 sequences of 12 token ids; the last two are held out
expected.npz                               layers.L.SITE.{hessian,sums,absmax}, layers.L.target over the first 8

Written by transformers and PyTorch alone: the model runs in float64 and forward hooks see the inputs of q_proj, o_proj,
gate_proj and down_proj. Last made with torch 2.15.0, transformers 5.23.0, safetensors 0.8.0, numpy 2.4.6.
Run: python3 make.py (in this directory)."""
import json
import os

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

N, TRAIN, T, VOCAB = 10, 8, 12, 96
SITES = {"qkv": "self_attn.q_proj", "o": "self_attn.o_proj", "mlp": "mlp.gate_proj", "down": "mlp.down_proj"}


def make_model():
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True, rms_norm_eps=1e-5,
        bos_token_id=1, eos_token_id=2, attn_implementation="eager"))
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(1 + 0.3 * torch.randn_like(p) if "norm" in name else 0.25 * torch.randn_like(p))
    model.to(torch.bfloat16).save_pretrained("tiny")
    if os.path.exists("tiny/generation_config.json"):
        os.remove("tiny/generation_config.json")
    # loaded anew: casting would have left the rotary frequencies in bf16
    return LlamaForCausalLM.from_pretrained("tiny", dtype=torch.float64, attn_implementation="eager").eval()


def statistics(x):
    """x [rows, dim] float64 -> lower triangle of X'X row by row, five sums, largest magnitude."""
    h = x.T @ x
    sums = np.stack([x.sum(0), abs(x).sum(0), (x**2).sum(0), (x**3).sum(0), (x**4).sum(0)])
    return {"hessian": h[np.tril_indices(len(h))].astype(np.float32), "sums": sums, "absmax": abs(x).max(0)}


def main():
    model = make_model()
    ids = torch.randint(0, VOCAB, (N, T), generator=torch.Generator().manual_seed(2))
    seen, out = {}, {}
    for l, layer in enumerate(model.model.layers):
        for site, path in SITES.items():
            layer.get_submodule(path).register_forward_pre_hook(
                lambda mod, args, key=f"layers.{l}.{site}": seen.__setitem__(key, args[0].reshape(-1, args[0].shape[-1])))
        layer.register_forward_hook(
            lambda mod, args, y, key=f"layers.{l}.target": seen.__setitem__(key, y[0] if isinstance(y, tuple) else y))
    with torch.no_grad():
        model(ids[:TRAIN])
    for key, x in seen.items():
        x = x.numpy()
        assert x.dtype == np.float64
        if key.endswith("target"):
            out[key] = np.stack([x.sum(1), (x**2).sum(1)], axis=1)
        else:
            assert x.shape[0] == TRAIN * T
            out.update({f"{key}.{stat}": v for stat, v in statistics(x).items()})
    np.savez("expected.npz", **out)
    with open("ids.json", "w") as f:
        f.write("[" + ",\n ".join(json.dumps(row) for row in ids.tolist()) + "]\n")


if __name__ == "__main__":
    main()
