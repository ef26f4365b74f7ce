#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Norm tweaking of a whole tiny model in PyTorch float64: expected values for tests/unit/test_tweak.c.

Model and token ids are those of ../collect. Writes model.json beside itself: 3-bit codes of all linears (round to nearest,
groups of 16), and for several settings every layer's losses, the new norms, and KL and top-1 agreement on the held-out
sequences. Written from the description of the method; no code of nt-* is involved. Made with Python 3.11, PyTorch 2.15.0,
transformers 5.23.0, numpy 2.4.6."""
import copy
import json
import os
import numpy as np
import torch
from transformers import LlamaForCausalLM
from make import flat, loss

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
here = os.path.dirname(os.path.abspath(__file__))
ROLES = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
         "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}
BITS, GROUP, HOLD = 3, 16, 2
CASES = [
    dict(name="author", loss="author", opt="adam", target="local", lr=0.01, scale=1, iters=1),
    dict(name="nmse two passes", loss="nmse", opt="adam", target="local", lr=0.01, scale=0, iters=2),
    dict(name="mse float target", loss="mse", opt="adam", target="float", lr=0.01, scale=1, iters=1),
    dict(name="paper float target", loss="paper", opt="adam", target="float", lr=0.005, scale=2, iters=1),
    dict(name="closed form", loss="nmse", opt="closed", target="local", ridge=0.01, lr=0, scale=0, iters=1),
    dict(name="no passes", loss="author", opt="adam", target="local", lr=0.01, scale=1, iters=0),
    dict(name="one layer", loss="author", opt="adam", target="local", lr=0.01, scale=1, iters=1, layers=[1, 2]),
    dict(name="too far", loss="author", opt="adam", target="local", lr=0.8, scale=1, iters=1),
]


def rtn(w):
    """codes, scales (representable in half precision), zeros; w [out, in]"""
    out, cols = w.shape
    g = w.reshape(out, cols // GROUP, GROUP)
    lo, hi = g.amin(-1).clamp(max=0), g.amax(-1).clamp(min=0)
    s = ((hi - lo) / (2 ** BITS - 1)).half().double()
    z = (-lo / s).round().clamp(0, 2 ** BITS - 1)
    c = ((g / s[..., None]).round() + z[..., None]).clamp(0, 2 ** BITS - 1)
    return c, s, z, (s[..., None] * (c - z[..., None])).reshape(out, cols)


def main():
    base = os.path.join(here, "..", "collect")
    model = LlamaForCausalLM.from_pretrained(os.path.join(base, "tiny"), dtype=torch.float32,
                                             attn_implementation="eager").double().eval()
    ids = torch.tensor(json.load(open(os.path.join(base, "ids.json"))))
    N, T = ids.shape
    n = N - HOLD
    L = len(model.model.layers)
    out = {"bits": BITS, "group": GROUP, "holdout": HOLD, "n": N, "T": T, "layers": [], "cases": []}
    quant = []
    for l, layer in enumerate(model.model.layers):
        q, rec = copy.deepcopy(layer), {}
        for r, path in ROLES.items():
            c, s, z, dq = rtn(layer.get_submodule(path).weight.detach())
            q.get_submodule(path).weight.data = dq
            rec[r] = {"codes": "".join(str(int(x)) for x in c.flatten()), "scale": s.flatten().tolist(),
                      "zero": "".join(str(int(x)) for x in z.flatten())}
        out["layers"].append(rec)
        quant.append(q)

    cfg = model.config
    E = cfg.head_dim
    inv = 10000.0 ** (-torch.arange(0, E, 2) / E)
    ang = torch.arange(T)[:, None] * inv[None]
    pe = (torch.cat([ang.cos()] * 2, -1)[None], torch.cat([ang.sin()] * 2, -1)[None])
    mask = torch.full((T, T), float("-inf")).triu(1)[None, None]

    def run(b, x):
        o = b(x[None], attention_mask=mask, position_embeddings=pe)
        return (o[0] if isinstance(o, tuple) else o).reshape(T, -1)

    def logp(x):
        return torch.log_softmax(model.lm_head(model.model.norm(x)), -1)

    def closed(f, q, xs, ridge):
        seen = {}
        hooks = [q.get_submodule(p).register_forward_pre_hook(
            lambda m, a, k=k: seen.setdefault(k, []).append(a[0].reshape(-1, a[0].shape[-1]).detach()))
            for k, p in (("a", "self_attn.q_proj"), ("m", "mlp.gate_proj"))]
        for x in xs:
            run(q, x)
        for h in hooks:
            h.remove()
        for key, norm, roles in (("a", q.input_layernorm, "q k v"), ("m", q.post_attention_layernorm, "gate up")):
            X = torch.cat(seen[key]).numpy()
            rows, rhs = [], []
            for r in roles.split():
                W = f.get_submodule(ROLES[r]).weight.detach().numpy()
                Q = q.get_submodule(ROLES[r]).weight.detach().numpy()
                rows.append((X[:, None, :] * Q[None]).reshape(-1, X.shape[1]))
                rhs.append((X @ W.T).reshape(-1))
            rows, rhs = np.concatenate(rows), np.concatenate(rhs)
            lam = ridge * (rows ** 2).sum(0).mean()
            A = np.concatenate([rows, np.sqrt(lam) * np.eye(X.shape[1])])
            s = np.linalg.lstsq(A, np.concatenate([rhs, np.sqrt(lam) * np.ones(X.shape[1])]), rcond=None)[0]
            norm.weight.data *= torch.tensor(s)

    for case in CASES:
        with torch.no_grad():
            emb = model.model.embed_tokens(ids)
        train, train_f = [emb[i] for i in range(n)], [emb[i] for i in range(n)]
        hf, ho, hn = ([emb[i] for i in range(n, N)] for _ in range(3))
        res = {**case, "result": []}
        for l in range(L):
            f, q, old = model.model.layers[l], copy.deepcopy(quant[l]), quant[l]
            params = [q.input_layernorm.weight, q.post_attention_layernorm.weight]
            for p in list(f.parameters()) + list(q.parameters()):
                p.requires_grad_(False)
            with torch.no_grad():
                hf, train_f = [run(f, x) for x in hf], [run(f, x) for x in train_f]
                tt = train_f if case["target"] == "float" else [run(f, x) for x in train]
                th = hf if case["target"] == "float" else [run(f, x) for x in hn]

            def mean(xs, ts):
                k = min(8, len(xs))
                with torch.no_grad():
                    return sum(loss(case["loss"], ts[i], run(q, xs[i])).item() for i in range(k)) / k

            rec = {"lr": case["lr"] * (1 + case["scale"] * l / L), "train": [mean(train, tt)], "holdout": [mean(hn, th)]}
            if case.get("layers") and not case["layers"][0] <= l < case["layers"][1]:
                pass
            elif case["opt"] == "closed":
                with torch.no_grad():
                    closed(f, q, train, case["ridge"])
            else:
                for p in params:
                    p.requires_grad_(True)
                opt = torch.optim.Adam(params, lr=rec["lr"])
                for _ in range(case["iters"]):
                    for x, t in zip(train, tt):
                        opt.zero_grad()
                        loss(case["loss"], t, run(q, x)).backward()
                        opt.step()
                for p in params:
                    p.requires_grad_(False)
            rec["train"].append(mean(train, tt))
            rec["holdout"].append(mean(hn, th))
            rec["norms"] = [flat(p) for p in params]
            with torch.no_grad():
                train, hn = [run(q, x) for x in train], [run(q, x) for x in hn]
                ho = [run(old, x) for x in ho]
            res["result"].append(rec)
        with torch.no_grad():
            for key, xs in (("old", ho), ("new", hn)):
                kl = top = 0.0
                for a, b in zip(hf, xs):
                    p, q = logp(a[:-1]), logp(b[:-1])  # positions that have a next token
                    kl += (p.exp() * (p - q)).sum(-1).mean().item() / HOLD
                    top += (p.argmax(-1) == q.argmax(-1)).double().mean().item() / HOLD
                res["kl_" + key], res["top1_" + key] = kl, top
        out["cases"].append(res)
        print(case["name"], [(r["train"], r["holdout"]) for r in res["result"]], res["kl_old"], res["kl_new"],
              res["top1_old"], res["top1_new"])
    with open(os.path.join(here, "model.json"), "w") as file:
        json.dump(out, file, separators=(",", ":"))
        file.write("\n")


main()
