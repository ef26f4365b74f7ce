/* SPDX-License-Identifier: Apache-2.0
 * What a model computes, from config.json (the spellings of transformers 4 and 5) or from GGUF keys, which
 * are first put into the form of a config.json. Missing keys mean the family's defaults; what is not
 * supported is refused by name. */
#include <math.h>
#include <string.h>
#include "common/checkpoint_impl.h"
#include "common/mem.h"
#include "common/model.h"
#include "common/model_keys.h"

#define X(name) extern const struct family family_##name;
#include "families.inc"
#undef X
#define X(name) &family_##name,
static const struct family *const families[] = {
#include "families.inc"
    NULL};
#undef X

const struct family *family_by_model_type(const char *model_type)
{
    for (int i = 0; families[i]; i++)
        if (!strcmp(families[i]->model_type, model_type)) return families[i];
    return NULL;
}

const struct family *family_by_gguf_arch(const char *arch)
{
    for (int i = 0; families[i]; i++)
        if (families[i]->gguf_arch && !strcmp(families[i]->gguf_arch, arch)) return families[i];
    return NULL;
}

static const struct family *assumed; /* --family: set once, before any model is opened */

bool model_assume_family(const char *model_type)
{
    assumed = family_by_model_type(model_type);
    return assumed != NULL;
}

/* What is known, or why it never will be. */
int model_unknown_type(const char *what, const char *type, struct err *e)
{
    static const char *const encoders[] = {
        "bert",       "roberta",     "xlm-roberta", "xlm-roberta-xl", "camembert",    "distilbert",
        "albert",     "electra",     "deberta",     "deberta-v2",     "modernbert",   "mpnet",
        "esm",        "layoutlm",    "longformer",  "big_bird",       "nomic_bert",   "nomic-bert",
        "jina-bert-v2", "neo-bert",  "roformer",    "ernie",          "megatron-bert"};
    static const char *const pairs[] = {
        "t5",      "mt5",    "umt5",    "longt5",   "switch_transformers", "bart",       "mbart",
        "pegasus", "marian", "m2m_100", "nllb-moe", "whisper",             "led",        "fsmt",
        "blenderbot", "blenderbot-small", "prophetnet", "encoder-decoder", "speech_to_text", "t5gemma"};
    char list[1024] = "";
    for (size_t i = 0; i < sizeof encoders / sizeof *encoders; i++)
        if (!strcmp(encoders[i], type))
            return err_set(e, NT_EXIT_DATA, "%s %s is an encoder: only decoder models are supported", what,
                           type);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (!strcmp(pairs[i], type))
            return err_set(e, NT_EXIT_DATA,
                           "%s %s is an encoder with a decoder: only decoder models are supported", what,
                           type);
    for (int i = 0; families[i]; i++) {
        size_t n = strlen(list);
        const char *name = *what == 'G' ? families[i]->gguf_arch : families[i]->model_type;
        bool first = !name || *what != 'G' || family_by_gguf_arch(name) == families[i];
        if (name && first) snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", name);
    }
    return err_set(e, NT_EXIT_DATA, "%s %.64s is not known; known are %s", what, type, list);
}

/* ---- keys ---- */

void config_bias(struct model_config *c, unsigned roles)
{
    for (int r = 0; r < ROLE_COUNT; r++)
        if (roles >> r & 1) c->bias[r] = true;
}

/* Keys of other architectures that change the numbers, with the value at which they change nothing. */
static const struct {
    const char *key, *neutral;
} refused[] = {
    {"quantization_config", "null"},
    {"attn_logit_softcapping", "null"},
    {"final_logit_softcapping", "null"},
    {"embedding_multiplier", "1"},
    {"residual_multiplier", "1"},
    {"attention_multiplier", "null"},
    {"logits_scaling", "1"},
    {"logit_scale", "null"},
    {"use_qk_norm", "false"},
    {"qk_norm", "false"},
    {"qk_layernorm", "false"},
    {"num_experts", "0"},
    {"num_local_experts", "0"},
    {"n_routed_experts", "0"},
    {"n_shared_experts", "0"},
    {"routed_scaling_factor", "1"},
    {"query_pre_attn_scalar", "null"},
    {"use_parallel_residual", "false"},
    {"parallel_attn", "false"},
    {"clip_qkv", "null"},
    {"no_rope_layers", "null"},
    {"scale_depth", "null"},
    {"scale_emb", "1"},
    {"dim_model_base", "null"},
    {"alibi", "false"},
    {"use_bidirectional_attention", "false"},
    {"attention_chunk_size", "null"},
    {"position_embedding_type", "null"},
    {"kv_lora_rank", "null"},
    {"add_cross_attention", "false"},
    {"is_encoder_decoder", "false"},
    {"apply_residual_connection_post_layernorm", "false"},
    {"scale_attn_by_inverse_layer_idx", "false"},
};

bool family_honours(const struct family *f, const char *key)
{
    for (const char *const *k = f->keys; k && *k; k++)
        if (!strcmp(*k, key)) return true;
    return false;
}

static int refuse_method(const char *method, struct err *e)
{
    char known[256];
    checkpoint_methods(known, sizeof known);
    return err_set(e, NT_EXIT_DATA,
                   "config key quantization_config: weights of quant_method %.40s are not supported; "
                   "those of %s are",
                   method ? show_name(method, strlen(method)) : "(none)", known);
}

static int check_refused(const struct family *f, const json_t *c, struct err *e)
{
    const json_t *q = json_object_get(c, "quantization_config"); /* those that are read come without it */
    const char *method = json_string_value(json_object_get(q, "quant_method"));
    if (json_is_object(q))
        return refuse_method(method, e);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (!family_honours(f, refused[i].key) &&
            !key_is_neutral(json_object_get(c, refused[i].key), refused[i].neutral))
            return err_set(e, NT_EXIT_DATA,
                           "config key %s changes what the model computes and is not supported",
                           refused[i].key);
    const json_t *types = family_honours(f, "layer_types") ? NULL : json_object_get(c, "layer_types"), *t;
    size_t i;
    json_array_foreach(types, i, t)
    {
        if (!json_is_string(t) || strcmp(json_string_value(t), "full_attention"))
            return err_set(e, NT_EXIT_DATA, "config key layer_types: only full_attention is supported");
    }
    return 0;
}

/* Both tables alike, and how many dimensions of a head they turn. A family without rotary positions has
 * block.rot < 0. */
static int read_ropes(struct model_config *c, const json_t *j, struct err *e)
{
    const struct family *f = c->family;
    const struct rope_defaults d = {.theta = f->defaults.rope_theta,
                                    .partial = f->defaults.partial_rotary,
                                    .max_pos = c->max_pos,
                                    .orig = f->defaults.orig_pos,
                                    .yarn_is_longrope = f->yarn_is_longrope};
    bool none = c->block.rot < 0;
    c->block.rot = 0;
    if (none) return 0;
    if (rope_read(&c->rope[0], j, f->rope_layer_type, &d, c->block.E, e)) return -1;
    c->rope[1] = c->rope[0];
    c->block.rot = c->rope[0].dim;
    return 0;
}

static int read_sizes(struct model_config *c, const json_t *j, struct err *e)
{
    const struct family *f = c->family;
    struct block_shape *s = &c->block;
    c->n_layers = f->defaults.layers, c->vocab = f->defaults.vocab, c->max_pos = f->defaults.max_pos;
    s->D = f->defaults.hidden, s->H = f->defaults.heads, s->F = f->defaults.ff;
    if (key_int(j, "num_hidden_layers", 1, &c->n_layers, e) || key_int(j, "vocab_size", 1, &c->vocab, e) ||
        key_int(j, "max_position_embeddings", 1, &c->max_pos, e) || key_int(j, "hidden_size", 1, &s->D, e) ||
        key_int(j, "intermediate_size", 1, &s->F, e) || key_int(j, "num_attention_heads", 1, &s->H, e))
        return -1;
    s->G = f->defaults.groups ? f->defaults.groups : s->H;
    s->E = f->defaults.head_dim ? f->defaults.head_dim : s->D / s->H;
    if (!s->F) s->F = 4 * s->D;
    if (key_int(j, "num_key_value_heads", 1, &s->G, e) || key_int(j, "head_dim", 1, &s->E, e)) return -1;
    if (c->n_layers > 10000 || s->D > 1 << 20 || s->F > 1 << 22 || s->H > 1 << 14 || s->E > 1 << 14 ||
        c->vocab > 1 << 26)
        return err_set(e, NT_EXIT_DATA, "config sizes are out of range");
    c->embed_dim = s->D;
    return 0;
}

/* Limits keep products of two sizes within int and refuse nonsense early. */
static int read_shape(struct model_config *c, const json_t *j, struct err *e)
{
    const struct family *f = c->family;
    struct block_shape *s = &c->block;
    double eps = f->defaults.eps;
    *s = f->block;
    if (!(s->residual > 0)) s->residual = 1;
    if (read_sizes(c, j, e) || key_number(j,
                                          f->eps_key ? f->eps_key
                                          : s->rms   ? "rms_norm_eps"
                                                     : "layer_norm_eps",
                                          &eps, e))
        return -1;
    if (s->G > s->H || s->H % s->G)
        return err_set(e, NT_EXIT_DATA,
                       "config key num_key_value_heads: %d does not divide num_attention_heads %d", s->G,
                       s->H);
    s->eps = (float)eps, s->scale = (float)(1 / sqrt(s->E)), s->window = 0;
    c->layer = MEM_NEW(struct layer_attrs, c->n_layers);
    for (int l = 0; l < c->n_layers; l++) c->layer[l] = (struct layer_attrs){-1, 0, 0, false};
    return 0;
}

static int read_flags(struct model_config *c, const json_t *j, struct err *e)
{
    static const char *const act_keys[] = {"hidden_act", "activation_function", "activation"};
    bool attn_bias = false, mlp_bias = false;
    const struct family *f = c->family;
    for (size_t i = 0; i < sizeof act_keys / sizeof *act_keys; i++)
        if (key_act(j, act_keys[i], &c->block.act, e)) return -1;
    if (key_bool(j, "tie_word_embeddings", &c->tied, e) || key_bool(j, "attention_bias", &attn_bias, e) ||
        key_bool(j, "mlp_bias", &mlp_bias, e))
        return -1;
    config_bias(c, f->bias);
    if (attn_bias && !(f->bias & ROLE_BITS_QKV)) config_bias(c, ROLE_BITS_QKV | 1u << ROLE_O);
    if (mlp_bias) config_bias(c, 1u << ROLE_GATE | 1u << ROLE_UP | 1u << ROLE_DOWN);
    return 0;
}

/* Where configure left a layer as the block is. */
static void fill_layers(struct model_config *c)
{
    for (int l = 0; l < c->n_layers; l++) {
        struct layer_attrs *a = &c->layer[l];
        if (a->window < 0) a->window = c->block.window;
        if (!(a->scale > 0)) a->scale = c->block.scale;
        if (!c->block.rot) a->rope = -1;
    }
}

json_t *model_config_text(json_t *j)
{
    static const char *const outer[] = {"tie_word_embeddings", "bos_token_id", "eos_token_id",
                                        "torch_dtype",         "dtype",        "quantization_config",
                                        "_name_or_path"};
    json_t *text = json_object_get(j, "text_config");
    const char *type = json_string_value(json_object_get(text, "model_type"));
    if (!json_is_object(text)) return json_incref(j);
    json_t *c = json_copy(text);
    for (size_t i = 0; i < sizeof outer / sizeof *outer; i++) {
        json_t *v = json_object_get(j, outer[i]);
        if (v && !json_object_get(c, outer[i])) json_object_set(c, outer[i], v);
    }
    const struct family *f = type ? family_by_model_type(type) : NULL;
    if (f) json_object_set_new(c, "architectures", json_pack("[s]", f->hf_class));
    return c;
}

/* The config with the usual names of what the family spells in its own way (where its class does not know them: with
 * no others); new reference. */
static json_t *usual_names(const struct family *f, const json_t *j)
{
    json_t *usual = json_copy((json_t *)(uintptr_t)j);
    for (const char *const *k = f->spellings; k && *k; k += 2) {
        const json_t *v = json_object_get(j, k[0]);
        if (f->own_spellings) json_object_del(usual, k[1]);
        if (v && !json_is_null(v)) json_object_set(usual, k[1], (json_t *)(uintptr_t)v);
    }
    return usual;
}

static int read_keys(struct model_config *c, const json_t *j, struct err *e)
{
    const struct family *f = c->family;
    if (check_refused(f, j, e) || read_shape(c, j, e) || read_ropes(c, j, e) || read_flags(c, j, e) ||
        (f->configure && f->configure(c, j, e)))
        return -1;
    c->bos = key_token(j, "bos_token_id"), c->eos = key_token(j, "eos_token_id");
    fill_layers(c);
    return 0;
}

int model_config_read(struct model_config *c, const json_t *hf_config, struct err *e)
{
    const char *type = json_string_value(json_object_get(hf_config, "model_type"));
    memset(c, 0, sizeof *c);
    if (!type) return err_set(e, NT_EXIT_DATA, "config has no model_type");
    const struct family *f = family_by_model_type(type);
    if (!f) f = assumed;
    if (!f) return model_unknown_type("model_type", type, e);
    c->family = f;
    snprintf(c->arch, sizeof c->arch, "%s", type);
    c->hf = f->hf, c->gguf = f->gguf, c->tied = f->defaults.tied;
    c->norm_bias = !f->block.rms && !f->no_norm_bias;
    c->qk_norm_bias = !f->block.qk_rms && !f->no_norm_bias && !f->no_qk_norm_bias;
    c->transposed = f->transposed, c->qkv_groups = f->qkv_groups;
    c->embed_scale = 1, c->logit_scale = 1;
    json_t *j = usual_names(f, hf_config);
    int rc = read_keys(c, j, e);
    json_decref(j);
    if (rc) model_config_clear(c);
    return rc;
}

void model_config_clear(struct model_config *c)
{
    mem_free(c->layer);
    c->layer = NULL;
}
