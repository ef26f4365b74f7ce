/* SPDX-License-Identifier: Apache-2.0
 * What GLM and GLM-4 share. */
#ifndef NT_FAMILIES_GLM_H
#define NT_FAMILIES_GLM_H
#include "common/model.h"
#include "common/model_keys.h"

#define GLM_NAMES                                                                                            \
    .role = {"model.layers.%d.self_attn.q_proj",       "model.layers.%d.self_attn.k_proj",                   \
             "model.layers.%d.self_attn.v_proj",       "model.layers.%d.self_attn.o_proj",                   \
             "model.layers.%d.mlp.gate_up_proj#gate",  "model.layers.%d.mlp.gate_up_proj#up",                \
             "model.layers.%d.mlp.down_proj"},                                                               \
    .embed = "model.embed_tokens", .final_norm = "model.norm", .head = "lm_head"

#define GLM_DEFAULTS                                                                                         \
    {                                                                                                        \
        .vocab = 151552, .hidden = 4096, .ff = 13696, .layers = 40, .heads = 32, .groups = 2,                \
        .head_dim = 128, .max_pos = 131072, .eps = 1.5625e-7, .rope_theta = 10000, .partial_rotary = 0.5     \
    }

/* attention_bias, which is true unless said otherwise, is of q, k and v alone. */
static inline int glm_configure(struct model_config *c, const json_t *j, struct err *e)
{
    bool bias = true;
    if (key_bool(j, "attention_bias", &bias, e)) return -1;
    for (int r = ROLE_Q; r <= ROLE_O; r++) c->bias[r] = bias && r != ROLE_O;
    return 0;
}
#endif
