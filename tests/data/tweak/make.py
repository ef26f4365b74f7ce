#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Expected values for the tests of common/loss, common/tweak_block and common/tweak_closed.

Writes losses.json, block.json, layernorm.json and closed.json beside itself. Made with Python 3.11, PyTorch 2.15.0,
transformers 5.23.0 (its LlamaDecoderLayer is the block), numpy 2.4.6: everything in float64. Inputs lie on a binary grid, so
that the files hold them exactly and stay small.
"""
import json
import os
import numpy as np
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
here = os.path.dirname(os.path.abspath(__file__))
NAMES = ["author", "author2", "mae", "mse", "nmse", "paper"]


def loss(name, f, q):
    mf, mq, vf, vq = f.mean(0), q.mean(0), f.var(0), q.var(0)
    if name == "author":
        return ((mq - mf) ** 2).sum() + (((vq + 1e-6).sqrt() - (vf + 1e-6).sqrt()) ** 2).sum()
    if name == "paper":
        return ((mq - mf).abs() + (vq - vf).abs()).mean()
    if name == "author2":
        return ((mq - mf) ** 2 + (vq - vf) ** 2).mean()
    if name == "mse":
        return torch.nn.functional.mse_loss(q, f)
    if name == "mae":
        return torch.nn.functional.l1_loss(q, f)
    if name == "nmse":
        return (((q - f) ** 2).mean(0) / (vf + 1e-6)).mean()
    raise KeyError(name)


def grid(gen, shape, std=1.0, step=64):
    return torch.round(torch.randn(shape, generator=gen) * std * step) / step


def flat(t):
    return [float(f"{x:.12g}") for x in t.detach().reshape(-1).tolist()]


def dump(name, obj):
    with open(os.path.join(here, name), "w") as out:
        json.dump(obj, out, separators=(",", ":"))
        out.write("\n")


def make_losses():
    gen = torch.Generator().manual_seed(11)
    R, D = 9, 5
    f = grid(gen, (R, D)) * torch.tensor([1, 1, 4, 0.25, 16])
    q = f + grid(gen, (R, D), 0.3) + 0.125
    out = {"R": R, "D": D, "f": flat(f), "q": flat(q), "losses": {}}
    for name in NAMES:
        y = q.clone().requires_grad_()
        value = loss(name, f, y)
        value.backward()
        out["losses"][name] = {"value": value.item(), "grad": flat(y.grad)}
    dump("losses.json", out)


def block_case(filename, layernorm):
    D, H, G, E, F, T, n, lr, iters = 16, 4, 2, 4, 24, 7, 3, 0.01, 2
    cfg = LlamaConfig(hidden_size=D, num_attention_heads=H, num_key_value_heads=G, head_dim=E, intermediate_size=F,
                      num_hidden_layers=1, rms_norm_eps=1e-5, attention_bias=layernorm, mlp_bias=layernorm)
    cfg._attn_implementation = "eager"
    gen = torch.Generator().manual_seed(12 + layernorm)
    roles = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
             "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}
    blocks = []
    for _ in range(2):
        b = LlamaDecoderLayer(cfg, 0).double()
        if layernorm:
            b.input_layernorm = torch.nn.LayerNorm(D, eps=1e-5)
            b.post_attention_layernorm = torch.nn.LayerNorm(D, eps=1e-5)
        blocks.append(b.eval())
    fb, qb = blocks
    w = {}
    with torch.no_grad():
        for r, path in roles.items():
            a, b = fb.get_submodule(path), qb.get_submodule(path)
            a.weight.copy_(grid(gen, a.weight.shape, 1.5 / a.weight.shape[1] ** 0.5))
            b.weight.copy_(torch.round(a.weight * 4) / 4)
            w[r] = {"float": flat(a.weight), "quant": flat(b.weight)}
            if layernorm:
                a.bias.copy_(grid(gen, a.bias.shape, 0.2))
                b.bias.copy_(a.bias)
                w[r]["bias"] = flat(a.bias)
        norms = {}
        for nm in ("input_layernorm", "post_attention_layernorm"):
            a, b = getattr(fb, nm), getattr(qb, nm)
            a.weight.copy_(1 + grid(gen, (D,), 0.2))
            b.weight.copy_(a.weight)
            norms[nm] = {"gain": flat(a.weight)}
            if layernorm:
                a.bias.copy_(grid(gen, (D,), 0.2))
                b.bias.copy_(a.bias)
                norms[nm]["bias"] = flat(a.bias)
    x = grid(gen, (n, T, D)) * torch.tensor([1.0, 4.0] + [1.0] * (D - 2))
    inv = 10000.0 ** (-torch.arange(0, E, 2) / E)
    ang = torch.arange(T)[:, None] * inv[None]
    cos, sin = torch.cat([ang.cos()] * 2, -1)[None], torch.cat([ang.sin()] * 2, -1)[None]
    mask = torch.full((T, T), float("-inf")).triu(1)[None, None]

    def run(b, i):
        o = b(x[i:i + 1], attention_mask=mask, position_embeddings=(cos, sin))
        return (o[0] if isinstance(o, tuple) else o).reshape(T, D)

    with torch.no_grad():
        target = [run(fb, i) for i in range(n)]
    out = {"D": D, "H": H, "G": G, "E": E, "F": F, "T": T, "n": n, "eps": 1e-5, "lr": lr, "iters": iters,
           "cos": flat(ang.cos()), "sin": flat(ang.sin()), "x": flat(x), "linears": w, "norms": norms, "losses": {}}
    params = [p for nm in ("input_layernorm", "post_attention_layernorm") for p in getattr(qb, nm).parameters()]
    start = [p.detach().clone() for p in params]
    units = [start[i - i % (1 + layernorm)] for i in range(len(start))]  # gain (1 + r), bias + gain d
    for p in qb.parameters():
        p.requires_grad_(False)
    for p in params:
        p.requires_grad_(True)
    for name in NAMES:
        with torch.no_grad():
            for p, s in zip(params, start):
                p.copy_(s)
        res = {}
        for i in range(n):
            for p in params:
                p.grad = None
            value = loss(name, target[i], run(qb, i))
            if i == 0:
                value.backward()
                res["value"] = value.item()
                res["grad"] = [flat(p.grad) for p in params]
        opt = torch.optim.Adam(params, lr=lr)
        for _ in range(iters):
            for i in range(n):
                opt.zero_grad()
                loss(name, target[i], run(qb, i)).backward()
                opt.step()
        res["adam"] = [flat(p) for p in params]
        shares = [torch.zeros_like(s, requires_grad=True) for s in start]
        opt = torch.optim.Adam(shares, lr=lr)
        for _ in range(iters):
            for i in range(n):
                opt.zero_grad()
                for p, s, u, r in zip(params, start, units, shares):
                    p.data.copy_((s + u * r).detach())
                    p.grad = None
                loss(name, target[i], run(qb, i)).backward()
                for p, u, r in zip(params, units, shares):
                    r.grad = u * p.grad
                opt.step()
        res["relative"] = [flat(s + u * r) for s, u, r in zip(start, units, shares)]
        # the target drops the first two tokens of every sequence
        with torch.no_grad():
            for p, s in zip(params, start):
                p.copy_(s)
        for p in params:
            p.grad = None
        value = loss(name, target[0][2:], run(qb, 0)[2:])
        value.backward()
        res["skip2"] = {"value": value.item(), "grad": [flat(p.grad) for p in params]}
        out["losses"][name] = res
    dump(filename, out)


def make_closed():
    """min over s of sum_k ||X diag(s) Q_k^T - X W_k^T||^2 + lam ||s - 1||^2 as one dense least-squares problem."""
    rng = np.random.default_rng(14)
    N, D, outs, ridge = 20, 6, [5, 3], 0.01
    X = np.round(rng.normal(size=(N, D)) * 64) / 64
    X[:, 4] = 0  # a dead channel keeps its gain
    Ws = [np.round(rng.normal(size=(o, D)) * 64) / 64 for o in outs]
    Qs = [np.round(w * 1.5) / 1.5 * 0.75 for w in Ws]
    Qs = [np.round(q * 64) / 64 for q in Qs]
    rows = np.concatenate([(X[:, None, :] * q[None]).reshape(-1, D) for q in Qs])
    rhs = np.concatenate([(X @ w.T).reshape(-1) for w in Ws])
    lam = ridge * (rows ** 2).sum(0).mean()
    A = np.concatenate([rows, np.sqrt(lam) * np.eye(D)])
    b = np.concatenate([rhs, np.sqrt(lam) * np.ones(D)])
    s = np.linalg.lstsq(A, b, rcond=None)[0]
    dump("closed.json", {"N": N, "D": D, "ridge": ridge, "X": X.ravel().tolist(), "outs": outs,
                         "W": [w.ravel().tolist() for w in Ws], "Q": [q.ravel().tolist() for q in Qs],
                         "s": s.tolist(), "before": float(((rows.sum(1) - rhs) ** 2).sum()),
                         "after": float(((rows @ s - rhs) ** 2).sum())})


if __name__ == "__main__":
    make_losses()
    block_case("block.json", False)
    block_case("layernorm.json", True)
    make_closed()
