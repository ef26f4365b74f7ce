# SPDX-License-Identifier: Apache-2.0
"""Routed experts. experts.py model DIR: the model of row mixtral-one, in whose layer 1 expert 4 is never chosen: its router's
row 3 is that of expert 0 negated, row 4 half of it, so that one of 0 and 3 is always likelier.
experts.py together NAME DIR: the model of a row with its experts in tensors of all of them, as transformers 5 has them.
experts.py counts STATS TOKENS PER_TOKEN IMATRIX: every layer's experts saw PER_TOKEN times TOKENS rows together, and IMATRIX has
their counts and sums of squares, a row an expert.
experts.py borrowed STATS OUT: the statistics of experts without tokens replaced by the sums of all experts' of their layer.
experts.py same A B yes|no: whether expert 4 of layer 1 has the same codes and scales in two streams of weights.
experts.py kl STREAM: the verdict compared two equal models.
experts.py wide NAME.gguf: mixtral with rows of 256, as llama.cpp lays it out; experts.py types FILE.gguf TYPE: its experts' type.
experts.py near A B LOGITS GRADIENTS: two dumps differ by at most that, as shares of each tensor's largest value.
experts.py trained DIR STREAM CE: the stream has every matrix of the directory, and that held-out cross-entropy.
experts.py closed DIR STATS RTN TWEAKED: the gain behind which layer 0's experts are is the one that solves the ridge problem in
NumPy, where attention is as it was."""
import json
import os
import sys

import numpy as np

sys.path.insert(0, os.path.join("tests", "cli", "families"))
sys.path.insert(0, os.path.join("tests", "cli", "nt-pack"))
import families  # noqa: E402
import gguf  # noqa: E402
import oracle  # noqa: E402


def model(directory):
    m = families.model("mixtral-one")
    tensors = families.weights.tensors_of(m)
    router = tensors["model.layers.1.block_sparse_moe.gate.weight"]
    router[3], router[4] = -router[0], router[0] / 2
    os.makedirs(directory)
    families.weights.write_safetensors(os.path.join(directory, "model.safetensors"),
                                       {n: x.astype(np.float32) for n, x in tensors.items()})
    with open(os.path.join(directory, "config.json"), "w") as f:
        json.dump(m["config"], f)


def together(name, directory):
    m, new, parts = families.model(name), {}, {}
    for n, x in families.weights.tensors_of(m).items():
        if ".experts." not in n:
            new[n.replace("block_sparse_moe", "mlp")] = x
            continue
        layer, rest = n.replace("block_sparse_moe", "mlp").split(".experts.")
        expert, which, _ = rest.split(".")
        parts.setdefault(layer, {}).setdefault(int(expert), {})[which[0] + which[-1] if which[0] == "w" else which] = x
    for layer, experts in parts.items():
        at = lambda x, *keys: next(x[k] for k in keys if k in x)
        every = [experts[x] for x in sorted(experts)]
        new[layer + ".experts.gate_up_proj"] = np.stack(
            [np.concatenate([at(x, "w1", "gate_proj"), at(x, "w3", "up_proj")]) for x in every])
        new[layer + ".experts.down_proj"] = np.stack([at(x, "w2", "down_proj") for x in every])
    os.makedirs(directory)
    families.weights.write_safetensors(os.path.join(directory, "model.safetensors"), {n: x.astype(np.float32) for n, x in new.items()})
    with open(os.path.join(directory, "config.json"), "w") as f:
        json.dump(m["config"], f)


def expert_sites(records, stat):
    """{(layer, "mlp" or "down"): [(meta, values) of expert 0, 1 ...]}"""
    found = {}
    for kind, meta, payload in records:
        if kind == stat and "." in meta["site"]:
            site, x = meta["site"].split(".")
            found.setdefault((meta["layer"], site), {})[int(x)] = (meta, payload)
    return {k: [v[x] for x in range(len(v))] for k, v in found.items()}


def counts(path, tokens, per_token, imatrix):
    sites = expert_sites(oracle.read_nts(path)[1], "sums")
    got = oracle.read_gguf(imatrix)[0]
    assert sites
    for (layer, site), experts in sites.items():
        n = [meta["count"] for meta, _ in experts]
        assert sum(n) == int(tokens) * int(per_token), n
        sums = np.stack([np.frombuffer(p, "<f8").reshape(5, -1)[2] for _, p in experts])
        assert not np.any(sums[np.array(n) == 0]) and np.all(sums[np.array(n) > 0].sum(1) > 0)
        for part in ("ffn_gate_exps", "ffn_up_exps") if site == "mlp" else ("ffn_down_exps",):
            name = "blk.%d.%s.weight." % (layer, part)
            assert np.array_equal(got[name + "counts"][1].ravel(), n), name
            assert np.array_equal(got[name + "in_sum2"][1].ravel(), sums.astype("<f4").ravel()), name


def borrowed(path, out):
    header, records, trailer = oracle.read_nts(path)
    extra = {k: v for k, v in trailer.items() if k not in ("records", "bytes", "xxh3", "inputs", "history", "status")}
    total = {k: (sum(m["count"] for m, _ in v), sum(np.frombuffer(p, "<f4") for _, p in v))
             for k, v in expert_sites(records, "hessian").items()}
    new = []
    for kind, meta, payload in records:
        if kind in ("hessian", "sums", "absmax") and not meta["count"]:
            n, sums = total[meta["layer"], meta["site"].split(".")[0]]
            meta = dict(meta, count=n)
            payload = sums.astype("<f4").tobytes() if kind == "hessian" else payload
        new.append((kind, meta, payload))
    oracle.write_nts(out, header, new, extra)


def expert(path):
    parts = {}
    for kind, meta, payload in oracle.read_nts(path)[1]:
        if kind == "QPart" and "layers.1.block_sparse_moe.experts.4." in meta["name"]:
            parts[meta["name"], meta["part"]] = payload
    assert len(parts) == 9, sorted(parts)
    return parts


def kl(path):
    trailer = oracle.read_nts(path)[2]
    assert abs(trailer["kl_old"]) < 1e-9, trailer


def wide(path):
    m = families.model("mixtral")
    m["config"].update(hidden_size=256, intermediate_size=256, head_dim=32)
    for n, shape in m["tensors"].items():
        rows = {"q_proj": 96, "k_proj": 32, "v_proj": 32, "embed_tokens": 43, "lm_head": 43, "gate": 5}.get(n.split(".")[-2], 256)
        shape[:] = [rows, 96 if "o_proj" in n else 256][:len(shape)]
    gguf.write(path, m)


class Raw(bytes):
    def reshape(self, shape):
        return self


def types(path, expected):
    oracle.TYPES[11], oracle.dequant = ("Q3_K", 256, 110), lambda kind, raw: Raw(raw)
    got = {n: t for n, (t, _) in oracle.read_gguf(path)[0].items() if "_exps." in n}
    assert len(got) == 6 and set(got.values()) == {expected}, got


def near(a, b, logits, gradients):
    a, b = families.load(a), families.load(b)
    assert set(a) == set(b) and any(n.startswith("grad.") for n in a)
    for n, x in a.items():
        d = np.abs(b[n] - x).max() / np.abs(x).max()
        assert (d > 0 or n == "hidden.0") and d < float(gradients if n.startswith("grad.") else logits), "%s: %g" % (n, d)


def closed(directory, stats, rtn, tweaked):
    """H of each expert from nt-collect; what chooses experts sees all tokens, each of which goes to two of them."""
    with open(os.path.join(directory, "config.json")) as f:
        per_token = json.load(f)["num_experts_per_tok"]
    W = families.load(os.path.join(directory, "model.safetensors"))
    p = "model.layers.0.block_sparse_moe."
    D = W[p + "gate.weight"].shape[1]
    lower = np.tril_indices(D)
    H = []
    for meta, payload in expert_sites(oracle.read_nts(stats)[1], "hessian")[0, "mlp"]:
        h = np.zeros((D, D))
        h[lower] = np.frombuffer(payload, "<f4")
        H.append(h + np.tril(h, -1).T)
    R = W[p + "gate.weight"].astype(float)
    A, rhs = sum(H) / per_token * (R.T @ R), np.zeros(D)
    Q = oracle.linears_of([r for r in oracle.read_nts(rtn)[1] if ".experts." in r[1].get("name", "")])
    for x, h in enumerate(H):
        for n in ("w1", "w3"):
            name = p + "experts.%d.%s.weight" % (x, n)
            q = Q[name].astype(float)
            A += h * (q.T @ q)
            rhs += np.diag(h @ (W[name] - q).T @ q)
    s = 1 + np.linalg.solve(A + 0.01 * np.trace(A) / D * np.eye(D), rhs)
    norms = {(m["name"], m["which"]): np.frombuffer(b, "<f4") for k, m, b in oracle.read_nts(tweaked)[1] if k == "Norm"}
    for norm, want in (("post_attention_layernorm", s), ("input_layernorm", np.ones(D))):
        old, new = (norms["model.layers.0.%s.weight" % norm, w] for w in ("old", "new"))
        d = np.abs(new - old * want).max()
        assert d < 1e-5, "%s differs by %g" % (norm, d)
    assert np.abs(s - 1).max() > 1e-3


def trained(packed, stream, found):
    trailer = oracle.read_nts(stream)[2]
    assert abs(trailer["ce_new"] - float(found)) < 1e-5, (trailer["ce_new"], found)
    names = {m["name"] for k, m, _ in oracle.read_nts(stream)[1] if k == "QTensor"}
    shapes = families.shapes(os.path.join(packed, "model.safetensors"))
    assert names == {n for n, s in shapes.items() if len(s) == 2}, sorted(names ^ set(shapes))


def same(a, b, expected):
    assert (expert(a) == expert(b)) == (expected == "yes")


if __name__ == "__main__":
    {"model": model, "together": together, "counts": counts, "borrowed": borrowed, "same": same, "kl": kl, "wide": wide, "trained": trained, "types": types, "near": near,
     "closed": closed}[sys.argv[1]](*sys.argv[2:])
