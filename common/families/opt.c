/* SPDX-License-Identifier: Apache-2.0
 * OPT: learned positions from row 2 on; the 350m has its norms after the sums, no final norm, and an
 * embedding of fewer dimensions with projections. */
#include "common/model.h"
#include "common/model_keys.h"

static int configure(struct model_config *c, const json_t *j, struct err *e)
{
    bool before = true, bias = true, affine = true, no_final = false;
    if (key_bool(j, "do_layer_norm_before", &before, e) || key_bool(j, "enable_bias", &bias, e) ||
        key_bool(j, "layer_norm_elementwise_affine", &affine, e) ||
        key_bool(j, "_remove_final_layer_norm", &no_final, e) ||
        key_int(j, "word_embed_proj_dim", 1, &c->embed_dim, e))
        return -1;
    if (bias) config_bias(c, ROLE_BITS_ALL);
    c->pos_offset = 2;
    c->norm_constant = !affine, c->norm_bias = affine;
    if (!before) {
        c->hf.norm[NORM_ATTN_OUT] = c->hf.norm[NORM_ATTN], c->hf.norm[NORM_MLP_OUT] = c->hf.norm[NORM_MLP];
        c->block.norm[NORM_ATTN] = c->block.norm[NORM_MLP] = false;
        c->block.norm[NORM_ATTN_OUT] = c->block.norm[NORM_MLP_OUT] = c->block.post_add = true;
    }
    if (!before || no_final) c->hf.final_norm = NULL;
    return 0;
}

const struct family family_opt = {
    .model_type = "opt",
    .hf_class = "OPTForCausalLM",
    .hf = {.role = {"model.decoder.layers.%d.self_attn.q_proj", "model.decoder.layers.%d.self_attn.k_proj",
                    "model.decoder.layers.%d.self_attn.v_proj", "model.decoder.layers.%d.self_attn.out_proj",
                    NULL, "model.decoder.layers.%d.fc1", "model.decoder.layers.%d.fc2"},
           .norm = {[NORM_ATTN] = "model.decoder.layers.%d.self_attn_layer_norm",
                    [NORM_MLP] = "model.decoder.layers.%d.final_layer_norm"},
           .embed = "model.decoder.embed_tokens",
           .pos_embed = "model.decoder.embed_positions",
           .project_in = "model.decoder.project_in",
           .project_out = "model.decoder.project_out",
           .final_norm = "model.decoder.final_layer_norm",
           .head = "lm_head"},
    .block = {.norm = {[NORM_ATTN] = true, [NORM_MLP] = true}, .rot = -1, .act = ACT_RELU},
    .spellings = CONFIG_KEYS("ffn_dim", "intermediate_size"),
    .eps_key = "", /* PyTorch's own, whatever config.json says */
    .defaults = {.vocab = 50272,
                 .hidden = 768,
                 .ff = 3072,
                 .layers = 12,
                 .heads = 12,
                 .max_pos = 2048,
                 .eps = 1e-5,
                 .tied = true},
    .configure = configure,
};
