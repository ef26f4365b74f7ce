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


# ---- nt-eval's measures, on a model whose tokens are bytes ----

WORDS = "the cat sat on a mat and saw nine black birds over old stone walls while rain fell softly".split()


def byte_tokenizer(path):
    """Byte-level BPE without merges: ids 0..255 are bytes, 256 <s> (put first when special tokens are asked for), 257 </s>."""
    printable = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    extra, vocab = 0, {}
    for b in range(256):
        if b in printable:
            vocab[chr(b)] = b
        else:
            vocab[chr(256 + extra)] = b
            extra += 1
    special = [dict(id=256 + i, content=c, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
               for i, c in enumerate(("<s>", "</s>"))]
    vocab.update({"<s>": 256, "</s>": 257})
    byte_level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
    post = dict(type="TemplateProcessing", single=[{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                pair=[{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                special_tokens={"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}})
    json.dump(dict(version="1.0", truncation=None, padding=None, added_tokens=special, normalizer=None, pre_tokenizer=byte_level,
                   post_processor=post, decoder=byte_level,
                   model=dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None,
                              fuse_unk=False, byte_fallback=False, ignore_merges=False, vocab=vocab, merges=[])),
              open(path, "w"), ensure_ascii=True)


def window_measures(model, ref, ids, T, first, bos, by_token):
    n, nll, kl, top, hid, hid_ref = len(ids) // T, [], [], [], [], []
    for w in range(n):
        x = ids[w * T:(w + 1) * T].clone()
        y = x[1:]
        if bos is not None:
            x[0] = bos
        a, b = (m(x[None], output_hidden_states=True) for m in (model, ref))
        la, lb = (o.logits[0, first:-1].log_softmax(-1) for o in (a, b))
        nll.append(-la.gather(1, y[first:, None])[:, 0])
        kl.append((lb.exp() * (lb - la)).sum(-1))
        top.append((la.argmax(-1) == lb.argmax(-1)).double())
        hid.append([h[0] for h in a.hidden_states])
        hid_ref.append([h[0] for h in b.hidden_states])

    def stat(v):
        v = torch.cat(v) if by_token else torch.stack([x.mean() for x in v])
        return float(v.mean()), float(v.std(correction=1) / math.sqrt(len(v)))
    mean, err = stat(nll)
    out = {"ppl": [math.exp(mean), err * math.exp(mean)], "kl": stat(kl), "top1": stat(top), "n": sum(len(v) for v in nll)}
    h, hr = (torch.cat([x[1] for x in v]) for v in (hid, hid_ref)) # output of block 0; the last hidden state is behind the norm
    m, mr, v, vr = h.mean(0), hr.mean(0), h.var(0, correction=0), hr.var(0, correction=0)
    out["drift_mean.0"] = float(((m - mr).abs() / vr.sqrt()).mean())
    out["drift_var.0"] = float(((v - vr).abs() / vr).mean())
    return out


def eval_data():
    g = torch.Generator().manual_seed(7)
    pick = lambda n: " ".join(WORDS[i] for i in torch.randint(0, len(WORDS), (n,), generator=g).tolist())
    text = "".join(pick(9) + " .\r\n" for _ in range(110))
    items = [pick(12) for _ in range(24)]
    d = os.path.join(HERE, "bytes")
    cfg = LlamaConfig(bos_token_id=256, eos_token_id=257, hidden_size=24, num_attention_heads=3, num_key_value_heads=1,
                      intermediate_size=32, num_hidden_layers=2, vocab_size=258, tie_word_embeddings=True, rms_norm_eps=1e-5,
                      max_position_embeddings=2048, rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    spec = dict(dtype=torch.float32)
    model = LlamaForCausalLM(cfg).float()
    randomise(model, torch.float32, 300)
    model.tie_weights()
    opt = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(400):
        at = torch.randint(0, 4000, (24,), generator=g).tolist()
        slices = [text.replace("\r\n", "\n")[a:a + 48] for a in at] + [i[-48:] for i in items]
        x = torch.tensor([list(i.encode()) for i in slices])
        loss = model(x, labels=x).loss
        opt.zero_grad()
        loss.backward()
        opt.step()
    model.eval()
    write_hf("bytes", spec, model, cfg)
    byte_tokenizer(os.path.join(d, "tokenizer.json"))
    open(os.path.join(d, "text.txt"), "w", newline="").write(text)
    with open(os.path.join(d, "words.jsonl"), "w") as f:
        for i in items:
            f.write(json.dumps({"text": i}) + "\n")
    ref = LlamaForCausalLM(cfg).float().eval()
    ref.load_state_dict(model.state_dict())
    for n, p in ref.named_parameters():
        if "norm" in n:
            p.data = (p.data * (1 + 0.1 * torch.randn(p.shape, generator=g))).float()
    write_hf("bytes-ref", spec, ref, cfg)
    with torch.no_grad():
        model, ref = model.double(), ref.double()
        lf = torch.tensor(list(text.replace("\r\n", "\n").encode()))
        raw = torch.tensor([256] + list(text.encode()))
        right = 0
        for i in items:
            ctx, word = i.rsplit(" ", 1)
            x = list(ctx.encode()) + list((" " + word).encode())
            best = model(torch.tensor([x])).logits[0].argmax(-1).tolist()
            right += all(best[t - 1] == x[t] for t in range(len(ctx.encode()), len(x)))
        out = {"gptq-2048": window_measures(model, ref, lf, 2048, 0, None, False),
               "llama.cpp-512": window_measures(model, ref, raw, 512, 256, 256, True),
               "lambada": right / len(items), "items": len(items)}
    json.dump(out, open(os.path.join(d, "expected.json"), "w"), indent=1, sort_keys=True)
    print(json.dumps(out))


def main():
    torch.set_num_threads(1)
    eval_data()
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
