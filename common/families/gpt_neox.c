/* SPDX-License-Identifier: Apache-2.0
 * GPT-NeoX and Pythia: partial rotation, q k v fused head by head, parallel or serial residual. */
#include "common/model.h"
#include "common/model_keys.h"

static int configure(struct model_config *c, const json_t *j, struct err *e)
{
    bool bias = true;
    c->block.parallel = true;
    if (key_bool(j, "use_parallel_residual", &c->block.parallel, e) ||
        key_bool(j, "attention_bias", &bias, e))
        return -1;
    for (int r = ROLE_Q; r <= ROLE_O; r++) c->bias[r] = bias;
    return 0;
}

static void from_gguf(const struct checkpoint *ck, json_t *j)
{
    json_object_set_new(j, "attention_bias", json_boolean(model_gguf_has(ck, "blk.%d.attn_output", ".bias")));
}

const struct family family_gpt_neox = {
    .model_type = "gpt_neox",
    .gguf_arch = "gptneox",
    .hf_class = "GPTNeoXForCausalLM",
    .hf = {.role = {"gpt_neox.layers.%d.attention.query_key_value#q",
                    "gpt_neox.layers.%d.attention.query_key_value#k",
                    "gpt_neox.layers.%d.attention.query_key_value#v", "gpt_neox.layers.%d.attention.dense",
                    NULL, "gpt_neox.layers.%d.mlp.dense_h_to_4h", "gpt_neox.layers.%d.mlp.dense_4h_to_h"},
           .norm = {[NORM_ATTN] = "gpt_neox.layers.%d.input_layernorm",
                    [NORM_MLP] = "gpt_neox.layers.%d.post_attention_layernorm"},
           .embed = "gpt_neox.embed_in",
           .final_norm = "gpt_neox.final_layer_norm",
           .head = "embed_out"},
    .gguf = {.role = {"blk.%d.attn_qkv#q", "blk.%d.attn_qkv#k", "blk.%d.attn_qkv#v", "blk.%d.attn_output",
                      NULL, "blk.%d.ffn_up", "blk.%d.ffn_down"},
             .norm = {[NORM_ATTN] = "blk.%d.attn_norm", [NORM_MLP] = "blk.%d.ffn_norm"},
             .embed = "token_embd",
             .final_norm = "output_norm",
             .head = "output"},
    .block = {.norm = {[NORM_ATTN] = true, [NORM_MLP] = true}, .act = ACT_GELU},
    .bias = ROLE_BITS_ALL,
    .qkv_groups = true,
    .spellings = CONFIG_KEYS("rotary_pct", "partial_rotary_factor", "rotary_emb_base", "rope_theta"),
    .own_spellings = true,
    .defaults = {.vocab = 50432,
                 .hidden = 6144,
                 .ff = 24576,
                 .layers = 44,
                 .heads = 64,
                 .max_pos = 2048,
                 .eps = 1e-5,
                 .rope_theta = 10000,
                 .partial_rotary = 0.25},
    .keys = CONFIG_KEYS("use_parallel_residual"),
    .configure = configure,
    .from_gguf = from_gguf,
};
