# SPDX-License-Identifier: Apache-2.0
"""Reads imatrix GGUF files from their layout alone. Prints keys and the largest relative difference.

imatrix.py FILE EXPECTED.npz TOKENS    against the sums of another program and the number of tokens
imatrix.py FILE FILE                   two files"""
import struct
import sys

import numpy as np

LINEARS = {"attn_q": "qkv", "attn_k": "qkv", "attn_v": "qkv", "attn_output": "o", "ffn_gate": "mlp", "ffn_up": "mlp",
           "ffn_down": "down"}


class Reader:
    def __init__(self, path):
        with open(path, "rb") as f:
            self.data, self.at = f.read(), 0

    def take(self, fmt):
        v = struct.unpack_from("<" + fmt, self.data, self.at)
        self.at += struct.calcsize("<" + fmt)
        return v[0]

    def string(self):
        n = self.take("Q")
        self.at += n
        return self.data[self.at - n:self.at].decode()

    def value(self, kind):
        if kind == 8:
            return self.string()
        if kind == 9:
            item, n = self.take("I"), self.take("Q")
            return [self.value(item) for _ in range(n)]
        assert kind == 4, kind
        return self.take("I")


def read(path):
    r = Reader(path)
    assert r.data[:4] == b"GGUF"
    r.at = 4
    assert r.take("I") == 3
    n_tensors, n_keys = r.take("Q"), r.take("Q")
    keys, infos, tensors = {}, [], {}
    for _ in range(n_keys):
        name = r.string()
        keys[name] = r.value(r.take("I"))
    for _ in range(n_tensors):
        name, rank = r.string(), r.take("I")
        ne = [r.take("Q") for _ in range(rank)]
        assert r.take("I") == 0, "F32"
        infos.append((name, ne, r.take("Q")))
    base = (r.at + 31) // 32 * 32
    for name, ne, offset in infos:
        tensors[name] = np.frombuffer(r.data, np.float32, int(np.prod(ne)), base + offset)
    return keys, tensors


def report(keys, worst):
    print("type", keys["general.type"], "chunks", keys["imatrix.chunk_count"], "of", keys["imatrix.chunk_size"],
          "datasets", len(keys["imatrix.datasets"]))
    print("worst", "%.3g" % worst)


def against_sums(path, expected, tokens):
    keys, tensors = read(path)
    want, worst, names = np.load(expected), 0, set()
    for layer in range(2):
        for linear, site in LINEARS.items():
            stem = f"blk.{layer}.{linear}.weight"
            names |= {stem + ".in_sum2", stem + ".counts"}
            ref = want[f"layers.{layer}.{site}.sums"][2]
            worst = max(worst, float(np.max(abs(tensors[stem + ".in_sum2"] - ref)) / ref.max()))
            assert list(tensors[stem + ".counts"]) == [float(tokens)], stem
    assert set(tensors) == names, set(tensors) ^ names
    report(keys, worst)


def against_file(path, other):
    keys, tensors = read(path)
    _, want = read(other)
    worst = 0
    names = {n for n in want if n.startswith("blk.") and n.split(".")[-1] in ("in_sum2", "counts")}
    assert set(tensors) == names, set(tensors) ^ names
    for name in names:
        assert tensors[name].shape == want[name].shape, name
        if name.endswith("counts"):
            assert list(tensors[name]) == list(want[name]), name
        else:
            worst = max(worst, float(np.max(abs(tensors[name] - want[name])) / np.max(want[name])))
    report(keys, worst)


(against_sums if len(sys.argv) == 4 else against_file)(*sys.argv[1:])
