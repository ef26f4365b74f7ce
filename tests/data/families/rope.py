#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes rope.json: rotary frequencies, attention factors and the table's last row, as transformers' own rotary
modules compute them (torch, f32), for every rope type and both spellings of config.json.
Run once, with transformers 5.23.0 and torch 2.15: python3 tests/data/families/rope.py"""
import json
import os

import torch
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding
from transformers.models.stablelm.modeling_stablelm import StableLmRotaryEmbedding

SIZES = dict(hidden_size=48, num_attention_heads=3, max_position_embeddings=64)
SHORT = [1.0, 1.02, 1.05, 1.1, 1.3, 1.75, 2.5, 3.0]
LONG = [1.0, 1.4, 2.1, 4.3, 8.7, 17.5, 30.25, 52.1]
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)

# name, model_type, its keys, length
CASES = [
    ("default", "llama", {}, 9),
    ("theta", "llama", dict(rope_theta=500000.0), 9),
    ("theta of transformers 5", "llama", dict(rope_parameters=dict(rope_theta=1234567.0, rope_type="default")), 9),
    ("linear", "llama", dict(rope_scaling=dict(type="linear", factor=2.5)), 9),
    ("linear of transformers 5", "llama",
     dict(rope_parameters=dict(rope_type="linear", factor=2.5, rope_theta=20000.0)), 9),
    ("dynamic, short", "llama", dict(rope_scaling=dict(type="dynamic", factor=3.0)), 64),
    ("dynamic, long", "llama", dict(rope_scaling=dict(type="dynamic", factor=3.0)), 100),
    ("yarn", "llama", dict(rope_scaling=YARN), 9),
    ("yarn without factor", "llama",
     dict(rope_scaling=dict(rope_type="yarn", factor=None, original_max_position_embeddings=16)), 9),
    ("yarn with betas", "llama", dict(rope_scaling=dict(YARN, beta_fast=4, beta_slow=0.5, attention_factor=0.75)), 9),
    ("yarn with mscale", "llama", dict(rope_scaling=dict(YARN, mscale=0.7, mscale_all_dim=1.3)), 9),
    ("yarn, ends not rounded", "llama", dict(rope_parameters=dict(YARN, truncate=False, rope_theta=150000.0)), 9),
    ("llama3", "llama", dict(rope_theta=500000.0,
     rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                       original_max_position_embeddings=32)), 9),
    ("llama3 from max_position_embeddings", "llama",
     dict(rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=2.0)), 9),
    ("longrope, short", "llama", dict(rope_scaling=dict(rope_type="longrope", short_factor=SHORT, long_factor=LONG,
                                                        original_max_position_embeddings=16)), 16),
    ("longrope, long", "llama", dict(rope_scaling=dict(rope_type="longrope", short_factor=SHORT, long_factor=LONG,
                                                       original_max_position_embeddings=16)), 17),
    ("longrope with factors", "llama",
     dict(rope_scaling=dict(rope_type="longrope", short_factor=SHORT, long_factor=LONG, factor=3.0,
                            attention_factor=1.25, original_max_position_embeddings=16)), 9),
    ("Phi-3's su", "phi3", dict(original_max_position_embeddings=16,
                                rope_scaling=dict(type="su", short_factor=SHORT, long_factor=LONG,
                                                  original_max_position_embeddings=16)), 20),
    ("Phi-3, a part of the head", "phi3",
     dict(original_max_position_embeddings=16, partial_rotary_factor=0.75,
          rope_scaling=dict(type="longrope", short_factor=SHORT[:6], long_factor=LONG[:6])), 9),
    ("partial", "stablelm", dict(partial_rotary_factor=0.25), 9),
    ("partial by default", "stablelm", dict(), 9),
    ("partial in rope_parameters", "stablelm",
     dict(rope_parameters=dict(partial_rotary_factor=0.5, rope_theta=10000.0, rope_type="default")), 9),
    ("partial and linear", "stablelm", dict(partial_rotary_factor=0.5, rope_scaling=dict(type="linear", factor=2.0)), 9),
    ("global, scaled", "gemma3_text", dict(rope_theta=1e6, rope_local_base_freq=10000.0,
                                           rope_scaling=dict(rope_type="linear", factor=8.0)), 9, "full_attention"),
    ("global by layer type", "gemma3_text",
     dict(rope_parameters=dict(full_attention=dict(rope_type="linear", factor=4.0, rope_theta=300000.0),
                               sliding_attention=dict(rope_type="default", rope_theta=7000.0))), 9, "full_attention"),
    ("local by layer type", "gemma3_text",
     dict(rope_parameters=dict(full_attention=dict(rope_type="linear", factor=4.0, rope_theta=300000.0),
                               sliding_attention=dict(rope_type="default", rope_theta=7000.0))), 9,
     "sliding_attention"),
    ("proportional", "gemma3_text",
     dict(rope_parameters=dict(full_attention=dict(rope_type="proportional", partial_rotary_factor=0.25,
                                                   rope_theta=1000000.0))), 9, "full_attention"),
]
MODULES = dict(llama=LlamaRotaryEmbedding, phi3=Phi3RotaryEmbedding, stablelm=StableLmRotaryEmbedding,
               gemma3_text=Gemma3RotaryEmbedding)


def digits(t):
    return [float(f"{v:.9g}") for v in t.tolist()]


def compute(name, model_type, keys, length, layer_type=None):
    config = dict(SIZES, model_type=model_type, **keys)
    if model_type == "gemma3_text":
        config.update(head_dim=16, num_hidden_layers=6)
    hf = AutoConfig.for_model(**json.loads(json.dumps(config)))
    module = MODULES[model_type](hf)
    more = dict(layer_type=layer_type) if layer_type else {}
    cos, sin = module(torch.zeros(1), torch.arange(length)[None], **more)
    prefix = layer_type + "_" if layer_type else ""
    freq, half = getattr(module, prefix + "inv_freq"), cos.shape[-1] // 2
    factor = getattr(module, prefix + "attention_scaling")
    assert name != "proportional" or torch.equal(freq, ROPE_INIT_FUNCTIONS["proportional"](hf, layer_type=layer_type)[0])
    return dict(name=name, config=config, layer_type=layer_type, length=length, head=16, freq=digits(freq),
                attention=float(factor), last=digits(torch.cat([cos[0, -1, :half], sin[0, -1, :half]])))


def main():
    out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "rope.json")
    with open(out, "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(compute(*c)) for c in CASES) + "\n]\n")


main()
