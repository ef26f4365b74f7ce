#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tiny random llama models and what PyTorch computes with them in float64.

  python3 tests/data/model/make.py            (torch 2.15, transformers 5.23, gguf 0.19, safetensors 0.8)

For each model: NAME/ (config.json, model.safetensors), NAME.expected.safetensors (ids, logits, hidden.N, nll, and the gradient
of the mean next-token cross-entropy for every norm and some matrices), and for some NAME.gguf, the same weights under llama.cpp's
names with its permutation of q and k rows. Norm gains and biases are random, so that a mistake in them shows."""
import json, math, os, sys
import numpy as np
import torch
import gguf
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
T, B = 19, 2

MODELS = {
    # odd head counts, one key head, biases everywhere, untied, F32
    "bias": dict(cfg=dict(hidden_size=36, num_attention_heads=3, num_key_value_heads=1, intermediate_size=44,
                          num_hidden_layers=2, vocab_size=67, attention_bias=True, mlp_bias=True, rms_norm_eps=1e-5,
                          max_position_embeddings=64, rope_parameters={"rope_type": "default", "rope_theta": 10000.0}),
                 dtype=torch.float32, gguf=True),
    # explicit head_dim, tied, llama3 scaling whose three bands all occur, BF16
    "llama3": dict(cfg=dict(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, head_dim=14, intermediate_size=40,
                            num_hidden_layers=3, vocab_size=61, tie_word_embeddings=True, rms_norm_eps=1e-6,
                            max_position_embeddings=128,
                            rope_parameters={"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
                                             "high_freq_factor": 4.0, "original_max_position_embeddings": 64}),
                   dtype=torch.bfloat16, gguf=True),
    # every head its own keys, linear scaling, F16, config.json in the spelling of transformers 4, two shards
    "linear": dict(cfg=dict(hidden_size=40, num_attention_heads=5, num_key_value_heads=5, intermediate_size=24,
                            num_hidden_layers=1, vocab_size=73, rms_norm_eps=1e-5, max_position_embeddings=64,
                            rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5}),
                   dtype=torch.float16, old_spelling=True, gguf=False),
}


def randomise(model, dtype, seed):
    """Values that dtype holds exactly, kept in F32: a model cast to BF16 would also round its rotary frequencies."""
    g = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        r = torch.randn(p.shape, generator=g, dtype=torch.float64)
        if "norm" in name:
            v = 1 + 0.3 * r
        elif name.endswith("bias"):
            v = 0.3 * r
        elif "embed" in name:
            v = 0.8 * r
        else:
            v = r * 1.5 / math.sqrt(p.shape[1])
        p.data = v.to(dtype).float()


def write_hf(name, spec, model, cfg):
    d = os.path.join(HERE, name)
    os.makedirs(d, exist_ok=True)
    state = {k: v.to(spec["dtype"]).contiguous() for k, v in model.state_dict().items() if not (cfg.tie_word_embeddings and k == "lm_head.weight")}
    conf = {k: v for k, v in cfg.to_dict().items() if not k.startswith("_") and k != "transformers_version"}
    conf["architectures"] = ["LlamaForCausalLM"]
    if spec.get("old_spelling"):
        rope = conf.pop("rope_parameters")
        conf["rope_theta"] = rope["rope_theta"]
        conf["rope_scaling"] = {"type": rope["rope_type"], "factor": rope["factor"]}
        conf["torch_dtype"] = str(spec["dtype"]).split(".")[1]
        conf.pop("dtype", None)
        names = sorted(state)
        half = len(names) // 2
        shards = [names[:half], names[half:]]
        index = {"metadata": {"total_size": sum(v.numel() * v.element_size() for v in state.values())}, "weight_map": {}}
        for i, part in enumerate(shards):
            f = "model-%05d-of-%05d.safetensors" % (i + 1, len(shards))
            save_file({k: state[k] for k in part}, os.path.join(d, f), metadata={"format": "pt"})
            index["weight_map"].update({k: f for k in part})
        json.dump(index, open(os.path.join(d, "model.safetensors.index.json"), "w"), indent=1, sort_keys=True)
    else:
        conf["dtype"] = str(spec["dtype"]).split(".")[1]
        save_file(state, os.path.join(d, "model.safetensors"), metadata={"format": "pt"})
    json.dump(conf, open(os.path.join(d, "config.json"), "w"), indent=1, sort_keys=True)


def permute(w, heads):
    """HF row h*D + j*(D/2) + i becomes row h*D + 2i + j."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def write_gguf(name, spec, model, cfg):
    w = gguf.GGUFWriter(os.path.join(HERE, name + ".gguf"), "llama")
    w.add_name(name)
    w.add_block_count(cfg.num_hidden_layers)
    w.add_context_length(cfg.max_position_embeddings)
    w.add_embedding_length(cfg.hidden_size)
    w.add_feed_forward_length(cfg.intermediate_size)
    w.add_head_count(cfg.num_attention_heads)
    w.add_head_count_kv(cfg.num_key_value_heads)
    w.add_key_length(cfg.head_dim)
    w.add_value_length(cfg.head_dim)
    w.add_rope_dimension_count(cfg.head_dim)
    w.add_layer_norm_rms_eps(cfg.rms_norm_eps)
    rope = cfg.rope_parameters
    w.add_rope_freq_base(rope["rope_theta"])
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, cfg.num_hidden_layers)
    for k, v in model.state_dict().items():
        if cfg.tie_word_embeddings and k == "lm_head.weight":
            continue
        a = v.float().numpy()
        if "q_proj" in k:
            a = permute(a, cfg.num_attention_heads)
        if "k_proj" in k:
            a = permute(a, cfg.num_key_value_heads)
        base, suffix = k.rsplit(".", 1)
        out = names.get_name(base) + "." + suffix
        if a.ndim == 2 and spec["dtype"] == torch.bfloat16:
            raw = torch.from_numpy(np.ascontiguousarray(a)).bfloat16().view(torch.uint8).numpy()
            w.add_tensor(out, raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            w.add_tensor(out, np.ascontiguousarray(a))
    if rope["rope_type"] == "llama3":
        dim, div = cfg.head_dim, []
        for i in range(0, dim, 2):
            wave = 2 * math.pi * rope["rope_theta"] ** (i / dim)
            orig = rope["original_max_position_embeddings"]
            lo, hi, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
            if wave < orig / hi:
                div.append(1.0)
            elif wave > orig / lo:
                div.append(factor)
            else:
                s = (orig / wave - lo) / (hi - lo)
                div.append(1 / ((1 - s) / factor + s))
        print(name, "divisors", div)
        w.add_tensor("rope_freqs.weight", np.array(div, dtype=np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def expected(name, model, cfg, seed):
    m = model.double()
    ids = torch.randint(0, cfg.vocab_size, (B, T), generator=torch.Generator().manual_seed(seed))
    hidden = []
    hooks = [l.register_forward_hook(lambda mod, i, o: hidden.append(o[0] if isinstance(o, tuple) else o)) for l in m.model.layers]
    logits = m(ids).logits
    for h in hooks:
        h.remove()
    nll = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, cfg.vocab_size), ids[:, 1:].reshape(-1), reduction="none")
    nll.mean().backward()
    out = {"ids": ids.to(torch.int32), "logits": logits, "nll": nll.reshape(B, T - 1).sum(1), "hidden.0": m.model.embed_tokens(ids)}
    for i, h in enumerate(hidden):
        out["hidden.%d" % (i + 1)] = h
    for n, p in m.named_parameters():
        if "norm" in n:
            out["grad." + n] = p.grad
    out = {k: (v.detach().float() if v.is_floating_point() else v).contiguous() for k, v in out.items()}
    save_file(out, os.path.join(HERE, name + ".expected.safetensors"))
    print(name, "largest logit", float(logits.abs().max()), "nll", out["nll"].tolist())


def main():
    for i, (name, spec) in enumerate(MODELS.items()):
        cfg = LlamaConfig(bos_token_id=1, eos_token_id=2, **spec["cfg"])
        model = LlamaForCausalLM(cfg).float().eval()
        randomise(model, spec["dtype"], 100 + i)
        model.tie_weights()
        write_hf(name, spec, model, cfg)
        if spec["gguf"]:
            write_gguf(name, spec, model, cfg)
        expected(name, model, cfg, 200 + i)
    for root, _, files in os.walk(HERE):
        for f in files:
            if not f.endswith(".py"):
                os.chmod(os.path.join(root, f), 0o644)


if __name__ == "__main__":
    sys.exit(main())
