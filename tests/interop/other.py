# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that bitsandbytes (by transformers) and hqq write of a tiny model, each with the logits that they compute with it:
`other.py make DIR` writes DIR/KIND and DIR/KIND.logits.npy, prints the kinds; `other.py close DIR` compares with them the logits
in DIR/KIND.WHAT.safetensors, a line for each. All rows are whole blocks: bitsandbytes 0.50 reads others wrongly on CPUs."""
import copy, json, os, sys

sys.path.pop(0)  # neighbours of this file must not stand in for modules of the same name
import numpy as np

IDS = [[3, 17, 42, 5, 80, 11, 64, 29, 90, 7, 33, 58]]


def make(where):
    import bitsandbytes as bnb
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM
    torch.manual_seed(1)
    config = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                         head_dim=16, vocab_size=96, max_position_embeddings=64, tie_word_embeddings=False, initializer_range=0.2)
    tiny = os.path.join(where, "float")
    LlamaForCausalLM(config).save_pretrained(tiny)
    json.dump(IDS, open(os.path.join(where, "ids.json"), "w"))

    def done(kind, model):
        with torch.no_grad():
            np.save(os.path.join(where, kind + ".logits.npy"), model(torch.tensor(IDS)).logits.float().numpy())
        print(kind)

    four = dict(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    for kind, b in {"nf4": {**four, "bnb_4bit_quant_type": "nf4"}, "fp4": {**four, "bnb_4bit_quant_type": "fp4"},
                    "nf4-double": {**four, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
                    "nf4-float": {**four, "bnb_4bit_quant_type": "nf4", "bnb_4bit_quant_storage": torch.float32},
                    "int8": dict(load_in_8bit=True)}.items():
        model = AutoModelForCausalLM.from_pretrained(tiny, quantization_config=BitsAndBytesConfig(**b), dtype=torch.float32, device_map="cpu")
        model.save_pretrained(os.path.join(where, kind))
        plain = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)  # their products on CPUs round activations
        to = dict(plain.named_modules())
        for name, m in model.named_modules():
            if isinstance(m, bnb.nn.Linear4bit):
                to[name].weight.data = bnb.functional.dequantize_4bit(m.weight.data, m.weight.quant_state).float()
            elif isinstance(m, bnb.nn.Linear8bitLt):
                state = m.state_dict()
                to[name].weight.data = bnb.functional.int8_vectorwise_dequant(state["weight"], state["SCB"])
        done(kind, plain)

    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
    from hqq.models.hf.base import AutoHQQHFModel
    for bits in (8, 6, 4, 3, 2, 1.58, 1):
        for axis in (0, 1):
            model = LlamaForCausalLM.from_pretrained(tiny, dtype=torch.float32)
            setting = BaseQuantizeConfig(nbits=bits, group_size=16, axis=axis, view_as_float=bits == 6)
            for layer in model.model.layers:
                for part in (layer.self_attn, layer.mlp):
                    for name, m in list(part.named_children()):
                        if isinstance(m, torch.nn.Linear):
                            setattr(part, name, HQQLinear(m, copy.deepcopy(setting), compute_dtype=torch.float32, device="cpu"))
            kind = f"hqq{bits}-{axis}"
            AutoHQQHFModel.save_to_safetensors(model, os.path.join(where, kind))
            done(kind, model)


def close(where):
    from safetensors.numpy import load_file
    for name in sorted(f for f in os.listdir(where) if f.endswith(".safetensors")):
        kind, what, _ = name.rsplit(".", 2)
        a, b = load_file(os.path.join(where, name))["logits"], np.load(os.path.join(where, kind + ".logits.npy"))
        error = np.abs(a - b).max() / np.abs(b).max() if a.shape == b.shape else np.inf
        print("ok" if error < 2e-5 else "bad", f"{kind}: logits of the {what}, largest difference {error:.1e}")


{"make": make, "close": close}[sys.argv[1]](*sys.argv[2:])
