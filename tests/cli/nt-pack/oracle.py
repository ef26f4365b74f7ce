# SPDX-License-Identifier: Apache-2.0
"""Checks what nt-pack wrote against the stream and the model, with readers of its own: python3 with numpy and msgpack.
  oracle.py retune IN OUT VERDICT NORMS [STEP]    a stream with tweaked norms added, as nt-tweak would write it
  oracle.py rounded STREAM FROM TO DTYPE          as norms, values rounded to DTYPE first; prints changed and kept
  oracle.py sidecar JSON FROM TO                  the sidecar's hashes and numbers
  oracle.py hf STREAM MODEL DIR DTYPE [WHICH]     oracle.py gguf STREAM MODEL FILE HEAD_DIM [WHICH]
  oracle.py gptq|awq|ct|mlx STREAM MODEL DIR [WHICH]     oracle.py overlay STREAM FILE [WHICH]
  oracle.py norms STREAM FROM TO [WHICH]          FROM and TO are files; prints the number of changed elements
  oracle.py shards DIR BYTES                      how many files there are, none larger than asked for
  oracle.py rescale IN OUT                        the first scale is twice as large
  oracle.py mix FIRST SECOND PATTERN OUT, order IN OUT     streams of two settings, of groups by activation order
  oracle.py harm IN OUT KIND KEY VALUE            the first record of a kind says something else
  oracle.py kinds DIR SUFFIX DTYPE                element type of the tensors that end in .SUFFIX
  oracle.py types FILE                            counts of the element types of a GGUF file
MODEL is the directory of the float model (BF16 safetensors). WHICH: old (default) or new norms."""
import collections
import ctypes
import functools
import hashlib
import json
import os
import re
import struct
import sys

import msgpack
import numpy as np

SYNC = bytes.fromhex("8ef24c2950439cad0301e0b27b6d2de1")


# ---- streams ----

def read_nts(path):
    """header, [(kind, meta, payload)], trailer"""
    unpacker = msgpack.Unpacker(open(path, "rb"), raw=False, max_buffer_size=1 << 30, strict_map_key=False)
    objects = [x for x in unpacker if x is not None]
    header, records, i = objects[1], [], 2
    while isinstance(objects[i], list):
        _, _, kind, meta = objects[i]
        payload, i = b"", i + 1
        while isinstance(objects[i], bytes):
            payload, i = payload + objects[i], i + 1
        assert set(objects[i]) == {"xxh3", "n"} and objects[i]["n"] == len(payload)
        records.append((kind, meta, payload))
        i += 1
    return header, records, objects[i]


def write_nts(path, header, records, extra):
    lib = ctypes.CDLL("libxxhash.so.0")
    lib.XXH3_64bits.restype, lib.XXH3_64bits.argtypes = ctypes.c_uint64, [ctypes.c_char_p, ctypes.c_size_t]
    xxh3 = lambda b: lib.XXH3_64bits(b, len(b))
    packed = msgpack.packb(header)
    out, hashed, seq, total = bytearray(b"\xd7NNTSTRM\x01\x00" + packed), packed, 0, 0
    for kind, meta, payload in records:
        if kind == "LayerEnd":
            meta = {"layer": meta["layer"], "records": seq}
        head = b"\x94\xd8\x53" + SYNC + b"".join(msgpack.packb(x) for x in (seq, kind, meta))
        out += head
        if payload:
            out += b"\xc0" * (-(len(out) + 5) % 64) + b"\xc6" + struct.pack(">I", len(payload)) + payload
        digest = xxh3(head + payload)
        out += msgpack.packb({"xxh3": "%016x" % digest, "n": len(payload)})
        hashed += struct.pack(">Q", digest)
        seq, total = (0 if kind == "LayerEnd" else seq + 1), total + len(payload)
    trailer = msgpack.packb(dict(extra, records=len(records), bytes=total, xxh3="%016x" % xxh3(hashed), inputs=[], history=[],
                                 status="ok"))
    out += trailer
    end = struct.pack(">Q", xxh3(trailer)) + bytes(-(len(out) + 11) % 64)
    out += b"\xc7" + bytes([len(end)]) + b"E" + end
    open(path, "wb").write(out)


def norms_of(records, which):
    found = {}
    for kind, meta, payload in records:
        if kind == "Norm" and meta["which"] in ("old", which):
            if meta["which"] == which or meta["name"] not in found:
                found[meta["name"]] = np.frombuffer(payload, "<f4")
    return found


def retune(source, target, verdict, norms, step=None):
    header, records, _ = read_nts(source)
    out = []
    for kind, meta, payload in records:
        out.append((kind, meta, payload))
        if kind == "Norm":
            x = np.frombuffer(payload, "<f4")
            new = (x * np.float32(1.01) + np.float32(0.002) * np.arange(len(x), dtype="<f4")).astype("<f4")
            if step:  # every element by as much, up and down
                new = x + np.float32(step) * np.where(np.arange(len(x)) % 2, 1, -1).astype("<f4")
            out.append((kind, dict(meta, which="new"), new.tobytes()))
    write_nts(target, header, out, {"verdict": verdict, "norms": norms})


def mix(first, second, pattern, target):
    """The linears whose names hold the pattern from the second stream, all else from the first."""
    header, records, _ = read_nts(first)
    other, out = read_nts(second)[1], []
    for kind, meta, payload in records:
        if kind in ("QTensor", "QPart") and pattern in meta["name"]:
            if kind == "QTensor":
                out += [r for r in other if r[0] in ("QTensor", "QPart") and r[1]["name"] == meta["name"]]
            continue
        out.append((kind, meta, payload))
    write_nts(target, header, out, {})


def harm(source, target, kind, key, value):
    header, records, _ = read_nts(source)
    i = next(i for i, r in enumerate(records) if r[0] == kind)
    meta = dict(records[i][1], **{key: int(value) if value.lstrip("-").isdigit() else value})
    records[i] = (kind, meta, records[i][2])
    write_nts(target, header, records, {})


def rescale(source, target):
    """The first scale of the stream is another one, as training scales would make it."""
    header, records, _ = read_nts(source)
    i = next(i for i, r in enumerate(records) if r[0] == "QPart" and r[1]["part"] == "scale")
    t = {"F16": "<f2", "F32": "<f4"}[records[i][1]["dtype"]]
    x = np.frombuffer(records[i][2], t).copy()
    x[0] *= 2
    records[i] = (*records[i][:2], x.tobytes())
    write_nts(target, header, records, {})


def order(source, target):
    """Columns in groups by a permutation, as GPTQ's act-order has them: a part gidx is added to linears of several groups."""
    header, records, _ = read_nts(source)
    out, wait, rng = [], {}, np.random.default_rng(5)
    for kind, meta, payload in records:
        if kind == "QTensor" and meta["dims"][1] > meta["group"] > 0:
            g = rng.permutation(np.arange(meta["dims"][1]) // meta["group"]).astype("<i4")
            wait[meta["name"]] = (len(meta["parts"]), g, meta["layer"])
            meta = dict(meta, parts=meta["parts"] + ["gidx"])
        out.append((kind, meta, payload))
        if kind == "QPart" and meta["name"] in wait:
            left, g, layer = wait[meta["name"]]
            wait[meta["name"]] = (left - 1, g, layer)
            if left == 1:
                out.append(("QPart", {"name": meta["name"], "part": "gidx", "dtype": "I32", "shape": [len(g)], "nbytes": 4 * len(g),
                                      "segs": 1, "layer": layer}, g.tobytes()))
    write_nts(target, header, out, {})


def check_kinds(path, suffix, kind):
    """Element type of all tensors that end so."""
    kinds = {t for k, (t, _) in read_directory(path)[0].items() if k.endswith("." + suffix)}
    assert kinds == {kind}, kinds


def unpack_bits(raw, n, bits):
    b = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")[:n * bits].reshape(n, bits)
    return (b.astype(np.int64) << np.arange(bits)).sum(1)


def linears_of(records):
    """name -> dequantized f32 [out, in]"""
    out, parts, heads = {}, collections.defaultdict(dict), {}
    for kind, meta, payload in records:
        if kind == "QTensor":
            heads[meta["name"]] = meta
        if kind == "QPart":
            parts[meta["name"]][meta["part"]] = (meta, payload)
    for name, h in heads.items():
        rows, cols = h["dims"]
        bits, p = h["bits"], parts[name]
        codes = unpack_bits(p["codes"][1], rows * cols, bits).reshape(rows, cols)
        dtype = {"F16": "<f2", "F32": "<f4"}[p["scale"][0]["dtype"]]
        scale = np.frombuffer(p["scale"][1], dtype).astype("<f4").reshape(rows, -1)
        groups = scale.shape[1]
        zero = unpack_bits(p["zero"][1], rows * groups, bits).reshape(rows, groups) if "zero" in p else \
            np.full((rows, groups), 1 << (bits - 1))
        g = np.frombuffer(p["gidx"][1], "<i4") if "gidx" in p else np.arange(cols) // (h["group"] if groups > 1 else cols)
        out[name] = scale[:, g] * (codes - zero[:, g]).astype("<f4")
    return out


# ---- checkpoints ----

def bf16(raw):
    return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")


def read_safetensors(path):
    b = open(path, "rb").read()
    n = struct.unpack("<Q", b[:8])[0]
    h = json.loads(b[8:8 + n])
    meta, out = h.pop("__metadata__", {}), {}
    for name, x in h.items():
        raw = b[8 + n + x["data_offsets"][0]:8 + n + x["data_offsets"][1]]
        v = bf16(raw) if x["dtype"] == "BF16" else np.frombuffer(raw, {"F32": "<f4", "F16": "<f2", "I32": "<i4", "U32": "<u4",
                                                                                    "I64": "<i8"}.get(x["dtype"], "u1"))
        out[name] = (x["dtype"], v.reshape(x["shape"]))
    return out, meta


def read_directory(path):
    """One file, or the shards that the index names, each tensor in the file where the index has it."""
    index = os.path.join(path, "model.safetensors.index.json")
    if not os.path.exists(index):
        return read_safetensors(os.path.join(path, "model.safetensors"))
    index, out, metas = json.load(open(index)), {}, []
    for file in sorted(set(index["weight_map"].values())):
        tensors, meta = read_safetensors(os.path.join(path, file))
        assert set(tensors) == {k for k, v in index["weight_map"].items() if v == file}, file
        out.update(tensors)
        metas.append(meta)
    assert all(m == metas[0] for m in metas)
    return out, metas[0]


def check_shards(path, most):
    """No file is larger than asked for unless it holds a single tensor; names and sizes as the index has them."""
    index = json.load(open(os.path.join(path, "model.safetensors.index.json")))
    files = sorted(f for f in os.listdir(path) if f.endswith(".safetensors"))
    assert files == ["model-%05d-of-%05d.safetensors" % (i + 1, len(files)) for i in range(len(files))]
    assert set(files) == set(index["weight_map"].values())
    size = {"F32": 4, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "I64": 8}
    sizes = {f: [size[t] * v.size for t, v in read_safetensors(os.path.join(path, f))[0].values()] for f in files}
    assert all(sum(n) <= int(most) or len(n) == 1 for n in sizes.values()), sizes
    assert index["metadata"]["total_size"] == sum(sum(n) for n in sizes.values())
    print(len(files))


TYPES = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
         8: ("Q8_0", 32, 34), 30: ("BF16", 1, 2)}


def dequant(kind, raw):
    if kind in ("F32", "F16"):
        return np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[kind]).astype("<f4")
    if kind == "BF16":
        return bf16(raw)
    size = {v[0]: v[2] for v in TYPES.values()}[kind]
    b = np.frombuffer(raw, np.uint8).reshape(-1, size)
    d, at = b[:, :2].copy().view("<f2").astype("<f4"), 2
    if kind == "Q8_0":
        return (d * b[:, 2:].copy().view(np.int8)).astype("<f4").ravel()
    m = np.float32(0)
    if kind in ("Q4_1", "Q5_1"):
        m, at = b[:, 2:4].copy().view("<f2").astype("<f4"), 4
    high = 0
    if kind in ("Q5_0", "Q5_1"):
        high, at = np.unpackbits(b[:, at:at + 4], axis=1, bitorder="little").astype(np.int32) << 4, at + 4
    q = np.concatenate([b[:, at:] & 15, b[:, at:] >> 4], 1).astype(np.int32) + high
    return (d * (q - {"Q4_0": 8, "Q5_0": 16}.get(kind, 0)).astype("<f4") + m).astype("<f4").ravel()


def read_gguf(path):
    """{name: (type, values in file order)}, {key: value}"""
    b, at = open(path, "rb").read(), 24
    n_t, n_kv = struct.unpack_from("<qq", b, 8)

    def string():
        nonlocal at
        n = struct.unpack_from("<Q", b, at)[0]
        at += 8 + n
        return b[at - n:at].decode("utf-8", "replace")

    def value(t):
        nonlocal at
        if t == 8:
            return string()
        if t == 9:
            item, n = struct.unpack_from("<IQ", b, at)
            at += 12
            return [value(item) for _ in range(n)]
        f = "<" + "BbHhIif?  QqdX"[t]
        at += struct.calcsize(f)
        return struct.unpack_from(f, b, at - struct.calcsize(f))[0]
    kv = {}
    for _ in range(n_kv):
        k = string()
        at += 4
        kv[k] = value(struct.unpack_from("<I", b, at - 4)[0])
    infos = []
    for _ in range(n_t):
        name = string()
        rank = struct.unpack_from("<I", b, at)[0]
        ne = struct.unpack_from("<%dq" % rank, b, at + 4)
        kind, off = struct.unpack_from("<IQ", b, at + 4 + 8 * rank)
        at += 16 + 8 * rank
        infos.append((name, ne[::-1], kind, off))
    start, out = (at + 31) // 32 * 32, {}
    for name, shape, kind, off in infos:
        label, block, size = TYPES[kind]
        n = int(np.prod(shape)) // block * size
        out[name] = (label, dequant(label, b[start + off:start + off + n]).reshape(shape))
    return out, kv


GGUF = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm", "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name):
    base = name[:-len(".weight")]
    if not base.startswith("model.layers."):
        return GGUF[base] + ".weight"
    layer, rest = base[len("model.layers."):].split(".", 1)
    return f"blk.{layer}.{GGUF[rest]}.weight"


def expected(stream, model, which):
    """name -> f32, and the names of quantized linears"""
    _, records, _ = read_nts(stream)
    values = {k: v.astype("<f4") for k, (_, v) in read_safetensors(os.path.join(model, "model.safetensors"))[0].items()}
    q = linears_of(records)
    values.update(q)
    values.update(norms_of(records, which))
    return values, set(q)


def same(name, got, want):
    assert got.shape == want.shape, f"{name}: {got.shape} {want.shape}"
    bad = np.flatnonzero((got != want).ravel())
    assert not len(bad), f"{name}: {len(bad)} values differ, first {bad[0]}: {got.ravel()[bad[0]]} {want.ravel()[bad[0]]}"


def to_bf16(x):
    u = x.astype("<f4").view("<u4").astype("<u8")
    return (((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype("<u4") << 16).view("<f4")


ROUND = {"F32": lambda x: x, "F16": lambda x: x.astype("<f2").astype("<f4"), "BF16": to_bf16}


def check_hf(stream, model, path, dtype, which="old"):
    want, _ = expected(stream, model, which)
    got, meta = read_directory(path)
    assert set(got) == set(want) and meta == {"format": "pt"}, set(got) ^ set(want)
    for name, (t, v) in got.items():
        assert t == dtype, f"{name} is {t}"
        same(name, v.astype("<f4"), ROUND[dtype](want[name]))
    config = json.load(open(os.path.join(path, "config.json")))
    assert config["hidden_size"] == want["model.norm.weight"].shape[0]
    assert config.get("torch_dtype", config.get("dtype")) == {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[dtype]
    assert not os.path.exists(os.path.join(model, "tokenizer.json")) or \
        open(os.path.join(model, "tokenizer.json"), "rb").read() == open(os.path.join(path, "tokenizer.json"), "rb").read()


def check_gguf(stream, model, path, head, template, which="old"):
    want, linears = expected(stream, model, which)
    got, kv = read_gguf(path)
    like, like_kv = read_gguf(template)
    assert list(got) == list(like), "order of tensors"
    own = {"general.file_type", "general.quantization_version"}
    assert {k: v for k, v in kv.items() if k not in own} == {k: v for k, v in like_kv.items() if k not in own}, "keys"
    assert len(got) == len(want)
    for name, x in want.items():
        t, v = got[gguf_name(name)]
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            h = int(head)
            x = x.reshape(-1, 2, h // 2, x.shape[1]).swapaxes(1, 2).reshape(x.shape)
        assert x.ndim == 2 or t == "F32", f"{name} is {t}"
        same(name, v, x)


def rows_of_bits(words, n, bits):
    """Dense streams of bits along the last axis of [k, words]."""
    return np.stack([unpack_bits(np.ascontiguousarray(r).tobytes(), n, bits) for r in words])


def gptq_linear(part, shape, config, name):
    out, cols = shape
    bits = next((v["bits"] for k, v in config.get("dynamic", {}).items() if k[:2] == "+:" and re.match(k[2:], name)), config["bits"])
    codes, g = rows_of_bits(part["qweight"].T, cols, bits), part["g_idx"]
    zeros = (rows_of_bits(part["qzeros"], out, bits) + (config["checkpoint_format"] == "gptq")) & ((1 << bits) - 1)
    return part["scales"].astype("<f4")[g].T * (codes - zeros[g].T).astype("<f4")


def awq_linear(part, shape, config, name):
    def nibbles(words):  # nibble i of a word is column [0 2 4 6 1 3 5 7][i] of its eight
        n = np.stack([(words.view("<u4") >> (4 * i)) & 15 for i in range(8)], -1)
        out = np.empty_like(n)
        out[..., [0, 2, 4, 6, 1, 3, 5, 7]] = n
        return out.reshape(words.shape[0], -1).astype(np.int64)
    q, z, s = nibbles(part["qweight"]), nibbles(part["qzeros"]), part["scales"].astype("<f4")
    width = config["group_size"] if config["group_size"] > 0 else shape[1]
    assert len(z) == len(s) == shape[1] // width
    g = np.arange(shape[1]) // width
    return (s[g] * (q - z[g]).astype("<f4")).T


def ct_linear(part, shape, config, name):
    out, cols = shape
    groups = [g for g in config["config_groups"].values() if g["targets"] == ["Linear"] or name in g["targets"]]
    assert len(groups) == 1 and name not in config["ignore"], name
    w = groups[0]["weights"]
    bits, s = w["num_bits"], part["weight_scale"].astype("<f4")
    assert set(w) - {"group_size", "actorder"} == {"num_bits", "type", "symmetric", "strategy", "dynamic"}
    assert part["weight_shape"].tolist() == [out, cols] and part["weight_packed"].shape == (out, -(-cols * bits // 32))
    q, z = rows_of_bits(part["weight_packed"], cols, bits) - (1 << bits - 1), np.zeros(s.shape, np.int64)
    assert ("weight_zero_point" in part) == (not w["symmetric"]) and ("weight_g_idx" in part) == ("actorder" in w)
    if not w["symmetric"]:
        z = rows_of_bits(part["weight_zero_point"].T, out, bits).T - (1 << bits - 1)
    width = w["group_size"] if w["strategy"] == "group" else cols
    g = part["weight_g_idx"] if "weight_g_idx" in part else np.arange(cols) // width
    return s[:, g] * (q - z[:, g]).astype("<f4")


def mlx_linear(part, shape, config, name):
    c = config.get(name, config)
    q = rows_of_bits(part["weight"], shape[1], c["bits"])
    g = np.arange(shape[1]) // c["group_size"]
    assert part["scales"].shape == part["biases"].shape == (shape[0], shape[1] // c["group_size"])
    return part["scales"].astype("<f4")[:, g] * q.astype("<f4") + part["biases"].astype("<f4")[:, g]


LAYOUTS = {"gptq": ("qweight", gptq_linear), "awq": ("qweight", awq_linear), "ct": ("weight_packed", ct_linear), "mlx": ("scales", mlx_linear)}


def check_codes(layout, stream, model, path, which="old"):
    """Linears in several tensors each: every value is the stream's, and there is no other tensor."""
    want, linears = expected(stream, model, which)
    got, _ = read_directory(path)
    whole = json.load(open(os.path.join(path, "config.json")))
    config = whole["quantization" if layout == "mlx" else "quantization_config"]
    if layout == "gptq":
        assert config == json.load(open(os.path.join(path, "quantize_config.json")))
        assert config["quant_method"] == "gptq" and config["checkpoint_format"] in ("gptq", "gptq_v2")
    if layout == "awq":
        assert (config["quant_method"], config["bits"], config["version"], config["zero_point"]) == ("awq", 4, "gemm", True)
    if layout == "ct":
        assert (config["quant_method"], config["format"]) == ("compressed-tensors", "pack-quantized")
        assert set(config) == {"quant_method", "format", "quantization_status", "config_groups", "ignore"}
        assert "lm_head" in config["ignore"]
    mark, decode = LAYOUTS[layout]
    kind, seen = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}[whole.get("torch_dtype", whole.get("dtype"))], set()
    for name, x in want.items():
        base = name[:-len(".weight")]
        if name not in linears:
            t, v = got[name]
            assert t == ("F32" if x.ndim == 1 and layout != "mlx" else kind), f"{name} is {t}"
            same(name, v.astype("<f4"), ROUND[t](x))
            seen.add(name)
            continue
        part = {k[len(base) + 1:]: v for k, (_, v) in got.items() if k.startswith(base + ".")}
        assert mark in part, name
        seen.update(f"{base}.{p}" for p in part)
        same(name, decode(part, x.shape, config, base).astype("<f4"), x)
    assert seen == set(got), seen ^ set(got)


def check_overlay(stream, path, which="old"):
    want = norms_of(read_nts(stream)[1], which)
    got, meta = read_safetensors(path)
    assert set(got) == set(want) and meta["nt_overlay"] == "1" and len(meta["source_sha256"]) == 64
    for name, (t, v) in got.items():
        assert t == "F32"
        same(name, v, want[name])


def check_norms(stream, source, target, which="new"):
    """Every byte outside the norms is equal; the norms are the stream's, rounded to their type."""
    want = norms_of(read_nts(stream)[1], which)
    a, b = open(source, "rb").read(), open(target, "rb").read()
    assert len(a) == len(b)
    gguf = a[:4] == b"GGUF"
    old, new = (read_gguf(source)[0], read_gguf(target)[0]) if gguf else (read_safetensors(source)[0], read_safetensors(target)[0])
    changed = 0
    for name, (t, v) in old.items():
        mine = {gguf_name(k) if gguf else k: x for k, x in want.items()}.get(name)
        assert new[name][0] == t
        same(name, new[name][1].astype("<f4"), v.astype("<f4") if mine is None else ROUND[t](mine))
        changed += int((new[name][1] != v).sum())
    if not gguf:
        n = 8 + struct.unpack("<Q", a[:8])[0]
        assert a[:n] == b[:n], "header"
    print(changed)


def check_rounded(stream, source, target, dtype):
    """The norms are the stream's, rounded to dtype; how much of the tweak is left, as nt-pack(1) defines it."""
    want, gguf = norms_of(read_nts(stream)[1], "new"), open(source, "rb").read(4) == b"GGUF"
    old, new = (read_gguf(source)[0], read_gguf(target)[0]) if gguf else (read_safetensors(source)[0], read_safetensors(target)[0])
    changed = moved = left = 0
    for name, x in want.items():
        a, b = (t[gguf_name(name) if gguf else name][1].astype("f8") for t in (old, new))
        same(name, b, ROUND[dtype](x).astype("f8"))
        changed, moved, left = changed + int((a != b).sum()), moved + ((x - a) ** 2).sum(), left + ((x - a) * (b - a)).sum()
    print("changed\t%d\nkept\t%.6f" % (changed, left / moved))


def check_sidecar(path, source, target):
    j, sha = json.load(open(path)), lambda f: hashlib.sha256(open(f, "rb").read()).hexdigest()
    assert j["tool"] == "nt-pack" and len(j["source"]["sha256"]) == 64 and j["from"]["trailer"]["verdict"] == "positive"
    assert [(f["source_sha256"], f["sha256"]) for f in j["source"]["files"]] == [(sha(source), sha(target))]
    assert 0 < j["norms"]["changed"] <= j["norms"]["elements"] and abs(j["norms"]["fraction"] - j["norms"]["changed"] / j["norms"]["elements"]) < 1e-12


def count_types(path):
    print(" ".join(f"{k}:{v}" for k, v in sorted(collections.Counter(t for t, _ in read_gguf(path)[0].values()).items())))


if __name__ == "__main__":
    {"retune": retune, "hf": check_hf, "gguf": check_gguf, **{k: functools.partial(check_codes, k) for k in LAYOUTS},
     "overlay": check_overlay, "norms": check_norms,
     "rounded": check_rounded, "sidecar": check_sidecar, "mix": mix, "order": order, "harm": harm, "rescale": rescale,
     "kinds": check_kinds, "types": count_types, "shards": check_shards}[sys.argv[1]](*sys.argv[2:])
