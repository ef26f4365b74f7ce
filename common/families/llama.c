/* SPDX-License-Identifier: Apache-2.0
 * Llama: RMSNorm before attention and feed-forward, rotary positions, grouped keys, SwiGLU, optional biases.
 */
#include "common/model.h"

const struct family family_llama = {
    .model_type = "llama",
    .gguf_arch = "llama",
    .hf_class = "LlamaForCausalLM",
    .role = {"model.layers.%d.self_attn.q_proj", "model.layers.%d.self_attn.k_proj",
             "model.layers.%d.self_attn.v_proj", "model.layers.%d.self_attn.o_proj",
             "model.layers.%d.mlp.gate_proj", "model.layers.%d.mlp.up_proj", "model.layers.%d.mlp.down_proj"},
    .norm = {"model.layers.%d.input_layernorm", "model.layers.%d.post_attention_layernorm"},
    .embed = "model.embed_tokens",
    .final_norm = "model.norm",
    .head = "lm_head",
    .gguf_role = {"blk.%d.attn_q", "blk.%d.attn_k", "blk.%d.attn_v", "blk.%d.attn_output", "blk.%d.ffn_gate",
                  "blk.%d.ffn_up", "blk.%d.ffn_down"},
    .gguf_norm = {"blk.%d.attn_norm", "blk.%d.ffn_norm"},
    .gguf_embed = "token_embd",
    .gguf_final_norm = "output_norm",
    .gguf_head = "output",
    .gguf_permuted_qk = true,
    .rms = true,
    .defaults = {.vocab = 32000,
                 .hidden = 4096,
                 .ff = 11008,
                 .layers = 32,
                 .heads = 32,
                 .max_pos = 2048,
                 .eps = 1e-6,
                 .rope_theta = 10000},
};
