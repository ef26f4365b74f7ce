/* SPDX-License-Identifier: Apache-2.0
 * What the many families that are built like Llama share: names, and the flags of the block. A designator after
 * the macro, in a table of its own, replaces what differs; FIELDS stand within braces, beside what is added. */
#ifndef NT_FAMILIES_LLAMA_H
#define NT_FAMILIES_LLAMA_H
#include "common/model.h"
#include "common/model_keys.h"

#define LLAMA_HF_FIELDS                                                                                      \
    .role = {"model.layers.%d.self_attn.q_proj", "model.layers.%d.self_attn.k_proj",                         \
             "model.layers.%d.self_attn.v_proj", "model.layers.%d.self_attn.o_proj",                         \
             "model.layers.%d.mlp.gate_proj",    "model.layers.%d.mlp.up_proj",                              \
             "model.layers.%d.mlp.down_proj"},                                                               \
    .norm = {[NORM_ATTN] = "model.layers.%d.input_layernorm",                                                \
             [NORM_MLP] = "model.layers.%d.post_attention_layernorm",                                        \
             [NORM_Q] = "model.layers.%d.self_attn.q_norm",                                                  \
             [NORM_K] = "model.layers.%d.self_attn.k_norm"},                                                 \
    .embed = "model.embed_tokens", .final_norm = "model.norm", .head = "lm_head"
#define LLAMA_GGUF_FIELDS                                                                                    \
    .role = {"blk.%d.attn_q", "blk.%d.attn_k", "blk.%d.attn_v", "blk.%d.attn_output",                        \
             "blk.%d.ffn_gate", "blk.%d.ffn_up", "blk.%d.ffn_down"},                                         \
    .norm = {[NORM_ATTN] = "blk.%d.attn_norm", [NORM_MLP] = "blk.%d.ffn_norm",                               \
             [NORM_Q] = "blk.%d.attn_q_norm",  [NORM_K] = "blk.%d.attn_k_norm"},                             \
    .embed = "token_embd", .final_norm = "output_norm", .head = "output"
#define LLAMA_HF_NAMES {LLAMA_HF_FIELDS}
#define LLAMA_GGUF_NAMES {LLAMA_GGUF_FIELDS}
/* With experts: GGUF files hold those of a layer in one tensor. */
#define LLAMA_GGUF_EXPERTS                                                                                   \
    {                                                                                                        \
        LLAMA_GGUF_FIELDS,                                                                                   \
        .expert = {"blk.%d.ffn_gate_exps#x", "blk.%d.ffn_up_exps#x", "blk.%d.ffn_down_exps#x"},              \
        .shared = {"blk.%d.ffn_gate_shexp", "blk.%d.ffn_up_shexp", "blk.%d.ffn_down_shexp"},                 \
        .router = "blk.%d.ffn_gate_inp", .shared_gate = "blk.%d.ffn_gate_inp_shexp"                          \
    }
#define QWEN_HF_EXPERTS                                                                                      \
    .expert = {"model.layers.%d.mlp.experts.%x.gate_proj", "model.layers.%d.mlp.experts.%x.up_proj",         \
               "model.layers.%d.mlp.experts.%x.down_proj"},                                                  \
    .router = "model.layers.%d.mlp.gate"
#define LLAMA_BLOCK                                                                                          \
    {                                                                                                        \
        .norm = {[NORM_ATTN] = true, [NORM_MLP] = true}, .rms = true, .gated = true, .act = ACT_SILU         \
    }
/* With a norm of every head's query and key. */
#define LLAMA_QK_NORM_BLOCK                                                                                  \
    {                                                                                                        \
        .norm = {[NORM_ATTN] = true, [NORM_MLP] = true, [NORM_Q] = true, [NORM_K] = true}, .rms = true,      \
        .qk_norm = QK_NORM_HEAD, .qk_rms = true, .gated = true, .act = ACT_SILU                              \
    }
#endif
