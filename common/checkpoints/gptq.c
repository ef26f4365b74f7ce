/* SPDX-License-Identifier: Apache-2.0
 * The GPTQ layout (AutoGPTQ, GPTQModel, AutoRound): per linear
 *   NAME.qweight I32 [in*b/32, out]   codes packed along in, least significant bits first
 *   NAME.qzeros  I32 [groups, out*b/32]   zeros, packed along out; version 1 stores zero - 1, wrapping
 *   NAME.scales  [groups, out]   NAME.g_idx I32 [in]   group of each input; may be missing
 * Labels lie: where the configuration says that levels are symmetric, the zeros themselves tell the version.
 */
#include "common/checkpoint_impl.h"
#include "common/mem.h"
#include "common/qtensor.h"
#include <string.h>

enum { QWEIGHT, QZEROS, SCALES, G_IDX };

/* variant: bits of these */
enum { V2 = 1, PERMUTED = 2 };

static const enum dtype words[3] = {DT_I32, DT_U32, DT_I32}, floats[3] = {DT_F16, DT_BF16, DT_F32};

static uint32_t zero_of(const struct packed *p, uint64_t g, uint64_t o)
{
    const char *row = (const char *)p->part[QZEROS]->t.data + g * ((uint64_t)p->out * (uint64_t)p->bits / 8);
    return (packed_code(row, o, p->bits) + !(p->variant & V2)) & ((1u << p->bits) - 1);
}

static int rows(const struct checkpoint *c, const struct packed *p, int r0, int n, struct qtensor *q,
                struct err *e)
{
    size_t out = (size_t)p->out, in = (size_t)p->in, groups = (size_t)p->groups;
    const struct checkpoint_tensor *sc = p->part[SCALES];
    (void)c, (void)e;
    qtensor_init_uniform(q, n, p->in, p->bits, p->group, p->sym, sc->t.dtype);
#pragma omp parallel for schedule(static) if (n > 15)
    for (int r = 0; r < n; r++) {
        size_t o = (size_t)(r0 + r), at = (size_t)r * groups;
        packed_unpack(q->codes + (size_t)r * in, (const char *)p->part[QWEIGHT]->t.data + 4 * o, out, in,
                      p->bits);
        for (size_t g = 0; g < groups; g++) {
            q->scale[at + g] = packed_float(sc, g * out + o);
            if (q->zero) q->zero[at + g] = (uint8_t)zero_of(p, g, o);
        }
    }
    if (!(p->variant & PERMUTED)) return 0;
    q->gidx = MEM_NEW(int32_t, in);
    for (size_t i = 0; i < in; i++) q->gidx[i] = (int32_t)packed_word(p->part[G_IDX]->t.data, i);
    return 0;
}

static void put(const struct packed *p, uint64_t row, const uint8_t *codes, uint8_t *bytes)
{
    packed_pack(codes, bytes + 4 * row, (size_t)p->out, (size_t)p->in, p->bits);
}

/* Are the groups those of columns in a row? -1: an index is out of range. */
static int check_groups(const struct checkpoint *c, const char *base, struct packed *p, struct err *e)
{
    size_t width = p->groups == 1 ? (size_t)p->in : (size_t)p->group;
    for (size_t i = 0; p->part[G_IDX] && i < (size_t)p->in; i++) {
        uint32_t g = packed_word(p->part[G_IDX]->t.data, i);
        if (g >= (uint32_t)p->groups) return packed_bad(c, base, "g_idx names a group that is not there", e);
        if (g != i / width) p->variant |= PERMUTED;
    }
    return 0;
}

/* The version, and whether the zeros are all in the middle. Where levels are said to be symmetric the stored
 * zeros decide: all 2^(b-1) - 1 is version 1, all 2^(b-1) version 2. */
static int check_zeros(const struct checkpoint *c, const char *base, bool said_sym, struct packed *p,
                       struct err *e)
{
    uint32_t middle = 1u << (p->bits - 1), stored = packed_code(p->part[QZEROS]->t.data, 0, p->bits);
    bool same = true, v2 = p->variant & V2;
    p->variant |= V2; /* zeros as they are stored */
    for (int g = 0; g < p->groups && same; g++)
        for (int o = 0; o < p->out && same; o++) same = zero_of(p, (uint64_t)g, (uint64_t)o) == stored;
    if (said_sym && !(same && (stored == middle || stored == middle - 1)))
        return packed_bad(c, base,
                          "its zeros are not symmetric, as the configuration has it (set \"sym\" to false "
                          "there if they are right)",
                          e);
    if (said_sym) v2 = stored == middle;
    if (!v2) p->variant &= ~V2;
    p->sym = said_sym || (same && ((stored + !v2) & (2 * middle - 1)) == middle);
    return 0;
}

/* Bits follow from the sizes (3 bits and rules per module included): zeros are packed along out. */
static int add_linear(struct checkpoint *c, const char *base, const struct checkpoint_tensor *qw,
                      struct err *e)
{
    struct packed p = {.part = {qw}, .rows = rows, .put = put};
    const struct checkpoint_tensor *qz = packed_part(c, base, ".qzeros");
    const char *format = json_string_value(json_object_get(c->quantization, "checkpoint_format"));
    if (qw->t.rank != 2 || !qz || qz->t.rank != 2 || qw->t.shape[1] < 32 || qw->t.shape[1] > 1 << 24 ||
        qw->t.shape[0] > 1 << 24)
        return packed_bad(c, base, "no GPTQ weight: qweight and qzeros do not fit each other", e);
    uint64_t out = qw->t.shape[1], bits = qz->t.shape[1] * 32 / out, groups = qz->t.shape[0];
    if (bits < 2 || bits > 8 || bits * out != qz->t.shape[1] * 32 || qw->t.shape[0] * 32 % bits || !groups)
        return packed_bad(c, base, "no GPTQ weight: qweight and qzeros do not fit each other", e);
    p.out = (int)out, p.in = (int)(qw->t.shape[0] * 32 / bits), p.bits = (int)bits;
    if (groups > (uint64_t)p.in) return packed_bad(c, base, "more groups than inputs", e);
    p.groups = (int)groups;
    p.group =
        packed_group(p.in, p.groups, json_integer_value(json_object_get(c->quantization, "group_size")));
    if (p.group < 0) return packed_bad(c, base, "its groups do not fit its inputs", e);
    if (format && strcmp(format, "gptq_v2") == 0) p.variant |= V2;
    if (!packed_need(c, base, ".qweight", words, qw->t.shape[0], out, e) ||
        !(p.part[QZEROS] = packed_need(c, base, ".qzeros", words, groups, qz->t.shape[1], e)) ||
        !(p.part[SCALES] = packed_need(c, base, ".scales", floats, groups, out, e)))
        return -1;
    if (packed_part(c, base, ".g_idx") &&
        !(p.part[G_IDX] = packed_need(c, base, ".g_idx", words, (uint64_t)p.in, 0, e)))
        return -1;
    if (check_groups(c, base, &p, e) < 0 ||
        check_zeros(c, base, json_is_true(json_object_get(c->quantization, "sym")), &p, e) < 0)
        return -1;
    return packed_add(c, base, &p, e);
}

/* Old files have quantize_config.json alone, which names no method. */
static int gptq_adopt(struct checkpoint *c, struct err *e)
{
    const char *format = json_string_value(json_object_get(c->quantization, "checkpoint_format")),
               *packing = json_string_value(json_object_get(c->quantization, "packing_format"));
    bool round = packed_method(c, "auto-round") || packed_method(c, "intel/auto-round"),
         old = !json_object_get(c->quantization, "quant_method") &&
               json_object_get(c->quantization, "bits") && json_object_get(c->quantization, "desc_act");
    if (round && packing && strstr(packing, "awq")) return 0;
    if (!packed_method(c, "gptq") && !round && !old) return 0;
    if (round ? packing && !strstr(packing, "gptq")
              : format && strcmp(format, "gptq") && strcmp(format, "gptq_v2"))
        return err_set(e, NT_EXIT_DATA,
                       "%s: GPTQ weights in the form %s are not supported (gptq and gptq_v2 are)", c->path,
                       show_name(round ? packing : format, strlen(round ? packing : format)));
    return packed_each(c, ".qweight", add_linear, e) < 0 ? -1 : 1;
}

const struct checkpoint_format checkpoint_format_gptq = {
    .name = "gptq", .methods = "gptq, auto-round", .adopt = gptq_adopt};
