/* SPDX-License-Identifier: Apache-2.0
 * ggml's block types. One small function per type, block in, floats out; the order of the float operations is
 * the one of ggml's own dequantizers, so that the values agree to the last bit. */
#include "common/ggml_types.h"
#include <assert.h>
#include <string.h>

static float half_at(const uint8_t *p)
{
    return f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

static void q4_0(float *y, const uint8_t *b)
{
    float d = half_at(b);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)((b[2 + j] & 15) - 8);
        y[j + 16] = d * (float)((b[2 + j] >> 4) - 8);
    }
}

static void q4_1(float *y, const uint8_t *b)
{
    float d = half_at(b), m = half_at(b + 2);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)(b[4 + j] & 15) + m;
        y[j + 16] = d * (float)(b[4 + j] >> 4) + m;
    }
}

static uint32_t u32_at(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void q5_0(float *y, const uint8_t *b)
{
    float d = half_at(b);
    uint32_t qh = u32_at(b + 2);
    for (int j = 0; j < 16; j++) {
        int lo = (b[6 + j] & 15) | (int)(qh >> j & 1) << 4;
        int hi = b[6 + j] >> 4 | (int)(qh >> (j + 16) & 1) << 4;
        y[j] = d * (float)(lo - 16);
        y[j + 16] = d * (float)(hi - 16);
    }
}

static void q5_1(float *y, const uint8_t *b)
{
    float d = half_at(b), m = half_at(b + 2);
    uint32_t qh = u32_at(b + 4);
    for (int j = 0; j < 16; j++) {
        int lo = (b[8 + j] & 15) | (int)(qh >> j & 1) << 4;
        int hi = b[8 + j] >> 4 | (int)(qh >> (j + 16) & 1) << 4;
        y[j] = d * (float)lo + m;
        y[j + 16] = d * (float)hi + m;
    }
}

static void q8_0(float *y, const uint8_t *b)
{
    float d = half_at(b);
    for (int j = 0; j < 32; j++) y[j] = (float)(int8_t)b[2 + j] * d;
}

/* scales[16], qs[64], d, dmin; 4-bit scale and minimum per 16 elements */
static void q2_k(float *y, const uint8_t *b)
{
    const uint8_t *sc = b, *qs = b + 16;
    float d = half_at(b + 80), dmin = half_at(b + 82);
    for (int k = 0; k < 16; k++) { /* k = 8h + 2j + s: 16 elements each */
        int h = k >> 3, j = k >> 1 & 3, s = k & 1;
        float dl = d * (float)(sc[k] & 15), ml = dmin * (float)(sc[k] >> 4);
        for (int l = 0; l < 16; l++)
            y[16 * k + l] = dl * (float)(qs[32 * h + 16 * s + l] >> 2 * j & 3) - ml;
    }
}

/* hmask[32], qs[64], scales[12], d; 6-bit signed scale per 16 elements */
static void q3_k(float *y, const uint8_t *b)
{
    const uint8_t *hm = b, *qs = b + 32, *sb = b + 96;
    float d = half_at(b + 108);
    for (int k = 0; k < 16; k++) {
        int h = k >> 3, j = k >> 1 & 3, s = k & 1;
        int sc = (k < 8 ? sb[k] & 15 : sb[k - 8] >> 4) | (sb[8 + (k & 3)] >> 2 * (k >> 2) & 3) << 4;
        float dl = d * (float)(sc - 32);
        for (int l = 0; l < 16; l++) {
            int q = (qs[32 * h + 16 * s + l] >> 2 * j & 3) - (hm[16 * s + l] >> (4 * h + j) & 1 ? 0 : 4);
            y[16 * k + l] = dl * (float)q;
        }
    }
}

/* The 6-bit scale and minimum of sub-block j of Q4_K and Q5_K, packed in 12 bytes. */
static void scale_min(const uint8_t *s, int j, int *sc, int *m)
{
    if (j < 4) {
        *sc = s[j] & 63;
        *m = s[j + 4] & 63;
    } else {
        *sc = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        *m = s[j + 4] >> 4 | (s[j] >> 6) << 4;
    }
}

/* d, dmin, scales[12], (qh[32],) qs[128]: sub-blocks of 32, two share the bytes of qs */
static void q45_k(float *y, const uint8_t *b, bool five)
{
    const uint8_t *qh = b + 16, *qs = five ? b + 48 : b + 16;
    float d = half_at(b), dmin = half_at(b + 2);
    for (int j = 0; j < 8; j++) {
        int sc, m;
        scale_min(b + 4, j, &sc, &m);
        float dl = d * (float)sc, ml = dmin * (float)m;
        for (int l = 0; l < 32; l++) {
            int q = qs[32 * (j >> 1) + l] >> 4 * (j & 1) & 15;
            if (five) q |= (qh[l] >> j & 1) << 4;
            y[32 * j + l] = dl * (float)q - ml;
        }
    }
}

static void q4_k(float *y, const uint8_t *b) { q45_k(y, b, false); }
static void q5_k(float *y, const uint8_t *b) { q45_k(y, b, true); }

/* ql[128], qh[64], scales[16], d; signed 8-bit scale per 16 elements */
static void q6_k(float *y, const uint8_t *b)
{
    const uint8_t *ql = b, *qh = b + 128, *sb = b + 192;
    float d = half_at(b + 208);
    for (int k = 0; k < 16; k++) { /* half h, quarter c of it, first or second 16 of the quarter */
        int h = k >> 3, c = k >> 1 & 3, l0 = (k & 1) * 16;
        float dl = d * (float)(int8_t)sb[k];
        for (int l = l0; l < l0 + 16; l++) {
            int lo = ql[64 * h + 32 * (c & 1) + l] >> 4 * (c >> 1) & 15;
            int hi = qh[32 * h + l] >> 2 * c & 3;
            y[16 * k + l - l0] = dl * (float)((lo | hi << 4) - 32);
        }
    }
}

/* d, qs: -d or d by a bit; d times -1 to 2 by two */
static void q1_0(float *y, const uint8_t *b)
{
    float d = half_at(b);
    for (int k = 0; k < 128; k++) y[k] = b[2 + k / 8] >> k % 8 & 1 ? d : -d;
}

static void q2_0(float *y, const uint8_t *b)
{
    float d = half_at(b);
    for (int k = 0; k < 64; k++) y[k] = (float)((b[2 + k / 4] >> k % 4 * 2 & 3) - 1) * d;
}

static const struct {
    enum dtype t;
    void (*f)(float *, const uint8_t *);
} unpack[] = {
    {DT_Q4_0, q4_0}, {DT_Q4_1, q4_1}, {DT_Q5_0, q5_0}, {DT_Q5_1, q5_1}, {DT_Q8_0, q8_0},
    {DT_Q2_K, q2_k}, {DT_Q3_K, q3_k}, {DT_Q4_K, q4_k}, {DT_Q5_K, q5_k}, {DT_Q6_K, q6_k},
    {DT_IQ1_S, ggml_iq1_s},     {DT_IQ1_M, ggml_iq1_m},   {DT_IQ2_XXS, ggml_iq2_xxs},
    {DT_IQ2_XS, ggml_iq2_xs},   {DT_IQ2_S, ggml_iq2_s},   {DT_IQ3_XXS, ggml_iq3_xxs},
    {DT_IQ3_S, ggml_iq3_s},     {DT_IQ4_NL, ggml_iq4_nl}, {DT_IQ4_XS, ggml_iq4_xs},
    {DT_TQ1_0, ggml_tq1_0},     {DT_TQ2_0, ggml_tq2_0},   {DT_MXFP4, ggml_mxfp4},
    {DT_NVFP4, ggml_nvfp4},     {DT_Q1_0, q1_0},          {DT_Q2_0, q2_0},
};

void ggml_to_f32(float *dst, enum dtype t, const void *src, size_t n)
{
    for (size_t k = 0; k < sizeof unpack / sizeof *unpack; k++) {
        if (unpack[k].t != t) continue;
        size_t elems = (size_t)dtype_block(t), bytes = (size_t)dtype_block_bytes(t);
        assert(n % elems == 0);
        for (size_t i = 0; i < n / elems; i++) unpack[k].f(dst + i * elems, (const uint8_t *)src + i * bytes);
        return;
    }
    assert(!"a ggml block type");
}

/* Names of all ids that ggml gives out; ours among them. */
static const struct {
    const char *name;
    enum dtype t;
} ids[] = {
    [0] = {"F32", DT_F32},      [1] = {"F16", DT_F16},       [2] = {"Q4_0", DT_Q4_0},
    [3] = {"Q4_1", DT_Q4_1},    [6] = {"Q5_0", DT_Q5_0},     [7] = {"Q5_1", DT_Q5_1},
    [8] = {"Q8_0", DT_Q8_0},    [9] = {"Q8_1", DT_NONE},     [10] = {"Q2_K", DT_Q2_K},
    [11] = {"Q3_K", DT_Q3_K},   [12] = {"Q4_K", DT_Q4_K},    [13] = {"Q5_K", DT_Q5_K},
    [14] = {"Q6_K", DT_Q6_K},   [15] = {"Q8_K", DT_NONE},    [16] = {"IQ2_XXS", DT_IQ2_XXS},
    [17] = {"IQ2_XS", DT_IQ2_XS}, [18] = {"IQ3_XXS", DT_IQ3_XXS}, [19] = {"IQ1_S", DT_IQ1_S},
    [20] = {"IQ4_NL", DT_IQ4_NL}, [21] = {"IQ3_S", DT_IQ3_S},   [22] = {"IQ2_S", DT_IQ2_S},
    [23] = {"IQ4_XS", DT_IQ4_XS}, [24] = {"I8", DT_I8},        [25] = {"I16", DT_I16},
    [26] = {"I32", DT_I32},     [27] = {"I64", DT_I64},      [28] = {"F64", DT_F64},
    [29] = {"IQ1_M", DT_IQ1_M},  [30] = {"BF16", DT_BF16},    [34] = {"TQ1_0", DT_TQ1_0},
    [35] = {"TQ2_0", DT_TQ2_0},  [39] = {"MXFP4", DT_MXFP4},   [40] = {"NVFP4", DT_NVFP4},
    [41] = {"Q1_0", DT_Q1_0},   [42] = {"Q2_0", DT_Q2_0},
};
#define N_IDS (sizeof ids / sizeof *ids)

int ggml_type_id(enum dtype t)
{
    for (size_t i = 0; i < N_IDS; i++)
        if (ids[i].name && ids[i].t == t && t != DT_NONE) return (int)i;
    return -1;
}

enum dtype ggml_type_dtype(uint32_t id) { return id < N_IDS ? ids[id].t : DT_NONE; }

const char *ggml_type_name(uint32_t id) { return id < N_IDS && ids[id].name ? ids[id].name : ""; }

static void put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

void ggml_pack_block(uint8_t *out, enum dtype t, uint16_t d, uint16_t m, const int n[32])
{
    int bias = t == DT_Q4_0 ? 8 : t == DT_Q5_0 ? 16 : 0;
    uint32_t high = 0;
    put16(out, d), out += 2;
    if (t == DT_Q4_1 || t == DT_Q5_1) put16(out, m), out += 2;
    if (t == DT_Q8_0) {
        for (int j = 0; j < 32; j++) out[j] = (uint8_t)(int8_t)n[j];
        return;
    }
    for (int j = 0; j < 32; j++) high |= (uint32_t)((n[j] + bias) >> 4 & 1) << j;
    if (t == DT_Q5_0 || t == DT_Q5_1) {
        put16(out, (uint16_t)high), put16(out + 2, (uint16_t)(high >> 16));
        out += 4;
    }
    for (int j = 0; j < 16; j++) out[j] = (uint8_t)(((n[j] + bias) & 15) | ((n[j + 16] + bias) & 15) << 4);
}
