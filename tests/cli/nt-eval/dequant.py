# SPDX-License-Identifier: Apache-2.0
"""dequant.py STREAM.nts MODELDIR OUTDIR old|new: makes a float HF directory of a qweights stream with msgpack and NumPy alone.
dequant.py flip STREAM.nts OUT.nts N: the stream with byte N changed. dequant.py bits STREAM.nts: stored bits per weight."""
import json
import os
import shutil
import struct
import sys

import msgpack
import numpy as np


def records(path):
    rec = None
    with open(path, "rb") as f:
        for x in msgpack.Unpacker(f, max_bin_len=1 << 27, max_buffer_size=1 << 28):
            if isinstance(x, list):
                rec = (x[2], x[3], [])
            elif isinstance(x, bytes) and rec:
                rec[2].append(x)
            elif isinstance(x, dict) and rec:
                yield rec[0], rec[1], b"".join(rec[2])
                rec = None


def codes(raw, n, bits):
    b = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")[:n * bits].reshape(n, bits)
    return (b * (1 << np.arange(bits))).sum(1)


def load(path):
    with open(path, "rb") as f:
        head = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    return {k: np.frombuffer(data[slice(*t["data_offsets"])], "<f4").reshape(t["shape"])
            for k, t in head.items() if k != "__metadata__"}


def save(path, tensors):
    head, at = {"__metadata__": {"format": "pt"}}, 0
    for k, v in tensors.items():
        head[k] = dict(dtype="F32", shape=list(v.shape), data_offsets=[at, at + v.nbytes])
        at += v.nbytes
    raw = json.dumps(head).encode()
    raw += b" " * (-len(raw) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(raw)) + raw + b"".join(np.ascontiguousarray(v).tobytes() for v in tensors.values()))


def quantized(path):
    """(name, meta of the tensor, its parts)"""
    meta, parts = {}, {}
    for kind, m, payload in records(path):
        if kind == "QTensor":
            meta[m["name"]] = m
        if kind == "QPart":
            parts.setdefault(m["name"], {})[m["part"]] = (m["dtype"], payload)
    return [(n, meta[n], parts[n]) for n in meta]


def dequant(meta, parts):
    out, width = meta["dims"]
    bits, group = meta["bits"], meta["group"] or width
    groups = -(-width // group)
    numbers = lambda p: np.frombuffer(p[1], {"F16": "<f2", "F32": "<f4"}[p[0]]).astype(np.float32)
    q = codes(parts["codes"][1], out * width, bits).reshape(out, width)
    scale = numbers(parts["scale"]).reshape(out, groups)
    zero = codes(parts["zero"][1], out * groups, bits).reshape(out, groups) if "zero" in parts else np.full((out, groups), 2**(bits - 1))
    g = np.arange(width) // group
    return (scale[:, g] * (q - zero[:, g]).astype(np.float32)).astype(np.float32)


if sys.argv[1] == "flip":
    data = bytearray(open(sys.argv[2], "rb").read())
    data[int(sys.argv[4])] ^= 1
    open(sys.argv[3], "wb").write(data)
elif sys.argv[1] == "bits":
    q = quantized(sys.argv[2])
    print("%.3f" % (8 * sum(len(p[1]) for _, _, ps in q for p in ps.values()) / sum(np.prod(m["dims"]) for _, m, _ in q)))
else:
    stream, model, out, which = sys.argv[1:]
    w = load(os.path.join(model, "model.safetensors"))
    for name, meta, parts in quantized(stream):
        w[name] = dequant(meta, parts)
    for kind, m, payload in records(stream):
        if kind == "Norm" and m["which"] == which:
            w[m["name"]] = np.frombuffer(payload, "<f4")
    os.mkdir(out)
    for f in ("config.json", "tokenizer.json"):
        shutil.copy(os.path.join(model, f), out)
    save(os.path.join(out, "model.safetensors"), w)
