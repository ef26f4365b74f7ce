# SPDX-License-Identifier: Apache-2.0
"""fold.py FROM TO: the same llama model with a random factor for every input of q, k, v, gate and up moved from the norm before
them into their columns, as AWQ and SmoothQuant do (F32)."""
import json
import os
import shutil
import struct
import sys

import numpy as np

source, target = sys.argv[1:]
data = open(source + "/model.safetensors", "rb").read()
n = struct.unpack("<Q", data[:8])[0]
head = json.loads(data[8:8 + n])
head.pop("__metadata__", None)
tensors = {k: np.frombuffer(data[8 + n:], "<f2" if v["dtype"] == "F16" else "<f4", int(np.prod(v["shape"])), v["data_offsets"][0])
           .reshape(v["shape"]).astype("<f4") for k, v in head.items()}
rng = np.random.default_rng(1)
for name in [k for k in tensors if k.endswith("layernorm.weight")]:
    factor = np.exp2(rng.integers(-2, 3, len(tensors[name]))).astype("<f4")
    after = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj") if "input" in name else ("mlp.gate_proj", "mlp.up_proj")
    tensors[name] = tensors[name] / factor
    for a in after:
        tensors[name.rsplit(".", 2)[0] + f".{a}.weight"] *= factor
os.mkdir(target)
header, at = {}, 0
for k, v in sorted(tensors.items()):
    header[k] = {"dtype": "F32", "shape": list(v.shape), "data_offsets": [at, at + v.nbytes]}
    at += v.nbytes
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
with open(target + "/model.safetensors", "wb") as f:
    f.write(struct.pack("<Q", len(text)) + text + b"".join(v.tobytes() for _, v in sorted(tensors.items())))
for name in ("config.json", "tokenizer.json"):
    shutil.copy(f"{source}/{name}", target)
