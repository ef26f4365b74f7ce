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

/* No GGUF key has the attention's scale; llama.cpp knows the 27B model by its depth. */
static inline void gemma_scale_from_gguf(json_t *j, json_int_t layers_of_27b)
{
    json_int_t scalar = json_integer_value(json_object_get(j, "head_dim"));
    if (json_integer_value(json_object_get(j, "num_hidden_layers")) == layers_of_27b)
        scalar = json_integer_value(json_object_get(j, "hidden_size")) /
                 json_integer_value(json_object_get(j, "num_attention_heads"));
    json_object_set_new(j, "query_pre_attn_scalar", json_integer(scalar));
}
#endif
