/* SPDX-License-Identifier: Apache-2.0
 * GLM (GLM-4-9B in transformers' own form): like Llama, with a fused gate and up, biases at q k v, half of
 * the dimensions rotated in neighbouring pairs. */
#include "common/families/glm.h"

const struct family family_glm = {
    .model_type = "glm",
    .gguf_arch = NULL, /* llama.cpp's chatglm fuses q k v too */
    .hf_class = "GlmForCausalLM",
    .hf = {GLM_NAMES, .norm = {[NORM_ATTN] = "model.layers.%d.input_layernorm",
                               [NORM_MLP] = "model.layers.%d.post_attention_layernorm"}},
    .block = {.norm = {[NORM_ATTN] = true, [NORM_MLP] = true},
              .rms = true,
              .rot_pairs = true,
              .gated = true,
              .act = ACT_SILU},
    .defaults = GLM_DEFAULTS,
    .configure = glm_configure,
};
