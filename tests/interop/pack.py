# SPDX-License-Identifier: Apache-2.0
"""Files of nt-pack in the hands of the packages that define their formats.
  pack.py same HF_DIR GGUF HEADS KV_HEADS       every tensor of the GGUF (gguf package) equals that of the directory
                                                (safetensors package)
  pack.py gptq HF_DIR GPTQ_DIR                  the GPTQ directory's weights, unpacked by torch, equal the directory's"""
import json
import sys

sys.path.pop(0)  # neighbours of this file must not stand in for modules of the same name
import numpy as np
import torch
from safetensors.torch import load_file

NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
         "ffn_norm": "post_attention_layernorm"}
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def hf_name(name):
    base = name.removesuffix(".weight")
    if base in TOP:
        return TOP[base] + ".weight"
    _, layer, rest = base.split(".")
    return f"model.layers.{layer}.{NAMES[rest]}.weight"


def same(hf, path, heads, kv_heads):
    import gguf
    from gguf.quants import dequantize
    want, n = load_file(hf + "/model.safetensors"), 0
    reader = gguf.GGUFReader(path)
    for t in reader.tensors:
        x = want.pop(hf_name(t.name)).float().numpy()
        got = dequantize(t.data, t.tensor_type).astype(np.float32).reshape(x.shape)
        h = int(heads) if "attn_q." in t.name else int(kv_heads) if "attn_k." in t.name else 0
        if h:  # llama.cpp's row order
            x = x.reshape(h, 2, -1, x.shape[1]).swapaxes(1, 2).reshape(x.shape)
        assert (got == x).all(), t.name
        n += got.size
    assert not want, list(want)
    print(f"{len(reader.tensors)} tensors, {n} values equal")


def gptq(hf, path):
    want, got = load_file(hf + "/model.safetensors"), {}
    for file in set(json.load(open(path + "/model.safetensors.index.json"))["weight_map"].values()):
        got.update(load_file(path + "/" + file))
    bits, n = json.load(open(path + "/config.json"))["quantization_config"]["bits"], 0

    def unpack(words, count):  # [k, 32-bit words] -> [k, count]
        b = (words.to(torch.int64).unsqueeze(-1) >> torch.arange(32)) & 1
        b = b.reshape(words.shape[0], -1)[:, :count * bits].reshape(words.shape[0], count, bits)
        return (b << torch.arange(bits)).sum(-1)
    for name, x in want.items():
        base = name.removesuffix(".weight")
        if base + ".qweight" not in got:
            assert torch.equal(got[name].float(), x.to(got[name].dtype).float()), name
            continue
        q = unpack(got[base + ".qweight"].T.contiguous(), x.shape[1])
        z = (unpack(got[base + ".qzeros"], x.shape[0]) + 1) % (1 << bits)
        g = got[base + ".g_idx"].long()
        w = got[base + ".scales"].float()[g].T * (q - z[g].T).float()
        assert torch.equal(w, x), name
        n += 1
    print(f"{n} linears equal")


{"same": same, "gptq": gptq}[sys.argv[1]](*sys.argv[2:])
