/* SPDX-License-Identifier: Apache-2.0
 * A Hugging Face directory in the "gemm" layout of AWQ, 4 bits: vLLM, SGLang, transformers.
 *   NAME.qweight I32 [in, out/8]   NAME.qzeros I32 [groups, out/8]   NAME.scales F16 [groups, out]
 * The eight nibbles of a word, from the lowest, hold columns 0 2 4 6 1 3 5 7 of their eight. */
#include "common/pack_codes.h"
#include "common/tool.h"

enum { WEIGHTS, ZEROS, SCALES };

static const int column_of_nibble[8] = {0, 2, 4, 6, 1, 3, 5, 7},
                 shift_of_column[8] = {0, 16, 4, 20, 8, 24, 12, 28};

/* The format has one group for all linears: the largest that suits every one of them. */
static int common_group(const struct pack *p)
{
    int most = 0;
    bool rows = true;
    for (size_t i = 0; i < p->n_q; i++) rows &= p->q[i].head.form != QF_UNIFORM || p->q[i].head.n_groups == 1;
    for (size_t i = 0; i < p->n_q && !rows && most >= 0; i++)
        if (p->q[i].head.form == QF_UNIFORM) most = codes_group(&p->q[i].head, most, false);
    for (size_t i = 0; i < p->n_q && most > 0; i++)
        if (p->q[i].head.form == QF_UNIFORM && codes_group(&p->q[i].head, most, false) != most) most = -1;
    return most;
}

static const char *refusal(const struct pack *p, const struct qtensor *q, int *group, const char **anew)
{
    const char *why = codes_no_integers(q, anew);
    *group = common_group(p);
    if (why) return why;
    *anew = "-b 4";
    if (q->bits != 4) return "has a number of bits other than 4";
    if ((why = codes_no_index(q, anew)) || (why = codes_no_group(*group, anew))) return why;
    *anew = NULL;
    if (q->out % 8) return "has a number of rows that is no multiple of 8";
    return codes_no_f16(q, anew);
}

static int list(const struct pack *p, const struct qtensor *q, int group, struct codes_part part[CODES_PARTS])
{
    uint64_t in = (uint64_t)q->in, out = (uint64_t)q->out, groups = (uint64_t)codes_groups(q->in, group);
    (void)p;
    part[WEIGHTS] = (struct codes_part){".qweight", DT_I32, 2, {in, out / 8}};
    part[ZEROS] = (struct codes_part){".qzeros", DT_I32, 2, {groups, out / 8}};
    part[SCALES] = (struct codes_part){".scales", DT_F16, 2, {groups, out}};
    return 3;
}

static void fill(struct codes_job *j, const struct qtensor *q, int group, const struct codes_part *part,
                 int i, void *data)
{
    size_t out = (size_t)q->out, in = (size_t)q->in, n = i == WEIGHTS ? in : (size_t)part->shape[0];
    uint32_t *words = data;
    (void)j;
    if (i == SCALES) {
        codes_fill_scales(q, group, part, true, data);
        return;
    }
    for (size_t k = 0; k < n; k++)
        for (size_t o = 0; o < out; o++) {
            size_t at = i == WEIGHTS ? o * in + k : codes_param(q, group, (int)o, (int)k);
            uint32_t v = i == WEIGHTS ? q->codes[at] : (uint32_t)codes_zero(q, at);
            words[k * (out / 8) + o / 8] |= v << shift_of_column[o % 8];
        }
}

static void decode(const struct codes_setting *s, const struct codes_part *part, const void *const *data,
                   int out, int in, float *w)
{
    const uint32_t *words = data[WEIGHTS], *zeros = data[ZEROS];
    const uint16_t *scale = data[SCALES];
    size_t row = (size_t)out / 8;
    (void)part;
    for (int i = 0; i < in; i++) {
        size_t g = s->group ? (size_t)(i / s->group) : 0;
        for (size_t b = 0; b < row; b++)
            for (int n = 0; n < 8; n++) {
                size_t o = 8 * b + (size_t)column_of_nibble[n];
                int c = (int)(words[(size_t)i * row + b] >> 4 * n & 15),
                    z = (int)(zeros[g * row + b] >> 4 * n & 15);
                w[o * (size_t)in + (size_t)i] = f16_to_f32(scale[g * (size_t)out + o]) * (float)(c - z);
            }
    }
}

static json_t *configure(const struct codes_job *j)
{
    const struct codes_setting *s = &j->settings[0];
    json_t *c = json_pack("{s:s, s:i, s:i, s:b, s:s, s:O}", "quant_method", "awq", "bits", s->bits,
                          "group_size", s->group > 0 ? s->group : -1, "zero_point", 1, "version", "gemm",
                          "modules_to_not_convert", j->floats);
    if (!json_array_size(j->floats)) json_object_set_new(c, "modules_to_not_convert", json_null());
    return json_pack("{s:o}", "quantization_config", c);
}

static const struct codes_format format = {.refusal = refusal,
                                           .list = list,
                                           .fill = fill,
                                           .decode = decode,
                                           .configure = configure};

const struct packer pack_awq = {
    .name = "awq",
    .summary = "AWQ directory, \"gemm\" layout: 4 bits",
    .directory = true,
    .size = PACK_CODES,
    .write = codes_write,
    .codes = &format,
};
