/* SPDX-License-Identifier: Apache-2.0
 * GPT-2: learned positions, LayerNorms, fused q k v, weights stored as [in, out]. */
#include <math.h>
#include "common/model_keys.h"
#include "common/model.h"

static int configure(struct model_config *c, const json_t *j, struct err *e)
{
    bool scaled = true, by_layer = false;
    if (key_bool(j, "scale_attn_weights", &scaled, e) ||
        key_bool(j, "scale_attn_by_inverse_layer_idx", &by_layer, e))
        return -1;
    for (int l = 0; l < c->n_layers; l++)
        c->layer[l].scale = (float)((scaled ? 1 / sqrt(c->block.E) : 1) / (by_layer ? l + 1 : 1));
    return 0;
}

const struct family family_gpt2 = {
    .model_type = "gpt2",
    .gguf_arch = "gpt2",
    .hf_class = "GPT2LMHeadModel",
    .hf = {.role = {"transformer.h.%d.attn.c_attn#q", "transformer.h.%d.attn.c_attn#k",
                    "transformer.h.%d.attn.c_attn#v", "transformer.h.%d.attn.c_proj", NULL,
                    "transformer.h.%d.mlp.c_fc", "transformer.h.%d.mlp.c_proj"},
           .norm = {[NORM_ATTN] = "transformer.h.%d.ln_1", [NORM_MLP] = "transformer.h.%d.ln_2"},
           .embed = "transformer.wte",
           .pos_embed = "transformer.wpe",
           .final_norm = "transformer.ln_f",
           .head = "lm_head"},
    .gguf = {.role = {"blk.%d.attn_qkv#q", "blk.%d.attn_qkv#k", "blk.%d.attn_qkv#v", "blk.%d.attn_output",
                      NULL, "blk.%d.ffn_up", "blk.%d.ffn_down"},
             .norm = {[NORM_ATTN] = "blk.%d.attn_norm", [NORM_MLP] = "blk.%d.ffn_norm"},
             .embed = "token_embd",
             .pos_embed = "position_embd",
             .final_norm = "output_norm",
             .head = "output"},
    .block = {.norm = {[NORM_ATTN] = true, [NORM_MLP] = true}, .rot = -1, .act = ACT_GELU_TANH},
    .bias = ROLE_BITS_ALL,
    .transposed = true,
    .spellings =
        CONFIG_KEYS("n_embd", "hidden_size", "n_layer", "num_hidden_layers", "n_head", "num_attention_heads",
                    "n_positions", "max_position_embeddings", "n_inner", "intermediate_size"),
    .eps_key = "layer_norm_epsilon",
    .defaults = {.vocab = 50257,
                 .hidden = 768,
                 .layers = 12,
                 .heads = 12,
                 .max_pos = 1024,
                 .eps = 1e-5,
                 .tied = true},
    .keys = CONFIG_KEYS("scale_attn_by_inverse_layer_idx"),
    .configure = configure,
};
