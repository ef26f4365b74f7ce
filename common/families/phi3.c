/* SPDX-License-Identifier: Apache-2.0
 * Phi-3 and Phi-4: Llama with q, k, v in one tensor, gate and up in another; longrope; maybe a window. */
#include "common/families/llama.h"

static int configure(struct model_config *c, const json_t *j, struct err *e)
{
    return config_window(j, 0, &c->block.window, e);
}

const struct family family_phi3 = {
    .model_type = "phi3",
    .gguf_arch = "phi3",
    .hf_class = "Phi3ForCausalLM",
    .hf = {.role = {"model.layers.%d.self_attn.qkv_proj#q", "model.layers.%d.self_attn.qkv_proj#k",
                    "model.layers.%d.self_attn.qkv_proj#v", "model.layers.%d.self_attn.o_proj",
                    "model.layers.%d.mlp.gate_up_proj#gate", "model.layers.%d.mlp.gate_up_proj#up",
                    "model.layers.%d.mlp.down_proj"},
           .norm = {[NORM_ATTN] = "model.layers.%d.input_layernorm",
                    [NORM_MLP] = "model.layers.%d.post_attention_layernorm"},
           .embed = "model.embed_tokens",
           .final_norm = "model.norm",
           .head = "lm_head"},
    .gguf = {.role = {"blk.%d.attn_qkv#q", "blk.%d.attn_qkv#k", "blk.%d.attn_qkv#v", "blk.%d.attn_output",
                      "blk.%d.ffn_up#gate", "blk.%d.ffn_up#up", "blk.%d.ffn_down"},
             .norm = {[NORM_ATTN] = "blk.%d.attn_norm", [NORM_MLP] = "blk.%d.ffn_norm"},
             .embed = "token_embd",
             .final_norm = "output_norm",
             .head = "output"},
    .block = LLAMA_BLOCK,
    .defaults = {.vocab = 32064,
                 .hidden = 3072,
                 .ff = 8192,
                 .layers = 32,
                 .heads = 32,
                 .max_pos = 4096,
                 .orig_pos = 4096,
                 .eps = 1e-5,
                 .rope_theta = 10000,
                 .partial_rotary = 1},
    .yarn_is_longrope = true,
    .keys = CONFIG_KEYS("sliding_window", "partial_rotary_factor"),
    .configure = configure,
};
