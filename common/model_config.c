/* SPDX-License-Identifier: Apache-2.0
 * What a model computes, from config.json (the spellings of transformers 4 and 5) or from GGUF keys, which
 * are first put into the form of a config.json. Missing keys mean the family's defaults; what is not
 * supported is refused by name. */
#include <math.h>
#include <string.h>
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

static const struct family *family_by_model_type(const char *model_type)
{
    for (int i = 0; families[i]; i++)
        if (!strcmp(families[i]->model_type, model_type)) return families[i];
    return NULL;
}

const struct family *family_by_gguf_arch(const char *arch)
{
    for (int i = 0; families[i]; i++)
        if (!strcmp(families[i]->gguf_arch, arch)) return families[i];
    return NULL;
}

/* ---- keys ---- */

/* Keys of other architectures that change the numbers, with the value at which they change nothing. */
static const struct {
    const char *key, *neutral;
} refused[] = {
    {"quantization_config", "null"},
    {"partial_rotary_factor", "1"},
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
    {"query_pre_attn_scalar", "null"},
    {"use_parallel_residual", "false"},
    {"parallel_attn", "false"},
    {"clip_qkv", "null"},
    {"no_rope_layers", "null"},
    {"scale_depth", "null"},
    {"scale_emb", "1"},
    {"dim_model_base", "null"},
    {"alibi", "false"},
    {"attention_chunk_size", "null"},
    {"position_embedding_type", "null"},
    {"kv_lora_rank", "null"},
    {"add_cross_attention", "false"},
};

static int check_refused(const json_t *c, struct err *e)
{
    if (json_is_object(json_object_get(c, "quantization_config")))
        return err_set(e, NT_EXIT_DATA,
                       "config key quantization_config: a quantized checkpoint, which is not a float model");
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (!key_is_neutral(json_object_get(c, refused[i].key), refused[i].neutral))
            return err_set(e, NT_EXIT_DATA,
                           "config key %s changes what the model computes and is not supported",
                           refused[i].key);
    const json_t *types = json_object_get(c, "layer_types"), *t;
    size_t i;
    json_array_foreach(
        types, i,
        t) if (!json_is_string(t) ||
               strcmp(json_string_value(t), "full_attention")) return err_set(e, NT_EXIT_DATA,
                                                                              "config key layer_types: only "
                                                                              "full_attention is supported");
    const char *act = json_string_value(json_object_get(c, "hidden_act"));
    if (act && strcmp(act, "silu") && strcmp(act, "swish"))
        return err_set(e, NT_EXIT_DATA, "config key hidden_act: %s is not supported, only silu", act);
    return 0;
}

/* rope_theta, rope_scaling (transformers 4) or rope_parameters (5). */
static int read_rope(struct model_config *c, const json_t *j, struct err *e)
{
    const json_t *s = json_object_get(j, "rope_parameters");
    if (!json_is_object(s)) s = json_object_get(j, "rope_scaling");
    c->rope_theta = c->family->defaults.rope_theta;
    c->rope = ROPE_DEFAULT, c->rope_factor = 1, c->rope_low = 1, c->rope_high = 4, c->rope_orig = 0;
    if (key_number(j, "rope_theta", &c->rope_theta, e)) return -1;
    if (!json_is_object(s)) return 0;
    const char *type = json_string_value(json_object_get(s, "rope_type"));
    if (!type) type = json_string_value(json_object_get(s, "type"));
    if (!key_is_neutral(json_object_get(s, "partial_rotary_factor"), "1"))
        return err_set(
            e, NT_EXIT_DATA,
            "config key partial_rotary_factor changes what the model computes and is not supported");
    if (key_number(s, "rope_theta", &c->rope_theta, e)) return -1;
    if (!type || !strcmp(type, "default")) return 0;
    c->rope = !strcmp(type, "linear") ? ROPE_LINEAR : !strcmp(type, "llama3") ? ROPE_LLAMA3 : ROPE_DEFAULT;
    if (c->rope == ROPE_DEFAULT)
        return err_set(e, NT_EXIT_DATA,
                       "config key rope_type: %s is not supported, only default, linear and llama3", type);
    c->rope_factor = 0;
    if (key_number(s, "factor", &c->rope_factor, e)) return -1;
    if (c->rope == ROPE_LLAMA3) {
        if (key_number(s, "low_freq_factor", &c->rope_low, e) ||
            key_number(s, "high_freq_factor", &c->rope_high, e) ||
            key_int(s, "original_max_position_embeddings", 1, &c->rope_orig, e))
            return -1;
        if (c->rope_orig == 0 || !(c->rope_high > c->rope_low))
            return err_set(e, NT_EXIT_DATA,
                           "config key rope_type: llama3 needs original_max_position_embeddings and "
                           "high_freq_factor above low_freq_factor");
    }
    return c->rope_factor > 0 ? 0 : err_set(e, NT_EXIT_DATA, "config key rope_type: %s needs a factor", type);
}

/* Sizes and the block's shape. Limits keep products of two sizes within int and refuse nonsense early. */
static int read_shape(struct model_config *c, const json_t *j, struct err *e)
{
    const struct family *f = c->family;
    struct block_shape *s = &c->block;
    double eps = f->defaults.eps;
    c->n_layers = f->defaults.layers, c->vocab = f->defaults.vocab, c->max_pos = f->defaults.max_pos;
    *s = BLOCK_SHAPE_PLAIN;
    s->D = f->defaults.hidden, s->H = f->defaults.heads, s->F = f->defaults.ff, s->rms = f->rms;
    c->logit_scale = 1;
    if (key_int(j, "num_hidden_layers", 1, &c->n_layers, e) || key_int(j, "vocab_size", 1, &c->vocab, e) ||
        key_int(j, "max_position_embeddings", 1, &c->max_pos, e) || key_int(j, "hidden_size", 1, &s->D, e) ||
        key_int(j, "intermediate_size", 1, &s->F, e) || key_int(j, "num_attention_heads", 1, &s->H, e))
        return -1;
    s->G = s->H, s->E = s->D / s->H;
    if (key_int(j, "num_key_value_heads", 1, &s->G, e) || key_int(j, "head_dim", 1, &s->E, e) ||
        key_number(j, "rms_norm_eps", &eps, e))
        return -1;
    if (c->n_layers > 10000 || s->D > 1 << 20 || s->F > 1 << 22 || s->H > 1 << 14 || s->E > 1 << 14 ||
        c->vocab > 1 << 26)
        return err_set(e, NT_EXIT_DATA, "config sizes are out of range");
    if (s->G > s->H || s->H % s->G)
        return err_set(e, NT_EXIT_DATA,
                       "config key num_key_value_heads: %d does not divide num_attention_heads %d", s->G,
                       s->H);
    if (s->E < 2 || s->E % 2) return err_set(e, NT_EXIT_DATA, "config key head_dim: %d is not even", s->E);
    s->rot = s->E, s->eps = (float)eps, s->scale = (float)(1 / sqrt(s->E)), s->window = 0;
    return 0;
}

int model_config_read(struct model_config *c, const json_t *j, struct err *e)
{
    const char *type = json_string_value(json_object_get(j, "model_type"));
    memset(c, 0, sizeof *c);
    if (!type) return err_set(e, NT_EXIT_DATA, "config has no model_type");
    c->family = family_by_model_type(type);
    if (!c->family) return err_set(e, NT_EXIT_DATA, "model_type %.64s is not supported", type);
    snprintf(c->arch, sizeof c->arch, "%s", type);
    c->attn_bias = c->family->attn_bias;
    if (check_refused(j, e) || read_shape(c, j, e) || read_rope(c, j, e)) return -1;
    if (key_bool(j, "tie_word_embeddings", &c->tied, e) || key_bool(j, "attention_bias", &c->attn_bias, e) ||
        key_bool(j, "mlp_bias", &c->mlp_bias, e))
        return -1;
    c->bos = key_token(j, "bos_token_id"), c->eos = key_token(j, "eos_token_id");
    return c->family->configure ? c->family->configure(c, j, e) : 0;
}

/* The reference code computes in single precision; so the powers here are rounded to it before they are used.
 */
void model_rope_frequencies(const struct model_config *c, float *freq)
{
    int rot = c->block.rot;
    double low_wave = c->rope_orig / c->rope_low, high_wave = c->rope_orig / c->rope_high;
    for (int i = 0; i < rot / 2; i++) {
        float f = 1.0f / (float)pow(c->rope_theta, (double)((float)(2 * i) / (float)rot));
        if (c->rope == ROPE_LINEAR) f /= (float)c->rope_factor;
        if (c->rope == ROPE_LLAMA3) {
            float wave = (float)(2 * M_PI) / f;
            float smooth =
                ((float)c->rope_orig / wave - (float)c->rope_low) / (float)(c->rope_high - c->rope_low);
            if (wave > low_wave)
                f = f / (float)c->rope_factor;
            else if (!(wave < high_wave))
                f = (1 - smooth) * f / (float)c->rope_factor + smooth * f;
        }
        freq[i] = f;
    }
}
