# SPDX-License-Identifier: Apache-2.0
"""Walks a qweights stream with python3-msgpack and compares every tensor with RTN made here, in NumPy, from the model's
safetensors file: rtn.py STREAM MODEL.safetensors BITS GROUP sym|asym f16|f32. Prints one line 'same N' or what differs."""
import json
import struct
import sys

import msgpack
import numpy as np


def load(path):
    with open(path, "rb") as f:
        head = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    out = {}
    for name, t in head.items():
        if name == "__metadata__":
            continue
        raw = data[slice(*t["data_offsets"])]
        if t["dtype"] == "BF16":
            x = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            x = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[t["dtype"]]).astype(np.float32)
        out[name] = x.reshape(t["shape"])
    return out


def codes(raw, n, bits):
    b = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")[:n * bits].reshape(n, bits)
    return (b * (1 << np.arange(bits))).sum(1)


def records(path):
    """(kind, meta, payload) of every record; an array starts a record, bin are its segments."""
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


def main(stream, model, bits, group, sym, scale):
    weights, bits, group, sym = load(model), int(bits), int(group), sym == "sym"
    top, n, parts, kinds = 2**bits - 1, 0, {}, []
    for kind, meta, payload in records(stream):
        kinds.append(kind)
        if kind == "QPart":
            parts[meta["name"], meta["part"]] = payload
        if kind == "Norm":
            assert np.array_equal(np.frombuffer(payload, "<f4"), weights[meta["name"]]), meta["name"]
    for name in sorted({k[0] for k in parts}):
        W = weights[name].astype(np.float64)
        out, width = W.shape
        groups = -(-width // (group or width))
        q = codes(parts[name, "codes"], W.size, bits).reshape(W.shape)
        s = np.frombuffer(parts[name, "scale"], {"f16": "<f2", "f32": "<f4"}[scale]).astype(np.float64).reshape(out, groups)
        z = np.full((out, groups), 2**(bits - 1)) if sym else codes(parts[name, "zero"], out * groups, bits).reshape(out, groups)
        for g in range(groups):
            w = W[:, g * group:(g + 1) * group] if group else W
            lo, hi = np.minimum(w.min(1), 0), np.maximum(w.max(1), 0)
            want = 2 * np.maximum(-lo, hi) / top if sym else (hi - lo) / top
            want = want.astype(np.float32).astype(np.float16 if scale == "f16" else np.float32).astype(np.float64)
            assert np.allclose(want, s[:, g], rtol=2e-3 if scale == "f16" else 1e-6, atol=0), (name, g, "scales")
            zero = z[:, g] if sym else np.minimum(np.rint(-lo / s[:, g]), top)
            assert np.array_equal(zero, z[:, g]), (name, g, "zeros")
            best = np.clip(np.rint(w / s[:, g:g + 1]) + zero[:, None], 0, top)
            got = q[:, g * group:(g + 1) * group] if group else q
            # a weight within an ulp of the middle between two levels may go either way in single precision
            away = np.abs(w / s[:, g:g + 1] + zero[:, None] - got) - 0.5
            assert np.all((best == got) | ((np.abs(best - got) == 1) & (away < 1e-5))), (name, g, "codes")
        n += 1
    assert kinds[-1] == "LayerEnd", kinds[-1]
    print("same", n)


main(*sys.argv[1:])
