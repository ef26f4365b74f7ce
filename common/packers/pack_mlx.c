/* SPDX-License-Identifier: Apache-2.0
 * A directory for MLX (mlx-lm), affine mode.
 *   NAME.weight U32 [out, in*b/32]   codes packed along in
 *   NAME.scales, NAME.biases [out, groups]   value = scale * code + bias
 * A bias is -scale * zero, which F16 holds for symmetric codes only: where it does not, both are F32. */
#include "common/bitwords.h"
#include "common/mem.h"
#include "common/pack_codes.h"
#include "common/tool.h"
#include <string.h>

enum { WEIGHTS, SCALES, BIASES };

static const char *refusal(const struct pack *p, const struct qtensor *q, int *group, const char **anew)
{
    const char *why;
    if (q->form != QF_UNIFORM) return codes_no_integers(q, anew);
    if (codes_no_linear(p)) return codes_no_linear(p);
    *group = q->gidx ? -1 : codes_group(q, 128, false);
    while (*group > 32 && *group != 64 && *group != 128) *group = codes_group(q, *group - 32, false);
    *anew = "-b 2, 3, 4, 6 or 8";
    if (q->bits != 2 && q->bits != 3 && q->bits != 4 && q->bits != 6 && q->bits != 8)
        return "has a number of bits other than 2, 3, 4, 6, 8";
    if ((why = codes_no_index(q, anew))) return why;
    *anew = "-g 32, 64 or 128";
    return *group < 0 ? "has groups that cannot be cut into ones of 32, 64 or 128" : NULL;
}

static float bias_of(const struct qtensor *q, size_t param)
{
    return q->minimum ? q->minimum[param] : -q->scale[param] * (float)codes_zero(q, param);
}

/* The element type of scales and biases: the smallest that holds all of them. */
static enum dtype type_of(const struct pack *p, const struct qtensor *q)
{
    bool half = p->dtype == DT_F16 && codes_scales_exact(q, DT_F16),
         brain = p->dtype == DT_BF16 && codes_scales_exact(q, DT_BF16);
    for (size_t i = 0; i < (size_t)q->out * (size_t)q->n_groups && (half || brain); i++) {
        float b = bias_of(q, i);
        half = half && f16_to_f32(f32_to_f16(b)) == b;
        brain = brain && bf16_to_f32(f32_to_bf16(b)) == b;
    }
    return half ? DT_F16 : brain ? DT_BF16 : DT_F32;
}

static int list(const struct pack *p, const struct qtensor *q, int group, struct codes_part part[CODES_PARTS])
{
    uint64_t in = (uint64_t)q->in, out = (uint64_t)q->out, groups = (uint64_t)codes_groups(q->in, group);
    enum dtype t = type_of(p, q);
    part[WEIGHTS] = (struct codes_part){".weight", DT_U32, 2, {out, bits_words(in, q->bits)}};
    part[SCALES] = (struct codes_part){".scales", t, 2, {out, groups}};
    part[BIASES] = (struct codes_part){".biases", t, 2, {out, groups}};
    return 3;
}

static void fill(struct codes_job *j, const struct qtensor *q, int group, const struct codes_part *part,
                 int i, void *data)
{
    size_t cols = (size_t)part->shape[1];
    (void)j;
    if (i == WEIGHTS) codes_fill(q, data, cols, 1);
    if (i == SCALES) codes_fill_scales(q, group, part, false, data);
    for (size_t n = 0; i == BIASES && n < (size_t)q->out * cols; n++) {
        float v = bias_of(q, codes_param(q, group, (int)(n / cols), (int)(n % cols)));
        dtype_from_f32((uint8_t *)data + n * (size_t)dtype_block_bytes(part->dtype), part->dtype, &v, 1);
    }
}

static void decode(const struct codes_setting *s, const struct codes_part *part, const void *const *data,
                   int out, int in, float *w)
{
    size_t groups = (size_t)part[SCALES].shape[1], n = (size_t)out * groups;
    float *scale = mem_array(n, sizeof *scale), *bias = mem_array(n, sizeof *bias);
    dtype_to_f32(scale, part[SCALES].dtype, data[SCALES], n);
    dtype_to_f32(bias, part[BIASES].dtype, data[BIASES], n);
#pragma omp parallel for schedule(static)
    for (int o = 0; o < out; o++) {
        const uint32_t *row = (const uint32_t *)data[WEIGHTS] + (size_t)o * (size_t)part[WEIGHTS].shape[1];
        for (int i = 0; i < in; i++) {
            size_t g = (size_t)o * groups + (size_t)(i / s->group);
            w[(size_t)o * (size_t)in + (size_t)i] =
                scale[g] * (float)bits_take(row, 1, (uint64_t)i, s->bits) + bias[g];
        }
    }
    mem_free(scale);
    mem_free(bias);
}

static json_t *setting(const struct codes_setting *s)
{
    return json_pack("{s:i, s:i}", "group_size", s->group, "bits", s->bits);
}

/* The setting of most linears, and by name those that differ; "quantization_config" is the same again. */
static json_t *configure(const struct codes_job *j)
{
    size_t most = codes_most(j);
    json_t *c = setting(&j->settings[most]);
    for (size_t i = 0; i < j->n_linears; i++) {
        const struct codes_setting *s = &j->settings[j->linears[i].setting];
        char module[256];
        codes_module(j->linears[i].w, module);
        if (s->bits != j->settings[most].bits || s->group != j->settings[most].group)
            json_object_set_new(c, module, setting(s));
    }
    return json_pack("{s:o, s:O}", "quantization", c, "quantization_config", c);
}

static int files(struct codes_job *j, const char *dir, struct err *e)
{
    size_t wide = 0;
    (void)dir, (void)e;
    for (size_t i = 0; i < j->n_list; i++) {
        size_t n = strlen(j->list[i].name);
        wide += n > 7 && strcmp(j->list[i].name + n - 7, ".biases") == 0 && j->list[i].dtype == DT_F32;
    }
    if (wide && j->p->dtype != DT_F32)
        note("%zu of %zu linears have F32 scales and biases: %s does not hold their biases exactly", wide,
             j->n_linears, dtype_name(j->p->dtype));
    return 0;
}

static const struct codes_format format = {.norms_too = true,
                                           .embeddings = true,
                                           .mixed = true,
                                           .refusal = refusal,
                                           .list = list,
                                           .fill = fill,
                                           .decode = decode,
                                           .configure = configure,
                                           .files = files};

const struct packer pack_mlx = {
    .name = "mlx",
    .summary = "MLX directory, affine: 2, 3, 4, 6 or 8 bits",
    .directory = true,
    .size = PACK_CODES,
    .write = codes_write,
    .codes = &format,
};
