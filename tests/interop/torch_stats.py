# SPDX-License-Identifier: Apache-2.0
"""Statistics of the linears' inputs of a GGUF model by transformers, for tests/interop/statistics.sh:
torch_stats.py MODEL.gguf IDS.json OUT.npz LAYER... (X'X and maxima are taken in float64 from float32 activations)."""
import json
import os
import sys

import numpy as np
import torch
from transformers import AutoModelForCausalLM

SITES = {"qkv": "self_attn.q_proj", "o": "self_attn.o_proj", "mlp": "mlp.gate_proj", "down": "mlp.down_proj"}


def main(path, ids_path, out_path, *layers):
    model = AutoModelForCausalLM.from_pretrained(os.path.dirname(path) or ".", gguf_file=os.path.basename(path),
                                                 dtype=torch.float32, attn_implementation="eager").eval()
    with open(ids_path) as f:
        ids = torch.tensor(json.load(f))
    out = {}

    def keep(key):
        def hook(mod, args):
            x = args[0].reshape(-1, args[0].shape[-1]).double().numpy()
            h = x.T @ x
            out[key + ".hessian"] = h[np.tril_indices(len(h))]
            out[key + ".sums"] = np.stack([x.sum(0), abs(x).sum(0), (x**2).sum(0), (x**3).sum(0), (x**4).sum(0)])
            out[key + ".absmax"] = abs(x).max(0)
        return hook

    for l in layers:
        for site, where in SITES.items():
            model.model.layers[int(l)].get_submodule(where).register_forward_pre_hook(keep(f"layers.{l}.{site}"))
    with torch.no_grad():
        model.model(ids)
    np.savez(out_path, **out)


main(*sys.argv[1:])
