/* SPDX-License-Identifier: Apache-2.0
 * GLM (GLM-4-9B in transformers' own form): like Llama, with a fused gate and up, biases at q k v, half of
 * the dimensions rotated in neighbouring pairs. */
#include "common/families/glm.h"

const struct family family_glm = {
    .model_type = "glm",
    .gguf_arch = "chatglm", /* of which family_chatglm is the reader; q k v are fused, too */
    .hf_class = "GlmForCausalLM",
    .hf = {GLM_NAMES, .norm = {[NORM_ATTN] = "model.layers.%d.input_layernorm",
                               [NORM_MLP] = "model.layers.%d.post_attention_layernorm"}},
    .gguf = {.role = {"blk.%d.attn_qkv#q", "blk.%d.attn_qkv#k", "blk.%d.attn_qkv#v", "blk.%d.attn_output",
                      "blk.%d.ffn_up#gate", "blk.%d.ffn_up#up", "blk.%d.ffn_down"},
             .norm = {[NORM_ATTN] = "blk.%d.attn_norm", [NORM_MLP] = "blk.%d.ffn_norm"},
             .embed = "token_embd",
             .final_norm = "output_norm",
             .head = "output"},
    .block = {.norm = {[NORM_ATTN] = true, [NORM_MLP] = true},
              .rms = true,
              .rot_pairs = true,
              .gated = true,
              .act = ACT_SILU},
    .defaults = GLM_DEFAULTS,
    .configure = glm_configure,
};
