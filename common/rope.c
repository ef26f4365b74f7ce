/* SPDX-License-Identifier: Apache-2.0
 * Rotary frequencies. The reference code computes them with single-precision tensors and double-precision
 * scalars; so what it rounds is rounded here. */
#include "common/rope.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/model_keys.h"
#include "common/mem.h"

/* ---- keys ---- */

static int type_of(struct rope *r, const json_t *s, const struct rope_defaults *d, struct err *e)
{
    static const char *const names[] = {[ROPE_DEFAULT] = "default",   [ROPE_LINEAR] = "linear",
                                        [ROPE_DYNAMIC] = "dynamic",   [ROPE_YARN] = "yarn",
                                        [ROPE_LONGROPE] = "longrope", [ROPE_LLAMA3] = "llama3",
                                        [ROPE_PROPORTIONAL] = "proportional"};
    const json_t *j = json_object_get(s, "rope_type");
    if (!j || json_is_null(j)) j = json_object_get(s, "type");
    const char *name = json_string_value(j);
    r->type = ROPE_DEFAULT;
    if (!name) return 0;
    if (d->yarn_is_longrope && (!strcmp(name, "su") || !strcmp(name, "yarn"))) name = "longrope";
    for (int t = 0; t <= ROPE_PROPORTIONAL; t++)
        if (!strcmp(name, names[t])) {
            r->type = (enum rope_type)t;
            return 0;
        }
    return err_set(e, NT_EXIT_DATA, "config key rope_type: %.40s is not supported", name);
}

static int read_divisors(struct rope *r, const json_t *s, int which, const char *key, struct err *e)
{
    const json_t *a = json_object_get(s, key);
    if (!json_is_array(a) || json_array_size(a) != (size_t)r->dim / 2 || r->dim / 2 > ROPE_MAX_HALF)
        return err_set(e, NT_EXIT_DATA, "config key %s is no list of %d numbers", key, r->dim / 2);
    for (int i = 0; i < r->dim / 2; i++) {
        const json_t *v = json_array_get(a, (size_t)i);
        if (!json_is_number(v) || !(json_number_value(v) > 0))
            return err_set(e, NT_EXIT_DATA, "config key %s: entry %d is not a positive number", key, i);
        r->divisor[which][i] = (float)json_number_value(v);
    }
    return 0;
}

static double mscale(double factor, double m)
{
    return factor <= 1 ? 1 : 0.1 * m * log(factor) + 1;
}

static int read_yarn(struct rope *r, const json_t *s, struct err *e)
{
    double m = 0, m_all = 0;
    r->low = 1, r->high = 32, r->truncate = true;
    if (key_number(s, "beta_slow", &r->low, e) || key_number(s, "beta_fast", &r->high, e) ||
        key_bool(s, "truncate", &r->truncate, e))
        return -1;
    if (!key_is_neutral(json_object_get(s, "mscale"), "0") && key_number(s, "mscale", &m, e)) return -1;
    if (!key_is_neutral(json_object_get(s, "mscale_all_dim"), "0") &&
        key_number(s, "mscale_all_dim", &m_all, e))
        return -1;
    if (!(r->theta > 1)) return err_set(e, NT_EXIT_DATA, "config key rope_theta: yarn needs one above 1");
    r->attention =
        m > 0 && m_all > 0 ? mscale(r->factor, m) / mscale(r->factor, m_all) : mscale(r->factor, 1);
    return key_number(s, "attention_factor", &r->attention, e);
}

static int read_longrope(struct rope *r, const json_t *s, struct err *e)
{
    if (read_divisors(r, s, 0, "short_factor", e) || read_divisors(r, s, 1, "long_factor", e)) return -1;
    r->attention = r->factor <= 1 ? 1 : sqrt(1 + log(r->factor) / log(r->orig));
    return key_number(s, "attention_factor", &r->attention, e);
}

static int read_llama3(struct rope *r, const json_t *s, struct err *e)
{
    r->low = 1, r->high = 4;
    if (key_number(s, "low_freq_factor", &r->low, e) || key_number(s, "high_freq_factor", &r->high, e))
        return -1;
    return r->high > r->low ? 0
                            : err_set(e, NT_EXIT_DATA,
                                      "config key rope_type: llama3 needs a high_freq_factor above "
                                      "low_freq_factor");
}

/* factor, and the length that scaling starts from: the config's own key before the scaling's, as transformers
 * 5 has it, then the longest length. */
static int read_scaling(struct rope *r, const json_t *config, const json_t *s, const struct rope_defaults *d,
                        struct err *e)
{
    const json_t *outer = json_object_get(config, "original_max_position_embeddings");
    bool own = d->orig > 0 || (outer && !json_is_null(outer));
    r->orig = d->orig ? d->orig : r->max_pos;
    if (key_int(own ? config : s, "original_max_position_embeddings", 1, &r->orig, e)) return -1;
    r->factor = 0;
    if (key_number(s, "factor", &r->factor, e)) return -1;
    if (!(r->factor > 0) && r->type == ROPE_PROPORTIONAL) r->factor = 1;
    if (!(r->factor > 0) && (r->type == ROPE_YARN || r->type == ROPE_LONGROPE))
        r->factor = (double)r->max_pos / r->orig;
    if (!(r->factor > 0))
        return err_set(e, NT_EXIT_DATA, "config key rope_type: this scaling needs a factor");
    return r->type == ROPE_YARN       ? read_yarn(r, s, e)
           : r->type == ROPE_LONGROPE ? read_longrope(r, s, e)
           : r->type == ROPE_LLAMA3   ? read_llama3(r, s, e)
                                      : 0;
}

/* The object with the scaling's keys, NULL if there is none. */
static int find_scaling(const json_t *config, const char *layer_type, const json_t **s, struct err *e)
{
    static const char *const layer_types[] = {"full_attention", "sliding_attention", "chunked_attention"};
    const json_t *parameters = json_object_get(config, "rope_parameters");
    *s = parameters;
    if (!json_is_object(*s) || !json_object_size(*s)) *s = json_object_get(config, "rope_scaling");
    if (!json_is_object(*s)) *s = NULL;
    if (layer_type && *s && *s == parameters) *s = json_object_get(*s, layer_type);
    for (size_t i = 0; i < sizeof layer_types / sizeof *layer_types && *s; i++)
        if (json_object_get(*s, layer_types[i]))
            return err_set(e, NT_EXIT_DATA,
                           "config key rope_parameters: %s: this family has one rope for all layers",
                           layer_types[i]);
    return 0;
}

int rope_read(struct rope *r, const json_t *config, const char *layer_type, const struct rope_defaults *d,
              int head, struct err *e)
{
    const json_t *s;
    double partial = d->partial > 0 ? d->partial : 1;
    memset(r, 0, sizeof *r);
    r->head = head, r->max_pos = d->max_pos, r->theta = d->theta, r->attention = 1;
    if (find_scaling(config, layer_type, &s, e) || (s && type_of(r, s, d, e))) return -1;
    if (key_number(config, "rope_theta", &r->theta, e) || (s && key_number(s, "rope_theta", &r->theta, e)) ||
        key_number(config, "partial_rotary_factor", &partial, e) ||
        (s && key_number(s, "partial_rotary_factor", &partial, e)))
        return -1;
    if (partial > 1 || (partial < 1 && !(d->partial > 0) && r->type != ROPE_PROPORTIONAL))
        return err_set(e, NT_EXIT_DATA,
                       "config key partial_rotary_factor changes what the model computes and is not "
                       "supported");
    r->partial = partial;
    r->dim = r->type == ROPE_PROPORTIONAL ? head : (int)(head * partial);
    if (r->dim < 2 || r->dim % 2)
        return err_set(e, NT_EXIT_DATA,
                       "config key %s: %d rotary dimensions are not an even, positive number",
                       partial < 1 ? "partial_rotary_factor" : "head_dim", r->dim);
    if (r->type == ROPE_DYNAMIC && r->dim < 4)
        return err_set(e, NT_EXIT_DATA, "config key rope_type: dynamic needs four rotary dimensions");
    return r->type == ROPE_DEFAULT ? 0 : read_scaling(r, config, s, d, e);
}

/* ---- frequencies ---- */

/* base ^ (2i / dim) */
static float power(double base, int i, int dim)
{
    return (float)pow((double)(float)base, (double)((float)(2 * i) / (float)dim));
}

/* The base of sequences longer than the longest: transformers has the length, and so all of this but the
 * base, as a single-precision tensor. */
static double dynamic_base(const struct rope *r, int length)
{
    if (length <= r->max_pos) return r->theta;
    float grown =
        (float)((double)length * r->factor) / (float)r->max_pos - (float)(r->factor - 1); /* of the base */
    return (double)((float)r->theta * (float)pow((double)grown, (double)r->dim / (r->dim - 2)));
}

static void yarn(const struct rope *r, float *freq)
{
    double n = r->orig / (2 * M_PI), scale = r->dim / (2 * log(r->theta));
    double low = scale * log(n / r->high), high = scale * log(n / r->low);
    if (r->truncate) low = floor(low), high = ceil(high);
    low = fmax(low, 0), high = fmin(high, r->dim - 1);
    if (low == high) high += 0.001;
    for (int i = 0; i < r->dim / 2; i++) {
        float p = power(r->theta, i, r->dim), inter = 1 / ((float)r->factor * p), extra = 1 / p;
        float ramp = ((float)i - (float)low) / (float)(high - low);
        float keep = 1 - fminf(fmaxf(ramp, 0), 1);
        freq[i] = inter * (1 - keep) + extra * keep;
    }
}

static float llama3(const struct rope *r, float f)
{
    float wave = (float)(2 * M_PI) / f;
    float smooth = ((float)r->orig / wave - (float)r->low) / (float)(r->high - r->low);
    if ((double)wave > r->orig / r->low) return f / (float)r->factor;
    if ((double)wave < r->orig / r->high) return f;
    return (1 - smooth) * f / (float)r->factor + smooth * f;
}

void rope_frequencies(const struct rope *r, int length, float *freq)
{
    int half = r->dim / 2, turning = (int)(r->partial * r->head / 2);
    double base = r->type == ROPE_DYNAMIC ? dynamic_base(r, length) : r->theta;
    const float *divisor = r->divisor[length > r->orig];
    if (r->type == ROPE_YARN) {
        yarn(r, freq);
        return;
    }
    for (int i = 0; i < half; i++) {
        float p = power(base, i, r->dim), f = 1 / p;
        if (r->type == ROPE_LINEAR) f /= (float)r->factor;
        if (r->type == ROPE_LONGROPE) f = 1 / (divisor[i] * p);
        if (r->type == ROPE_LLAMA3) f = llama3(r, f);
        if (r->type == ROPE_PROPORTIONAL) f = i < turning ? f / (float)r->factor : 0;
        freq[i] = f;
    }
}

void rope_cossin(const struct rope *r, int n, float *cossin)
{
    int half = r->dim / 2;
    float *freq = MEM_NEW(float, half), factor = (float)r->attention;
    rope_frequencies(r, n, freq);
    for (int p = 0; p < n; p++)
        for (int i = 0; i < half; i++) {
            float angle = (float)p * freq[i]; /* rounded to single, as the reference code has it */
            float *row = cossin + (size_t)p * (size_t)r->dim;
            row[i] = (float)cos((double)angle) * factor;
            row[half + i] = (float)sin((double)angle) * factor;
        }
    mem_free(freq);
}
