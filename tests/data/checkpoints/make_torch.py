#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# State dicts as torch.save writes them, for the reader's tests. Made with torch 2.15.0, numpy 2.4.6. Element i (C order) of
# tensor k is ((37 i + 11 k) mod 64 - 32) / 8, as in make.py; integers are arange. Half of the files hold views.
import collections, io, json, os, pickle, zipfile
import torch
from torch import nn

here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "torch")
os.makedirs(here, exist_ok=True)

def values(k, *shape):
    n = 1
    for s in shape: n *= s
    i = torch.arange(n)
    return (((37 * i + 11 * k) % 64 - 32).float() / 8).reshape(shape)

def save(name, st, **kw):
    torch.save(st, os.path.join(here, name), **kw)

def transposed(t):                      # the same values, other strides
    return t.t().contiguous().t()

plain = collections.OrderedDict([
    ("f32", values(0, 3, 5)), ("f16", values(1, 7).half()), ("bf16", values(2, 2, 3, 4).bfloat16()),
    ("f64", values(3, 2, 2).double()), ("i64", torch.arange(5)), ("i32", torch.arange(5).int()), ("i16", torch.arange(5).short()),
    ("i8", torch.arange(5).char()), ("u8", torch.arange(5).byte()), ("bool", torch.tensor([True, False])),
    ("scalar", values(4)), ("empty", torch.zeros(0, 4)), ("param", nn.Parameter(values(5, 4, 2))),
    ("f8", torch.arange(5).to(torch.float8_e4m3fn)), ("steps", 17), ("name", "nobody"), ("none", None), ("lr", 0.5)])
plain._metadata = collections.OrderedDict([("", {"version": 1})])
save("plain.bin", plain)

def views():
    base = torch.zeros(64)
    base[10:25] = values(0, 15)
    wide = torch.zeros(4, 10)
    wide[:, 3:8] = values(1, 4, 5)
    return {"slice": base[10:25].view(3, 5), "columns": wide[:, 3:8], "transposed": transposed(values(2, 6, 4)),
            "tied.a": base, "tied.b": base, "expanded": values(3, 1).expand(3, 3), "permuted": values(4, 2, 3, 4).permute(2, 0, 1).contiguous().permute(1, 2, 0),
            "half": transposed(values(5, 3, 3).half())}
save("views.bin", views())
save("legacy.bin", views(), _use_new_zipfile_serialization=False)

def rezip(src, dst, compress, change):
    a = zipfile.ZipFile(os.path.join(here, src))
    with zipfile.ZipFile(os.path.join(here, dst), "w", compress) as z:
        for i in a.infolist():
            z.writestr(zipfile.ZipInfo(i.filename), change(i.filename, a.read(i)), compress)

rezip("views.bin", "deflated.bin", zipfile.ZIP_DEFLATED, lambda n, b: b)
big = {"a": values(0, 3, 5), "b": transposed(values(1, 4, 3))}
save("big.bin", big)
rezip("big.bin", "big.bin.tmp", zipfile.ZIP_STORED, lambda n, b: b"big" if n.endswith("byteorder") else
      b"".join(b[i:i + 4][::-1] for i in range(0, len(b), 4)) if "/data/" in n else b)
os.rename(os.path.join(here, "big.bin.tmp"), os.path.join(here, "big.bin"))

# ---- a model in two files, as transformers shards it: the weights of ../../pack/tiny ----
from safetensors.torch import load_file
tiny = os.path.join(here, "..", "..", "pack", "tiny")
st = load_file(os.path.join(tiny, "model.safetensors"))
names = sorted(st)
d = os.path.join(here, "model")
os.makedirs(d, exist_ok=True)
files = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
half = len(names) // 2
for f, part in zip(files, (names[:half], names[half:])):
    torch.save({n: transposed(st[n]) if st[n].dim() == 2 and i % 2 else st[n] for i, n in enumerate(part)}, os.path.join(d, f))
json.dump({"metadata": {"total_size": 0}, "weight_map": {n: files[i >= half] for i, n in enumerate(names)}},
          open(os.path.join(d, "pytorch_model.bin.index.json"), "w"), indent=1)
json.dump(json.load(open(os.path.join(tiny, "config.json"))), open(os.path.join(d, "config.json"), "w"), indent=1)
