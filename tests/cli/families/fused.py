# SPDX-License-Identifier: Apache-2.0
"""Models of tests/data/families with four times their width (formats of codes want multiples of 32), most of whose files hold
several linears in a tensor or lie as [in, out]. fused.py make DIR: NAME, NAME.gguf, NAME.ids; prints the names. fused.py served DIR: the same for llama.cpp.
fused.py compare: lines 'KIND NAME FLOATS PATH OURS THEIRS' on stdin; a line 'STATUS KIND NAME: ...' each. The directory PATH of
codes, or the GGUF file, in llama.cpp's order, holds the values of directory FLOATS (--format hf, which transformers loads); the dumps
OURS and THEIRS have the same logits."""
import json
import os
import sys

import numpy as np

import families
import gguf

sys.path.insert(0, os.path.join("tests", "cli", "nt-pack"))
import oracle  # noqa: E402

WIDER = 4
NAMES = ["gpt2", "bloom", "gpt-neox", "falcon-7b", "falcon-40b", "phi3", "phi3-long", "glm", "glm4", "mistral",
         "stablelm-parallel", "cohere-qk", "mixtral", "qwen2-moe", "qwen3-moe"]
SIZES = ("hidden_size", "n_embd", "n_inner", "intermediate_size", "ffn_hidden_size", "head_dim", "moe_intermediate_size",
         "shared_expert_intermediate_size")
TABLES = ("embed", "wte", "wpe", "lm_head", "word_embeddings.")


def wider(name, vocab=0, positions=0):
    """vocab, positions: of the tables, instead of the model's own."""
    m = families.model(name)
    c = m["config"] = {k: v * WIDER if k in SIZES else v for k, v in m["config"].items()}
    for k in ("short_factor", "long_factor"):
        if k in (c.get("rope_scaling") or {}):
            c["rope_scaling"][k] = np.repeat(c["rope_scaling"][k], WIDER).tolist()
    for n, shape in m["tensors"].items():
        table = any(t in n for t in TABLES) and not n.endswith("norm.weight")
        heads = "norm" in n and len(shape) == 2
        routing = n.endswith((".gate.weight", "_expert_gate.weight")) and len(shape) == 2
        keep = 1 if (table and "layernorm" not in n) or heads or routing else 0  # rows of a vocabulary, heads, experts
        m["tensors"][n] = shape[:keep] + [d * WIDER for d in shape[keep:]]
        if vocab and table and "layernorm" not in n:
            m["tensors"][n][0] = positions if "wpe" in n else vocab
    if vocab:
        c["vocab_size"] = vocab
        c["n_positions" if "n_positions" in c else "max_position_embeddings"] = positions
    return m


def served(directory):
    """Those that llama.cpp knows, with a vocabulary of bytes and 512 positions."""
    pieces = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % i for i in range(256)] + ["x%d" % i for i in range(41)]
    keys = {"model": "llama", "tokens": pieces, "scores": [0.0] * 300, "token_type": [2, 3, 3] + [6] * 256 + [4] * 41,
            "bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0, "add_bos_token": False, "add_space_prefix": False}
    for name in [n for n in NAMES if n not in ("phi3-long", "mistral", "cohere-qk")] + ["cohere", "phi", "gpt-neox-keys", "falcon-11b", "bloom-keys"]:
        m, at = wider(name, 300, 512), os.path.join(directory, name)
        if name == "glm":  # llama.cpp's chatglm wants heads that add up to the width
            m["config"].update(num_attention_heads=3, num_key_value_heads=1)
            for n, shape in m["tensors"].items():
                if ".self_attn." in n:
                    shape[0] = 32 if "k_proj" in n or "v_proj" in n else 96
                    shape[1:] = [96] * (len(shape) - 1)
        families.weights.write(m, at, dtype="F32")
        gguf.write(at + ".gguf", m, {"tokenizer.ggml." + k: v for k, v in keys.items()})
        print(name)


def make(directory):
    for name in NAMES:
        m, at = wider(name), os.path.join(directory, name)
        families.weights.write(m, at, dtype="F32")
        gguf.write(at + ".gguf", m)
        with open(at + ".ids", "w") as f:
            json.dump(m["ids"], f)
        print(name)
    families.chatglm(os.path.join(directory, "chatglm"), wider("glm"))
    for suffix in (".gguf", ".ids"):
        with open(os.path.join(directory, "glm" + suffix), "rb") as f, open(os.path.join(directory, "chatglm" + suffix), "wb") as g:
            g.write(f.read())
    print("chatglm")


def codes(layout, floats, path):
    want, got = oracle.read_directory(floats)[0], oracle.read_directory(path)[0]
    with open(os.path.join(path, "config.json")) as f:
        whole = json.load(f)
    config = whole["quantization" if layout == "mlx" else "quantization_config"]
    mark, decode = oracle.LAYOUTS[layout]
    seen, coded = set(), 0
    for name, (_, x) in want.items():
        base = name[:-len(".weight")]
        part = {k[len(base) + 1:]: v for k, (_, v) in got.items() if name.endswith(".weight") and k.startswith(base + ".")}
        if mark in part:
            turned = whole["model_type"] == "gpt2"  # its floats lie as [in, out]; codes do not
            x = x.T if turned else x
            y = decode({k: v for k, v in part.items() if k != "bias"}, x.shape, config, base).astype("<f4")
            oracle.same(name, y, x)
            seen.update("%s.%s" % (base, p) for p in part if p != "bias")
            coded += 1
        else:
            kind, y = got[name]
            oracle.same(name, y.astype("<f4"), oracle.ROUND[kind](x))
            seen.add(name)
    assert seen == set(got), sorted(seen ^ set(got))[:4]
    assert coded and not any("#" in n for n in got)


def in_gguf(name, floats, path):
    m = wider("glm" if name == "chatglm" else name)
    want = gguf.tensors_of(m, {n: x for n, (_, x) in oracle.read_directory(floats)[0].items()})
    got, _ = oracle.read_gguf(path)
    assert set(want) == set(got), sorted(set(want) ^ set(got))[:4]
    for n, x in want.items():
        kind, y = got[n]
        assert kind == "Q4_0" or "blk." not in n or x.ndim == 1 or "norm" in n or "_inp" in n, "%s is %s" % (n, kind)
        oracle.same(n, y, (x if kind == "Q4_0" else oracle.ROUND[kind](x.astype("<f4"))).reshape(y.shape))


def logits(a, b):
    a, b = (families.load(x)["logits"].astype(np.float64) for x in (a, b))
    d = np.abs(a - b).max()
    assert a.std() > 0.05 and d <= 1e-6, "logits differ by %.1e" % d
    return d


def compare():
    for line in sys.stdin:
        kind, name, floats, path, a, b = line.split()
        try:
            if kind in oracle.LAYOUTS:
                codes(kind, floats, path)
            elif kind == "gguf":
                in_gguf(name, floats, path)
            print(0, "%s %s: logits %.1e" % (name, kind, logits(a, b)))
        except Exception as e:  # whatever is wrong with this one
            print(1, "%s %s: %s" % (name, kind, str(e).replace("\n", " ")[:300] or type(e).__name__))


if __name__ == "__main__":
    {"make": make, "served": served}[sys.argv[1]](sys.argv[2]) if len(sys.argv) > 2 else compare()
