/* SPDX-License-Identifier: Apache-2.0
 * Codes, scale and zero of a group say value = s (c - z). A block of 32 within the group becomes d n (Q4_0,
 * Q5_0, Q8_0) with n = c - z, or d n + m (Q4_1, Q5_1) with n = c - k and m = -s (z - k), where k is any shift
 * that keeps n in range and makes m exact in f16: both products and their sum are then exact in f32, so
 * nothing is rounded anywhere. */
#include "common/ggml_encode.h"
#include "common/ggml_types.h"
#include "common/mem.h"
#include <string.h>
#include <math.h>
#include <stdlib.h>

enum { BLOCK = 32 };

/* What one block of a row needs. */
struct block_view {
    const uint8_t *c;
    float s, m;      /* m: float minimum, with z = 0 */
    int z;
    bool has_min, one_group;
};

static struct block_view view(const struct qtensor *q, int row, int b)
{
    size_t o = qtensor_param(q, row);
    int width = q->n_groups == 1 ? q->in : q->group, first = b * BLOCK,
        g = q->gidx ? q->gidx[first] : first / width;
    struct block_view v = {.c = q->codes + (size_t)row * (size_t)q->in + first, .s = q->scale[o + (size_t)g],
                           .has_min = q->minimum, .one_group = true};
    v.z = q->minimum ? 0 : q->zero ? q->zero[o + (size_t)g] : 1 << (q->bits - 1);
    if (q->minimum) v.m = q->minimum[o + (size_t)g];
    for (int i = first + 1; i < first + BLOCK; i++) v.one_group &= (q->gidx ? q->gidx[i] : i / width) == g;
    return v;
}

static bool exact_f16(float x) { return isfinite(x) && f16_to_f32(f32_to_f16(x)) == x; }

/* The shift k of a type with a minimum, or INT32_MAX: lo, hi are the least and largest code of the block. */
static int shift_for(const struct block_view *v, int lo, int hi, int top)
{
    if (v->has_min) return hi <= top && exact_f16(v->m) ? 0 : INT32_MAX;
    for (int k = lo; k >= hi - top; k--)
        if (exact_f16(-v->s * (float)(v->z - k))) return k;
    return INT32_MAX;
}

static void code_range(const uint8_t *c, int *lo, int *hi)
{
    *lo = *hi = c[0];
    for (int i = 1; i < BLOCK; i++) {
        if (c[i] < *lo) *lo = c[i];
        if (c[i] > *hi) *hi = c[i];
    }
}

static bool block_fits(const struct qtensor *q, int row, int b, enum dtype t)
{
    struct block_view v = view(q, row, b);
    int lo, hi;
    if (!v.one_group || !exact_f16(v.s)) return false;
    code_range(v.c, &lo, &hi);
    switch (t) {
    case DT_Q4_0: return !v.has_min && lo - v.z >= -8 && hi - v.z <= 7;
    case DT_Q5_0: return !v.has_min && lo - v.z >= -16 && hi - v.z <= 15;
    case DT_Q8_0: return !v.has_min && lo - v.z >= -128 && hi - v.z <= 127;
    case DT_Q4_1: return shift_for(&v, lo, hi, 15) != INT32_MAX;
    default: return shift_for(&v, lo, hi, 31) != INT32_MAX;
    }
}

static bool tensor_fits(const struct qtensor *q, enum dtype t)
{
    int bad = 0;
    if (q->form != QF_UNIFORM || q->in % BLOCK) return false;
#pragma omp parallel for schedule(static) reduction(| : bad)
    for (int r = 0; r < q->out; r++)
        for (int b = 0; b < q->in / BLOCK && !bad; b++) bad |= !block_fits(q, r, b, t);
    return !bad;
}

unsigned float_types_for(const float *x, size_t n)
{
    unsigned types = FLOAT_TYPES_ALL;
    for (size_t i = 0; i < n && types; i++) {
        if (!exact_f16(x[i])) types &= 2u;
        if (bf16_to_f32(f32_to_bf16(x[i])) != x[i]) types &= 1u;
    }
    return types;
}

enum dtype float_type_of(unsigned types) { return types & 1 ? DT_F16 : types & 2 ? DT_BF16 : DT_F32; }

enum dtype ggml_encode_choose(const struct qtensor *q)
{
    static const enum dtype types[] = {DT_Q4_0, DT_Q4_1, DT_Q5_0, DT_Q5_1, DT_Q8_0};
    if (q->form == QF_PLAIN && ggml_type_id(q->plain.dtype) >= 0) return q->plain.dtype;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (tensor_fits(q, types[i])) return types[i];
    size_t n = (size_t)q->out * (size_t)q->in;
    float *w = MEM_NEW(float, n);
    qtensor_dequant(q, w);
    enum dtype t = float_type_of(float_types_for(w, n));
    mem_free(w);
    return t;
}

void ggml_encode_row(const struct qtensor *q, enum dtype t, int row, void *dst)
{
    if (q->form == QF_PLAIN) { /* leaves as it came */
        size_t bytes = (size_t)(q->in / dtype_block(t)) * (size_t)dtype_block_bytes(t);
        memcpy(dst, (const char *)q->plain.data + (size_t)row * bytes, bytes);
        return;
    }
    for (int b = 0; b < q->in / BLOCK; b++) {
        struct block_view v = view(q, row, b);
        int n[BLOCK], lo, hi, k = v.z;
        float m = 0;
        if (t == DT_Q4_1 || t == DT_Q5_1) {
            code_range(v.c, &lo, &hi);
            k = shift_for(&v, lo, hi, t == DT_Q4_1 ? 15 : 31);
            m = v.has_min ? v.m : -v.s * (float)(v.z - k);
        }
        for (int i = 0; i < BLOCK; i++) n[i] = v.c[i] - k;
        ggml_pack_block((uint8_t *)dst + b * dtype_block_bytes(t), t, f32_to_f16(v.s), f32_to_f16(m), n);
    }
}
