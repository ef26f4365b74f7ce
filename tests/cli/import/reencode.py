# SPDX-License-Identifier: Apache-2.0
"""Codes of one layout in another: reencode.py same A.nts B.nts   scales, zeros and codes of every quantized linear are the same
numbers (groups may be cut into smaller ones);   shifted A.nts B.nts   scales and codes less zeros are;   scaled DIR OUT FACTOR
a compressed-tensors directory with scales as BF16, times FACTOR."""
import os, shutil, sys
import numpy as np

sys.path[:0] = ["tests/cli/import", "tests/cli/nt-pack"]
import layouts, oracle

BLOCKS = {"Q4_0": (4, 8), "Q5_0": (5, 16), "Q8_0": (8, 128)}


def blocks(kind, raw, shape):
    """codes, zeros, scales per column; ggml's dequantization with a scale of 1 gives codes less the zero"""
    bits, zero = BLOCKS[kind]
    b = np.frombuffer(raw, np.uint8).reshape(-1, len(raw) * 32 // (shape[0] * shape[1])).copy()
    d = np.repeat(b[:, :2].copy().view("<f2").astype(np.float32).reshape(shape[0], -1), 32, 1)
    b[:, :2] = np.frombuffer(np.float16(1).tobytes(), np.uint8)
    return oracle.dequant(kind, b.tobytes()).reshape(shape).astype(int) + zero, np.full(shape, zero), d


def linears(path):
    heads, parts = {}, {}
    for kind, meta, payload in oracle.read_nts(path)[1]:
        if kind == "QTensor":
            heads[meta["name"]] = meta
        if kind == "QPart":
            parts.setdefault(meta["name"], {})[meta["part"]] = (meta, payload)
    out = {}
    for name, h in heads.items():
        p, shape = parts[name], h["dims"]
        if "data" in p:
            kind = p["data"][0]["dtype"]
            if kind in BLOCKS:
                out[name] = blocks(kind, p["data"][1], shape)
            continue
        n, bits = shape[0] * shape[1], h["bits"]
        raw = p["scale"][1]
        scale = {"BF16": oracle.bf16, "F16": lambda b: np.frombuffer(b, "<f2"), "F32": lambda b: np.frombuffer(b, "<f4")}[p["scale"][0]["dtype"]](raw)
        scale = scale.astype(np.float32).reshape(shape[0], -1)
        groups = scale.shape[1]
        zero = np.full(scale.shape, 1 << (bits - 1)) if "zero" not in p else oracle.unpack_bits(p["zero"][1], scale.size, bits).reshape(scale.shape)
        g = np.frombuffer(p["gidx"][1], "<i4") if "gidx" in p else np.arange(shape[1]) // (h["group"] if groups > 1 else shape[1])
        out[name] = oracle.unpack_bits(p["codes"][1], n, bits).reshape(shape), zero[:, g], scale[:, g]
    return out


def same(a, b, shift):
    x, y = linears(a), linears(b)
    assert x and x.keys() == y.keys(), (len(x), len(y))
    for name in x:
        (c, z, s), (d, y0, t) = x[name], y[name]
        assert np.array_equal(s, t), name + ": scales"
        assert np.array_equal(c - z, d - y0) and (shift or np.array_equal(z, y0)), name + ": codes or zeros"


def scaled(source, target, factor):
    os.makedirs(target)
    out = {}
    for name, (kind, shape, raw) in layouts.load(os.path.join(source, "model.safetensors")).items():
        t = layouts.Raw(kind, np.frombuffer(raw, np.uint8))
        t.shape = tuple(shape)
        if name.endswith("weight_scale"):
            t = layouts.bf16(np.frombuffer(raw, "<f2").astype(np.float32).reshape(shape) * np.float32(factor))
        out[name] = t
    layouts.save(os.path.join(target, "model.safetensors"), out)
    shutil.copy(os.path.join(source, "config.json"), target)


if sys.argv[1] == "scaled":
    scaled(sys.argv[2], sys.argv[3], float(sys.argv[4]))
else:
    same(sys.argv[2], sys.argv[3], sys.argv[1] == "shifted")
