# SPDX-License-Identifier: Apache-2.0
"""Model directories of tests/data/families and their comparison. families.py make DIR [OPTION of weights.py ...]: every one into
DIR/NAME.
families.py compare DIR [KIND]: DIR/NAME.out (a dump) against NAME.expected.safetensors; a line 'STATUS NAME: ...' each."""
import glob
import json
import os
import struct
import sys

import numpy as np

DATA = os.path.join("tests", "data", "families")
sys.path.insert(0, DATA)
import weights  # noqa: E402

LOGITS, GRADIENTS, STATES = 5e-4, 2e-4, 2e-4  # absolute; of the largest; of the largest


def names():
    return sorted(os.path.basename(p)[:-len(".expected.safetensors")]
                  for p in glob.glob(os.path.join(DATA, "*.expected.safetensors")))


def load(path):
    with open(path, "rb") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        header, data = json.loads(f.read(n)), f.read()
    return {k: np.frombuffer(data[v["data_offsets"][0]:v["data_offsets"][1]], "<f4").reshape(v["shape"])
            for k, v in header.items() if k != "__metadata__"}


def model(name):
    with open(os.path.join(DATA, name + ".json")) as f:
        return json.load(f)


def chatglm(directory, m=None):
    """The model of row glm as its authors lay it out: the same numbers under other names. ChatGLM's own class is not
    part of transformers, whose conversion this reverses."""
    m = m or model("glm")
    c, old, new = m["config"], weights.tensors_of(m), {}
    outer = {"model.embed_tokens.weight": "embedding.word_embeddings.weight", "lm_head.weight": "output_layer.weight",
             "model.norm.weight": "encoder.final_layernorm.weight"}
    inner = {"self_attn.o_proj": "self_attention.dense", "mlp.gate_up_proj": "mlp.dense_h_to_4h",
             "mlp.down_proj": "mlp.dense_4h_to_h"}
    for name, x in old.items():
        if name in outer:
            new["transformer." + outer[name]] = x
        elif ".q_proj." in name:
            parts = [old[name.replace("q_proj", p)] for p in ("q_proj", "k_proj", "v_proj")]
            name = name.replace("self_attn.q_proj", "self_attention.query_key_value")
            new[name.replace("model.", "transformer.encoder.")] = np.concatenate(parts)
        elif ".k_proj." not in name and ".v_proj." not in name:
            for a, b in inner.items():
                name = name.replace(a, b)
            new[name.replace("model.", "transformer.encoder.")] = x
    new["transformer.rotary_pos_emb.inv_freq"] = np.ones(4)  # a buffer
    config = {"model_type": "chatglm", "architectures": ["ChatGLMModel"], "num_layers": c["num_hidden_layers"],
              "padded_vocab_size": c["vocab_size"], "hidden_size": c["hidden_size"], "kv_channels": c["head_dim"],
              "ffn_hidden_size": c["intermediate_size"], "num_attention_heads": c["num_attention_heads"],
              "multi_query_attention": True, "multi_query_group_num": c["num_key_value_heads"], "add_qkv_bias": True,
              "seq_length": 16, "layernorm_epsilon": 1.5625e-07, "rmsnorm": True, "post_layer_norm": True,
              "original_rope": True, "rope_ratio": 1, "add_bias_linear": False, "tie_word_embeddings": False}
    os.makedirs(directory)
    with open(os.path.join(directory, "config.json"), "w") as f:
        json.dump(config, f)
    weights.write_safetensors(os.path.join(directory, "model.safetensors"), new)


def make(directory, *options):
    for name in names():
        m = model(name)
        nested = "text_config" in m["config"]
        weights.write(m, os.path.join(directory, name), **{o: True for o in options if not nested})
        with open(os.path.join(directory, name + ".ids"), "w") as f:
            json.dump(m["ids"], f)
        with open(os.path.join(directory, name + ".calib"), "w") as f:
            length = min(10, m["config"].get("max_position_embeddings", 10))
            vocab = 1 + max(map(max, m["ids"]))
            json.dump([(np.abs(weights.integers("%s %d" % (name, i), length)) % vocab).tolist() for i in range(6)], f)
        print(name)


def compare_one(want, got):
    """Worst of logits, states, gradients; what is wrong."""
    worst, wrong = {}, []
    for name, x in want.items():
        if name not in got:
            if not name.startswith("grad.") or "layers." in name or ".h." in name:
                if not (name.startswith("grad.") and name.endswith("_layer_norm.bias") and "layers." not in name):
                    wrong.append("no " + name)
            continue
        y = got[name].reshape(x.shape).astype(np.float64)
        kind = name.split(".")[0]
        d = np.abs(y - x).max() / (1 if kind == "logits" else np.abs(x).max())
        worst[kind] = max(worst.get(kind, 0), d)
        if not d <= {"logits": LOGITS, "hidden": STATES, "grad": GRADIENTS}[kind]:
            wrong.append("%s differs by %.1e" % (name, d))
    wrong += ["unexpected " + n for n in got if n.startswith("grad.") and n not in want]
    return worst, wrong


def compare(directory, only="", one=None):
    for name in [one] if one else names():
        want = load(os.path.join(DATA, name + ".expected.safetensors"))
        want = {k: x for k, x in want.items() if k.startswith(only)}
        path = os.path.join(directory, name + ".out")
        if not os.path.exists(path):
            print(1, "%s: no dump" % name)
            continue
        worst, wrong = compare_one(want, load(path))
        if one:
            sys.exit("%s: %s" % (name, wrong) if wrong else 0)
        print(int(bool(wrong)), "%s: %s" % (name, "; ".join(wrong[:6]) if wrong else
                                            " ".join("%s %.1e" % i for i in worst.items())))


def shapes(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
    return {k: v["shape"] for k, v in header.items() if k != "__metadata__"}


def packed(model, line):
    """The same tensors as the model; logits of the stream and of the directory, which differ from the float model's."""
    want, got = (shapes(os.path.join(d, "model.safetensors")) for d in (model, line + ".hf"))
    inner = "language_model."  # of a nested configuration only the text
    want = {n.replace(inner, ""): s for n, s in want.items() if inner in n or not any(inner in k for k in want)}
    assert got == want, "tensors: %s" % [n for n in sorted(set(got) | set(want)) if got.get(n) != want.get(n)][:6]
    ours, theirs = load(line + ".ours")["logits"], load(line + ".packed")["logits"]
    original = load(os.path.join(DATA, os.path.basename(model) + ".expected.safetensors"))["logits"]
    d = np.abs(ours - theirs).max()
    assert d < 1e-4, "logits of stream and directory differ by %.1e" % d
    assert np.abs(ours - original).max() > 1e-3, "quantizing changed nothing"


def main():
    if sys.argv[1] == "make":
        make(*sys.argv[2:])
    elif sys.argv[1] == "chatglm":
        chatglm(sys.argv[2])
    elif sys.argv[1] == "packed":
        packed(sys.argv[2], sys.argv[3])
    else:
        compare(*sys.argv[2:])


if __name__ == "__main__":
    main()
