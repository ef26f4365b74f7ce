/* SPDX-License-Identifier: Apache-2.0
 * Grids and bytes of ggml's K types: see ggml_kquant.h. A grid is found in three steps: the best real scale
 * (and minimum) of each sub-block, over a range of roundings; common f16 factors and integers over them; then
 * integers and factors in turn, each the best for the codes that the other gives. */
#include "common/ggml_kquant.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/ggml_types.h"

enum { ROUNDS = 4, LANES = 16 };

#if defined __x86_64__ && !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

static const struct kquant_type types[] = {
    {DT_Q2_K, 2, 256, 16, 0, 15, 15, 0},     {DT_Q3_K, 3, 256, 16, -32, 31, 0, 4},
    {DT_Q4_K, 4, 256, 32, 0, 63, 63, 0},     {DT_Q5_K, 5, 256, 32, 0, 63, 63, 0},
    {DT_Q6_K, 6, 256, 16, -128, 127, 0, 32},
};
static const struct kquant_type q4_0 = {DT_Q4_0, 4, 32, 32, 1, 1, 0, 8},
                                q5_0 = {DT_Q5_0, 5, 32, 32, 1, 1, 0, 16},
                                q5_1 = {DT_Q5_1, 5, 32, 32, 1, 1, 1, 0},
                                q8_0 = {DT_Q8_0, 8, 32, 32, 1, 1, 0, 128};

const struct kquant_type *kquant_type_of(int bits, int in)
{
    static const struct kquant_type *const others[] = {&q4_0, &q4_0, &q5_0, &q5_1, &q8_0};
    if (bits < 2 || bits > 6 || in % 32) return NULL;
    return in % KQUANT_BLOCK ? others[bits - 2] : &types[bits - 2];
}

/* ---- lines ---- */

/* The products are rounded to f32 one by one, as readers do. */
void kquant_line(const struct kquant_type *k, const struct kquant_grid *g, int s, float *step, float *offset)
{
    *step = f16_to_f32(g->d) * (float)g->sc[s];
    *offset = k->mn_hi ? -(f16_to_f32(g->dmin) * (float)g->mn[s]) : -*step * (float)k->zero;
}

/* Adding and subtracting 1.5 * 2^23 rounds to the nearest integer and vectorises on every CPU. */
static inline float nearest_level(float x, float offset, float inverse, float top)
{
    float c = (x - offset) * inverse;
    c = c > 0 ? c : 0;
    c = c < top ? c : top;
    return (c + 12582912.0f) - 12582912.0f;
}

static inline float inverse_of(float step)
{
    return step != 0 ? 1 / step : 0;
}

int kquant_code(const struct kquant_type *k, float step, float offset, float x)
{
    return step == 0 ? k->zero : (int)nearest_level(x, offset, inverse_of(step), (float)((1 << k->bits) - 1));
}

static double lanes_sum(const float *a)
{
    double s = 0;
    for (int l = 0; l < LANES; l++) s += (double)a[l];
    return s;
}

/* The weighted squared error of x[n] on a line; n is a multiple of LANES. */
CLONES static double line_error(int bits, float step, float offset, const float *x, const float *h, int n)
{
    float sum[LANES] = {0}, inverse = inverse_of(step), top = (float)((1 << bits) - 1);
    for (int i = 0; i < n; i += LANES)
        for (int l = 0; l < LANES; l++) {
            float d = x[i + l] - (step * nearest_level(x[i + l], offset, inverse, top) + offset);
            sum[l] += h[i + l] * d * d;
        }
    return lanes_sum(sum);
}

/* Sums of h, h c, h c c, h x, h x c with the codes c - zero of x[n] on a line. */
struct moments {
    double w, c1, c2, x1, xc;
};

CLONES static void line_moments(int bits, float zero, float step, float offset, const float *x,
                                const float *h, int n, struct moments *m)
{
    float w[LANES] = {0}, c1[LANES] = {0}, c2[LANES] = {0}, x1[LANES] = {0}, xc[LANES] = {0};
    float inverse = inverse_of(step), top = (float)((1 << bits) - 1);
    for (int i = 0; i < n; i += LANES)
        for (int l = 0; l < LANES; l++) {
            float v = x[i + l], c = nearest_level(v, offset, inverse, top) - zero, hc = h[i + l] * c;
            w[l] += h[i + l], c1[l] += hc, c2[l] += hc * c, x1[l] += h[i + l] * v, xc[l] += hc * v;
        }
    *m = (struct moments){lanes_sum(w), lanes_sum(c1), lanes_sum(c2), lanes_sum(x1), lanes_sum(xc)};
}

/* The line that fits x best for the codes that (step, offset) gives; minima are not above 0. */
static void refit(const struct kquant_type *k, const float *x, const float *h, int n, float *step,
                  float *offset)
{
    struct moments a;
    line_moments(k->bits, (float)k->zero, *step, *offset, x, h, n, &a);
    double det = a.w * a.c2 - a.c1 * a.c1;
    if (k->mn_hi && det > 0) {
        double s = (a.w * a.xc - a.c1 * a.x1) / det, m = (a.c2 * a.x1 - a.c1 * a.xc) / det;
        if (m > 0) s = a.c2 > 0 ? a.xc / a.c2 : s, m = 0;
        *step = (float)s, *offset = (float)m;
    } else if (!k->mn_hi && a.c2 > 0) {
        *step = (float)(a.xc / a.c2);
        *offset = -*step * (float)k->zero;
    }
}

/* Where a search of lines begins: a share of the range below and above zero; without minima of the largest
 * weight, which takes the last code of either side. */
static bool first_line(const struct kquant_type *k, int t, float lo, float hi, float far, float *step,
                       float *offset)
{
    static const float share[] = {1.06f, 0.98f, 0.9f, 0.82f, 0.74f, 0.66f, 0.58f, 0.5f, 0.42f};
    enum { SHARES = sizeof share / sizeof *share, SIDES = 5 };
    float top = (float)((1 << k->bits) - 1);
    if (k->mn_hi) {
        int few = k->bits <= 3; /* both sides by themselves matter where levels are few */
        if (t >= (few ? SIDES * SIDES : SHARES)) return false;
        float low = lo * share[few ? t / SIDES : t], high = hi * share[few ? t % SIDES : t];
        *step = (high - low) / top, *offset = low;
    } else {
        if (t >= 2 * SHARES) return false;
        *step = (t % 2 ? far : -far) * share[t / 2] / (float)k->zero;
        *offset = -*step * (float)k->zero;
    }
    return true;
}

/* Real step and offset of a sub-block. */
static void fit_line(const struct kquant_type *k, const float *x, const float *h, int n, float *step,
                     float *offset)
{
    float lo = 0, hi = 0, far = 0, s, m;
    for (int i = 0; i < n; i++) {
        lo = fminf(lo, x[i]), hi = fmaxf(hi, x[i]);
        if (fabsf(x[i]) > fabsf(far)) far = x[i];
    }
    double best = INFINITY;
    *step = *offset = 0;
    for (int t = 0; hi - lo > 0 && first_line(k, t, lo, hi, far, &s, &m); t++) {
        for (int r = 0; r < 2; r++) refit(k, x, h, n, &s, &m);
        double e = line_error(k->bits, s, m, x, h, n);
        if (isfinite(s) && isfinite(m) && e < best) best = e, *step = s, *offset = m;
    }
}

/* ---- blocks ---- */

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
    return line_error(k->bits, step, offset, x + s * k->sub, h + s * k->sub, k->sub);
}

static double grid_error(const struct kquant_type *k, const struct kquant_grid *g, const float *x,
                         const float *h)
{
    double sum = 0;
    for (int s = 0; s < k->block / k->sub; s++) sum += sub_error(k, g, s, x, h);
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
    double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0; /* x = d a - dmin b, a = sc (code - zero), b = mn */
    for (int s = 0; s < k->block / k->sub; s++) {
        double sc = g->sc[s], mn = -(double)g->mn[s];
        float step, offset;
        struct moments m;
        kquant_line(k, g, s, &step, &offset);
        line_moments(k->bits, (float)k->zero, step, offset, x + s * k->sub, h + s * k->sub, k->sub, &m);
        aa += sc * sc * m.c2, ab += sc * mn * m.c1, bb += mn * mn * m.w, ax += sc * m.xc, bx += mn * m.x1;
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
    int subs = k->block / k->sub;
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
    for (int i = 0; i < k->block; i++) ones[i] = 1, sum += h ? (double)h[i] : 0;
    if (!(sum > 0)) h = ones; /* no input ever came here */
    *g = (struct kquant_grid){0};
    for (int s = 0; s < k->block / k->sub; s++)
        fit_line(k, x + s * k->sub, h + s * k->sub, k->sub, &step[s], &offset[s]);
    first_grid(k, step, offset, g);
    for (int r = 0; r < ROUNDS; r++) {
        for (int s = 0; s < k->block / k->sub; s++) better_integers(k, g, s, x, h);
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

/* The types of 32. */
static void pack_short(const struct kquant_type *k, const struct kquant_grid *g, const uint8_t *codes,
                       uint8_t *out)
{
    int n[32];
    for (int i = 0; i < 32; i++) n[i] = codes[i] - k->zero;
    ggml_pack_block(out, k->t, g->d, f32_to_f16(g->mn[0] ? -f16_to_f32(g->dmin) : 0), n);
}

void kquant_pack(const struct kquant_type *k, const struct kquant_grid *g, const uint8_t *codes, uint8_t *out)
{
    if (k->block == 32) {
        pack_short(k, g, codes, out);
        return;
    }
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
