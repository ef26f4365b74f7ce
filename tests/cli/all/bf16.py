# SPDX-License-Identifier: Apache-2.0
"""Compares streams made at bf16 and in f32, with python3-msgpack and NumPy.

bf16.py says STREAM KEY...      prints header[KEY][KEY].. as JSON (null: not there)
bf16.py stats F32.nts BF16.nts  the first site's statistics are the same bytes; elsewhere the largest difference
bf16.py norms F32.nts BF16.nts  the largest difference of a tweaked norm, relative to how far the tweak moved any
bf16.py dump F32 BF16           the largest difference of a logit, relative to the largest logit
"""
import json
import sys
from pathlib import Path

import msgpack
import numpy as np

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parents[1]))
from nts import walk


def says(path, *keys):
    with open(path, "rb") as f:
        value = next(x for x in msgpack.Unpacker(f, raw=False, strict_map_key=False) if isinstance(x, dict))
    for k in keys:
        value = value.get(k) if isinstance(value, dict) else None
    print(json.dumps(value))


def stats(a, b):
    worst = 0.0
    a, b = walk(a)[0], walk(b)[0]
    assert len(a) == len(b)
    for (kind, meta, x), (kind_b, meta_b, y) in zip(a, b):
        assert (kind, meta.get("layer"), meta.get("name")) == (kind_b, meta_b.get("layer"), meta_b.get("name"))
        if kind == "LayerEnd":
            continue
        if meta["layer"] == 0 and "qkv" in json.dumps(meta):  # before any product
            assert x == y, meta
            print("same", kind, meta.get("name"))
        elif kind == "hessian":
            u, v = np.frombuffer(x, np.float32), np.frombuffer(y, np.float32)
            worst = max(worst, np.abs(u - v).max() / np.abs(u).max())
    print(f"{worst:.2e}")


def norms(a, b):
    far = moved = 0.0
    new = [{m["name"]: np.frombuffer(d, np.float32) for k, m, d in walk(p)[0] if k == "Norm" and m["which"] == w}
           for p, w in ((a, "old"), (a, "new"), (b, "new"))]
    for name, old in new[0].items():
        moved = max(moved, np.abs(new[1][name] - old).max())
        far = max(far, np.abs(new[1][name] - new[2][name]).max())
    print(f"{far / moved:.2e}")


def dump(a, b):
    tensors = []
    for path in (a, b):
        raw = open(path, "rb").read()
        size = int.from_bytes(raw[:8], "little")
        t = json.loads(raw[8:8 + size])["logits"]
        from_, to = t["data_offsets"]
        tensors.append(np.frombuffer(raw[8 + size + from_:8 + size + to], np.float32))
    print(f"{np.abs(tensors[0] - tensors[1]).max() / np.abs(tensors[0]).max():.2e}")


globals()[sys.argv[1]](*sys.argv[2:])
