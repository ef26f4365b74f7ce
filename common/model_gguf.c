/* SPDX-License-Identifier: Apache-2.0
 * GGUF keys as a config.json: the same JSON that transformers would read, so that a stream or a packed
 * directory carries a configuration other software understands. Only keys that change what is computed matter
 * here. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/mem.h"
#include "common/model.h"

struct keys {
    const struct checkpoint *ck;
    const char *arch;
};

static const json_t *get(const struct keys *k, const char *suffix)
{
    char key[256];
    snprintf(key, sizeof key, "%s.%s", k->arch, suffix);
    return json_object_get(k->ck->meta, key);
}

/* Some files give one number per layer; equal ones are as good as one. */
static const json_t *single(const json_t *j)
{
    size_t i;
    const json_t *v;
    if (!json_is_array(j)) return j;
    json_array_foreach(j, i, v) if (!json_equal(v, json_array_get(j, 0))) return NULL;
    return json_array_get(j, 0);
}

static int get_int(const struct keys *k, const char *suffix, bool must, json_int_t *v, struct err *e)
{
    const json_t *j = get(k, suffix);
    if (!j && !must) return 0;
    if (!j) return err_set(e, NT_EXIT_DATA, "GGUF key %s.%s is missing", k->arch, suffix);
    if (!json_is_integer(single(j)))
        return err_set(e, NT_EXIT_DATA, "GGUF key %s.%s is not one integer for all layers", k->arch, suffix);
    *v = json_integer_value(single(j));
    return 0;
}

/* A single-precision value as the shortest decimal that gives it back: 1e-05, not 9.99999974737875163e-06. */
static json_t *shortest(double v)
{
    char s[40];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(s, sizeof s, "%.*g", digits, v);
        if (strtof(s, NULL) == (float)v) break;
    }
    return json_real(atof(s));
}

static double number(const json_t *j, double otherwise)
{
    return json_is_number(j) ? json_number_value(j) : otherwise;
}

/* What config.json calls a key, where a family honours it (family.keys). */
static const struct {
    const char *suffix, *key;
} same[] = {
    {"attention.sliding_window", "sliding_window"},
    {"attn_logit_softcapping", "attn_logit_softcapping"},
    {"final_logit_softcapping", "final_logit_softcapping"},
    {"logit_scale", "logit_scale"},
    {"logit_scale", "logits_scaling"},
    {"embedding_scale", "embedding_multiplier"},
    {"residual_scale", "residual_multiplier"},
    {"attention.scale", "attention_multiplier"},
    {"rope.freq_base_swa", "rope_local_base_freq"},
    {"use_parallel_residual", "use_parallel_residual"},
    {"attention.clamp_kqv", "clip_qkv"},
    {"expert_count", "num_experts"},
    {"expert_used_count", "num_experts_per_tok"},
    {"expert_feed_forward_length", "moe_intermediate_size"},
    {"expert_shared_feed_forward_length", "shared_expert_intermediate_size"},
};

/* Otherwise these must say nothing. */
static const struct {
    const char *suffix;
    double neutral;
} refused[] = {
    {"expert_count", 0},
    {"attention.sliding_window", 0},
    {"logit_scale", 0},
    {"embedding_scale", 1},
    {"residual_scale", 1},
    {"attention.scale", 0},
    {"attn_logit_softcapping", 0},
    {"final_logit_softcapping", 0},
    {"use_parallel_residual", 0},
    {"attention.clamp_kqv", 0},
    {"attention.max_alibi_bias", 0},
    {"attention.causal", 1},
    {"interleave_moe_layer_step", 0},
};

static double flag_or_number(const json_t *j, double otherwise)
{
    return json_is_boolean(j) ? json_is_true(j) : number(single(j), otherwise);
}

static const char *same_key(const struct family *f, const char *suffix)
{
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        if (!strcmp(same[i].suffix, suffix) && family_honours(f, same[i].key)) return same[i].key;
    return NULL;
}

static int check_refused(const struct keys *k, const struct family *f, struct err *e)
{
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        double v = flag_or_number(get(k, refused[i].suffix), refused[i].neutral);
        bool alibi = f->block.alibi && !strcmp(refused[i].suffix, "attention.max_alibi_bias") && v == 8;
        bool off = v == 0 && strcmp(refused[i].suffix, "attention.causal") != 0; /* a number of 0 is none */
        if (v != refused[i].neutral && !off && !alibi && !same_key(f, refused[i].suffix))
            return err_set(e, NT_EXIT_DATA,
                           "GGUF key %s.%s changes what the model computes and is not supported", k->arch,
                           refused[i].suffix);
    }
    return 0;
}

/* Keys of the same meaning; a number of 0 turns off what null does in config.json. */
static void add_same(const struct keys *k, json_t *cfg, const struct family *f)
{
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        const json_t *j = get(k, same[i].suffix);
        const char *key = same_key(f, same[i].suffix);
        if (!j || !key) continue;
        double v = flag_or_number(j, 0);
        json_object_set_new(cfg, key,
                            json_is_boolean(j)        ? json_boolean(v != 0)
                            : v == 0                  ? json_null()
                            : json_is_integer(single(j)) ? json_integer((json_int_t)v)
                                                         : shortest(v));
    }
}

/* Which layers have the window: one flag per layer, or a period. Missing: as the class does. */
static int add_layer_types(const struct keys *k, json_t *cfg, const struct family *f, struct err *e)
{
    const json_t *p = get(k, "attention.sliding_window_pattern");
    json_int_t layers = json_integer_value(json_object_get(cfg, "num_hidden_layers"));
    bool window = json_is_integer(json_object_get(cfg, "sliding_window"));
    bool said = json_object_get(cfg, "sliding_window") || !strcmp(k->arch, "gemma3"); /* there: missing is none */
    if (!family_honours(f, "layer_types") || !said || (window && !p)) return 0;
    if (window && (json_is_array(p) ? (json_int_t)json_array_size(p) != layers : json_integer_value(p) < 1))
        return err_set(e, NT_EXIT_DATA, "GGUF key %s.attention.sliding_window_pattern is out of range", k->arch);
    if (layers < 1 || layers > 10000) return 0; /* refused later */
    json_t *types = json_array();
    for (json_int_t l = 0; l < layers; l++) {
        bool sliding = json_is_array(p) ? flag_or_number(json_array_get(p, (size_t)l), 0) != 0
                                        : (l + 1) % (window ? json_integer_value(p) : 1) != 0;
        json_array_append_new(types, json_string(window && sliding ? "sliding_attention" : "full_attention"));
    }
    json_object_set_new(cfg, "layer_types", types);
    return 0;
}

/* llama.cpp stores llama3 scaling as one divisor per frequency (rope_freqs.weight). The formula's parameters
 * are found by trying those in use and comparing; a table that is no llama3 scaling is refused. */
static int rope_from_divisors(const struct keys *k, const struct checkpoint_tensor *t, json_t *cfg, int head,
                              double theta, struct err *e)
{
    static const int origs[] = {8192, 4096, 2048, 16384, 32768, 65536, 131072, 1024, 512, 256, 128, 64, 32};
    int n = head / 2;
    if (t->t.dtype != DT_F32 || t->t.rank != 1 || t->t.shape[0] != (uint64_t)n)
        return err_set(e, NT_EXIT_DATA, "tensor rope_freqs.weight: not F32 [%d]", n);
    const float *div = t->t.data;
    struct rope rope = {.theta = theta, .low = 1, .high = 4, .dim = head, .head = head, .partial = 1}, *r = &rope;
    float *plain = MEM_NEW(float, n), *scaled = MEM_NEW(float, n);
    bool found = false;
    rope_frequencies(r, 1, plain);
    r->type = ROPE_LLAMA3, r->factor = div[n - 1];
    json_int_t given = 0;
    if (get_int(k, "rope.scaling.original_context_length", false, &given, e)) goto done;
    for (size_t i = 0; i <= sizeof origs / sizeof *origs && !found; i++) {
        r->orig = i ? origs[i - 1] : (int)given;
        if (r->orig <= 0 || !(r->factor > 0)) continue;
        rope_frequencies(r, 1, scaled);
        found = true;
        for (int f = 0; f < n; f++)
            found = found && fabs(plain[f] / scaled[f] - div[f]) <= 1e-5 * fabs(div[f]);
    }
    if (found)
        json_object_set_new(cfg, "rope_scaling",
                            json_pack("{s:s,s:o,s:f,s:f,s:i}", "rope_type", "llama3", "factor",
                                      shortest(r->factor), "low_freq_factor", 1.0, "high_freq_factor",
                                      4.0, "original_max_position_embeddings", r->orig));
    else
        err_set(e, NT_EXIT_DATA,
                "tensor rope_freqs.weight: not a llama3 scaling, which is the only one supported");
done:
    mem_free(plain), mem_free(scaled);
    return found ? 0 : -1;
}

static json_t *divisors(const struct checkpoint_tensor *t, int n, struct err *e)
{
    if (!t || t->t.dtype != DT_F32 || t->t.rank != 1 || t->t.shape[0] != (uint64_t)n) {
        err_set(e, NT_EXIT_DATA, "tensors rope_factors_long and _short: missing or not F32 [%d]", n);
        return NULL;
    }
    json_t *a = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(a, shortest(((const float *)t->t.data)[i]));
    return a;
}

/* Phi-3: two tables of divisors, and what cosine and sine are multiplied by. */
static int add_longrope(const struct keys *k, json_t *cfg, int rot, struct err *e)
{
    json_int_t orig = json_integer_value(json_object_get(cfg, "max_position_embeddings"));
    json_t *s = json_pack("{s:s,s:o?,s:o?}", "rope_type", "longrope", "long_factor",
                          divisors(checkpoint_find(k->ck, "rope_factors_long.weight"), rot / 2, e), "short_factor",
                          divisors(checkpoint_find(k->ck, "rope_factors_short.weight"), rot / 2, e));
    int rc = e->code ? -1 : get_int(k, "rope.scaling.original_context_length", false, &orig, e);
    double factor = number(get(k, "rope.scaling.attn_factor"), 0);
    json_object_set_new(cfg, "original_max_position_embeddings", json_integer(orig));
    if (factor > 0) json_object_set_new(s, "attention_factor", shortest(factor));
    json_object_set_new(cfg, "rope_scaling", s);
    return rc;
}

static int add_yarn(const struct keys *k, json_t *cfg, struct err *e)
{
    static const char *const more[][2] = {{"rope.scaling.yarn_beta_fast", "beta_fast"},
                                          {"rope.scaling.yarn_beta_slow", "beta_slow"}};
    json_int_t orig = json_integer_value(json_object_get(cfg, "max_position_embeddings"));
    json_t *s = json_pack("{s:s,s:o}", "rope_type", "yarn", "factor",
                          shortest(number(get(k, "rope.scaling.factor"), 1)));
    json_object_set_new(cfg, "rope_scaling", s);
    if (get_int(k, "rope.scaling.original_context_length", false, &orig, e)) return -1;
    json_object_set_new(s, "original_max_position_embeddings", json_integer(orig));
    for (int i = 0; i < 2; i++) {
        double v = number(get(k, more[i][0]), 0);
        if (v > 0) json_object_set_new(s, more[i][1], shortest(v));
    }
    if (number(get(k, "rope.scaling.yarn_ext_factor"), 1) != 1 ||
        number(get(k, "rope.scaling.yarn_attn_factor"), 1) != 1 ||
        number(get(k, "rope.scaling.attn_factor"), 1) != 1 ||
        number(get(k, "rope.scaling.yarn_log_multiplier"), 0) != 0)
        return err_set(e, NT_EXIT_DATA, "GGUF keys %s.rope.scaling: yarn with factors of its own is not supported",
                       k->arch);
    return 0;
}

static int add_rope(const struct keys *k, json_t *cfg, const struct family *f, int rot, struct err *e)
{
    const char *type = json_string_value(get(k, "rope.scaling.type"));
    double theta = number(get(k, "rope.freq_base"), 10000);
    json_object_set_new(cfg, "rope_theta", shortest(theta));
    const struct checkpoint_tensor *t = checkpoint_find(k->ck, "rope_freqs.weight");
    if (f->defaults.orig_pos && checkpoint_find(k->ck, "rope_factors_long.weight"))
        return add_longrope(k, cfg, rot, e);
    if (type && !strcmp(type, "yarn") && !t) return add_yarn(k, cfg, e);
    if (type && !strcmp(type, "linear")) {
        json_object_set_new(cfg, "rope_scaling",
                            json_pack("{s:s,s:o}", "rope_type", "linear", "factor",
                                      shortest(number(get(k, "rope.scaling.factor"), 1))));
        if (t)
            return err_set(e, NT_EXIT_DATA,
                           "GGUF has both rope.scaling.type and rope_freqs.weight, which is not supported");
    } else if (type && strcmp(type, "none") && !(t && !strcmp(type, "llama3"))) {
        return err_set(e, NT_EXIT_DATA, "GGUF key %s.rope.scaling.type: %.40s is not supported", k->arch,
                       type);
    } else if (number(get(k, "rope.scale_linear"), 1) != 1) {
        return err_set(e, NT_EXIT_DATA, "GGUF key %s.rope.scale_linear is not supported", k->arch);
    }
    return t ? rope_from_divisors(k, t, cfg, rot, theta, e) : 0;
}

bool model_gguf_has(const struct checkpoint *ck, const char *pattern, const char *suffix)
{
    char name[256];
    if (!pattern) return false;
    family_tensor_name(name, pattern, 0, suffix);
    name[strcspn(name, "#")] = 0;
    return checkpoint_find(ck, name) != NULL;
}

static void add_token(json_t *cfg, const struct checkpoint *ck, const char *key, const char *gguf_key)
{
    const json_t *id = json_object_get(ck->meta, gguf_key);
    json_object_set_new(cfg, key, json_is_integer(id) ? json_integer(json_integer_value(id)) : json_null());
}

static int add_shape(const struct keys *k, json_t *cfg, const struct family *f, struct err *e)
{
    const struct checkpoint *ck = k->ck;
    char embed[64];
    json_int_t layers = 0, hidden = 0, ff = 0, heads = 0, groups, head = 0, value = 0, rot = 0, ctx = 2048;
    if (get_int(k, "block_count", true, &layers, e) || get_int(k, "embedding_length", true, &hidden, e) ||
        get_int(k, "feed_forward_length", true, &ff, e) ||
        get_int(k, "attention.head_count", true, &heads, e))
        return -1;
    groups = heads;
    if (heads <= 0 || hidden <= 0)
        return err_set(e, NT_EXIT_DATA, "GGUF key %s.attention.head_count is out of range", k->arch);
    head = hidden / heads;
    if (get_int(k, "attention.head_count_kv", false, &groups, e) ||
        get_int(k, "attention.key_length", false, &head, e))
        return -1;
    value = rot = head;
    if (get_int(k, "attention.value_length", false, &value, e) ||
        get_int(k, "rope.dimension_count", false, &rot, e) || get_int(k, "context_length", false, &ctx, e))
        return -1;
    if (value != head)
        return err_set(e, NT_EXIT_DATA, "GGUF key %s.attention.value_length differs from the key length",
                       k->arch);
    if (rot != head && (!(f->defaults.partial_rotary > 0) || rot < 1 || rot > head))
        return err_set(e, NT_EXIT_DATA, "GGUF key %s.rope.dimension_count differs from the head length",
                       k->arch);
    if (f->defaults.partial_rotary > 0)
        json_object_set_new(cfg, "partial_rotary_factor", json_real((double)rot / (double)head));
    snprintf(embed, sizeof embed, "%s.weight", f->gguf.embed);
    const struct checkpoint_tensor *t = checkpoint_find(ck, embed);
    if (!t || t->t.rank != 2) return err_set(e, NT_EXIT_DATA, "tensor %s is missing or no matrix", embed);
    json_t *shape =
        json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "hidden_size", hidden, "intermediate_size", ff,
                  "num_hidden_layers", layers, "num_attention_heads", heads, "num_key_value_heads", groups,
                  "head_dim", head, "max_position_embeddings", ctx, "vocab_size", (json_int_t)t->t.shape[0]);
    json_object_update(cfg, shape);
    json_decref(shape);
    return add_rope(k, cfg, f, (int)(rot > 1 << 20 ? 0 : rot), e);
}

static void add_eps(const struct keys *k, json_t *cfg, const struct family *f)
{
    const char *key = f->eps_key ? f->eps_key : f->block.rms ? "rms_norm_eps" : "layer_norm_eps";
    const char *suffix = f->block.rms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon";
    json_object_set_new(cfg, key, shortest(number(get(k, suffix), f->defaults.eps)));
}

json_t *model_config_from_gguf(const struct checkpoint *ck, struct err *e)
{
    const char *arch = json_string_value(json_object_get(ck->meta, "general.architecture"));
    if (!arch) {
        err_set(e, NT_EXIT_DATA, "GGUF key general.architecture is missing");
        return NULL;
    }
    const struct family *f = family_by_gguf_arch(arch);
    if (!f) {
        model_unknown_type("GGUF architecture", arch, e);
        return NULL;
    }
    struct keys k = {ck, arch};
    if (!strcmp(arch, "llama") && flag_or_number(get(&k, "attention.sliding_window"), 0) > 0)
        f = family_by_model_type("mistral");
    if (!strcmp(arch, "llama") && flag_or_number(get(&k, "expert_count"), 0) > 0)
        f = family_by_model_type("mixtral");
    json_t *cfg = json_object();
    json_object_set_new(cfg, "architectures", json_pack("[s]", f->hf_class));
    json_object_set_new(cfg, "model_type", json_string(f->model_type));
    add_eps(&k, cfg, f);
    if (check_refused(&k, f, e) || add_shape(&k, cfg, f, e)) {
        json_decref(cfg);
        return NULL;
    }
    add_same(&k, cfg, f);
    if (!(f->bias & ROLE_BITS_QKV))
        json_object_set_new(cfg, "attention_bias",
                            json_boolean(model_gguf_has(ck, f->gguf.role[ROLE_Q], ".bias")));
    if (!(f->bias & 1u << ROLE_UP) && !f->gguf.router)
        json_object_set_new(cfg, "mlp_bias", json_boolean(model_gguf_has(ck, f->gguf.role[ROLE_UP], ".bias")));
    json_object_set_new(cfg, "tie_word_embeddings", json_boolean(!model_gguf_has(ck, f->gguf.head, ".weight")));
    add_token(cfg, ck, "bos_token_id", "tokenizer.ggml.bos_token_id");
    add_token(cfg, ck, "eos_token_id", "tokenizer.ggml.eos_token_id");
    json_object_set_new(cfg, "torch_dtype", json_string("float32"));
    if (add_layer_types(&k, cfg, f, e)) {
        json_decref(cfg);
        return NULL;
    }
    if (f->from_gguf) f->from_gguf(ck, cfg);
    for (const char *const *s = f->spellings; s && *s; s += 2) /* for the class, which may not know the usual name */
        if (json_object_get(cfg, s[1])) json_object_set(cfg, s[0], json_object_get(cfg, s[1]));
    return cfg;
}
