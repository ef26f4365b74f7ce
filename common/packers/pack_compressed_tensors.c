/* SPDX-License-Identifier: Apache-2.0
 * A Hugging Face directory in the pack-quantized layout of compressed-tensors, which vLLM prefers; with the
 * oldest keys that say all, since its readers refuse keys they do not know.
 *   NAME.weight_packed     I32 [out, in*b/32]      codes packed along in
 *   NAME.weight_scale      F16|BF16 [out, groups]  in the element type of the model
 *   NAME.weight_shape      I64 [2]
 *   NAME.weight_zero_point I32 [out*b/32, groups]  asymmetric only: zeros packed along out
 *   NAME.weight_g_idx      I32 [in]                only with groups by activation order */
#include "common/bitwords.h"
#include "common/mem.h"
#include "common/pack_codes.h"
#include "common/tool.h"
#include <string.h>

enum { WEIGHTS, SCALES, SHAPE, ZEROS, GROUPS };

static const char *refusal(const struct pack *p, const struct qtensor *q, int *group, const char **anew)
{
    const char *why = codes_no_integers(q, anew);
    if (why) return why;
    *group = codes_group(q, 0, true);
    if ((why = codes_no_group(*group, anew))) return why;
    *anew = NULL;
    if ((why = codes_no_linear(p))) return why;
    if (p->dtype != DT_F16 && p->dtype != DT_BF16) return "would have F32 scales, which loaders round";
    if (codes_scales_exact(q, p->dtype)) return NULL;
    *anew = p->dtype == DT_F16 ? "--scale-dtype f16" : "--scale-dtype bf16";
    return p->dtype == DT_F16 ? "has scales that F16 cannot hold exactly (--dtype bf16 may)"
                              : "has scales that BF16 cannot hold exactly (--dtype f16 may)";
}

static int list(const struct pack *p, const struct qtensor *q, int group, struct codes_part part[CODES_PARTS])
{
    uint64_t in = (uint64_t)q->in, out = (uint64_t)q->out, groups = (uint64_t)codes_groups(q->in, group);
    int n = 3;
    part[WEIGHTS] = (struct codes_part){".weight_packed", DT_I32, 2, {out, bits_words(in, q->bits)}};
    part[SCALES] = (struct codes_part){".weight_scale", p->dtype, 2, {out, groups}};
    part[SHAPE] = (struct codes_part){".weight_shape", DT_I64, 1, {2, 0}};
    if (!q->sym)
        part[n++] = (struct codes_part){".weight_zero_point", DT_I32, 2, {bits_words(out, q->bits), groups}};
    if (q->gidx) part[n++] = (struct codes_part){".weight_g_idx", DT_I32, 1, {in, 0}};
    return n;
}

static void fill(struct codes_job *j, const struct qtensor *q, int group, const struct codes_part *part,
                 int i, void *data)
{
    size_t out = (size_t)q->out, in = (size_t)q->in, cols = (size_t)part->shape[1];
    (void)j;
    if (i == WEIGHTS)
        codes_fill(q, data, cols, 1);
    else if (i == SCALES)
        codes_fill_scales(q, group, part, false, data);
    else if (i == SHAPE)
        memcpy(data, (int64_t[]){q->out, q->in}, 16);
    else if (strcmp(part->suffix, ".weight_g_idx") == 0)
        memcpy(data, q->gidx, in * 4);
    else
        for (size_t n = 0; n < out * cols; n++)
            bits_put((uint32_t *)data + n % cols, cols, n / cols, q->bits,
                     (uint32_t)codes_zero(q, codes_param(q, group, (int)(n / cols), (int)(n % cols))));
}

static void decode(const struct codes_setting *s, const struct codes_part *part, const void *const *data,
                   int out, int in, float *w)
{
    const uint32_t *words = data[WEIGHTS], *zeros = s->sym ? NULL : data[ZEROS];
    const int32_t *index = s->order ? data[s->sym ? ZEROS : GROUPS] : NULL;
    size_t groups = (size_t)part[SCALES].shape[1], row = (size_t)part[WEIGHTS].shape[1];
#pragma omp parallel for schedule(static)
    for (int o = 0; o < out; o++)
        for (int i = 0; i < in; i++) {
            size_t g = index ? (size_t)index[i] : s->group ? (size_t)(i / s->group) : 0;
            int z = zeros ? (int)bits_take(zeros + g, groups, (uint64_t)o, s->bits) : 1 << (s->bits - 1);
            float d;
            dtype_to_f32(&d, part[SCALES].dtype, (const uint16_t *)data[SCALES] + (size_t)o * groups + g, 1);
            w[(size_t)o * (size_t)in + (size_t)i] =
                d * (float)((int)bits_take(words + (size_t)o * row, 1, (uint64_t)i, s->bits) - z);
        }
}

/* One group per setting. A single one has all linears; else their names are listed. */
static json_t *setting(const struct codes_job *j, size_t i)
{
    const struct codes_setting *s = &j->settings[i];
    json_t *targets = json_array(),
           *w = json_pack("{s:i, s:s, s:b, s:s, s:b}", "num_bits", s->bits, "type", "int", "symmetric",
                          s->sym, "strategy", s->group ? "group" : "channel", "dynamic", 0);
    if (s->group) json_object_set_new(w, "group_size", json_integer(s->group));
    if (s->order) json_object_set_new(w, "actorder", json_string("group"));
    if (j->n_settings == 1) json_array_append_new(targets, json_string("Linear"));
    for (size_t k = 0; k < j->n_linears && j->n_settings > 1; k++) {
        char module[256];
        codes_module(j->linears[k].w, module);
        if (j->linears[k].setting == i) json_array_append_new(targets, json_string(module));
    }
    return json_pack("{s:o, s:o}", "targets", targets, "weights", w);
}

static json_t *configure(const struct codes_job *j)
{
    json_t *groups = json_object(), *ignore = json_deep_copy(j->floats);
    char head[256] = "", name[32];
    for (size_t i = 0; i < j->n_settings; i++) {
        snprintf(name, sizeof name, "group_%zu", i);
        json_object_set_new(groups, name, setting(j, i));
    }
    if (j->p->m->c.hf.head) family_tensor_name(head, j->p->m->c.hf.head, 0, "");
    if (*head) json_array_append_new(ignore, json_string(head));
    for (size_t i = 0; i < j->n_settings; i++)
        if (j->settings[i].order)
            warn("columns in groups by activation order: releases of compressed-tensors from August 2026 on "
                 "read no weight_g_idx");
    return json_pack("{s:{s:s, s:s, s:s, s:o, s:o}}", "quantization_config", "quant_method",
                     "compressed-tensors", "format", "pack-quantized", "quantization_status", "compressed",
                     "config_groups", groups, "ignore", ignore);
}

static const struct codes_format format = {.mixed = true,
                                           .refusal = refusal,
                                           .list = list,
                                           .fill = fill,
                                           .decode = decode,
                                           .configure = configure};

const struct packer pack_compressed_tensors = {
    .name = "compressed-tensors",
    .summary = "compressed-tensors directory, pack-quantized: 2 to 8 bits",
    .directory = true,
    .size = PACK_CODES,
    .write = codes_write,
    .codes = &format,
};
