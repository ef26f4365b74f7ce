# SPDX-License-Identifier: Apache-2.0
"""GGUF files from scratch. scratch.py make DIR: models of tests/data/families as fused.py widens them, NAME, NAME.gguf (as llama.cpp's
converter lays it out) and NAME.ids. scratch.py vocabularies DIR: DIR/vocab-NAME and DIR/lines.
scratch.py mixtures DIR: DIR/scratch-NAME. scratch.py compare DIR: DIR/NAME.new.gguf has the keys of NAME.gguf, and the tensors of
NAME.like.gguf, which was packed after it; DIR/NAME.ours and DIR/NAME.new the same logits; a line 'STATUS NAME: ...' each."""
import json
import os
import sys
import unicodedata

import numpy as np

import families
import fused
import gguf
import oracle

NAMES = ["llama-linear", "llama-yarn", "mistral", "mistral-full", "qwen2-off", "qwen3", "gemma", "gemma2", "gemma3", "gpt2",
         "mixtral", "qwen2-moe", "qwen3-moe"]


def make(directory):
    for name in NAMES:
        m, at = fused.wider(name), os.path.join(directory, name)
        if "query_pre_attn_scalar" in m["config"]:  # no key has it: it is the width of a head
            m["config"]["query_pre_attn_scalar"] = m["config"]["head_dim"]
        m["config"].pop("hidden_act", None)  # there is none for another activation either
        families.weights.write(m, at, dtype="F32")
        gguf.write(at + ".gguf", m)
        with open(at + ".ids", "w") as f:
            json.dump(m["ids"], f)
        print(name)


def mixtures(directory):
    """With a vocabulary and 512 positions, for llama.cpp."""
    for name in ("mixtral", "qwen2-moe", "qwen3-moe"):
        vocabulary(os.path.join(directory, "scratch-" + name), name, "smollm", 512)
        print("scratch-" + name)


def vocabulary(at, model, name, positions):
    with open(os.path.join("tests", "data", "tokenizer", name, "tokenizer.json")) as f:
        t = json.load(f)
    if t["pre_tokenizer"] and t["pre_tokenizer"].get("add_prefix_space"):
        t["pre_tokenizer"]["add_prefix_space"] = False  # llama.cpp adds none for BPE
    ids = [*t["model"]["vocab"].values(), *(a["id"] for a in t["added_tokens"])]
    families.weights.write(fused.wider(model, max(ids) + 3, positions), at, dtype="F32")
    with open(os.path.join(at, "tokenizer.json"), "w") as f:
        json.dump(t, f)


def vocabularies(directory):
    """A model for each tokenizer.json of tests/data/tokenizer that a GGUF file can hold, and texts.json a string a line."""
    where = os.path.join("tests", "data", "tokenizer")
    for name in ("gpt2", "llama3", "qwen2", "smollm", "deepseek3", "gemma", "metaspace"):
        vocabulary(os.path.join(directory, "vocab-" + name), "qwen3", name, 64)
        print(name)
    with open(os.path.join(where, "texts.json")) as f, open(os.path.join(directory, "lines"), "w") as out:
        # GGUF has no word for NFC, which Qwen's vocabularies ask for
        out.writelines(json.dumps(x) + "\n" for x in json.load(f)["text"] if unicodedata.is_normalized("NFC", x))


def check(at):
    want, (ours, keys) = oracle.read_gguf(at + ".gguf")[1], oracle.read_gguf(at + ".new.gguf")
    for key, v in want.items():
        if key.endswith("sliding_window") and not v:
            continue  # what the architecture's code takes when the key is missing
        if isinstance(v, int) and isinstance(keys.get(key), list):  # a period as a list
            v = [(layer + 1) % v != 0 for layer in range(len(keys[key]))]
        if key == "gpt2.rope.freq_base":
            continue
        assert key in keys, key
        assert np.allclose(keys[key], v, 1e-6, 0) if not isinstance(v, str) else keys[key] == v, (key, keys[key], v)
    like = oracle.read_gguf(at + ".like.gguf")[0]
    assert like.keys() == ours.keys(), set(like) ^ set(ours)
    for name, (t, x) in like.items():
        assert (ours[name][0] == t or not name.startswith("blk.")) and (ours[name][1] == x).all(), name
    a, b = families.load(at + ".ours"), families.load(at + ".new")
    assert np.abs(a["logits"] - b["logits"]).max() <= 1e-5 * np.abs(a["logits"]).max(), "logits"
    return "%d keys, %d tensors" % (len(want), len(like))


def compare(directory):
    for name in NAMES:
        try:
            print(0, name + ":", check(os.path.join(directory, name)))
        except Exception as e:
            print(1, name + ":", type(e).__name__, str(e)[:200].replace("\n", " "))


{"make": make, "vocabularies": vocabularies, "mixtures": mixtures, "compare": compare}[sys.argv[1]](sys.argv[2])
