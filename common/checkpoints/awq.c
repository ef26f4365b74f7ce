/* SPDX-License-Identifier: Apache-2.0
 * The AWQ layout "gemm" (AutoAWQ, AutoRound): per linear, four bits,
 *   NAME.qweight I32 [in, out/8]   NAME.qzeros I32 [groups, out/8]   NAME.scales [groups, out]
 * Eight columns share a word, in the order 0 2 4 6 1 3 5 7; zeros are stored as they are. */
#include <string.h>
#include <strings.h>
#include "common/checkpoint_impl.h"
#include "common/mem.h"
#include "common/qtensor.h"

enum { QWEIGHT, QZEROS, SCALES };

static const enum dtype words[3] = {DT_I32, DT_U32, DT_I32}, floats[3] = {DT_F16, DT_BF16, DT_F32};

static const int shift[8] = {0, 16, 4, 20, 8, 24, 12, 28};

/* Column o of row i. */
static uint8_t nibble(const struct checkpoint_tensor *t, uint64_t i, uint64_t o)
{
    return packed_word(t->t.data, i * t->t.shape[1] + o / 8) >> shift[o % 8] & 15;
}

static int rows(const struct checkpoint *c, const struct packed *p, int r0, int n, struct qtensor *q,
                struct err *e)
{
    size_t out = (size_t)p->out, in = (size_t)p->in, groups = (size_t)p->groups;
    (void)c, (void)e;
    qtensor_init_uniform(q, n, p->in, 4, p->group, false, p->part[SCALES]->t.dtype);
#pragma omp parallel for schedule(static) if (n > 15)
    for (int r = 0; r < n; r++) {
        size_t o = (size_t)(r0 + r), at = (size_t)r * groups;
        for (size_t i = 0; i < in; i++) q->codes[(size_t)r * in + i] = nibble(p->part[QWEIGHT], i, o);
        for (size_t g = 0; g < groups; g++) {
            q->scale[at + g] = packed_float(p->part[SCALES], g * out + o);
            q->zero[at + g] = nibble(p->part[QZEROS], g, o);
        }
    }
    return 0;
}

static void put(const struct packed *p, uint64_t row, const uint8_t *codes, uint8_t *bytes)
{
    uint32_t *word = (uint32_t *)(void *)bytes + row / 8;
    for (uint64_t i = 0; i < (uint64_t)p->in; i++)
        word[i * p->part[QWEIGHT]->t.shape[1]] |= (uint32_t)codes[i] << shift[row % 8];
}

static int add_linear(struct checkpoint *c, const char *base, const struct checkpoint_tensor *qw,
                      struct err *e)
{
    struct packed p = {.part = {qw}, .rows = rows, .put = put, .bits = 4};
    const struct checkpoint_tensor *sc = packed_part(c, base, ".scales");
    if (qw->t.rank != 2 || !sc || sc->t.rank != 2 || sc->t.shape[1] != 8 * qw->t.shape[1] ||
        !sc->t.shape[0] || qw->t.shape[0] > 1 << 24 || qw->t.shape[1] > 1 << 24 ||
        sc->t.shape[0] > qw->t.shape[0])
        return packed_bad(c, base, "no AWQ weight of 4 bits: qweight and scales do not fit each other", e);
    p.in = (int)qw->t.shape[0], p.out = (int)sc->t.shape[1], p.groups = (int)sc->t.shape[0];
    p.group =
        packed_group(p.in, p.groups, json_integer_value(json_object_get(c->quantization, "group_size")));
    if (p.group < 0) return packed_bad(c, base, "its groups do not fit its inputs", e);
    if (!packed_need(c, base, ".qweight", words, qw->t.shape[0], qw->t.shape[1], e) ||
        !(p.part[QZEROS] = packed_need(c, base, ".qzeros", words, sc->t.shape[0], qw->t.shape[1], e)) ||
        !(p.part[SCALES] = packed_need(c, base, ".scales", floats, sc->t.shape[0], sc->t.shape[1], e)))
        return -1;
    return packed_add(c, base, &p, e);
}

static int awq_adopt(struct checkpoint *c, struct err *e)
{
    const char *version = json_string_value(json_object_get(c->quantization, "version")),
               *packing = json_string_value(json_object_get(c->quantization, "packing_format"));
    bool round = packed_method(c, "auto-round") || packed_method(c, "intel/auto-round");
    if (round ? !packing || !strstr(packing, "awq") : !packed_method(c, "awq")) return 0;
    if (!round && version && strcasecmp(version, "gemm"))
        return err_set(e, NT_EXIT_DATA, "%s: AWQ weights of version %s are not supported (gemm is)", c->path,
                       show_name(version, strlen(version)));
    return packed_each(c, ".qweight", add_linear, e) < 0 ? -1 : 1;
}

const struct checkpoint_format checkpoint_format_awq = {
    .name = "awq", .methods = "awq", .adopt = awq_adopt};
