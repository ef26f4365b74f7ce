#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# Small checkpoints by the reference writers, for the readers' tests. Made with safetensors 0.8.0, gguf 0.19.0, torch 2.15.0,
# numpy 2.4.6. Element i of plain tensor k (numbered as below) is ((37 i + 11 k) mod 64 - 32) / 8: exact in every float type.
# Block types carry the blocks of ../ggml.
import json, os
import numpy as np, torch, gguf
from safetensors.torch import save_file

here = os.path.dirname(os.path.abspath(__file__))

def values(k, *shape):
    i = np.arange(int(np.prod(shape, dtype=np.int64)), dtype=np.int64)
    return torch.from_numpy((((37 * i + 11 * k) % 64 - 32) / 8).astype(np.float32).reshape(shape))

st = {"a.f32": values(0, 3, 5), "b.f16": values(1, 7).half(), "c.bf16": values(2, 2, 3, 4).bfloat16(),
      "d.i64": torch.arange(5), "e.scalar": values(4), "f.empty": torch.zeros(0, 4), "g.ünïcode": values(6, 1, 1).double(),
      "h.u8": torch.arange(3, dtype=torch.uint8), "i.bool": torch.tensor([True, False])}
save_file(st, os.path.join(here, "tiny.safetensors"), {"format": "pt", "note": "tiny"})

d = os.path.join(here, "sharded")
os.makedirs(d, exist_ok=True)
names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
parts = [{"model.embed_tokens.weight": values(0, 8, 4), "model.layers.0.x.weight": values(1, 4, 4)},
         {"model.norm.weight": values(2, 4).bfloat16()}]
for n, p in zip(names, parts):
    save_file(p, os.path.join(d, n), {"format": "pt"})
total = sum(t.numel() * t.element_size() for p in parts for t in p.values())
json.dump({"metadata": {"total_size": total}, "weight_map": {k: n for n, p in zip(names, parts) for k in p}},
          open(os.path.join(d, "model.safetensors.index.json"), "w"), indent=2)
json.dump({"model_type": "none", "hidden_size": 4}, open(os.path.join(d, "config.json"), "w"))

def gguf_file(path, plain, blocks, split=None):
    w = gguf.GGUFWriter(path, "tiny", endianess=gguf.GGUFEndian.LITTLE)
    if not split or split[0] == 0:
        w.add_uint8("t.u8", 200); w.add_int8("t.i8", -100); w.add_uint16("t.u16", 60000); w.add_int16("t.i16", -30000)
        w.add_uint32("t.u32", 4000000000); w.add_int32("t.i32", -2000000000); w.add_float32("t.f32", 0.1)
        w.add_bool("t.bool", True); w.add_string("t.str", "grüß Gott\n"); w.add_uint64("t.u64", 2**64 - 1)
        w.add_int64("t.i64", -2**62); w.add_float64("t.f64", 0.1); w.add_array("t.strs", ["a", "", "ßß"])
        w.add_array("t.ints", [1, -2, 3]); w.add_array("t.reals", [0.5, -0.25])
    if split:
        w.add_uint16("split.no", split[0]); w.add_uint16("split.count", split[1]); w.add_int32("split.tensors.count", split[2])
    for k, (n, t) in enumerate(plain):
        if t.dtype == torch.bfloat16:
            w.add_tensor(n, t.view(torch.uint8).numpy(), raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            w.add_tensor(n, t.numpy())
    for n in blocks:
        t = gguf.GGMLQuantizationType[n]
        b = np.fromfile(os.path.join(here, "..", "ggml", n + ".blocks"), dtype=np.uint8)
        w.add_tensor("blk." + n, b.reshape(1, -1), raw_dtype=t)
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()

plain = [("f32", values(0, 3, 5)), ("f16", values(1, 7).half()), ("bf16", values(2, 2, 3, 4).bfloat16()),
         ("vec", values(3, 9))]
gguf_file(os.path.join(here, "tiny.gguf"), plain, ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
gguf_file(os.path.join(here, "split-00001-of-00002.gguf"), plain[:2], [], (0, 2, 3))
gguf_file(os.path.join(here, "split-00002-of-00002.gguf"), [("third", values(2, 4))], [], (1, 2, 3))
