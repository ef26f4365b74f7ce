# SPDX-License-Identifier: Apache-2.0
"""GGUF files of tests/data/families, as llama.cpp's converter lays them out: its names and keys, permuted rows of q
and k where it permutes them, gains of 1 + w. gguf.py make DIR: every model of ROWS as DIR/NAME.gguf; gguf.py compare
DIR: as in families.py, logits and states alone; gguf.py packed DIR: the directories DIR/NAME.hf made of them have the tensors of
Hugging Face's files, and keys that the family's class reads."""
import json
import os
import re
import struct
import sys

import numpy as np

import families

# model_type: architecture, permuted q and k, names of norms that differ
KINDS = {
    "llama": ("llama", True), "mistral": ("llama", True), "qwen2": ("qwen2", False), "qwen3": ("qwen3", False),
    "gemma": ("gemma", False), "gemma2": ("gemma2", False), "gemma3_text": ("gemma3", False), "phi3": ("phi3", False),
    "stablelm": ("stablelm", False), "olmo": ("olmo", True), "olmo2": ("olmo2", False), "smollm3": ("smollm3", True),
    "mixtral": ("llama", True), "qwen2_moe": ("qwen2moe", False), "qwen3_moe": ("qwen3moe", False),
    "gpt2": ("gpt2", False), "bloom": ("bloom", False), "gpt_neox": ("gptneox", False), "phi": ("phi2", False),
    "falcon": ("falcon", False), "glm4": ("glm4", False), "glm": ("chatglm", False), "granite": ("granite", True), "cohere": ("command-r", False), "cohere2": ("cohere2", False),
}
ROWS = ["llama-yarn", "mistral-full", "mistral", "qwen2-off", "qwen3", "mixtral", "qwen2-moe", "qwen3-moe", "gemma", "gemma2",
        "gemma3", "phi3", "phi3-long", "stablelm", "stablelm-parallel", "olmo", "olmo-clip", "olmo2", "smollm3-four", "granite",
        "granite-plain", "cohere", "cohere-qk", "cohere2", "cohere2-types", "gpt2", "bloom", "gpt-neox", "phi", "falcon-7b",
        "falcon-40b", "falcon-11b", "glm4", "glm"]
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.qkv_proj": "attn_qkv", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "self_attn.q_layernorm": "attn_q_norm", "self_attn.k_layernorm": "attn_k_norm",
    "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
    "ln_1": "attn_norm", "ln_2": "ffn_norm", "self_attention.query_key_value": "attn_qkv",
    "attention.query_key_value": "attn_qkv", "self_attention.dense": "attn_output", "attention.dense": "attn_output",
    "mlp.dense_h_to_4h": "ffn_up", "mlp.dense_4h_to_h": "ffn_down", "self_attn.dense": "attn_output",
    "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down", "ln_attn": "attn_norm_2", "ln_mlp": "attn_norm",
    "post_self_attn_layernorm": "post_attention_norm", "post_mlp_layernorm": "post_ffw_norm",
    "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm",
}
EXPERTS = re.compile(r"model\.layers\.(\d+)\..*\.experts\.(\d+)\.(\w+)\.weight$")
EXPERT_NAMES = {"w1": "gate", "w3": "up", "w2": "down", "gate_proj": "gate", "up_proj": "up", "down_proj": "down"}
NAMES.update({"block_sparse_moe.gate": "ffn_gate_inp", "mlp.gate": "ffn_gate_inp", "mlp.shared_expert_gate": "ffn_gate_inp_shexp"})
NAMES.update({"mlp.shared_expert.%s_proj" % n: "ffn_%s_shexp" % n for n in ("gate", "up", "down")})
OUTER = {"transformer.wte": "token_embd", "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm",
         "transformer.word_embeddings": "token_embd", "transformer.word_embeddings_layernorm": "token_embd_norm",
         "gpt_neox.embed_in": "token_embd", "gpt_neox.final_layer_norm": "output_norm", "embed_out": "output",
         "model.final_layernorm": "output_norm", "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
FOUR_NORMS = ("gemma2", "gemma3_text", "olmo2")  # whose post_attention_layernorm is of what attention gives


def permute(x, heads):
    return x.reshape(heads, 2, x.shape[0] // heads // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def name_of(hf, kind):
    base, suffix = hf.rsplit(".", 1)
    if base in OUTER:
        return "%s.%s" % (OUTER[base], suffix)
    layer, rest = base.split(".h." if ".h." in base else ".layers.")[1].split(".", 1)
    short = NAMES[rest]
    if rest == "post_attention_layernorm" and kind in FOUR_NORMS:
        short = "post_attention_norm"
    return "blk.%s.%s.%s" % (layer, short, suffix)


USUAL = {"n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads",
         "n_positions": "max_position_embeddings", "num_kv_heads": "num_key_value_heads"}


def usual(c):
    """The keys that older configurations spell otherwise, and what their classes take by default."""
    c = {USUAL.get(k, k): v for k, v in c.items()}
    if c["model_type"] in ("gpt2", "bloom", "gpt_neox", "phi", "falcon", "glm4", "glm"):
        c.setdefault("intermediate_size", c.get("ffn_hidden_size", 4 * c["hidden_size"]))
        c.setdefault("max_position_embeddings", 2048)
        c.setdefault("num_key_value_heads", 1 if c.get("multi_query") else c["num_attention_heads"])
    return c


def in_order(x, c):
    """Rows of q k v, which lie by groups, all of q, then k, then v."""
    G = c["num_key_value_heads"]
    E = c["hidden_size"] // c["num_attention_heads"]
    x = x.reshape(G, -1, E, *x.shape[1:])
    return np.concatenate([p.reshape(-1, *x.shape[3:]) for p in (x[:, :-2], x[:, -2], x[:, -1])])


def tensors_of(m, values=None):
    """values: instead of the model's own."""
    c, kind, out, heads = usual(m["config"]), m["config"]["model_type"], {}, {}
    qkv, experts = {}, {}
    for hf, x in (values or families.weights.tensors_of(m)).items():
        if EXPERTS.match(hf):
            layer, n, part = EXPERTS.match(hf).groups()
            experts.setdefault("blk.%s.ffn_%s_exps.weight" % (layer, EXPERT_NAMES[part]), {})[int(n)] = x
            continue
        if "shared_expert_gate" in hf:
            x = x.reshape(-1)
        if kind == "glm" and "self_attn." in hf and "o_proj" not in hf:  # ChatGLM's q k v are one
            qkv.setdefault(re.sub("[qkv]_proj", "qkv_proj", hf), {})["qkv".index(hf.split("_proj")[0][-1])] = x
            continue
        if "query_key_value" in hf and not c.get("multi_query"):
            x = in_order(x, c)
        if kind == "gpt2" and x.ndim == 2 and ".h." in hf:
            x = x.T
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
    for name, parts in experts.items():
        out[name] = np.stack([parts[n] for n in sorted(parts)])
    for hf, parts in qkv.items():
        out[name_of(hf, kind)] = np.concatenate([parts[i] for i in range(3)])
    if c.get("tie_word_embeddings", kind in ("gemma", "gemma2", "gemma3_text", "smollm3", "cohere", "cohere2", "gpt2", "bloom",
                                             "falcon")):
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
    part = {"phi3": 1, "stablelm": 0.25, "gpt_neox": 0.25, "phi": 0.5, "glm4": 0.5, "glm": 0.5}
    if c["model_type"] in part:
        part = c.get("partial_rotary_factor", c.get("rotary_pct", part[c["model_type"]]))
        keys["rope.dimension_count"] = int(part * E)
    theta = {"smollm3": 2e6, "mixtral": 1e6, "cohere": 5e5, "gemma3_text": 1e6}.get(c["model_type"], 1e4)
    keys["rope.freq_base"] = float(c.get("rope_theta", c.get("rotary_emb_base", theta)))
    return keys


def keys_of(c):
    kind, H, D = c["model_type"], c["num_attention_heads"], c["hidden_size"]
    E = c.get("head_dim", D // H)
    layer_norm = kind in ("stablelm", "olmo", "cohere", "cohere2", "gpt2", "bloom", "gpt_neox", "phi", "falcon")
    c = dict({"use_parallel_residual": True}, **c) if kind == "gpt_neox" else c
    eps = c.get("layer_norm_eps", 1e-5) if layer_norm else c.get("rms_norm_eps", {"phi3": 1e-5, "mixtral": 1e-5, "olmo2": 1e-5, "glm4": 1.5625e-07, "glm": 1.5625e-07}.get(kind, 1e-6))
    keys = {"block_count": c["num_hidden_layers"], "embedding_length": D, "feed_forward_length": c["intermediate_size"],
            "attention.head_count": H, "attention.head_count_kv": c["num_key_value_heads"],
            "context_length": c["max_position_embeddings"],
            "attention.layer_norm_epsilon" if layer_norm else "attention.layer_norm_rms_epsilon": float(eps)}
    keys.update(rope_keys(c, E))
    if "head_dim" in c:
        keys.update({"attention.key_length": E, "attention.value_length": E})
        keys.setdefault("rope.dimension_count", E)
    for key, name in (("num_experts", "expert_count"), ("num_local_experts", "expert_count"),
                      ("num_experts_per_tok", "expert_used_count"), ("moe_intermediate_size", "expert_feed_forward_length"),
                      ("shared_expert_intermediate_size", "expert_shared_feed_forward_length")):
        if key in c:
            keys[name] = c[key]
    if kind == "bloom":
        keys["attention.max_alibi_bias"] = 8.0
    if kind in ("gemma2", "gemma3_text", "cohere2", "phi3") or kind == "mistral" and c.get("sliding_window"):
        keys["attention.sliding_window"] = c.get("sliding_window") or 0
    if "sliding_window_pattern" in c:
        keys["attention.sliding_window_pattern"] = c["sliding_window_pattern"]
    if "layer_types" in c:
        keys["attention.sliding_window_pattern"] = [t == "sliding_attention" for t in c["layer_types"]]
    for key, name in (("attn_logit_softcapping",) * 2, ("final_logit_softcapping",) * 2,
                      ("embedding_multiplier", "embedding_scale"), ("residual_multiplier", "residual_scale"),
                      ("attention_multiplier", "attention.scale"), ("logits_scaling", "logit_scale"),
                      ("logit_scale", "logit_scale"), ("clip_qkv", "attention.clamp_kqv"), ("use_parallel_residual",) * 2,
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
    kind = {bool: 7, int: 5, float: 6, str: 8}[type(v[0])]
    each = {7: lambda x: bytes([x]), 5: lambda x: struct.pack("<i", x), 6: lambda x: struct.pack("<f", x), 8: text}[kind]
    return struct.pack("<IIQ", 9, kind, len(v)) + b"".join(map(each, v))


def write(path, m, extra=None, arch=None):
    arch, tensors = arch or KINDS[m["config"]["model_type"]][0], tensors_of(m)
    keys = {**keys_of(usual(m["config"])), **(extra or {})}
    keys = {"general.architecture": arch,
            **{k if k.startswith("tokenizer.") else "%s.%s" % (arch, k): v for k, v in keys.items()}}
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


# what a class of transformers does not understand under its usual name, or refuses
CLASS_KEYS = {"gpt-neox": {"rotary_pct": 0.25, "rotary_emb_base": 10000}, "falcon-11b": {"head_dim": None, "ffn_hidden_size": 40},
              "gpt2": {"n_inner": 96}, "mixtral": {"num_local_experts": 5}, "qwen2-moe": {"num_experts": 6}}


def packed(directory):
    for name in ROWS:
        path = os.path.join(directory, name + ".hf")
        with open(os.path.join(path, "config.json")) as f:
            config = json.load(f)
        if config["model_type"] == "chatglm":  # which the GGUF file calls GLM's
            continue
        got, want = families.shapes(os.path.join(path, "model.safetensors")), families.model(name)["tensors"]
        wrong = ["%s %s" % (n, got.get(n)) for n in sorted({**want, **got}) if got.get(n) != want.get(n)]
        wrong += ["%s %s" % (k, config.get(k)) for k, v in CLASS_KEYS.get(name, {}).items() if config.get(k) != v]
        print(int(bool(wrong)), "%s: tensors and keys of Hugging Face's" % name, *wrong[:4])


if __name__ == "__main__":
    {"make": make, "compare": compare, "packed": packed}[sys.argv[1]](sys.argv[2])
