# SPDX-License-Identifier: Apache-2.0
"""Routed experts. experts.py model DIR: the model of row mixtral-one, in whose layer 1 expert 4 is never chosen: its router's
row 3 is that of expert 0 negated, row 4 half of it, so that one of 0 and 3 is always likelier.
experts.py together NAME DIR: the model of a row with its experts in tensors of all of them, as transformers 5 has them.
experts.py counts STATS TOKENS PER_TOKEN IMATRIX: every layer's experts saw PER_TOKEN times TOKENS rows together, and IMATRIX has
their counts and sums of squares, a row an expert.
experts.py borrowed STATS OUT: the statistics of experts without tokens replaced by the sums of all experts' of their layer.
experts.py same A B yes|no: whether expert 4 of layer 1 has the same codes and scales in two streams of weights.
experts.py kl STREAM: the verdict compared two equal models."""
import json
import os
import sys

import numpy as np

sys.path.insert(0, os.path.join("tests", "cli", "families"))
sys.path.insert(0, os.path.join("tests", "cli", "nt-pack"))
import families  # noqa: E402
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


def same(a, b, expected):
    assert (expert(a) == expert(b)) == (expected == "yes")


if __name__ == "__main__":
    {"model": model, "together": together, "counts": counts, "borrowed": borrowed, "same": same, "kl": kl}[sys.argv[1]](*sys.argv[2:])
