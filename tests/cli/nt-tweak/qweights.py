# SPDX-License-Identifier: Apache-2.0
"""Reads qweights streams with python3-msgpack, knowing nothing of nt-tweak but the documented format.

qweights.py same Q.nts TWEAKED.nts         every record of Q.nts is in TWEAKED.nts, meta and payload byte for byte
qweights.py case TWEAKED.nts MODEL.json NAME
                                            largest differences of new norms and KL from what PyTorch found
qweights.py get TWEAKED.nts KEY            a key of the trailer
qweights.py scales Q.nts TWEAKED.nts       codes and zeros of Q.nts are in TWEAKED.nts, its scales are others
qweights.py exact TWEAKED.nts bf16|f16     all new norms are numbers of that type, and one differs from the old
qweights.py unchanged TWEAKED.nts LAYER    new norms of the layer equal the old ones
"""
import json
import sys
from pathlib import Path

import numpy as np

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parents[1]))
from nts import walk


def norms(records, which):
    return {(m["layer"], m["name"]): np.frombuffer(d, np.float32) for k, m, d in records
            if k == "Norm" and m["which"] == which}


def same(a, b):
    before, after = walk(a)[0], walk(b)[0]
    kept = [r for r in after if r[0] != "tweak" and not (r[0] == "Norm" and r[1]["which"] == "new")]
    assert len(kept) == len(before), (len(kept), len(before))
    for x, y in zip(before, kept):
        if x[0] == "LayerEnd":
            assert y[0] == "LayerEnd" and y[1]["layer"] == x[1]["layer"]
        else:
            assert x == y, (x[:2], y[:2])
    print("payload", sum(len(r[2]) for r in before))


def exact(path, dtype):
    records = walk(path)[0]
    new, old, n = norms(records, "new"), norms(records, "old"), 0
    for key, v in new.items():
        rounded = (v.view("<u4") & 0xFFFF0000).view("<f4") if dtype == "bf16" else v.astype("<f2").astype("<f4")
        assert (v == rounded).all(), key
        n += int((v != old[key]).sum())
    assert n
    print("elements moved", n)


def case(path, expected, name):
    records, trailer = walk(path)
    want = next(c for c in json.load(open(expected))["cases"] if c["name"] == name)
    new, worst, loss = norms(records, "new"), 0.0, 0.0
    reports = {m["layer"]: m for k, m, _ in records if k == "tweak"}
    for l, res in enumerate(want["result"]):
        prefix = f"model.layers.{l}."
        for norm, v in zip(("input_layernorm", "post_attention_layernorm"), res["norms"]):
            worst = max(worst, np.abs(new[l, prefix + norm + ".weight"] - np.array(v)).max())
        for key in ("train", "holdout"):
            for a, b in zip(reports[l].get(key, []), res[key]):
                loss = max(loss, abs(a - b) / abs(b))
    kl = max(abs(trailer["kl_" + k] - want["kl_" + k]) for k in ("old", "new"))
    verdict = "positive" if want["kl_new"] < want["kl_old"] else "negative"
    assert trailer["verdict"] == verdict and trailer["norms"] == {"positive": "new", "negative": "old"}[verdict]
    assert trailer["n"] == 22 and trailer["bits"] > 3
    assert worst < 2e-5 and loss < 1e-4 and kl < 1e-5, (worst, loss, kl)
    print(f"{verdict}; norms within {worst:.1e}, losses {loss:.1e}, KL {kl:.1e}")


def unchanged(path, layer):
    records = walk(path)[0]
    old, new = norms(records, "old"), norms(records, "new")
    mine = [k for k in old if k[0] == int(layer)]
    assert len(mine) == 2 and all((old[k] == new[k]).all() for k in mine)


def scales(a, b):
    parts = [{(m["name"], m["part"]): d for k, m, d in walk(p)[0] if k == "QPart"} for p in (a, b)]
    heads = [[r for r in walk(p)[0] if r[0] == "QTensor"] for p in (a, b)]
    assert heads[0] == heads[1] and parts[0].keys() == parts[1].keys()
    for key, data in parts[0].items():
        assert (data == parts[1][key]) == (key[1] != "scale"), key
    old, new = (np.concatenate([np.frombuffer(d, np.float16) for (_, p), d in x.items() if p == "scale"]) for x in parts)
    print(f"{len(old)} scales moved by up to {100 * np.abs(new / old - 1).max():.1f} %")


if sys.argv[1] == "get":
    print(walk(sys.argv[2])[1][sys.argv[3]])
else:
    {"same": same, "case": case, "scales": scales, "unchanged": unchanged, "exact": exact}[sys.argv[1]](*sys.argv[2:])
