/* SPDX-License-Identifier: Apache-2.0
 * A Hugging Face directory in the GPTQ layout: what vLLM, SGLang, transformers and llama.cpp's converter read.
 *   NAME.qweight I32 [in*b/32, out]       codes packed along in
 *   NAME.qzeros  I32 [groups, out*b/32]   packed along out; version 1: zero - 1, wrapping; version 2: zero
 *   NAME.scales  F16 [groups, out]        NAME.g_idx I32 [in]   group of each input */
#include "common/bitwords.h"
#include "common/mem.h"
#include "common/packers/gptq.h"
#include "common/tool.h"
#include <string.h>

enum { WEIGHTS, ZEROS, SCALES, GROUPS };

static const char *refusal(const struct pack *p, const struct qtensor *q, int *group, const char **anew)
{
    const char *why = codes_no_integers(q, anew);
    (void)p;
    *group = q->group;
    if (why) return why;
    *anew = "-b 2, 3, 4 or 8";
    if (q->bits != 2 && q->bits != 3 && q->bits != 4 && q->bits != 8)
        return "has a number of bits other than 2, 3, 4, 8";
    *anew = NULL;
    if (q->in % 32 || q->out % 32) return "has a size that is no multiple of 32";
    return codes_no_f16(q, anew);
}

static int list(const struct pack *p, const struct qtensor *q, int group, struct codes_part part[CODES_PARTS])
{
    uint64_t in = (uint64_t)q->in, out = (uint64_t)q->out, groups = (uint64_t)q->n_groups;
    (void)p, (void)group;
    part[WEIGHTS] = (struct codes_part){".qweight", DT_I32, 2, {bits_words(in, q->bits), out}};
    part[ZEROS] = (struct codes_part){".qzeros", DT_I32, 2, {groups, bits_words(out, q->bits)}};
    part[SCALES] = (struct codes_part){".scales", DT_F16, 2, {groups, out}};
    part[GROUPS] = (struct codes_part){".g_idx", DT_I32, 1, {in, 0}};
    return 4;
}

static void fill_zeros(struct codes_job *j, const struct qtensor *q, uint32_t *data)
{
    uint32_t mask = (1u << q->bits) - 1, less = j->f == &gptq_v1;
    size_t row = bits_words((uint64_t)q->out, q->bits), groups = (size_t)q->n_groups;
    for (size_t o = 0; o < (size_t)q->out; o++)
        for (size_t k = 0; k < groups; k++) {
            uint32_t z = (uint32_t)codes_zero(q, o * groups + k);
            j->wrapped += z < less;
            bits_put(data + k * row, 1, o, q->bits, (z - less) & mask);
        }
}

static void fill(struct codes_job *j, const struct qtensor *q, int group, const struct codes_part *part,
                 int i, void *data)
{
    int width = q->n_groups == 1 ? q->in : q->group;
    int32_t *index = data;
    if (i == ZEROS) fill_zeros(j, q, data);
    if (i == SCALES) codes_fill_scales(q, group, part, true, data);
    if (i == WEIGHTS) codes_fill(q, data, 1, (size_t)q->out);
    for (int c = 0; i == GROUPS && c < q->in; c++) index[c] = q->gidx ? q->gidx[c] : c / width;
}

static void decode(const struct codes_setting *s, const struct codes_part *part, const void *const *data,
                   int out, int in, uint32_t less, float *w)
{
    const uint32_t *words = data[WEIGHTS], *zeros = data[ZEROS];
    const uint16_t *scale = data[SCALES];
    const int32_t *index = data[GROUPS];
    uint32_t mask = (1u << s->bits) - 1;
#pragma omp parallel for schedule(static)
    for (int o = 0; o < out; o++)
        for (int i = 0; i < in; i++) {
            size_t g = (size_t)index[i];
            uint32_t z = bits_take(zeros + g * part[ZEROS].shape[1], 1, (uint64_t)o, s->bits),
                     c = bits_take(words + o, (size_t)out, (uint64_t)i, s->bits);
            w[(size_t)o * (size_t)in + (size_t)i] =
                f16_to_f32(scale[g * (size_t)out + (size_t)o]) * (float)((int)c - (int)((z + less) & mask));
        }
}

static void decode_v1(const struct codes_setting *s, const struct codes_part *part, const void *const *data,
                      int out, int in, float *w)
{
    decode(s, part, data, out, in, 1, w);
}

static void decode_v2(const struct codes_setting *s, const struct codes_part *part, const void *const *data,
                      int out, int in, float *w)
{
    decode(s, part, data, out, in, 0, w);
}

/* Per-module rules: "-:regex" keeps loaders from looking for codes, "+:regex" gives other settings. */
static void add_rule(json_t *rules, char sign, const char *module, json_t *what)
{
    char rule[600] = {sign, ':', '^'}, *o = rule + 3;
    for (; *module; module++) {
        if (*module == '.') *o++ = '\\';
        *o++ = *module;
    }
    *o = '$';
    json_object_set_new(rules, rule, what);
}

static json_t *setting(const struct codes_setting *s)
{
    return json_pack("{s:i, s:i, s:b}", "bits", s->bits, "group_size", s->group > 0 ? s->group : -1, "sym",
                     s->sym);
}

static json_t *rules(const struct codes_job *j, const struct codes_setting *most)
{
    json_t *r = json_object(), *name;
    size_t i;
    json_array_foreach(j->floats, i, name) add_rule(r, '-', json_string_value(name), json_object());
    for (i = 0; i < j->n_linears; i++) {
        const struct codes_setting *s = &j->settings[j->linears[i].setting];
        char module[256];
        codes_module(j->linears[i].w, module);
        if (s->bits != most->bits || s->group != most->group || s->sym != most->sym)
            add_rule(r, '+', module, setting(s));
    }
    return r;
}

static json_t *configure(const struct codes_job *j)
{
    const struct codes_setting *most = &j->settings[codes_most(j)];
    json_t *c = setting(most), *r = rules(j, most);
    bool order = false;
    for (size_t i = 0; i < j->n_settings; i++) order |= j->settings[i].order;
    json_object_update_new(c, json_pack("{s:b, s:b, s:s, s:s, s:s, s:{s:[s]}}", "desc_act", order, "lm_head",
                                        0, "quant_method", "gptq", "checkpoint_format",
                                        j->f == &gptq_v1 ? "gptq" : "gptq_v2", "pack_dtype", "int32", "meta",
                                        "quantizer", "nt-pack:" NT_VERSION));
    if (json_object_size(r)) json_object_set(c, "dynamic", r);
    json_decref(r);
    return json_pack("{s:o}", "quantization_config", c);
}

static int files(struct codes_job *j, const char *dir, struct err *e)
{
    json_t *c = configure(j);
    int rc = pack_write_json(dir, "quantize_config.json", json_object_get(c, "quantization_config"), e);
    json_decref(c);
    if (rc == 0 && j->wrapped)
        warn("%llu zeros are 0, which GPTQ version 1 stores as all ones: some old loaders read them as "
             "2^bits",
             (unsigned long long)j->wrapped);
    return rc;
}

#define FORMAT(decoder)                                                                                      \
    {                                                                                                        \
        .mixed = true, .refusal = refusal, .list = list, .fill = fill, .decode = decoder,                    \
        .configure = configure, .files = files                                                               \
    }
const struct codes_format gptq_v1 = FORMAT(decode_v1), gptq_v2 = FORMAT(decode_v2);

const struct packer pack_gptq = {
    .name = "gptq",
    .summary = "GPTQ directory, version 1: 2, 3, 4 or 8 bits",
    .directory = true,
    .size = PACK_CODES,
    .write = codes_write,
    .codes = &gptq_v1,
};
