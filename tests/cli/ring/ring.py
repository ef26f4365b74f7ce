# SPDX-License-Identifier: Apache-2.0
"""Reads acts, stats and qweights streams with python3-msgpack, and runs tiny llamas in NumPy (float64), knowing nothing of
the tools but the documented formats.

ring.py same A.nts B.nts...        the records of A are those of B... one after the other: kind, meta, payload
ring.py near A.nts B.nts [TOL]     the same codes, and norms that differ by at most TOL (1e-5) of their largest
ring.py count KIND A.nts...        how many records of that kind each has
ring.py trailer A.nts KEY          a key of the trailer
ring.py inputs A.nts NAME=FILE...  the trailer's inputs are these, streams by their hash, others by sha256
ring.py forward MODEL ACTS PATH L  block L of the model (HF directory) on boundary L of PATH gives boundary L + 1
ring.py hessian MODEL ACTS STATS L X'X of the query's input, from boundary L
ring.py kl FLOAT OTHER IDS FIRST   mean KL on sequences FIRST... of OTHER against FLOAT, from the token ids alone
"""
import hashlib
import json
import struct
import sys
from pathlib import Path

import numpy as np

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parents[1]))
from nts import walk


def same(a, *rest):
    want = walk(a)[0]
    have = [r for b in rest for r in walk(b)[0]]
    assert len(want) == len(have) > 0, (len(want), len(have))
    for x, y in zip(want, have):
        assert x == y, (x[:2], y[:2])
    print(f"{len(want)} records, {sum(len(r[2]) for r in want)} bytes")


def near(a, b, tolerance=1e-5):
    kinds = [[(r[1]["name"], r[1].get("which"), r[0], r[2]) for r in walk(f)[0] if r[0] in ("QTensor", "QPart", "Norm")]
             for f in (a, b)]
    assert len(kinds[0]) == len(kinds[1]) > 0
    worst = 0
    for x, y in zip(*kinds):
        assert x[:3] == y[:3], (x[:3], y[:3])
        if x[2] != "Norm":
            assert x[3] == y[3], x[:2]
            continue
        u, v = (np.frombuffer(r[3], np.float32).astype(np.float64) for r in (x, y))
        worst = max(worst, np.abs(u - v).max() / np.abs(u).max())
    assert worst <= float(tolerance), worst
    print(f"norms differ by {worst:.1e}")


def count(kind, *files):
    print(*(sum(r[0] == kind for r in walk(f)[0]) for f in files))


def trailer(path, key):
    print(walk(path)[1][key])


def inputs(path, *named):
    want = []
    for name, file in (n.split("=", 1) for n in named):
        data = Path(file).read_bytes()
        stream = data[:2] == b"\xd7N"
        want.append({"name": name, "bytes": len(data),
                     **({"xxh3": walk(file)[1]["xxh3"]} if stream else {"sha256": hashlib.sha256(data).hexdigest()})})
    have = walk(path)[1]["inputs"]
    assert have == want, (have, want)
    print(", ".join(i["name"] for i in have))


def boundary(path, which, layer):
    """{sequence: [T, D]}"""
    return {m["seq"]: np.frombuffer(d, np.float32).reshape(m["shape"]).astype(np.float64) for k, m, d in walk(path)[0]
            if k == "Acts" and m["path"] == which and m["layer"] == layer}


class Model:
    def __init__(self, path):
        path = Path(path)
        self.c = json.loads((path / "config.json").read_text())
        raw = (path / "model.safetensors").read_bytes()
        n = struct.unpack("<Q", raw[:8])[0]
        self.t = {k: np.frombuffer(raw[8 + n:][v["data_offsets"][0]:v["data_offsets"][1]], "<f4").reshape(v["shape"])
                  .astype(np.float64) for k, v in json.loads(raw[8:8 + n]).items() if k != "__metadata__"}

    def norm(self, x, gain):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.c["rms_norm_eps"]) * self.t[gain]

    def heads(self, x, n, rotate):
        T, E = len(x), self.c["head_dim"]
        x = x.reshape(T, n, E).transpose(1, 0, 2)
        if not rotate:
            return x
        angle = np.outer(np.arange(T), 10000.0 ** (-np.arange(0, E, 2) / E))
        cos, sin, a, b = np.cos(angle), np.sin(angle), x[..., :E // 2], x[..., E // 2:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def block(self, layer, x):
        p = f"model.layers.{layer}."
        w = {k[len(p):-len(".weight")]: v.T for k, v in self.t.items() if k.startswith(p)}
        H, G, T = self.c["num_attention_heads"], self.c["num_key_value_heads"], len(x)
        h = self.norm(x, p + "input_layernorm.weight")
        k, v = (np.repeat(self.heads(h @ w[f"self_attn.{s}_proj"], G, s == "k"), H // G, 0) for s in "kv")
        s = self.heads(h @ w["self_attn.q_proj"], H, True) @ k.transpose(0, 2, 1) / np.sqrt(self.c["head_dim"])
        s = np.exp(np.where(np.tril(np.ones((T, T))) > 0, s - s.max(-1, keepdims=True), -np.inf))
        o = (s / s.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(T, -1)
        x = x + o @ w["self_attn.o_proj"]
        h = self.norm(x, p + "post_attention_layernorm.weight")
        g = h @ w["mlp.gate_proj"]
        return x + (g / (1 + np.exp(-g)) * (h @ w["mlp.up_proj"])) @ w["mlp.down_proj"]

    def log_probabilities(self, ids):
        x = self.t["model.embed_tokens.weight"][ids]
        for layer in range(self.c["num_hidden_layers"]):
            x = self.block(layer, x)
        z = self.norm(x, "model.norm.weight") @ self.t["model.embed_tokens.weight"].T
        z -= z.max(-1, keepdims=True)
        return z - np.log(np.exp(z).sum(-1, keepdims=True))


def relative(have, want):
    return np.abs(have - want).max() / np.abs(want).max()


def forward(path, acts, which, layer):
    m, layer = Model(path), int(layer)
    have, want = boundary(acts, which, layer), boundary(acts, which, layer + 1)
    assert have.keys() == want.keys() and have, (have.keys(), want.keys())
    worst = max(relative(m.block(layer, have[s]), want[s]) for s in have)
    print(f"{len(have)} sequences, largest relative difference {worst:.1e}")
    sys.exit(int(worst > 2e-5))


def hessian(path, acts, stats, layer):
    m, layer = Model(path), int(layer)
    kept = [m.norm(x, f"model.layers.{layer}.input_layernorm.weight") for _, x in sorted(boundary(acts, "q", layer).items())]
    train = [d for k, d in ((r[1], r) for r in walk(acts)[0] if r[0] == "Acts") if k["layer"] == layer and k["path"] == "q"]
    x = np.concatenate([v for v, r in zip(kept, train) if r[1]["split"] == "train"])
    meta, data = next((a, d) for k, a, d in walk(stats)[0] if k == "hessian" and a["layer"] == layer and a["site"] == "qkv")
    have = np.frombuffer(data, np.float32)
    assert meta["count"] == len(x), (meta["count"], len(x))
    worst = relative(have, (x.T @ x)[np.tril_indices(x.shape[1])])
    print(f"{len(x)} rows, largest relative difference {worst:.1e}")
    sys.exit(int(worst > 1e-5))


def kl(float_path, other_path, ids, first):
    a, b = Model(float_path), Model(other_path)
    total = [(np.exp(p) * (p - q)).sum(-1)[:-1].mean() for p, q in
             ((a.log_probabilities(i), b.log_probabilities(i)) for i in json.load(open(ids))[int(first):])]
    print(np.mean(total))


globals()[sys.argv[1]](*sys.argv[2:])
