/* SPDX-License-Identifier: Apache-2.0
 * Phi-1 to Phi-2: attention and feed-forward beside each other after one norm, partial rotation, a head with
 * bias. */
#include "common/model.h"
#include "common/model_keys.h"

static int configure(struct model_config *c, const json_t *j, struct err *e)
{
    bool qk = false;
    if (key_bool(j, "qk_layernorm", &qk, e)) return -1;
    c->head_bias = true;
    c->block.norm[NORM_Q] = c->block.norm[NORM_K] = qk;
    c->block.qk_norm = qk ? QK_NORM_HEAD : QK_NORM_NONE;
    return 0;
}

const struct family family_phi = {
    .model_type = "phi",
    .gguf_arch = "phi2",
    .hf_class = "PhiForCausalLM",
    .hf = {.role = {"model.layers.%d.self_attn.q_proj", "model.layers.%d.self_attn.k_proj",
                    "model.layers.%d.self_attn.v_proj", "model.layers.%d.self_attn.dense", NULL,
                    "model.layers.%d.mlp.fc1", "model.layers.%d.mlp.fc2"},
           .norm = {[NORM_ATTN] = "model.layers.%d.input_layernorm",
                    [NORM_Q] = "model.layers.%d.self_attn.q_layernorm",
                    [NORM_K] = "model.layers.%d.self_attn.k_layernorm"},
           .embed = "model.embed_tokens",
           .final_norm = "model.final_layernorm",
           .head = "lm_head"},
    .gguf = {.role = {"blk.%d.attn_q", "blk.%d.attn_k", "blk.%d.attn_v", "blk.%d.attn_output", NULL,
                      "blk.%d.ffn_up", "blk.%d.ffn_down"},
             .norm = {[NORM_ATTN] = "blk.%d.attn_norm"},
             .embed = "token_embd",
             .final_norm = "output_norm",
             .head = "output"},
    .block = {.norm = {[NORM_ATTN] = true}, .act = ACT_GELU_TANH, .parallel = true},
    .bias = ROLE_BITS_ALL,
    .defaults = {.vocab = 51200,
                 .hidden = 2048,
                 .ff = 8192,
                 .layers = 24,
                 .heads = 32,
                 .max_pos = 2048,
                 .eps = 1e-5,
                 .rope_theta = 10000,
                 .partial_rotary = 0.5},
    .keys = CONFIG_KEYS("qk_layernorm"),
    .configure = configure,
};
