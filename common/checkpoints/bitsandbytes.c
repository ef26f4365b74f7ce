/* SPDX-License-Identifier: Apache-2.0
 * The layouts of bitsandbytes, as transformers saves them.
 *   4 bits   NAME.weight [bytes, 1], of any type: codes of the whole matrix, the first of two in the high
 *            nibble; NAME.weight.absmax, a scale for each block of so many elements in a row, F32 or, doubly
 *            quantized, U8: nested_quant_map[absmax] * nested_absmax + nested_offset;
 *            NAME.weight.quant_state.bitsandbytes__nf4 (fp4): JSON with the block size, shape and offset
 *   8 bits   NAME.weight I8 [out, in], NAME.SCB F32 [out]: w = code * SCB / 127
 * Blocks may run over the end of a row: a group is the largest that divides block and row. */
#include <math.h>
#include <string.h>
#include "common/checkpoint_impl.h"
#include "common/mem.h"
#include "common/qtensor.h"

enum { WEIGHT, ABSMAX, STATE, MAP, NESTED_ABSMAX, NESTED_MAP, SCB = ABSMAX, FORMAT = STATE };

/* variant: this, and the block sizes (both are powers of two: their logarithms) */
enum { FP4 = 1, BLOCK_SHIFT = 1, NESTED_SHIFT = 6 };

static uint64_t block_of(const struct packed *p)
{
    return (uint64_t)1 << (p->variant >> BLOCK_SHIFT & 31);
}

static float scale_of(const struct packed *p, uint64_t block)
{
    if (!p->part[NESTED_ABSMAX]) return packed_float(p->part[ABSMAX], block);
    uint64_t outer = block >> (p->variant >> NESTED_SHIFT & 31);
    uint8_t code = ((const uint8_t *)p->part[ABSMAX]->t.data)[block];
    return packed_float(p->part[NESTED_MAP], code) * packed_float(p->part[NESTED_ABSMAX], outer) + p->factor;
}

static int rows4(const struct checkpoint *c, const struct packed *p, int r0, int n, struct qtensor *q,
                 struct err *e)
{
    const uint8_t *data = p->part[WEIGHT]->t.data;
    uint64_t in = (uint64_t)p->in, groups = (uint64_t)p->groups, width = in / groups, block = block_of(p);
    (void)c, (void)e;
    qtensor_init_codebook(q, n, p->in, p->variant & FP4 ? "fp4" : "nf4", p->group, DT_F32);
#pragma omp parallel for schedule(static) if (n > 15)
    for (int r = 0; r < n; r++) {
        uint64_t at = (uint64_t)(r0 + r) * in;
        uint8_t *codes = q->codes + (size_t)r * in;
        for (uint64_t i = 0; i < in; i++) codes[i] = data[(at + i) / 2] >> ((at + i) % 2 ? 0 : 4) & 15;
        for (uint64_t g = 0; g < groups; g++)
            q->scale[(uint64_t)r * groups + g] = scale_of(p, (at + g * width) / block);
    }
    return 0;
}

static void put4(const struct packed *p, uint64_t row, const uint8_t *codes, uint8_t *bytes)
{
    uint64_t in = (uint64_t)p->in, at = row * in;
    for (uint64_t i = 0; i < in; i++) bytes[(at + i) / 2] |= (uint8_t)(codes[i] << ((at + i) % 2 ? 0 : 4));
}

static void put8(const struct packed *p, uint64_t row, const uint8_t *codes, uint8_t *bytes)
{
    size_t in = (size_t)p->in;
    for (size_t i = 0; i < in; i++) bytes[row * in + i] = codes[i] ^ 0x80;
}

static int rows8(const struct checkpoint *c, const struct packed *p, int r0, int n, struct qtensor *q,
                 struct err *e)
{
    size_t in = (size_t)p->in;
    const uint8_t *from = (const uint8_t *)p->part[WEIGHT]->t.data + (size_t)r0 * in;
    (void)c, (void)e;
    qtensor_init_uniform(q, n, p->in, 8, 0, true, DT_F32);
    for (size_t i = 0; i < (size_t)n * in; i++) q->codes[i] = from[i] ^ 0x80;
    for (int r = 0; r < n; r++) q->scale[r] = packed_float(p->part[SCB], (uint64_t)(r0 + r)) / 127;
    return 0;
}

/* ---- opening ---- */

static int logarithm(const json_t *j)
{
    json_int_t v = json_integer_value(j);
    return v < 1 || v > 1 << 24 || (v & (v - 1)) ? -1 : __builtin_ctzll((unsigned long long)v);
}

static int read_size(const json_t *j, int *v)
{
    json_int_t x = json_integer_value(j);
    *v = (int)x;
    return x < 1 || x > 1 << 24 ? -1 : 0;
}

static bool is_vector(const struct checkpoint_tensor *t, enum dtype type, uint64_t n)
{
    return t && t->t.dtype == type && t->t.rank == 1 && t->t.shape[0] == n;
}

/* The table that the file carries must be the one that its name stands for. */
static bool has_levels(const struct packed *p)
{
    const float *level = qtensor_levels(p->variant & FP4 ? "fp4" : "nf4");
    if (!p->part[MAP]) return true;
    bool same = is_vector(p->part[MAP], DT_F32, 16);
    for (uint64_t i = 0; i < 16 && same; i++) same = fabsf(packed_float(p->part[MAP], i) - level[i]) < 1e-6f;
    return same;
}

static int check_nested(const struct checkpoint *c, const char *base, const json_t *state, uint64_t blocks,
                        struct packed *p, struct err *e)
{
    const json_t *offset = json_object_get(state, "nested_offset");
    int shift = logarithm(json_object_get(state, "nested_blocksize"));
    if (shift < 0 || !json_is_number(offset) || !isfinite((float)json_number_value(offset)))
        return packed_bad(c, base, "its quant_state lacks a nested block size or offset", e);
    if (!is_vector(p->part[ABSMAX], DT_U8, blocks) || !is_vector(p->part[NESTED_MAP], DT_F32, 256) ||
        !is_vector(p->part[NESTED_ABSMAX], DT_F32, ((blocks - 1) >> shift) + 1))
        return packed_bad(c, base, "its doubly quantized scales do not fit its shape", e);
    p->variant |= shift << NESTED_SHIFT;
    p->factor = (float)json_number_value(offset);
    return 0;
}

static int check_state(const struct checkpoint *c, const char *base, const json_t *state, struct packed *p,
                       struct err *e)
{
    const json_t *shape = json_object_get(state, "shape");
    int shift = logarithm(json_object_get(state, "blocksize"));
    if (json_array_size(shape) != 2 || read_size(json_array_get(shape, 0), &p->out) < 0 ||
        read_size(json_array_get(shape, 1), &p->in) < 0 || shift < 0)
        return packed_bad(c, base, "its quant_state gives no [out, in] or no block size of a power of two",
                          e);
    uint64_t n = (uint64_t)p->out * (uint64_t)p->in, bytes = p->part[WEIGHT]->t.nbytes,
             blocks = ((n - 1) >> shift) + 1;
    int group = p->in; /* the largest power of two that divides both, or the row if it divides the block */
    p->variant |= shift << BLOCK_SHIFT;
    if (((uint64_t)1 << shift) % (uint64_t)p->in) {
        group = p->in & -p->in;
        if (group > 1 << shift) group = 1 << shift;
    }
    p->groups = p->in / group, p->group = p->groups == 1 ? 0 : group;
    if (bytes != (n + 1) / 2)
        return packed_bad(c, base, "its codes do not fit the shape that quant_state gives", e);
    if (!has_levels(p))
        return packed_bad(c, base, "its quant_map is not the table that its name stands for", e);
    if (p->part[NESTED_ABSMAX]) return check_nested(c, base, state, blocks, p, e);
    return is_vector(p->part[ABSMAX], DT_F32, blocks)
               ? 0
               : packed_bad(c, base, "absmax is no F32 vector with a scale for each block", e);
}

static int add4(struct checkpoint *c, const char *base, const struct checkpoint_tensor *absmax, struct err *e)
{
    struct packed p = {.bits = 4, .sym = true, .rows = rows4, .put = put4};
    p.part[WEIGHT] = packed_part(c, base, ".weight");
    p.part[ABSMAX] = absmax;
    p.part[STATE] = packed_part(c, base, ".weight.quant_state.bitsandbytes__nf4");
    p.part[MAP] = packed_part(c, base, ".weight.quant_map");
    p.part[NESTED_ABSMAX] = packed_part(c, base, ".weight.nested_absmax");
    p.part[NESTED_MAP] = packed_part(c, base, ".weight.nested_quant_map");
    if (!p.part[STATE]) {
        p.part[STATE] = packed_part(c, base, ".weight.quant_state.bitsandbytes__fp4");
        p.variant = FP4;
    }
    const struct checkpoint_tensor *state = p.part[STATE];
    if (!p.part[WEIGHT] || !state || state->t.dtype != DT_U8 || state->t.rank != 1)
        return packed_bad(c, base, "absmax without codes or without a quant_state of nf4 or fp4", e);
    json_t *j = json_loadb(state->t.data, (size_t)state->t.nbytes, JSON_REJECT_DUPLICATES, NULL);
    int rc = json_is_object(j) ? check_state(c, base, j, &p, e)
                               : packed_bad(c, base, "its quant_state is no JSON object", e);
    json_decref(j);
    return rc < 0 ? -1 : packed_add(c, base, &p, e);
}

static int add8(struct checkpoint *c, const char *base, const struct checkpoint_tensor *scb, struct err *e)
{
    struct packed p = {.bits = 8, .sym = true, .rows = rows8, .put = put8, .groups = 1};
    const struct checkpoint_tensor *w = packed_part(c, base, ".weight"),
                                   *format = packed_part(c, base, ".weight_format");
    p.part[WEIGHT] = w, p.part[SCB] = scb, p.part[FORMAT] = format;
    if (!w || w->t.rank != 2 || w->t.dtype != DT_I8 || w->t.shape[0] > 1 << 24 || w->t.shape[1] > 1 << 24 ||
        !is_vector(scb, DT_F32, w->t.shape[0]))
        return packed_bad(c, base, "no I8 matrix with a scale (SCB) for each row", e);
    if (format && (format->t.dtype != DT_U8 || format->t.nbytes != 1 || *(const uint8_t *)format->t.data))
        return packed_bad(c, base, "its weight_format is not that of rows", e);
    p.out = (int)w->t.shape[0], p.in = (int)w->t.shape[1];
    return packed_add(c, base, &p, e);
}

static int adopt(struct checkpoint *c, struct err *e)
{
    if (!packed_method(c, "bitsandbytes")) return 0;
    return packed_each(c, ".weight.absmax", add4, e) < 0 || packed_each(c, ".SCB", add8, e) < 0 ? -1 : 1;
}

const struct checkpoint_format checkpoint_format_bitsandbytes = {
    .name = "bitsandbytes", .methods = "bitsandbytes", .adopt = adopt};
