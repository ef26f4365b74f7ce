# SPDX-License-Identifier: Apache-2.0
"""dump.py sample EXPECTED GOT gguf: the same for a file that keeps only the largest logits at some positions.
dump.py ids EXPECTED: the ids as JSON. dump.py compare EXPECTED GOT gguf|...: every expected tensor against nt-eval's."""
import json
import re
import struct
import sys

import numpy as np


def load(path):
    with open(path, "rb") as f:
        head = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    kind = {"F32": "<f4", "I32": "<i4"}
    return {k: np.frombuffer(data[slice(*t["data_offsets"])], kind[t["dtype"]]).reshape(t["shape"])
            for k, t in head.items() if k != "__metadata__"}


def gguf_name(name):
    name = re.sub(r"model\.layers\.(\d+)\.", r"blk.\1.", name)
    if any("pre_feedforward" in k for k in want):  # Gemma: the usual name is of another norm
        name = name.replace("post_attention_layernorm", "post_attention_norm")
    for a, b in (("self_attn.", "attn_"), ("pre_feedforward_layernorm", "ffn_norm"),
                 ("post_feedforward_layernorm", "post_ffw_norm"), ("input_layernorm", "attn_norm"),
                 ("post_attention_layernorm", "ffn_norm"), ("model.norm", "output_norm")):
        name = name.replace(a, b)
    return name


want = load(sys.argv[2])
if sys.argv[1] == "ids":
    print(json.dumps(want["ids"].tolist()))
    sys.exit()
if sys.argv[1] == "sample":
    got, name = load(sys.argv[3]), gguf_name if sys.argv[4] == "gguf" else str
    at = np.take_along_axis(got["logits"][:, want["where"]], want["index"].astype(np.int64), -1)
    worst = {"logits": float(np.abs(at - want["top"]).max() / want["largest"][0]),
             "largest": float(abs(np.abs(got["logits"]).max() / want["largest"][0] - 1)),
             "nll": float(np.abs(got["nll"] / want["nll"] - 1).max())}
    for k, w in want.items():
        if k.startswith("grad."):
            worst[k] = float(np.abs(got[name(k)] - w).max() / np.abs(w).max())
    print(worst)
    sys.exit(max(worst.values()) > 1e-4)
got, gguf, worst = load(sys.argv[3]), sys.argv[4] == "gguf", {}
for name, w in want.items():
    if name == "ids":
        continue
    g = got.pop(gguf_name(name) if gguf else name)
    assert g.shape == w.shape, (name, g.shape, w.shape)
    key = re.sub(r"\..*", "", name)
    worst[key] = max(worst.get(key, 0), float(np.abs(g - w).max() / np.abs(w).max()))
assert not got, ("unexpected", list(got))
print(worst)
assert worst["logits"] < 1e-5 and worst["hidden"] < 1e-5 and worst["nll"] < 1e-5 and worst["grad"] < 2e-5
