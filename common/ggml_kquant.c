/* SPDX-License-Identifier: Apache-2.0
 * Grids and bytes of ggml's K types: see ggml_kquant.h. A grid is found in three steps: the best real scale
 * (and minimum) of each sub-block, over a range of roundings; common f16 factors and integers over them; then
 * integers and factors in turn, each the best for the codes that the other gives. */
#include "common/ggml_kquant.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TRIES = 9, ROUNDS = 3 };

static const struct kquant_type types[] = {
    {DT_Q2_K, 2, 16, 0, 15, 15, 0}, {DT_Q3_K, 3, 16, -32, 31, 0, 4},    {DT_Q4_K, 4, 32, 0, 63, 63, 0},
    {DT_Q5_K, 5, 32, 0, 63, 63, 0}, {DT_Q6_K, 6, 16, -128, 127, 0, 32},
};

const struct kquant_type *kquant_type_of(int bits)
{
    return bits >= 2 && bits <= 6 ? &types[bits - 2] : NULL;
}

/* ---- lines ---- */

/* The products are rounded to f32 one by one, as readers do. */
void kquant_line(const struct kquant_type *k, const struct kquant_grid *g, int s, float *step, float *offset)
{
    *step = f16_to_f32(g->d) * (float)g->sc[s];
    *offset = k->mn_hi ? -(f16_to_f32(g->dmin) * (float)g->mn[s]) : -*step * (float)k->zero;
}

int kquant_code(const struct kquant_type *k, float step, float offset, float x)
{
    int top = (1 << k->bits) - 1;
    if (step == 0) return k->zero;
    float c = roundf((x - offset) / step);
    return c <= 0 ? 0 : c >= (float)top ? top : (int)c;
}

static double line_error(const struct kquant_type *k, float step, float offset, const float *x,
                         const float *h, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        double d = (double)x[i] - (step * (float)kquant_code(k, step, offset, x[i]) + offset);
        sum += h[i] * d * d;
    }
    return sum;
}

/* The line that fits x best for the codes that (step, offset) gives; minima are not above 0. */
static void refit(const struct kquant_type *k, const float *x, const float *h, int n, float *step,
                  float *offset)
{
    double w = 0, c1 = 0, c2 = 0, x1 = 0, xc = 0;
    for (int i = 0; i < n; i++) {
        double c = kquant_code(k, *step, *offset, x[i]) - k->zero, v = x[i];
        w += h[i], c1 += h[i] * c, c2 += h[i] * c * c, x1 += h[i] * v, xc += h[i] * v * c;
    }
    double det = w * c2 - c1 * c1;
    if (k->mn_hi && det > 0) {
        double s = (w * xc - c1 * x1) / det, m = (c2 * x1 - c1 * xc) / det;
        if (m > 0) s = c2 > 0 ? xc / c2 : s, m = 0;
        *step = (float)s, *offset = (float)m;
    } else if (!k->mn_hi && c2 > 0) {
        *step = (float)(xc / c2);
        *offset = -*step * (float)k->zero;
    }
}

/* Real step and offset of a sub-block: the range of x cut by a little more or less, then fitted. */
static void fit_line(const struct kquant_type *k, const float *x, const float *h, int n, float *step,
                     float *offset)
{
    float lo = 0, hi = 0, top = (float)((1 << k->bits) - 1), far = 0;
    for (int i = 0; i < n; i++) {
        lo = fminf(lo, x[i]), hi = fmaxf(hi, x[i]);
        if (fabsf(x[i]) > fabsf(far)) far = x[i];
    }
    double best = INFINITY;
    *step = *offset = 0;
    for (int t = 0; t < 2 * TRIES && hi - lo > 0; t++) {
        float cut = 1 - 0.06f * (float)(t % TRIES - 1), s, m;
        if (k->mn_hi && t >= TRIES) break;
        s = k->mn_hi ? (hi - lo) * cut / top : (t < TRIES ? -far : far) * cut / (float)k->zero;
        m = k->mn_hi ? lo * cut : -s * (float)k->zero;
        for (int r = 0; r < 2; r++) refit(k, x, h, n, &s, &m);
        double e = line_error(k, s, m, x, h, n);
        if (isfinite(s) && isfinite(m) && e < best) best = e, *step = s, *offset = m;
    }
}

/* ---- super-blocks ---- */

static int nearest(float v, int lo, int hi)
{
    float r = roundf(v);
    return r <= (float)lo ? lo : r >= (float)hi ? hi : (int)r;
}

static double sub_error(const struct kquant_type *k, const struct kquant_grid *g, int s, const float *x,
                        const float *h)
{
    float step, offset;
    kquant_line(k, g, s, &step, &offset);
    return line_error(k, step, offset, x + s * k->sub, h + s * k->sub, k->sub);
}

static double grid_error(const struct kquant_type *k, const struct kquant_grid *g, const float *x,
                         const float *h)
{
    double sum = 0;
    for (int s = 0; s < KQUANT_BLOCK / k->sub; s++) sum += sub_error(k, g, s, x, h);
    return sum;
}

/* Integers of a sub-block: the best among the neighbours of what is there. */
static void better_integers(const struct kquant_type *k, struct kquant_grid *g, int s, const float *x,
                            const float *h)
{
    int sc = g->sc[s], mn = g->mn[s];
    double best = INFINITY;
    struct kquant_grid try = *g;
    for (int a = sc - 1; a <= sc + 1; a++)
        for (int b = mn - (k->mn_hi > 0); b <= mn + (k->mn_hi > 0); b++) {
            if (a < k->sc_lo || a > k->sc_hi || b < 0 || b > k->mn_hi) continue;
            try.sc[s] = (int8_t)a, try.mn[s] = (uint8_t)b;
            double e = sub_error(k, &try, s, x, h);
            if (e < best) best = e, g->sc[s] = (int8_t)a, g->mn[s] = (uint8_t)b;
        }
}

/* d and dmin that fit all of x best for the present codes and integers. */
static void better_factors(const struct kquant_type *k, struct kquant_grid *g, const float *x, const float *h)
{
    double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0; /* x = d a - dmin b */
    for (int i = 0; i < KQUANT_BLOCK; i++) {
        int s = i / k->sub;
        float step, offset;
        kquant_line(k, g, s, &step, &offset);
        double a = (double)g->sc[s] * (kquant_code(k, step, offset, x[i]) - k->zero), b = -(double)g->mn[s];
        aa += h[i] * a * a, ab += h[i] * a * b, bb += h[i] * b * b, ax += h[i] * a * x[i],
            bx += h[i] * b * x[i];
    }
    double det = aa * bb - ab * ab, d = aa > 0 ? ax / aa : 0, m = 0;
    if (det > 1e-12 * aa * bb) d = (bb * ax - ab * bx) / det, m = (aa * bx - ab * ax) / det;
    if (m < 0) d = aa > 0 ? ax / aa : 0, m = 0;
    struct kquant_grid try = *g;
    try.d = f32_to_f16((float)d), try.dmin = f32_to_f16((float)m);
    if (isfinite(f16_to_f32(try.d)) && isfinite(f16_to_f32(try.dmin)) &&
        grid_error(k, &try, x, h) < grid_error(k, g, x, h))
        *g = try;
}

static void first_grid(const struct kquant_type *k, const float *step, const float *offset,
                       struct kquant_grid *g)
{
    int subs = KQUANT_BLOCK / k->sub;
    float far = 0, low = 0;
    for (int s = 0; s < subs; s++) {
        if (fabsf(step[s]) > fabsf(far)) far = step[s];
        if (k->mn_hi) low = fmaxf(low, -offset[s]);
    }
    g->d = f32_to_f16(far / (float)(k->sc_lo ? k->sc_lo : k->sc_hi));
    g->dmin = f32_to_f16(k->mn_hi ? low / (float)k->mn_hi : 0);
    float d = f16_to_f32(g->d), dmin = f16_to_f32(g->dmin);
    for (int s = 0; s < subs; s++) {
        g->sc[s] = (int8_t)(d != 0 ? nearest(step[s] / d, k->sc_lo, k->sc_hi) : 0);
        g->mn[s] = (uint8_t)(dmin > 0 ? nearest(-offset[s] / dmin, 0, k->mn_hi) : 0);
    }
}

void kquant_fit(const struct kquant_type *k, const float *x, const float *h, struct kquant_grid *g)
{
    float step[KQUANT_SUBS], offset[KQUANT_SUBS], ones[KQUANT_BLOCK];
    double sum = 0;
    for (int i = 0; i < KQUANT_BLOCK; i++) ones[i] = 1, sum += h ? h[i] : 0;
    if (!(sum > 0)) h = ones; /* no input ever came here */
    *g = (struct kquant_grid){0};
    for (int s = 0; s < KQUANT_BLOCK / k->sub; s++)
        fit_line(k, x + s * k->sub, h + s * k->sub, k->sub, &step[s], &offset[s]);
    first_grid(k, step, offset, g);
    for (int r = 0; r < ROUNDS; r++) {
        for (int s = 0; s < KQUANT_BLOCK / k->sub; s++) better_integers(k, g, s, x, h);
        better_factors(k, g, x, h);
    }
}

/* ---- bytes ---- */

static void put_half(uint8_t *p, uint16_t h)
{
    p[0] = (uint8_t)h, p[1] = (uint8_t)(h >> 8);
}

/* Two low bits of element i = 128 h + 32 j + l: bits 2j of byte 32 h + l. */
static void pack_pairs(const uint8_t *codes, uint8_t *qs)
{
    memset(qs, 0, 64);
    for (int i = 0; i < KQUANT_BLOCK; i++)
        qs[i / 128 * 32 + i % 32] |= (uint8_t)((codes[i] & 3) << 2 * (i % 128 / 32));
}

static void pack_q2(const struct kquant_grid *g, const uint8_t *codes, uint8_t *out)
{
    for (int s = 0; s < 16; s++) out[s] = (uint8_t)(g->sc[s] | g->mn[s] << 4);
    pack_pairs(codes, out + 16);
    put_half(out + 80, g->d);
    put_half(out + 82, g->dmin);
}

static void pack_q3(const struct kquant_grid *g, const uint8_t *codes, uint8_t *out)
{
    memset(out, 0, 110);
    pack_pairs(codes, out + 32);
    for (int i = 0; i < KQUANT_BLOCK; i++) out[i % 32] |= (uint8_t)((codes[i] >> 2) << i / 32);
    for (int s = 0; s < 16; s++) {
        unsigned v = (unsigned)(g->sc[s] + 32);
        out[96 + s % 8] |= (uint8_t)((v & 15) << (s < 8 ? 0 : 4));
        out[104 + s % 4] |= (uint8_t)((v >> 4) << 2 * (s / 4));
    }
    put_half(out + 108, g->d);
}

/* Q4_K and Q5_K: scales and minima of six bits in 12 bytes, nibbles in pairs of sub-blocks, fifth bits. */
static void pack_q45(const struct kquant_grid *g, const uint8_t *codes, uint8_t *out, bool five)
{
    uint8_t *sc = out + 4, *high = out + 16, *qs = out + (five ? 48 : 16);
    memset(out, 0, five ? 176 : 144);
    put_half(out, g->d);
    put_half(out + 2, g->dmin);
    for (int s = 0; s < 4; s++) {
        sc[s] = (uint8_t)(g->sc[s] | g->sc[s + 4] >> 4 << 6);
        sc[s + 4] = (uint8_t)(g->mn[s] | g->mn[s + 4] >> 4 << 6);
        sc[s + 8] = (uint8_t)((g->sc[s + 4] & 15) | (g->mn[s + 4] & 15) << 4);
    }
    for (int i = 0; i < KQUANT_BLOCK; i++) {
        int s = i / 32;
        qs[s / 2 * 32 + i % 32] |= (uint8_t)((codes[i] & 15) << (s & 1 ? 4 : 0));
        if (five) high[i % 32] |= (uint8_t)((codes[i] >> 4) << s);
    }
}

static void pack_q6(const struct kquant_grid *g, const uint8_t *codes, uint8_t *out)
{
    memset(out, 0, 210);
    for (int i = 0; i < KQUANT_BLOCK; i++) {
        int h = i / 128, c = i % 128 / 32, l = i % 32;
        out[64 * h + 32 * (c & 1) + l] |= (uint8_t)((codes[i] & 15) << (c < 2 ? 0 : 4));
        out[128 + 32 * h + l] |= (uint8_t)((codes[i] >> 4) << 2 * c);
    }
    for (int s = 0; s < 16; s++) out[192 + s] = (uint8_t)g->sc[s];
    put_half(out + 208, g->d);
}

void kquant_pack(const struct kquant_type *k, const struct kquant_grid *g, const uint8_t *codes, uint8_t *out)
{
    switch (k->bits) {
    case 2:
        pack_q2(g, codes, out);
        break;
    case 3:
        pack_q3(g, codes, out);
        break;
    case 6:
        pack_q6(g, codes, out);
        break;
    default:
        pack_q45(g, codes, out, k->bits == 5);
        break;
    }
}
