#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# A tiny llama model whose sizes suit every packed format (rows of whole blocks of 32): tiny/ (safetensors, BF16) and
# tiny.gguf (the same values, norms F32, q and k rows permuted as llama.cpp's converter does).
# Made with torch 2.15.0, safetensors 0.8.0, gguf 0.19.0.
import json, os
import gguf, numpy as np, torch
from safetensors.torch import save_file

here = os.path.dirname(os.path.abspath(__file__))
V, D, H, G, E, F, L = 40, 32, 2, 2, 16, 64, 2
torch.manual_seed(7)
rnd = lambda *s: (torch.randn(*s) * 0.3).bfloat16()
t = {"model.embed_tokens.weight": rnd(V, D), "model.norm.weight": (1 + 0.1 * torch.randn(D)).bfloat16(),
     "lm_head.weight": rnd(V, D)}
for l in range(L):
    p = f"model.layers.{l}."
    for n, s in {"self_attn.q_proj": (H * E, D), "self_attn.k_proj": (G * E, D), "self_attn.v_proj": (G * E, D),
                 "self_attn.o_proj": (D, H * E), "mlp.gate_proj": (F, D), "mlp.up_proj": (F, D), "mlp.down_proj": (D, F)}.items():
        t[p + n + ".weight"] = rnd(*s)
    for n in ("input_layernorm", "post_attention_layernorm"):
        t[p + n + ".weight"] = (1 + 0.1 * torch.randn(D)).bfloat16()
os.makedirs(os.path.join(here, "tiny"), exist_ok=True)
save_file(t, os.path.join(here, "tiny", "model.safetensors"), {"format": "pt"})
os.chmod(os.path.join(here, "tiny", "model.safetensors"), 0o644)
config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": V, "hidden_size": D,
          "intermediate_size": F, "num_hidden_layers": L, "num_attention_heads": H, "num_key_value_heads": G,
          "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
          "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False, "torch_dtype": "bfloat16",
          "bos_token_id": 1, "eos_token_id": 2}
json.dump(config, open(os.path.join(here, "tiny", "config.json"), "w"), indent=1)

w = gguf.GGUFWriter(os.path.join(here, "tiny.gguf"), "llama")
w.add_name("tiny"); w.add_context_length(64); w.add_embedding_length(D); w.add_block_count(L); w.add_feed_forward_length(F)
w.add_head_count(H); w.add_head_count_kv(G); w.add_layer_norm_rms_eps(1e-5); w.add_rope_dimension_count(E)
w.add_rope_freq_base(10000.0); w.add_vocab_size(V); w.add_file_type(32)
w.add_tokenizer_model("gpt2"); w.add_tokenizer_pre("gpt-2"); w.add_token_list([f"t{i}" for i in range(V)])
w.add_token_types([1] * V); w.add_token_merges(["t 1", "t 2"]); w.add_bos_token_id(1); w.add_eos_token_id(2)
names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
         "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
top = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
for n, x in t.items():
    base = n[:-len(".weight")]
    if base.startswith("model.layers."):
        l, rest = base[len("model.layers."):].split(".", 1)
        name = f"blk.{l}.{names[rest]}"
        if rest in ("self_attn.q_proj", "self_attn.k_proj"):
            x = x.reshape(-1, 2, E // 2, D).swapaxes(1, 2).reshape(-1, D)
    else:
        name = top[base]
    if x.dim() == 1:
        w.add_tensor(name + ".weight", x.float().numpy())
    else:
        w.add_tensor(name + ".weight", x.contiguous().view(torch.uint8).numpy(), raw_dtype=gguf.GGMLQuantizationType.BF16)
w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()
