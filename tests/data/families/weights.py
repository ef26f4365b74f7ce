#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the model directory of a tiny random model from its NAME.json: weights.py NAME.json DIR [OPTION...].
Values follow from a tensor's name and an element's index alone and are whole numbers of 8 bits times a power of two,
so that every float type holds them. Norms and biases are random too. Needs numpy only.

Options: bare = names without their first part, as a model saved without its head has them; buffers = with the buffers
that old checkpoints carry."""
import json
import os
import struct
import sys
import zlib

import numpy as np

CODES = {"F32": "<f4", "F16": "<f2", "BF16": None}


def integers(name, n):
    """-127 .. 127, uniform; splitmix64 of a counter."""
    with np.errstate(over="ignore"):
        x = (np.arange(n, dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()) << 32)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return np.maximum((x >> np.uint64(56)).astype(np.int64) - 128, -127)


def values(name, shape, offset):
    """offset: norms hold gain - offset."""
    u = integers(name, int(np.prod(shape))).reshape(shape).astype(np.float64)
    if name.endswith(".weight") and (len(shape) == 1 or "norm" in name):
        return 1 - offset + u / 256
    if len(shape) == 1:
        return u / 512
    # about 1 / sqrt(inputs)
    return u * 2.0 ** -round(np.log2(74 * np.sqrt(shape[-1])))


def encode(x, dtype):
    if dtype == "BF16":
        return (x.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return x.astype(CODES[dtype]).tobytes()


def write_safetensors(path, tensors, dtype="F32", metadata=None):
    header, at, blobs = ({"__metadata__": metadata} if metadata else {}), 0, []
    for name in sorted(tensors):
        blob = encode(tensors[name], dtype)
        header[name] = {"dtype": dtype, "shape": list(tensors[name].shape), "data_offsets": [at, at + len(blob)]}
        at += len(blob)
        blobs.append(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def tensors_of(model):
    return {n: values(n, s, model.get("offset", 0)) for n, s in model["tensors"].items()}


def write(model, directory, bare=False, buffers=False, dtype=None):
    os.makedirs(directory, exist_ok=True)
    tensors = tensors_of(model)
    if buffers:
        layer = next(n for n in tensors if ".0." in n).split(".0.")[0] + ".0."
        for name in ("attn.bias", "attn.masked_bias", "attention.bias", "attention.masked_bias",
                     "self_attn.rotary_emb.inv_freq", "attention.rotary_emb.inv_freq"):
            tensors.setdefault(layer + name, np.zeros((1, 1, 4, 4)))
    if bare:
        tensors = {n.split(".", 1)[1] if n.count(".") > 1 else n: x for n, x in tensors.items()}
    with open(os.path.join(directory, "config.json"), "w") as f:
        json.dump(model["config"], f, indent=1)
    write_safetensors(os.path.join(directory, "model.safetensors"), tensors, dtype or model["dtype"])


def main():
    with open(sys.argv[1]) as f:
        model = json.load(f)
    write(model, sys.argv[2], **{o: True for o in sys.argv[3:]})
    with open(os.path.join(sys.argv[2], "ids.json"), "w") as f:
        json.dump(model["ids"], f)


if __name__ == "__main__":
    main()
