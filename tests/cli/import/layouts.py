# SPDX-License-Identifier: Apache-2.0
"""Quantized checkpoints of other tools, made from random codes as their layouts are specified, beside the float model that
they stand for: `layouts.py KIND DIR` writes DIR/q and DIR/f. Knows nothing of the tools but what FORMATS of the layouts say;
values are computed from the codes, not by unpacking."""
import json, os, struct, sys
import numpy as np

D, F, H, G, E, L, V = 64, 96, 4, 2, 16, 2, 96
LINEARS = {"self_attn.q_proj": (H * E, D), "self_attn.k_proj": (G * E, D), "self_attn.v_proj": (G * E, D),
           "self_attn.o_proj": (D, H * E), "mlp.gate_proj": (F, D), "mlp.up_proj": (F, D), "mlp.down_proj": (D, F)}
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": D, "intermediate_size": F,
          "num_hidden_layers": L, "num_attention_heads": H, "num_key_value_heads": G, "head_dim": E, "vocab_size": V,
          "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
          "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32"}
NAMES = {"float32": "F32", "float16": "F16", "int32": "I32", "uint32": "U32", "int64": "I64", "int8": "I8", "uint8": "U8"}
rng = np.random.default_rng(20260)


class Raw:
    """Bytes of a type that numpy has not."""
    def __init__(self, dtype, a):
        self.dtype, self.shape, self.bytes = dtype, a.shape, a.tobytes()


def bf16(x):
    return Raw("BF16", (np.ascontiguousarray(x, np.float32).view(np.uint32) >> 16).astype(np.uint16))


def save(path, tensors, **meta):
    head, at, blobs = {"__metadata__": {"format": "pt", **meta}}, 0, []
    for name in sorted(tensors):
        t = tensors[name]
        if not isinstance(t, Raw):
            t = np.ascontiguousarray(t)
            t = Raw(NAMES[str(t.dtype)], t)
        head[name] = {"dtype": t.dtype, "shape": list(t.shape), "data_offsets": [at, at + len(t.bytes)]}
        at += len(t.bytes)
        blobs.append(t.bytes)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def bits_to_words(codes, bits):
    """Rows of codes as dense little-endian bit streams of 32-bit words."""
    b = (codes[..., None].astype(np.uint32) >> np.arange(bits, dtype=np.uint32)) & 1
    b = b.reshape(codes.shape[0], -1)
    b = np.pad(b, ((0, 0), (0, -b.shape[1] % 32))).reshape(codes.shape[0], -1, 32)
    return (b << np.arange(32, dtype=np.uint32)).sum(-1, dtype=np.uint32)


def random_uniform(out, inn, bits, group, sym=False):
    """codes [out, in], zeros [out, groups], scales [out, groups] f16"""
    group = group if group > 0 else inn
    groups = -(-inn // group)
    codes = rng.integers(0, 2**bits, (out, inn))
    zeros = np.full((out, groups), 2**(bits - 1)) if sym else rng.integers(0, 2**bits, (out, groups))
    scales = (rng.uniform(0.5, 1.5, (out, groups)) * 0.3 / 2**bits).astype(np.float16)
    return codes, zeros, scales, np.arange(inn) // group


def value(codes, zeros, scales, gidx):
    s = scales.astype(np.float32)[:, gidx]
    return s * (codes - zeros[:, gidx]).astype(np.float32)


# ---- GPTQ ----

def gptq(bits=4, group=32, sym=False, v2=False, stores_v2=None, order=False, g_idx=True, config="config.json", rules=False,
         method="gptq", **extra):
    stores_v2 = v2 if stores_v2 is None else stores_v2
    def linear(name, out, inn):
        b = 8 if rules and "down_proj" in name else bits
        codes, zeros, scales, gidx = random_uniform(out, inn, b, group, sym)
        if order:
            gidx = rng.permutation(gidx)
        stored = (zeros - (0 if stores_v2 else 1)) % 2**b
        t = {"qweight": bits_to_words(codes, b).T.view(np.int32), "qzeros": bits_to_words(stored.T, b).view(np.int32),
             "scales": scales.T}
        if g_idx:
            t["g_idx"] = gidx.astype(np.int32)
        return t, value(codes, zeros, scales, gidx)
    q = {"bits": bits, "group_size": group, "desc_act": order, "sym": sym}
    if config == "config.json":
        q.update({"quant_method": method, **extra})
        if method == "gptq":
            q["checkpoint_format"] = "gptq_v2" if v2 else "gptq"
    return linear, q, config


KINDS = {
    "gptq2": lambda: gptq(2, 32), "gptq3": lambda: gptq(3, 32), "gptq4": lambda: gptq(4, 32), "gptq8": lambda: gptq(8, -1),
    "gptq4-v2": lambda: gptq(4, 16, v2=True), "gptq4-sym": lambda: gptq(4, 32, sym=True),
    "gptq4-lying": lambda: gptq(4, 32, sym=True, v2=False, stores_v2=True),
    "gptq3-lying-v2": lambda: gptq(3, 32, sym=True, v2=True, stores_v2=False),
    "gptq4-order": lambda: gptq(4, 32, order=True), "gptq4-bare": lambda: gptq(4, 32, g_idx=False),
    "gptq4-old": lambda: gptq(4, 32, config="quantize_config.json"), "gptq4-rules": lambda: gptq(4, 32, rules=True),
    "autoround": lambda: gptq(2, 32, sym=True, method="auto-round", packing_format="auto_round:auto_gptq"),
}


# ---- AWQ, gemm: eight columns a word in the order 0 2 4 6 1 3 5 7, no minus one ----

def awq(group=32, method="awq", **extra):
    def words(a):
        a = a.reshape(a.shape[0], -1, 8)[:, :, [0, 2, 4, 6, 1, 3, 5, 7]].astype(np.uint32)
        return (a << np.arange(0, 32, 4, dtype=np.uint32)).sum(-1, dtype=np.uint32).view(np.int32)
    def linear(name, out, inn):
        codes, zeros, scales, gidx = random_uniform(out, inn, 4, group)
        return {"qweight": words(codes.T), "qzeros": words(zeros.T), "scales": scales.T}, value(codes, zeros, scales, gidx)
    return linear, {"quant_method": method, "bits": 4, "group_size": group, "zero_point": True, **extra}, "config.json"


KINDS.update({
    "awq": lambda: awq(32, version="gemm", modules_to_not_convert=None), "awq-row": lambda: awq(-1, version="GEMM"),
    "autoround-awq": lambda: awq(16, "auto-round", packing_format="auto_round:auto_awq"),
})


# ---- compressed-tensors ----

def padded_words(codes, bits):
    """Whole codes in each word, from below, as files before the dense packing have them."""
    n = 32 // bits
    c = np.pad(codes, ((0, 0), (0, -codes.shape[1] % n))).reshape(codes.shape[0], -1, n).astype(np.uint32)
    return (c << (bits * np.arange(n, dtype=np.uint32))).sum(-1, dtype=np.uint32)


E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def e4m3(b):
    b = b.astype(int)
    e, m = b >> 3 & 15, b & 7
    v = np.where(e > 0, (8 + m) * 2.0**(e - 10), m * 2.0**-9)
    return np.where(b & 128, -v, v).astype(np.float32)


def nibbles(codes):
    return (codes[:, ::2] | codes[:, 1::2] << 4).astype(np.uint8)


def ct_config(fmt, **weights):
    return {"quant_method": "compressed-tensors", "format": fmt, "quantization_status": "compressed", "ignore": ["lm_head"],
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}


def ct_pack(bits=4, group=32, sym=True, old=False, order=False):
    words = padded_words if old else bits_to_words
    def linear(name, out, inn):
        codes, zeros, scales, gidx = random_uniform(out, inn, bits, group, sym)
        if order:
            gidx = rng.permutation(gidx)
        t = {"weight_packed": words(codes, bits).view(np.int32), "weight_scale": scales, "weight_shape": np.array([out, inn], np.int64)}
        if not sym:
            t["weight_zero_point"] = words(zeros.T, bits).T.view(np.int32)
        if order:
            t["weight_g_idx"] = gidx.astype(np.int32)
        return t, value(codes, zeros, scales, gidx)
    return linear, ct_config("pack-quantized", num_bits=bits, type="int", symmetric=sym, strategy="group", group_size=group), "config.json"


def ct_int(sym=True):
    def linear(name, out, inn):
        codes, zeros, scales, gidx = random_uniform(out, inn, 8, -1, sym)
        t = {"weight": (codes - 128).astype(np.int8), "weight_scale": scales}
        if not sym:
            t["weight_zero_point"] = (zeros - 128).astype(np.int8)
        return t, value(codes, zeros, scales, gidx)
    return linear, ct_config("int-quantized", num_bits=8, type="int", symmetric=sym, strategy="channel"), "config.json"


def ct_fp8(per):
    def linear(name, out, inn):
        codes = rng.integers(0, 127, (out, inn)) | rng.integers(0, 2, (out, inn)) << 7
        scales = rng.uniform(1e-3, 2e-3, {"tensor": (1,), "channel": (out, 1)}[per]).astype(np.float32)
        t = {"weight": Raw("F8_E4M3", codes.astype(np.uint8)), "weight_scale": scales, "input_scale": np.ones(1, np.float32)}
        return t, e4m3(codes) * scales.reshape(-1, 1)
    return linear, ct_config("float-quantized", num_bits=8, type="float", symmetric=True, strategy=per), "config.json"


def ct_fp4(nv):
    def linear(name, out, inn):
        group = 16 if nv else 32
        codes, g = rng.integers(0, 16, (out, inn)), np.arange(inn) // group
        if nv:
            s, globe = rng.integers(1, 120, (out, inn // group)), np.array([rng.uniform(500, 900)], np.float32)
            t = {"weight_packed": nibbles(codes), "weight_scale": Raw("F8_E4M3", s.astype(np.uint8)), "weight_global_scale": globe}
            return t, E2M1[codes] * (e4m3(s) / globe)[:, g]
        s = rng.integers(115, 125, (out, inn // group))
        t = {"weight_packed": nibbles(codes), "weight_scale": s.astype(np.uint8)}
        return t, E2M1[codes] * (2.0**(s - 127)).astype(np.float32)[:, g]
    fmt = "nvfp4-pack-quantized" if nv else "mxfp4-pack-quantized"
    return linear, ct_config(fmt, num_bits=4, type="float", symmetric=True, strategy="group", group_size=16 if nv else 32), "config.json"


# ---- MLX ----

def mlx(bits=4, group=32, mode="affine"):
    def linear(name, out, inn):
        codes, _, scales, g = random_uniform(out, inn, bits, group if inn % group == 0 else 32)
        t = {"weight": bits_to_words(codes, bits)}
        if mode == "mxfp4":
            s = rng.integers(115, 125, scales.shape)
            return {**t, "scales": s.astype(np.uint8)}, E2M1[codes] * (2.0**(s - 127)).astype(np.float32)[:, g]
        if mode == "mxfp8":  # E4M3 elements, 0x7f and 0xff are NaN
            codes = np.where(codes & 0x7F == 0x7F, 0, codes).astype(np.uint8)
            s = rng.integers(110, 118, scales.shape)
            t["weight"] = bits_to_words(codes, bits)
            return {**t, "scales": s.astype(np.uint8)}, e4m3(codes) * (2.0**(s - 127)).astype(np.float32)[:, g]
        bias = rng.standard_normal(scales.shape).astype(np.float16)
        w = scales.astype(np.float32)[:, g] * codes.astype(np.float32) + bias.astype(np.float32)[:, g]
        return {**t, "scales": scales, "biases": bias}, w
    settings = {"group_size": group, "bits": bits, "mode": mode}
    if mode == "mixed":  # as mlx-lm's recipes write it: no group of its own means the mode's default
        settings = {"group_size": 32, "bits": 4, "mode": "affine", **{
            f"model.layers.{i}.{m}": {"group_size": None, "bits": bits, "mode": "affine"} for i in range(L)
            for m in LINEARS if m != "mlp.down_proj"}}
        settings["model.embed_tokens"] = settings["lm_head"] = settings["model.layers.0.mlp.up_proj"]
    return linear, settings, "mlx"


KINDS.update({
    "ct4": lambda: ct_pack(4), "ct4-asym": lambda: ct_pack(4, sym=False), "ct3": lambda: ct_pack(3), "ct8": lambda: ct_pack(8, -1),
    "ct3-old": lambda: ct_pack(3, sym=False, old=True), "ct3-asym": lambda: ct_pack(3, sym=False),
    "ct4-order": lambda: ct_pack(4, order=True), "ct-int8": lambda: ct_int(), "ct-int8-asym": lambda: ct_int(False),
    "ct-fp8": lambda: ct_fp8("channel"), "ct-fp8-tensor": lambda: ct_fp8("tensor"), "ct-nvfp4": lambda: ct_fp4(True),
    "ct-mxfp4": lambda: ct_fp4(False), "mlx4": lambda: mlx(4), "mlx3": lambda: mlx(3), "mlx2": lambda: mlx(2, 16),
    "mlx-mxfp4": lambda: mlx(4, 32, "mxfp4"), "mlx-mxfp8": lambda: mlx(8, 32, "mxfp8"), "mlx-mixed": lambda: mlx(3, 64, "mixed"),
})


# ---- GGUF: random blocks of every type, which must come back as they were ----

SIZES = {"F32": (0, 1, 4), "Q4_0": (2, 32, 18), "Q4_1": (3, 32, 20), "Q5_0": (6, 32, 22), "Q5_1": (7, 32, 24), "Q8_0": (8, 32, 34),
         "Q2_K": (10, 256, 84), "Q3_K": (11, 256, 110), "Q4_K": (12, 256, 144), "Q5_K": (13, 256, 176), "Q6_K": (14, 256, 210),
         "IQ2_XXS": (16, 256, 66), "IQ2_XS": (17, 256, 74), "IQ3_XXS": (18, 256, 98), "IQ1_S": (19, 256, 50), "IQ4_NL": (20, 32, 18),
         "IQ3_S": (21, 256, 110), "IQ2_S": (22, 256, 82), "IQ4_XS": (23, 256, 136), "IQ1_M": (29, 256, 56), "BF16": (30, 1, 2),
         "TQ1_0": (34, 256, 54), "TQ2_0": (35, 256, 66), "MXFP4": (39, 32, 17), "NVFP4": (40, 64, 36), "Q1_0": (41, 128, 18),
         "Q2_0": (42, 64, 18), "F16": (1, 1, 2)}
ROLES = {"attn_q": (256, 256), "attn_k": (128, 256), "attn_v": (128, 256), "attn_output": (256, 256), "ffn_gate": (256, 256),
         "ffn_up": (256, 256), "ffn_down": (256, 256)}


def gguf(path, norms="F32", layers=4):
    def text(s):
        return struct.pack("<Q", len(s)) + s.encode()
    def u32(key, v):
        return text("llama." + key) + struct.pack("<II", 4, v)
    kv = [text("general.architecture") + struct.pack("<I", 8) + text("llama"), u32("block_count", layers), u32("context_length", 64),
          u32("embedding_length", 256), u32("feed_forward_length", 256), u32("attention.head_count", 4),
          u32("attention.head_count_kv", 2), text("general.file_type") + struct.pack("<II", 4, 0),
          text("general.quantization_version") + struct.pack("<II", 4, 2),
          text("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5)]
    tensors = [("token_embd.weight", "F32", (96, 256)), ("output_norm.weight", "F32", (256,))]
    types = [t for t in SIZES if t not in ("F32", "F16")]
    for l in range(layers):
        for k, (role, shape) in enumerate(ROLES.items()):
            tensors.append((f"blk.{l}.{role}.weight", types[(7 * l + k) % len(types)], shape))
        tensors += [(f"blk.{l}.{n}.weight", norms, (256,)) for n in ("attn_norm", "ffn_norm")]
    infos, data = b"", b""
    for name, t, shape in tensors:
        number, elems, size = SIZES[t]
        n = int(np.prod(shape)) // elems * size
        if t in ("F32", "F16", "BF16"):
            x = rng.standard_normal(int(np.prod(shape))).astype(np.float32)
            raw = x.tobytes() if t == "F32" else x.astype(np.float16).tobytes() if t == "F16" else (x.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        else:
            raw = (rng.integers(0, 256, n, dtype=np.uint8) & 0xBB).tobytes()  # no half is infinite, whatever its place
        infos += text(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", d) for d in reversed(shape))
        infos += struct.pack("<IQ", number, len(data))
        data += raw + bytes(-len(raw) % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(kv)) + b"".join(kv) + infos
    with open(path, "wb") as f:
        f.write(head + bytes(-len(head) % 32) + data)


def parse(b):
    """Keys as bytes, [(info up to its type, name, type, offset, size)], where the data begins; of a file that gguf() wrote."""
    n_t, n_kv = struct.unpack_from("<QQ", b, 8)
    at, sizes = 24, {t: (block, size) for t, block, size in SIZES.values()}
    width = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8]
    for _ in range(n_kv):  # no arrays
        at += 8 + struct.unpack_from("<Q", b, at)[0]
        t, n = struct.unpack_from("<IQ", b, at)
        at += 4 + (8 + n if t == 8 else width[t])
    kv, infos = b[24:at], []
    for _ in range(n_t):
        n, = struct.unpack_from("<Q", b, at)
        rank, = struct.unpack_from("<I", b, at + 8 + n)
        end = at + 12 + n + 8 * rank
        t, off = struct.unpack_from("<IQ", b, end)
        size = int(np.prod(struct.unpack_from(f"<{rank}Q", b, at + 12 + n))) // sizes[t][0] * sizes[t][1]
        infos.append((b[at:end], b[at + 8:at + 8 + n].decode(), t, off, size))
        at = end + 12
    return kv, infos, -(-at // 32) * 32


def split(path, stem, parts=3, **damage):
    """The parts of a GGUF file as llama-gguf-split cuts it: the first has all keys; every part counts its tensors. `damage`: what
    one of the parts says instead, KEY=(PART, VALUE); with twice the last part repeats the first tensor."""
    b = open(path, "rb").read()
    kv, infos, data = parse(b)
    n_t, n_kv = struct.unpack_from("<QQ", b, 8)
    for k in range(parts):
        def said(key, v):
            part, other = damage.get(key, (-1, 0))
            return other if part == k else v
        mine = infos[k * n_t // parts:(k + 1) * n_t // parts] + (infos[:1] if damage.get("twice") and k == parts - 1 else [])
        own = b"".join(struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I" + c, t, v) for key, c, t, v in (
            ("split.no", "H", 2, said("no", k)), ("split.count", "H", 2, said("count", parts)),
            ("split.tensors.count", "i", 5, said("tensors", n_t))))
        head, body = b"", b""
        for info, _, t, off, size in mine:
            head += info + struct.pack("<IQ", t, len(body))
            body += b[data + off:data + off + size] + bytes(-size % 32)
        head = b"GGUF" + struct.pack("<IQQ", 3, len(mine), 3 + (n_kv if k == 0 else 0)) + (kv if k == 0 else b"") + own + head
        with open(f"{stem}-{k + 1:05d}-of-{parts:05d}.gguf", "wb") as f:
            f.write(head + bytes(-len(head) % 32) + body)


def main(kind, where, *rest):
    if kind == "gguf":
        return gguf(where, *rest)
    if kind == "split":
        return split(where, rest[0], **{k: eval(v) for k, v in (r.split("=") for r in rest[1:])})
    linear, quantization, config = KINDS[kind]()
    q, f = {}, {}
    for l in range(L):
        for name, (out, inn) in LINEARS.items():
            base = f"model.layers.{l}.{name}"
            parts, values = linear(base, out, inn)
            q.update({f"{base}.{k}": v for k, v in parts.items()})
            f[f"{base}.weight"] = values.astype(np.float32)
        for n in ("input_layernorm", "post_attention_layernorm"):
            f[f"model.layers.{l}.{n}.weight"] = q[f"model.layers.{l}.{n}.weight"] = rng.uniform(0.5, 1.5, D).astype(np.float32)
    if config == "mlx":  # the vocabulary's tables are quantized, too
        for name in ("model.embed_tokens", "lm_head"):
            parts, values = linear(name, V, D)
            q.update({f"{name}.{k}": v for k, v in parts.items()})
            f[f"{name}.weight"] = values.astype(np.float32)
    for name, shape in (("model.embed_tokens", (V, D)), ("lm_head", (V, D)), ("model.norm", (D,))):
        if name + ".weight" in q:
            continue
        w = rng.standard_normal(shape).astype(np.float16)
        q[name + ".weight"], f[name + ".weight"] = w, w.astype(np.float32)
    for d, t in (("q", q), ("f", f)):
        os.makedirs(os.path.join(where, d))
        save(os.path.join(where, d, "model.safetensors"), t)
    own = {"config.json": {**CONFIG, "quantization_config": quantization}, "mlx": {**CONFIG, "quantization": quantization}}.get(config, CONFIG)
    json.dump(own, open(os.path.join(where, "q", "config.json"), "w"))
    json.dump(CONFIG, open(os.path.join(where, "f", "config.json"), "w"))
    if config.endswith("_config.json"):  # a file of its own
        json.dump(quantization, open(os.path.join(where, "q", config), "w"))
    json.dump([rng.integers(0, V, 12).tolist()], open(os.path.join(where, "ids.json"), "w"))


def load(path):
    with open(path, "rb") as f:
        n, = struct.unpack("<Q", f.read(8))
        head = json.loads(f.read(n))
        data = f.read()
    head.pop("__metadata__", None)
    return {k: (v["dtype"], v["shape"], data[slice(*v["data_offsets"])]) for k, v in head.items()}


def compare(a, b, only=None):
    """The same tensors, byte by byte."""
    x, y = load(a), load(b)
    if only:
        x, y = ({k: v for k, v in t.items() if k.endswith(tuple(only))} for t in (x, y))
    bad = [k for k in sorted(x.keys() | y.keys()) if x.get(k) != y.get(k)]
    if bad or not x:
        sys.exit(f"{len(bad)} of {len(x)} tensors differ: {bad[:4]}")


def norms(stream, source, target, kind):
    """Two files of gguf(): apart from the norms' bytes they are the same, the norms are the stream's new ones rounded to kind."""
    sys.path.insert(0, "tests/cli/nt-pack")
    import oracle
    want = {oracle.gguf_name(k): v for k, v in oracle.norms_of(oracle.read_nts(stream)[1], "new").items()}
    a, b = open(source, "rb").read(), open(target, "rb").read()
    _, infos, data = parse(a)
    assert len(a) == len(b) and a[:data] == b[:data] and set(want) == {i[1] for i in infos if "_norm" in i[1] and "blk" in i[1]}
    for _, name, _, off, size in infos:
        old, new = (x[data + off:data + off + size + -size % 32] for x in (a, b))
        if name in want:
            x = oracle.ROUND[kind](want[name])
            bits = x.astype(np.float16).tobytes() if kind == "F16" else (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
            assert new == bits and new != old, name
        else:
            assert new == old, name


def cli():
    if sys.argv[1] == "kinds":
        print("\n".join(KINDS))
    elif sys.argv[1] == "all":
        for k in KINDS:
            main(k, os.path.join(sys.argv[2], k))
    elif sys.argv[1] == "compare-all":  # KIND/FROM with KIND/TO for lines "KIND FROM TO SUFFIX..." of stdin
        for line in sys.stdin:
            k, a, b, *only = line.split()
            try:
                compare(*(os.path.join(sys.argv[2], k, d, "model.safetensors") for d in (a, b)), only)
                print(k, "ok")
            except (SystemExit, OSError) as e:
                print(k, e)
    elif sys.argv[1] == "compare":
        compare(sys.argv[2], sys.argv[3], sys.argv[4:])
    elif sys.argv[1] == "norms":
        norms(*sys.argv[2:])
    else:
        main(*sys.argv[1:])


if __name__ == "__main__":
    cli()
