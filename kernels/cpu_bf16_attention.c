/* SPDX-License-Identifier: Apache-2.0
 * --precision bf16: attention forward with q, k, v and the probabilities rounded to bf16 for their products;
 * scores, softmax and sums are f32. Keys and values are laid out once per call for all query tiles. Head
 * dimensions that oneDNN would pad, soft caps, slopes, and the backward stay with the f32 code. */
#include "kernels/cpu_bf16.h"
#include <math.h>
#include <omp.h>
#include <string.h>

enum {
    TK = 256,
    STEP = 64,
    STEPS = TK / STEP
}; /* keys of a block, and what its used part is a multiple of */

struct shape {
    int B, T, H, G, E, n, tq, blocks; /* n query heads per key head; tq tokens per tile; blocks of keys */
    float scale;
    int window;
    size_t k_size, v_size; /* numbers in a packed block of keys, of values */
};
/* Products of a tile: [of the last tokens][by used keys]. */
struct plans {
    const struct bf16_plan *score[2][STEPS], *mix[2][STEPS];
    bool cut_values; /* values of a part of the keys lie together */
};

static int min_int(int a, int b)
{
    return a < b ? a : b;
}

static int tile_tokens(int n)
{
    return n <= 4 ? 64 : n <= 8 ? 32 : 16;
}

static int round_up(int x, int unit)
{
    return (x + unit - 1) / unit * unit;
}

/* How many columns of values lie side by side; 0: oneDNN does not take what is packed here, or would pad it.
 */
static int value_columns(int E)
{
    static int last_E, columns;
    if (E == last_E) return columns;
    last_E = E;
    bool fits = E % 64 == 0 && E <= 256;
    return columns = fits && bf16_pair_columns(TK, E) == STEP ? bf16_pair_columns(E, TK) : 0;
}

/* ---- packed keys and values: pairs of neighbours along the summed dimension ---- */

static void store_pair(uint16_t *to, uint16_t a, uint16_t b)
{
    to[0] = a, to[1] = b;
}

/* Keys [n, E] as the right side [E, TK]: [TK / 64][E / 2][64][2]; keys n.. are zero. */
static void pack_keys(uint16_t *to, const float *k, size_t ld, int n, int E)
{
    uint16_t row[256];
    memset(to, 0, (size_t)TK * (size_t)E * sizeof *to);
    for (int i = 0; i < n; i++) {
        uint16_t *at = to + (size_t)(i / STEP) * STEP * (size_t)E + (size_t)(i % STEP) * 2;
        bf16_narrow(row, k + (size_t)i * ld, (size_t)E);
        for (int e = 0; e < E; e += 2) store_pair(at + (size_t)e * STEP, row[e], row[e + 1]);
    }
}

/* Values [n, E] as the right side [TK, E]: [E / width][TK / 2][width][2] with columns in blocks of `width`.
 */
static void pack_values(uint16_t *to, const float *v, size_t ld, int n, int E, int width)
{
    uint16_t row[2][256];
    memset(to, 0, (size_t)TK * (size_t)E * sizeof *to);
    for (int i = 0; i < n; i += 2) {
        bf16_narrow(row[0], v + (size_t)i * ld, (size_t)E);
        memset(row[1], 0, sizeof row[1]);
        if (i + 1 < n) bf16_narrow(row[1], v + (size_t)(i + 1) * ld, (size_t)E);
        for (int e = 0; e < E; e++)
            store_pair(to + (size_t)(e / width) * TK * (size_t)width + (size_t)i * (size_t)width +
                           (size_t)(e % width) * 2,
                       row[0][e], row[1][e]);
    }
}

/* ---- one tile ---- */

static int first_key(const struct shape *s, int t)
{
    return s->window > 0 && t >= s->window ? t - s->window + 1 : 0;
}

/* A row of scores for keys k0 .. k0+nk-1 of query t becomes exp(scale s - max), rounded into p; returns the
 * factor for what was summed so far. */
static float softmax_row(const struct shape *s, float *row, uint16_t *p, int t, int k0, int nk, float *max,
                         float *sum)
{
    int lo = first_key(s, t) - k0, hi = min_int(nk, t + 1 - k0);
    float m, f = 1;
    lo = lo < 0 ? 0 : min_int(lo, nk);
    if (hi < lo) hi = lo;
    memset(row, 0, (size_t)lo * sizeof *row);
    memset(row + hi, 0, (size_t)(nk - hi) * sizeof *row);
    if (hi > lo) {
        m = s->scale * vec->max(row + lo, (size_t)(hi - lo));
        if (m > *max) {
            f = *max == -INFINITY ? 0 : expf(*max - m);
            *max = m;
            *sum *= f;
        } else if (*max == -INFINITY) {
            *max = 0; /* only NaN so far: let it spread */
        }
        *sum += vec->exp_sum(row + lo, row + lo, s->scale, *max, (size_t)(hi - lo));
    }
    bf16_narrow(p, row, (size_t)nk);
    return f;
}

struct space {
    uint16_t *q, *p;
    float *acc, *score, *max, *sum;
};

static size_t space_floats(const struct shape *s)
{
    size_t rows = (size_t)round_up(s->tq * s->n, 16);
    return rows * (size_t)(s->E / 2 + TK / 2 + s->E + TK + 2);
}

static struct space space_at(const struct shape *s, float *at)
{
    size_t rows = (size_t)round_up(s->tq * s->n, 16), E = (size_t)s->E;
    struct space w = {.q = (uint16_t *)at, .p = (uint16_t *)(at + rows * E / 2)};
    w.acc = at + rows * (E / 2 + TK / 2);
    w.score = w.acc + rows * E;
    w.max = w.score + rows * TK;
    w.sum = w.max + rows;
    return w;
}

/* All query heads of key head g, tokens t0.. of sequence b: rows ordered (token, head). */
static void tile(const struct shape *s, const struct plans *plans, float *out, float *lse, const float *q,
                 const uint16_t *k, const uint16_t *v, int b, int g, int t0, struct space w)
{
    int nt = min_int(s->tq, s->T - t0), rows = nt * s->n, all = round_up(rows, 16), E = s->E,
        last = nt < s->tq;
    size_t ldq = (size_t)s->H * (size_t)E, seq = (size_t)b * (size_t)s->T;
    for (int t = 0; t < nt; t++)
        bf16_narrow(w.q + (size_t)t * s->n * E, q + (seq + t0 + t) * ldq + (size_t)g * s->n * E,
                    (size_t)s->n * E);
    memset(w.q + (size_t)rows * E, 0, (size_t)(all - rows) * E * sizeof *w.q);
    memset(w.acc, 0, (size_t)all * E * sizeof(float));
    for (int i = 0; i < rows; i++) w.max[i] = -INFINITY, w.sum[i] = 0;
    for (int k0 = first_key(s, t0) / TK * TK; k0 < t0 + nt; k0 += TK) {
        int step = (min_int(TK, t0 + nt - k0) - 1) / STEP, nk = (step + 1) * STEP, mixed = step;
        if (!plans->cut_values) mixed = STEPS - 1, nk = TK;
        bf16_run_at(plans->score[last][mixed], w.q, k + (size_t)(k0 / TK) * s->k_size, w.score);
        for (int i = 0; i < rows; i++) {
            float *row = w.score + (size_t)i * nk;
            float f = softmax_row(s, row, w.p + (size_t)i * nk, t0 + i / s->n, k0, nk, &w.max[i], &w.sum[i]);
            if (f != 1) vec->scale(w.acc + (size_t)i * E, f, w.acc + (size_t)i * E, (size_t)E);
        }
        memset(w.p + (size_t)rows * nk, 0, (size_t)(all - rows) * nk * sizeof *w.p);
        bf16_run_at(plans->mix[last][mixed], w.p, v + (size_t)(k0 / TK) * s->v_size, w.acc);
    }
    for (int i = 0; i < rows; i++) {
        size_t row = seq + t0 + i / s->n, h = (size_t)(g * s->n + i % s->n);
        vec->scale(out + row * ldq + h * E, 1 / w.sum[i], w.acc + (size_t)i * E, (size_t)E);
        if (lse) lse[row * s->H + h] = w.max[i] + logf(w.sum[i]);
    }
}

/* ---- the whole ---- */

static bool make_plans(const struct shape *s, struct plans *p)
{
    int width = value_columns(s->E), rows[2] = {s->tq, s->T % s->tq}, most = (min_int(TK, s->T) - 1) / STEP;
    p->cut_values = width == s->E;
    for (int last = 0; last < 2; last++)
        for (int step = 0; step < STEPS; step++) {
            bool wanted = rows[last] && (p->cut_values ? step <= most : step == STEPS - 1);
            int m = round_up(rows[last] * s->n, 16), keys = (step + 1) * STEP;
            p->score[last][step] = wanted ? bf16_plan_pairs(m, keys, s->E, STEP, false) : NULL;
            p->mix[last][step] = wanted ? bf16_plan_pairs(m, s->E, keys, width, true) : NULL;
            if (wanted && (!p->score[last][step] || !p->mix[last][step])) return false;
        }
    return true;
}

bool bf16_attention(dev out, dev lse, dev q, dev k, dev v, const struct attention *a)
{
    int B = a->B, T = a->T, H = a->H, G = a->G, E = a->E;
    struct shape s = {B, T, H, G, E, H / G, tile_tokens(H / G), (T + TK - 1) / TK, a->scale, a->window, 0, 0};
    struct plans plans;
    int width = value_columns(E), tiles = (T + s.tq - 1) / s.tq;
    if (dev_ok(a->slopes) || a->softcap > 0 || !width || !make_plans(&s, &plans)) return false;
    s.k_size = s.v_size = (size_t)TK * (size_t)E;
    size_t each = space_floats(&s), ld = (size_t)G * (size_t)E, units = (size_t)B * (size_t)G;
    float *work = cpu_scratch(each * (size_t)omp_get_max_threads() + units * (size_t)s.blocks * s.k_size);
    uint16_t *kp = (uint16_t *)(work + each * (size_t)omp_get_max_threads());
    uint16_t *vp = kp + units * (size_t)s.blocks * s.k_size;
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (int i = 0; i < B * G * s.blocks; i++) {
            int unit = i / s.blocks, t0 = i % s.blocks * TK, n = min_int(TK, T - t0);
            size_t from = ((size_t)(unit / G) * T + t0) * ld + (size_t)(unit % G) * E;
            pack_keys(kp + (size_t)i * s.k_size, cpu_f(k) + from, ld, n, E);
            pack_values(vp + (size_t)i * s.v_size, cpu_f(v) + from, ld, n, E, width);
        }
#pragma omp for schedule(dynamic)
        for (int i = 0; i < B * G * tiles; i++) {
            int t0 = (tiles - 1 - i / (B * G)) * s.tq, unit = i % (B * G); /* the longest first */
            size_t at = (size_t)unit * (size_t)s.blocks * s.k_size;
            tile(&s, &plans, cpu_f(out), dev_ok(lse) ? cpu_f(lse) : NULL, cpu_f(q), kp + at, vp + at,
                 unit / G, unit % G, t0, space_at(&s, work + each * (size_t)omp_get_thread_num()));
        }
    }
    return true;
}
