/* SPDX-License-Identifier: Apache-2.0
 * What Gemma 2 and 3 share: four norms a layer, and their names. */
#ifndef NT_FAMILIES_GEMMA_H
#define NT_FAMILIES_GEMMA_H
#include "common/families/llama.h"

#define GEMMA_HF_NAMES                                                                                       \
    {                                                                                                        \
        .role = {"model.layers.%d.self_attn.q_proj", "model.layers.%d.self_attn.k_proj",                     \
                 "model.layers.%d.self_attn.v_proj", "model.layers.%d.self_attn.o_proj",                     \
                 "model.layers.%d.mlp.gate_proj",    "model.layers.%d.mlp.up_proj",                          \
                 "model.layers.%d.mlp.down_proj"},                                                           \
        .norm = {[NORM_ATTN] = "model.layers.%d.input_layernorm",                                            \
                 [NORM_ATTN_OUT] = "model.layers.%d.post_attention_layernorm",                               \
                 [NORM_MLP] = "model.layers.%d.pre_feedforward_layernorm",                                   \
                 [NORM_MLP_OUT] = "model.layers.%d.post_feedforward_layernorm",                              \
                 [NORM_Q] = "model.layers.%d.self_attn.q_norm",                                              \
                 [NORM_K] = "model.layers.%d.self_attn.k_norm"},                                             \
        .embed = "model.embed_tokens", .final_norm = "model.norm", .head = "lm_head"                         \
    }
#define GEMMA_GGUF_NAMES                                                                                     \
    {                                                                                                        \
        .role = {"blk.%d.attn_q", "blk.%d.attn_k", "blk.%d.attn_v", "blk.%d.attn_output",                    \
                 "blk.%d.ffn_gate", "blk.%d.ffn_up", "blk.%d.ffn_down"},                                     \
        .norm = {[NORM_ATTN] = "blk.%d.attn_norm",                                                           \
                 [NORM_ATTN_OUT] = "blk.%d.post_attention_norm",                                             \
                 [NORM_MLP] = "blk.%d.ffn_norm",                                                             \
                 [NORM_MLP_OUT] = "blk.%d.post_ffw_norm",                                                    \
                 [NORM_Q] = "blk.%d.attn_q_norm",                                                            \
                 [NORM_K] = "blk.%d.attn_k_norm"},                                                           \
        .embed = "token_embd", .final_norm = "output_norm", .head = "output"                                 \
    }
#endif
