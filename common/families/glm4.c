/* SPDX-License-Identifier: Apache-2.0
 * GLM-4-0414: GLM with norms of what attention and feed-forward give. */
#include "common/families/glm.h"

const struct family family_glm4 = {
    .model_type = "glm4",
    .gguf_arch = "glm4",
    .hf_class = "Glm4ForCausalLM",
    .hf = {GLM_NAMES, .norm = {[NORM_ATTN] = "model.layers.%d.input_layernorm",
                               [NORM_ATTN_OUT] = "model.layers.%d.post_self_attn_layernorm",
                               [NORM_MLP] = "model.layers.%d.post_attention_layernorm",
                               [NORM_MLP_OUT] = "model.layers.%d.post_mlp_layernorm"}},
    .gguf = {.role = {"blk.%d.attn_q", "blk.%d.attn_k", "blk.%d.attn_v", "blk.%d.attn_output",
                      "blk.%d.ffn_up#gate", "blk.%d.ffn_up#up", "blk.%d.ffn_down"},
             .norm = {[NORM_ATTN] = "blk.%d.attn_norm",
                      [NORM_ATTN_OUT] = "blk.%d.post_attention_norm",
                      [NORM_MLP] = "blk.%d.ffn_norm",
                      [NORM_MLP_OUT] = "blk.%d.post_ffw_norm"},
             .embed = "token_embd",
             .final_norm = "output_norm",
             .head = "output"},
    .block = {.norm = {[NORM_ATTN] = true, [NORM_MLP] = true, [NORM_ATTN_OUT] = true, [NORM_MLP_OUT] = true},
              .rms = true,
              .rot_pairs = true,
              .gated = true,
              .act = ACT_SILU},
    .defaults = GLM_DEFAULTS,
    .configure = glm_configure,
};
