#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes NAME.json (configuration, tensor shapes, token ids) and NAME.expected.safetensors (what transformers computes
in float64: logits, states before, after the first and after the last block, gradients of the mean next-token
cross-entropy by all norms) of every row in rows.py and rows_llama.py, or of those named on the command line.
Weights come from weights.py. Run with transformers 5.23.0, torch 2.15, numpy: make.py [NAME...]"""
import json
import os
import sys
import tempfile

import numpy as np
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

import rows
import weights

try:
    import rows_llama
except ImportError:
    rows_llama = None

HERE = os.path.dirname(os.path.abspath(__file__))
B, T = 2, 11


def shapes(directory, config):
    """Names and shapes as save_pretrained writes them."""
    with open(os.path.join(directory, "config.json"), "w") as f:
        json.dump(config, f)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory))
    model.save_pretrained(os.path.join(directory, "saved"))
    with safe_open(os.path.join(directory, "saved", "model.safetensors"), "np") as f:
        return {n: f.get_slice(n).get_shape() for n in sorted(f.keys())}


def layers_of(model, n):
    return next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == n)


def first(x):
    return x[0] if isinstance(x, tuple) else x


def expected(directory, model_json, n_layers, attention):
    plain = dict(experts_implementation="eager") if "num_experts_per_tok" in model_json["config"] else {}
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float64, attn_implementation=attention, **plain)
    model.eval()
    states, layers = {}, layers_of(model, n_layers)
    layers[0].register_forward_pre_hook(
        lambda m, a, k: states.update({"hidden.0": a[0] if a else k["hidden_states"]}), with_kwargs=True)
    layers[0].register_forward_hook(lambda m, a, out: states.update({"hidden.1": first(out)}))
    layers[-1].register_forward_hook(lambda m, a, out: states.update({"hidden.%d" % n_layers: first(out)}))
    ids = torch.tensor(model_json["ids"])
    logits = model(input_ids=ids, use_cache=False).logits
    torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1)).backward()
    out = {"logits": logits, **states}
    for name, p in model.named_parameters():
        if name not in model_json["tensors"]:  # transformers 5 keeps the names of 4 in files of multimodal models
            name = name.replace("model.language_model.", "language_model.model.")
        if name in model_json["tensors"] and (p.dim() == 1 or "norm" in name) and p.grad is not None:
            if "norm" in name or "ln_" in name or "layernorm" in name:
                out["grad." + name] = p.grad.reshape(-1)
    return {n: x.detach().double().numpy().astype(np.float32) for n, x in out.items()}


def make(name, row):
    config = dict(row["config"])
    offset = row.get("offset", 0)
    with tempfile.TemporaryDirectory() as directory:
        tensors = shapes(directory, config)
        vocab = row.get("vocab", config.get("vocab_size"))
        ids = (np.abs(weights.integers(name, B * T)) % vocab).reshape(B, T).tolist()
        model = {"config": config, "dtype": row.get("dtype", "F32"), "offset": offset, "ids": ids, "tensors": tensors}
        weights.write(model, directory)
        n_layers = row.get("layers", config.get("num_hidden_layers", config.get("n_layer")))
        result = expected(directory, model, n_layers, row.get("attention", "eager"))
    text = json.dumps({k: v for k, v in model.items() if k != "tensors"}, indent=1)
    lines = ",\n".join('  %s: %s' % (json.dumps(n), json.dumps(s)) for n, s in tensors.items())
    with open(os.path.join(HERE, name + ".json"), "w") as f:
        f.write(text[:-2] + ',\n "tensors": {\n' + lines + "\n }\n}\n")
    path = os.path.join(HERE, name + ".expected.safetensors")
    weights.write_safetensors(path, result)
    print(name, os.path.getsize(path), "bytes, logits' standard deviation %.2f" % result["logits"].std())


def main():
    table = dict(rows.ROWS)
    if rows_llama:
        table.update(rows_llama.ROWS)
    for name in sys.argv[1:] or table:
        make(name, table[name])


if __name__ == "__main__":
    main()
