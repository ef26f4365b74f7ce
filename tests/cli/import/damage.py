# SPDX-License-Identifier: Apache-2.0
"""`damage.py DIR`: checkpoints of every layout with one thing wrong that no shape tells, each in a directory of DIR by its name."""
import json, os, shutil, struct, sys
import numpy as np
import layouts, other
from layouts import load


def store(path, tensors):
    """As they are: name -> (dtype, shape, bytes)."""
    head, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(head).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(t[2] for t in tensors.values()))


def put(suffix, fmt, v, at=0):
    """Element `at` of the first tensor of that name becomes v."""
    def edit(t, config):
        k = next(k for k in t if k.endswith(suffix))
        size, data = struct.calcsize(fmt), bytearray(t[k][2])
        data[at * size:(at + 1) * size] = struct.pack("<" + fmt, v)
        t[k] = (*t[k][:2], bytes(data))
    return edit


def text(suffix, s):
    def edit(t, config):
        k = next(k for k in t if k.endswith(suffix))
        t[k] = ("U8", [len(s)], s.encode())
    return edit


def state(**new):
    """What quant_state says; None: nothing."""
    def edit(t, config):
        k = next(k for k in t if "quant_state" in k)
        s = {k: v for k, v in {**json.loads(t[k][2]), **new}.items() if v is not None}
        text(k, json.dumps(s))(t, config)
    return edit


def said(key, v):
    def edit(t, config):
        config["quantization" if "quantization" in config else "quantization_config"][key] = v
    return edit


NAN, INF = struct.unpack("<I", struct.pack("<f", float("nan")))[0], 0x7C00
DAMAGE = {
    "nf4": [("no-json", text("bitsandbytes__nf4", "nf4 of 64")), ("twice", text("bitsandbytes__nf4", '{"blocksize":64,"blocksize":64,"shape":[64,64]}')),
            ("nested", text("bitsandbytes__nf4", "[" * 3000)), ("block-0", state(blocksize=0)), ("block-48", state(blocksize=48)),
            ("block-huge", state(blocksize=2**40)), ("no-block", state(blocksize=None)), ("shape-0", state(shape=[0, 64])),
            ("shape-3", state(shape=[4, 16, 64])), ("shape-huge", state(shape=[2**31, 2**31])), ("shape-negative", state(shape=[-64, -64])),
            ("shape-turned", state(shape=[32, 128])), ("other-table", put("quant_map", "f", 0.5)), ("nan", put("absmax", "I", NAN))],
    "nf4-double": [("no-offset", state(nested_offset=None)), ("inner-0", state(nested_blocksize=0)), ("inner-1", state(nested_blocksize=1)),
                   ("nan", put("nested_absmax", "I", NAN)), ("offset-huge", state(nested_offset=1e300))],
    "int8": [("format", put("weight_format", "B", 2)), ("nan", put("SCB", "I", NAN))],
    "hqq4": [("packing", text(".packing", "5bit_u8")), ("other-packing", text(".packing", "2bit_u8")), ("axis", put(".axis", "i", 2)),
             ("axis-negative", put(".axis", "i", -1)), ("shape-negative", put(".shape", "q", -64)), ("shape-huge", put(".shape", "q", 2**62)),
             ("shape-0", put(".shape", "q", 0)), ("small-scales", put(".quant_scale", "B", 1)), ("infinite", put(".scale", "H", INF))],
    "modelopt-nvfp4": [("zero", put("weight_scale_2", "f", 0)), ("negative", put("weight_scale_2", "f", -1)), ("nan", put("weight_scale_2", "I", NAN)),
                       ("tiny", put("weight_scale_2", "I", 1)), ("nan-scale", put("weight_scale", "B", 0x7F))],
    "fbgemm": [("nan", put("down_proj.weight", "B", 0x7F))],
    "gptq4-order": [("group-beyond", put("g_idx", "i", 3, 63)), ("group-negative", put("g_idx", "i", -1)), ("group-huge", put("g_idx", "i", 2**31 - 1)),
                    ("infinite", put(".scales", "H", INF))],
    "gptq4-sym": [("zeros", put("qzeros", "I", 0x12345678))],
    "awq": [("infinite", put(".scales", "H", INF))],
    "ct4-order": [("group-beyond", put("g_idx", "i", 3, 63)), ("group-negative", put("g_idx", "i", -2, 5)), ("shape-huge", put("weight_shape", "q", 2**40)),
                  ("shape-0", put("weight_shape", "q", 0)), ("shape-negative", put("weight_shape", "q", -64))],
    "ct-nvfp4": [("zero", put("weight_global_scale", "f", 0)), ("nan", put("weight_global_scale", "I", NAN))],
    "ct-mxfp4": [("nan", put("weight_scale", "B", 255))],
    "mlx4": [("group-0", said("group_size", 0)), ("group-negative", said("group_size", -32)), ("group-huge", said("group_size", 2**40)),
             ("group-other", said("group_size", 48)), ("nan", put(".biases", "H", 0x7E00))],
}


# What lies in the file that tells the layout; its first half is added.
SIDE = {"gptq4-old": "quantize_config.json", "modelopt-old": "hf_quant_config.json"}
TEXTS = {"empty": b"", "array": b"[]", "number": b"4", "twice": b'{"bits": 4, "bits": 4}', "deep": b'{"a":' + b"[" * 5000,
         "no-utf8": b'{"quant_method": "\xff\xfe"}', "nul": b'{"bits": 4}\0', "after": b'{"bits": 4} {}'}


def main(where):
    layouts.KINDS.update(other.KINDS)
    for kind, cases in DAMAGE.items():
        good = os.path.join(where, ".good")
        layouts.main(kind, good)
        for name, edit in cases:
            to = os.path.join(where, f"{kind}-{name}")
            shutil.copytree(os.path.join(good, "q"), to)
            tensors, config = load(os.path.join(to, "model.safetensors")), json.load(open(os.path.join(to, "config.json")))
            edit(tensors, config)
            store(os.path.join(to, "model.safetensors"), tensors)
            json.dump(config, open(os.path.join(to, "config.json"), "w"))
        shutil.rmtree(good)
    for kind, file in SIDE.items():
        layouts.main(kind, good)
        whole = open(os.path.join(good, "q", file), "rb").read()
        for name, data in {**TEXTS, "half": whole[:len(whole) // 2]}.items():
            to = os.path.join(where, f"{kind}-{name}")
            shutil.copytree(os.path.join(good, "q"), to)
            with open(os.path.join(to, file), "wb") as f:
                f.write(data)
        shutil.rmtree(good)


if __name__ == "__main__":
    main(sys.argv[1])
