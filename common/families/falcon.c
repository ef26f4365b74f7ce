/* SPDX-License-Identifier: Apache-2.0
 * Falcon: 7b (one k/v head, one norm, parallel), 40b and 11b (groups; two norms or one), rw (serial, ALiBi,
 * biases). */
#include <math.h>
#include "common/model.h"
#include "common/model_keys.h"

struct falcon {
    bool grouped, one_kv, parallel, bias, alibi;
    int kv_heads, norms;
};

/* Names and norms of the three kinds of blocks. */
static int arrange(struct model_config *c, const struct falcon *f, struct err *e)
{
    struct block_shape *s = &c->block;
    if (f->grouped && (!f->parallel || f->norms < 1 || f->norms > 2))
        return err_set(e, NT_EXIT_DATA,
                       "config key new_decoder_architecture needs parallel_attn and one or two norms "
                       "(num_ln_in_parallel_attn)");
    if (!f->grouped && f->norms == 2)
        return err_set(e, NT_EXIT_DATA,
                       "config key num_ln_in_parallel_attn: 2 needs new_decoder_architecture");
    s->parallel = f->parallel;
    s->norm[NORM_MLP] = !f->parallel || f->norms == 2;
    if (f->norms == 2)
        c->hf.norm[NORM_ATTN] = "transformer.h.%d.ln_attn", c->hf.norm[NORM_MLP] = "transformer.h.%d.ln_mlp",
        c->gguf.norm[NORM_ATTN] = "blk.%d.attn_norm_2", c->gguf.norm[NORM_MLP] = "blk.%d.attn_norm";
    s->G = f->grouped ? f->kv_heads : f->one_kv ? 1 : s->H;
    c->qkv_groups = f->grouped || !f->one_kv;
    if (s->G > s->H || s->H % s->G)
        return err_set(e, NT_EXIT_DATA, "config key num_kv_heads: %d does not divide num_attention_heads %d",
                       s->G, s->H);
    if (f->bias) config_bias(c, ROLE_BITS_ALL);
    if (f->alibi) s->alibi = true, s->alibi_scale = s->scale, s->rot = 0;
    return 0;
}

static int configure(struct model_config *c, const json_t *j, struct err *e)
{
    struct falcon f = {.one_kv = true, .parallel = true, .kv_heads = c->block.H};
    if (key_bool(j, "new_decoder_architecture", &f.grouped, e) || key_bool(j, "multi_query", &f.one_kv, e) ||
        key_bool(j, "parallel_attn", &f.parallel, e) || key_bool(j, "bias", &f.bias, e) ||
        key_bool(j, "alibi", &f.alibi, e) || key_int(j, "num_kv_heads", 1, &f.kv_heads, e))
        return -1;
    f.norms = f.grouped ? 2 : 1;
    return key_int(j, "num_ln_in_parallel_attn", 1, &f.norms, e) ? -1 : arrange(c, &f, e);
}

/* Which of the three kinds a GGUF file holds shows in its tensors and groups. */
static void from_gguf(const struct checkpoint *ck, json_t *j)
{
    json_t *groups = json_object_get(j, "num_key_value_heads");
    bool two = model_gguf_has(ck, "blk.%d.attn_norm_2", ".weight"), one_kv = json_integer_value(groups) == 1;
    json_object_set(j, "num_kv_heads", groups);
    json_object_del(j, "num_key_value_heads");
    json_object_del(j, "head_dim"); /* the class has it from the other sizes, and refuses to be told */
    json_object_set_new(j, "multi_query", json_boolean(one_kv));
    json_object_set_new(j, "new_decoder_architecture", json_boolean(two || !one_kv));
    if (two || !one_kv) json_object_set_new(j, "num_ln_in_parallel_attn", json_integer(two ? 2 : 1));
}

const struct family family_falcon = {
    .model_type = "falcon",
    .gguf_arch = "falcon",
    .hf_class = "FalconForCausalLM",
    .hf = {.role = {"transformer.h.%d.self_attention.query_key_value#q",
                    "transformer.h.%d.self_attention.query_key_value#k",
                    "transformer.h.%d.self_attention.query_key_value#v",
                    "transformer.h.%d.self_attention.dense", NULL, "transformer.h.%d.mlp.dense_h_to_4h",
                    "transformer.h.%d.mlp.dense_4h_to_h"},
           .norm = {[NORM_ATTN] = "transformer.h.%d.input_layernorm",
                    [NORM_MLP] = "transformer.h.%d.post_attention_layernorm"},
           .embed = "transformer.word_embeddings",
           .final_norm = "transformer.ln_f",
           .head = "lm_head"},
    .gguf = {.role = {"blk.%d.attn_qkv#q", "blk.%d.attn_qkv#k", "blk.%d.attn_qkv#v", "blk.%d.attn_output",
                      NULL, "blk.%d.ffn_up", "blk.%d.ffn_down"},
             .norm = {[NORM_ATTN] = "blk.%d.attn_norm"},
             .embed = "token_embd",
             .final_norm = "output_norm",
             .head = "output"},
    .block = {.norm = {[NORM_ATTN] = true}, .act = ACT_GELU},
    .spellings = CONFIG_KEYS("n_embed", "hidden_size", "ffn_hidden_size", "intermediate_size"),
    .eps_key = "layer_norm_epsilon",
    .defaults = {.vocab = 65024,
                 .hidden = 4544,
                 .layers = 32,
                 .heads = 71,
                 .max_pos = 2048,
                 .eps = 1e-5,
                 .rope_theta = 10000,
                 .tied = true},
    .keys = CONFIG_KEYS("alibi", "parallel_attn"),
    .configure = configure,
    .from_gguf = from_gguf,
};
