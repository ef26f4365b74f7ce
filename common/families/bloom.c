/* SPDX-License-Identifier: Apache-2.0
 * BLOOM: ALiBi, a norm after the embedding, q k v fused head by head. */
#include "common/model.h"
#include "common/model_keys.h"

static int configure(struct model_config *c, const json_t *j, struct err *e)
{
    c->block.act = ACT_GELU_TANH; /* the class has no key for it */
    c->block.F = 4 * c->block.D;
    return key_bool(j, "apply_residual_connection_post_layernorm", &c->block.residual_normed, e);
}

const struct family family_bloom = {
    .model_type = "bloom",
    .gguf_arch = "bloom",
    .hf_class = "BloomForCausalLM",
    .hf = {.role = {"transformer.h.%d.self_attention.query_key_value#q",
                    "transformer.h.%d.self_attention.query_key_value#k",
                    "transformer.h.%d.self_attention.query_key_value#v",
                    "transformer.h.%d.self_attention.dense", NULL, "transformer.h.%d.mlp.dense_h_to_4h",
                    "transformer.h.%d.mlp.dense_4h_to_h"},
           .norm = {[NORM_ATTN] = "transformer.h.%d.input_layernorm",
                    [NORM_MLP] = "transformer.h.%d.post_attention_layernorm"},
           .embed = "transformer.word_embeddings",
           .embed_norm = "transformer.word_embeddings_layernorm",
           .final_norm = "transformer.ln_f",
           .head = "lm_head"},
    .gguf = {.role = {"blk.%d.attn_qkv#q", "blk.%d.attn_qkv#k", "blk.%d.attn_qkv#v", "blk.%d.attn_output",
                      NULL, "blk.%d.ffn_up", "blk.%d.ffn_down"},
             .norm = {[NORM_ATTN] = "blk.%d.attn_norm", [NORM_MLP] = "blk.%d.ffn_norm"},
             .embed = "token_embd",
             .embed_norm = "token_embd_norm",
             .final_norm = "output_norm",
             .head = "output"},
    .block = {.norm = {[NORM_ATTN] = true, [NORM_MLP] = true},
              .rot = -1,
              .alibi = true,
              .act = ACT_GELU_TANH},
    .bias = ROLE_BITS_ALL,
    .qkv_groups = true,
    .spellings = CONFIG_KEYS("n_embed", "hidden_size", "n_layer", "num_hidden_layers", "n_head",
                             "num_attention_heads", "seq_length", "max_position_embeddings"),
    .eps_key = "layer_norm_epsilon",
    .defaults =
        {.vocab = 250880, .hidden = 64, .layers = 2, .heads = 8, .max_pos = 2048, .eps = 1e-5, .tied = true},
    .keys = CONFIG_KEYS("apply_residual_connection_post_layernorm"),
    .configure = configure,
};
