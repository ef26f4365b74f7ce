# SPDX-License-Identifier: Apache-2.0
"""GGUF files of tests/data/families, as llama.cpp's converter lays them out: its names and keys, permuted rows of q
and k where it permutes them, gains of 1 + w. gguf.py make DIR: every model of ROWS as DIR/NAME.gguf; gguf.py compare
DIR: as in families.py, logits and states alone."""
import json
import os
import struct
import sys

import numpy as np

import families

# model_type: architecture, permuted q and k, names of norms that differ
KINDS = {
    "llama": ("llama", True), "mistral": ("llama", True), "qwen2": ("qwen2", False), "qwen3": ("qwen3", False),
    "gemma": ("gemma", False), "gemma2": ("gemma2", False), "gemma3_text": ("gemma3", False), "phi3": ("phi3", False),
    "stablelm": ("stablelm", False), "olmo": ("olmo", True), "olmo2": ("olmo2", False), "smollm3": ("smollm3", True),
    "granite": ("granite", True), "cohere": ("command-r", False), "cohere2": ("cohere2", False),
}
ROWS = ["llama-yarn", "mistral-full", "mistral", "qwen2-off", "qwen3", "gemma", "gemma2", "gemma3", "phi3", "phi3-long",
        "stablelm", "stablelm-parallel", "olmo", "olmo2", "smollm3-four", "granite", "granite-plain", "cohere", "cohere-qk",
        "cohere2", "cohere2-types"]
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.qkv_proj": "attn_qkv", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "self_attn.q_layernorm": "attn_q_norm", "self_attn.k_layernorm": "attn_k_norm",
    "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm",
}
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
FOUR_NORMS = ("gemma2", "gemma3_text", "olmo2")  # whose post_attention_layernorm is of what attention gives


def permute(x, heads):
    return x.reshape(heads, 2, x.shape[0] // heads // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def name_of(hf, kind):
    base, suffix = hf.rsplit(".", 1)
    if base in OUTER:
        return "%s.%s" % (OUTER[base], suffix)
    layer, rest = base.split(".", 3)[2:]
    short = NAMES[rest]
    if rest == "post_attention_layernorm" and kind in FOUR_NORMS:
        short = "post_attention_norm"
    return "blk.%s.%s.%s" % (layer, short, suffix)


def tensors_of(m):
    c, kind, out, heads = m["config"], m["config"]["model_type"], {}, {}
    for hf, x in families.weights.tensors_of(m).items():
        if kind.startswith("gemma") and hf.endswith("norm.weight"):
            x = x + 1
        for part, n in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
            if part in hf and KINDS[kind][1]:
                x = permute(x, c.get(n, c["num_attention_heads"]))
        if ".norms." in hf:  # StableLM: a tensor for each head, together in GGUF
            base, h = hf.split(".norms.")
            heads.setdefault(base + ".weight", {})[int(h.split(".")[0])] = x
            continue
        out[name_of(hf, kind)] = x
    for hf, parts in heads.items():
        out[name_of(hf, kind)] = np.stack([parts[h] for h in sorted(parts)])
    if c.get("tie_word_embeddings", kind in ("gemma", "gemma2", "gemma3_text", "smollm3", "cohere", "cohere2")):
        out.pop("output.weight", None)
    scaling = c.get("rope_scaling") or {}
    for which in ("long", "short"):
        if scaling.get(which + "_factor"):
            out["rope_factors_%s.weight" % which] = np.array(scaling[which + "_factor"])
    return out


def rope_keys(c, E):
    s = c.get("rope_scaling") or {}
    kind = s.get("rope_type", s.get("type"))
    keys = {}
    if kind == "linear":
        keys = {"rope.scaling.type": "linear", "rope.scaling.factor": s["factor"]}
    if kind == "yarn":
        keys = {"rope.scaling.type": "yarn", "rope.scaling.factor": s["factor"],
                "rope.scaling.original_context_length": s["original_max_position_embeddings"]}
    if kind == "longrope":
        scale, orig = c["max_position_embeddings"] / c["original_max_position_embeddings"], c["original_max_position_embeddings"]
        keys = {"rope.scaling.attn_factor": float(np.sqrt(1 + np.log(scale) / np.log(orig))) if scale > 1 else 1.0}
    if c["model_type"] == "phi3":
        keys["rope.scaling.original_context_length"] = c["original_max_position_embeddings"]
    if c["model_type"] in ("phi3", "stablelm"):
        keys["rope.dimension_count"] = int(c.get("partial_rotary_factor", 0.25 if c["model_type"] == "stablelm" else 1) * E)
    theta = {"smollm3": 2e6, "cohere": 5e5, "gemma3_text": 1e6}.get(c["model_type"], 1e4)
    keys["rope.freq_base"] = float(c.get("rope_theta", theta))
    return keys


def keys_of(c):
    kind, H, D = c["model_type"], c["num_attention_heads"], c["hidden_size"]
    E = c.get("head_dim", D // H)
    layer_norm = kind in ("stablelm", "olmo", "cohere", "cohere2")
    eps = c.get("layer_norm_eps", 1e-5) if layer_norm else c.get("rms_norm_eps", 1e-5 if kind in ("phi3", "olmo2") else 1e-6)
    keys = {"block_count": c["num_hidden_layers"], "embedding_length": D, "feed_forward_length": c["intermediate_size"],
            "attention.head_count": H, "attention.head_count_kv": c["num_key_value_heads"],
            "context_length": c["max_position_embeddings"],
            "attention.layer_norm_epsilon" if layer_norm else "attention.layer_norm_rms_epsilon": float(eps)}
    keys.update(rope_keys(c, E))
    if "head_dim" in c:
        keys.update({"attention.key_length": E, "attention.value_length": E, "rope.dimension_count": E})
    if kind in ("gemma2", "gemma3_text", "cohere2", "phi3") or kind == "mistral" and c.get("sliding_window"):
        keys["attention.sliding_window"] = c.get("sliding_window") or 0
    if "sliding_window_pattern" in c:
        keys["attention.sliding_window_pattern"] = c["sliding_window_pattern"]
    if "layer_types" in c:
        keys["attention.sliding_window_pattern"] = [t == "sliding_attention" for t in c["layer_types"]]
    for key, name in (("attn_logit_softcapping",) * 2, ("final_logit_softcapping",) * 2,
                      ("embedding_multiplier", "embedding_scale"), ("residual_multiplier", "residual_scale"),
                      ("attention_multiplier", "attention.scale"), ("logits_scaling", "logit_scale"),
                      ("logit_scale", "logit_scale"), ("use_parallel_residual",) * 2,
                      ("rope_local_base_freq", "rope.freq_base_swa")):
        if c.get(key) is not None:
            keys[name] = c[key]
    if kind == "granite" and "attention_multiplier" not in c:  # transformers' default, which its converter writes
        keys.update({"attention.scale": 1.0, "logit_scale": 1.0})
    return keys


def text(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()


def value(v):
    if isinstance(v, bool):
        return struct.pack("<IB", 7, v)
    if isinstance(v, int):
        return struct.pack("<II", 4, v)
    if isinstance(v, float):
        return struct.pack("<If", 6, v)
    if isinstance(v, str):
        return struct.pack("<I", 8) + text(v)
    return struct.pack("<IIQ", 9, 7, len(v)) + bytes(v)


def write(path, m):
    arch, tensors = KINDS[m["config"]["model_type"]][0], tensors_of(m)
    keys = {"general.architecture": arch, **{"%s.%s" % (arch, k): v for k, v in keys_of(m["config"]).items()}}
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    head += b"".join(text(k) + value(v) for k, v in keys.items())
    at, blobs = 0, []
    for name, x in tensors.items():
        head += text(name) + struct.pack("<I", x.ndim) + struct.pack("<%dQ" % x.ndim, *reversed(x.shape))
        head += struct.pack("<IQ", 0, at)
        blob = np.ascontiguousarray(x, "<f4").tobytes()
        blobs.append(blob + bytes(-len(blob) % 32))
        at += len(blobs[-1])
    with open(path, "wb") as f:
        f.write(head + bytes(-len(head) % 32) + b"".join(blobs))


def make(directory):
    for name in ROWS:
        m = families.model(name)
        write(os.path.join(directory, name + ".gguf"), m)
        with open(os.path.join(directory, name + ".ids"), "w") as f:
            json.dump(m["ids"], f)
        print(name)


def compare(directory):
    for name in ROWS:
        want = families.load(os.path.join(families.DATA, name + ".expected.safetensors"))
        path = os.path.join(directory, name + ".out")
        if not os.path.exists(path):
            print(1, "%s: no dump" % name)
            continue
        worst, wrong = families.compare_one({k: x for k, x in want.items() if not k.startswith("grad.")},
                                            families.load(path))
        print(int(bool(wrong)), "%s: %s" % (name, "; ".join(wrong) if wrong else
                                            " ".join("%s %.1e" % i for i in worst.items())))


if __name__ == "__main__":
    {"make": make, "compare": compare}[sys.argv[1]](sys.argv[2])
