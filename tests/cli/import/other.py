# SPDX-License-Identifier: Apache-2.0
"""layouts.py for more kinds: bitsandbytes, HQQ, ModelOpt and fbgemm_fp8."""
import json
import numpy as np
import layouts
from layouts import E2M1, Raw, e4m3, nibbles, rng


def scalar(dtype, v):
    return Raw(dtype, np.array(v))


def text(s):
    return np.frombuffer(s.encode(), np.uint8)


# ---- bitsandbytes: codes and blocks of the whole matrix, the first of two codes in the high nibble ----

NF4 = np.array([-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
                -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
                0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0], np.float32)
FP4 = np.array([0, 0.0625, 8, 12, 4, 6, 2, 3], np.float32) / np.float32(12)
FP4 = np.concatenate([FP4, -FP4])


def bnb4(kind="nf4", block=64, nested=False, storage=np.uint8):
    level = {"nf4": NF4, "fp4": FP4}[kind]
    def linear(name, out, inn):
        n = out * inn
        codes = rng.integers(0, 16, n)
        blocks = -(-n // block)
        state = {"quant_type": kind, "blocksize": block, "dtype": "float16", "shape": [out, inn]}
        t = {"weight": (codes[::2] << 4 | codes[1::2]).astype(np.uint8).view(storage)[:, None], "weight.quant_map": level}
        if nested:
            table = np.sort(rng.uniform(-1, 1, 256)).astype(np.float32)
            outer = rng.uniform(0.1, 0.2, -(-blocks // 256)).astype(np.float32)
            absmax, offset = rng.integers(0, 256, blocks).astype(np.uint8), np.float32(0.25)
            scale = table[absmax] * outer[np.arange(blocks) // 256] + offset
            t.update({"weight.absmax": absmax, "weight.nested_absmax": outer, "weight.nested_quant_map": table})
            state.update({"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": float(offset)})
        else:
            scale = t["weight.absmax"] = rng.uniform(0.1, 0.4, blocks).astype(np.float32)
        t[f"weight.quant_state.bitsandbytes__{kind}"] = text(json.dumps(state))
        return t, (level[codes] * scale[np.arange(n) // block]).reshape(out, inn)
    return linear, {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind}, "config.json"


def bnb8():
    def linear(name, out, inn):
        codes = rng.integers(-127, 128, (out, inn)).astype(np.int8)
        scb = rng.uniform(0.1, 0.4, out).astype(np.float32)
        return ({"weight": codes, "SCB": scb, "weight_format": scalar("U8", np.uint8(0))},
                (scb / np.float32(127))[:, None] * codes.astype(np.float32))
    return linear, {"quant_method": "bitsandbytes", "load_in_8bit": True}, "config.json"


# ---- HQQ: the matrix as groups x size (axis 1) or size x groups (axis 0), its rows in parts that share a word ----

PACKINGS = {8: ("8bit_u8", 1), 4: ("4bit_u8", 2), 3: ("3bit_32", 10), 2: ("2bit_u8", 4), 1: ("1bit_u8", 8)}


def hqq(bits, axis, size=16, dtype=np.float16, config=True, view=None):
    name_, each = PACKINGS[bits]
    def linear(name, out, inn):
        groups = out * inn // size
        codes = rng.integers(0, 2**bits, (groups, size) if axis else (size, groups))
        one = (groups, 1) if axis else (1, groups)
        scale, zero = (rng.uniform(0.1, 0.3, one) / 2**bits).astype(dtype), rng.uniform(0, 2**bits, one).astype(dtype)
        step = -(-len(codes) // each)
        padded = np.zeros((step * each, codes.shape[1]), np.uint32)
        padded[:len(codes)] = codes
        words = sum(padded[k * step:(k + 1) * step] << bits * (each - 1 - k) for k in range(each))
        words = words.astype(np.int32 if bits == 3 else np.uint8)
        t = {"W_q": words.view(view) if view else words, "scale": scale, "zero": zero, "shape": np.array([out, inn], np.int64),
             "packing": text(name_), "axis": scalar("I32", np.int32(axis)), "nbits": scalar("I32", np.int32(bits)),
             "group_size": scalar("I32", np.int32(size)), "unpack_view_dtype": text("torch.int32" if bits == 3 else "torch.uint8")}
        for k in ("view_as_float", "quant_scale", "quant_zero", "offload_meta", "encoded_state_dict", "stores_quant_config",
                  "channel_wise", "optimize", "round_zero"):
            t[k] = scalar("U8", np.uint8(k in ("encoded_state_dict", "stores_quant_config", "channel_wise", "optimize")))
        s, z, c = scale.astype(np.float32), zero.astype(np.float32), codes.astype(np.float32)
        return t, (s * c + -z * s).reshape(out, inn)
    said = {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": bits, "group_size": size, "axis": axis}},
            "skip_modules": ["lm_head"]}
    return linear, said, "config.json" if config else "none"


# ---- ModelOpt and fbgemm ----

def modelopt4(config="config.json"):
    def linear(name, out, inn):
        codes, s = rng.integers(0, 16, (out, inn)), rng.integers(1, 120, (out, inn // 16))
        t = {"weight": nibbles(codes), "weight_scale": Raw("F8_E4M3", s.astype(np.uint8)),
             "weight_scale_2": scalar("F32", np.float32(2**-10)), "input_scale": scalar("F32", np.float32(0.01))}
        if name.endswith("k_proj") and "attn" in name:
            t["k_scale"] = scalar("F32", np.float32(1))
        return t, E2M1[codes] * (e4m3(s) * np.float32(2**-10))[:, np.arange(inn) // 16]
    if config == "config.json":
        return linear, {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]}, config
    return linear, {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "group_size": 16}}, config


def fp8(method, each_row):
    def linear(name, out, inn):
        codes = rng.integers(0, 127, (out, inn)) | rng.integers(0, 2, (out, inn)) << 7
        s = rng.uniform(1e-3, 2e-3, (out, 1) if each_row else ()).astype(np.float32)
        t = {"weight": Raw("F8_E4M3", codes.astype(np.uint8)), "weight_scale": s if each_row else scalar("F32", s)}
        return t, e4m3(codes) * np.float32(s)
    return linear, {"quant_method": method, **({"quant_algo": "FP8"} if method == "modelopt" else {})}, "config.json"


KINDS = {
    "nf4": lambda: bnb4(), "nf4-double": lambda: bnb4(nested=True, block=16), "fp4": lambda: bnb4("fp4", 128),
    "nf4-long": lambda: bnb4(block=4096), "nf4-float": lambda: bnb4(storage=np.float32), "int8": bnb8,
    "hqq8": lambda: hqq(8, 1), "hqq4": lambda: hqq(4, 1, 64), "hqq3": lambda: hqq(3, 1), "hqq2": lambda: hqq(2, 1, 32),
    "hqq1": lambda: hqq(1, 1), "hqq4-across": lambda: hqq(4, 0, 64), "hqq3-across": lambda: hqq(3, 0),
    "hqq2-across": lambda: hqq(2, 0, 128, np.float32), "hqq8-across": lambda: hqq(8, 0, 32),
    "hqq1-wide": lambda: hqq(1, 1, 16, np.float32), "hqq4-float": lambda: hqq(4, 1, 64, view=np.float16),
    "hqq4-bare": lambda: hqq(4, 1, 32, config=False),
    "modelopt-nvfp4": modelopt4, "modelopt-old": lambda: modelopt4("hf_quant_config.json"),
    "modelopt-fp8": lambda: fp8("modelopt", False), "fbgemm": lambda: fp8("fbgemm_fp8", True),
}

if __name__ == "__main__":
    layouts.KINDS = KINDS
    layouts.cli()
