/* SPDX-License-Identifier: Apache-2.0
 * Causal grouped-query attention in tiles with a running softmax; nothing of size T x T. The backward
 * recomputes the probabilities from lse (FlashAttention-2, algorithm 2). Tiles outside the causal triangle or
 * the window are skipped. Row t of a sequence sees keys max(0, t - window + 1) .. t. */
#include "kernels/cpu.h"
#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <string.h>

/* Query rows and keys per tile, forward and backward; keys of a block in a decoding step. */
enum { TQ = 64, TK = 256, BQ = 64, BK = 128, TS = 16 };

struct shape {
    int B, T, H, G, E, n;
    float scale;
    int window;
}; /* n query heads per key head */

static int min_int(int a, int b)
{
    return a < b ? a : b;
}
static int first_key(const struct shape *s, int t)
{
    return s->window > 0 && t >= s->window ? t - s->window + 1 : 0;
}

/* C[m,n] = alpha op(A) op(B) + beta C */
static void product(bool ta, bool tb, int m, int n, int k, float alpha, const float *a, int lda,
                    const float *b, int ldb, float beta, float *c, int ldc)
{
    cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, m, n, k, alpha,
                a, lda, b, ldb, beta, c, ldc);
}

/* One row of scores for keys k0..k0+nk-1 of query t becomes exp(scale s - max); raises the running max and
 * sum, and returns the factor for what was summed so far. */
static float softmax_row(const struct shape *s, float *row, int t, int k0, int nk, float *max, float *sum)
{
    int lo = first_key(s, t) - k0, hi = min_int(nk, t + 1 - k0);
    float m, f = 1;
    lo = lo < 0 ? 0 : min_int(lo, nk);
    if (hi < lo) hi = lo;
    for (int i = 0; i < lo; i++) row[i] = 0;
    for (int i = hi; i < nk; i++) row[i] = 0;
    if (hi == lo) return 1;
    m = s->scale * vec->max(row + lo, (size_t)(hi - lo));
    if (m > *max) {
        f = *max == -INFINITY ? 0 : expf(*max - m);
        *max = m;
        *sum *= f;
    } else if (*max == -INFINITY) {
        *max = 0; /* only NaN so far: let it spread */
    }
    *sum += vec->exp_sum(row + lo, row + lo, s->scale, *max, (size_t)(hi - lo));
    return f;
}

/* All query heads of key head g, query rows t0..t0+nt-1 of sequence b: a tile of nt*n rows, ordered (t,
 * head). */
static void forward_tile(const struct shape *s, float *out, float *lse, const float *q, const float *k,
                         const float *v, int b, int g, int t0, float *work)
{
    int nt = min_int(TQ, s->T - t0), rows = nt * s->n, E = s->E, ldk = s->G * E;
    size_t ldq = (size_t)s->H * E, seq = (size_t)b * s->T;
    float *qt = work, *acc = qt + (size_t)TQ * s->n * E, *score = acc + (size_t)TQ * s->n * E;
    float *max = score + (size_t)TQ * s->n * TK, *sum = max + TQ * s->n;
    int begin = first_key(s, t0) / TK * TK, end = t0 + nt;
    for (int t = 0; t < nt; t++)
        memcpy(qt + (size_t)t * s->n * E, q + (seq + t0 + t) * ldq + (size_t)g * s->n * E,
               (size_t)s->n * E * sizeof(float));
    memset(acc, 0, (size_t)rows * E * sizeof(float));
    for (int i = 0; i < rows; i++) {
        max[i] = -INFINITY;
        sum[i] = 0;
    }
    for (int k0 = begin; k0 < end; k0 += TK) {
        int nk = min_int(TK, end - k0);
        const float *kt = k + (seq + k0) * ldk + (size_t)g * E, *vt = v + (seq + k0) * ldk + (size_t)g * E;
        product(false, true, rows, nk, E, 1, qt, E, kt, ldk, 0, score, TK);
        for (int i = 0; i < rows; i++) {
            float f = softmax_row(s, score + (size_t)i * TK, t0 + i / s->n, k0, nk, &max[i], &sum[i]);
            if (f != 1) vec->scale(acc + (size_t)i * E, f, acc + (size_t)i * E, (size_t)E);
        }
        product(false, false, rows, E, nk, 1, score, TK, vt, ldk, 1, acc, E);
    }
    for (int i = 0; i < rows; i++) {
        size_t row = seq + t0 + i / s->n;
        int h = g * s->n + i % s->n;
        vec->scale(out + row * ldq + (size_t)h * E, 1 / sum[i], acc + (size_t)i * E, (size_t)E);
        if (lse) lse[row * s->H + h] = max[i] + logf(sum[i]);
    }
}

void cpu_attention(dev out, dev lse, dev q, dev k, dev v, int B, int T, int H, int G, int E, float scale,
                   int window)
{
    struct shape s = {B, T, H, G, E, H / G, scale, window};
    int tiles = (T + TQ - 1) / TQ;
    size_t each = (size_t)TQ * s.n * (2 * E + TK + 2);
    float *work = cpu_scratch(each * omp_get_max_threads());
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < B * G * tiles; i++) {
        int tile = tiles - 1 - i / (B * G), unit = i % (B * G); /* the longest first */
        forward_tile(&s, cpu_f(out), dev_ok(lse) ? cpu_f(lse) : NULL, cpu_f(q), cpu_f(k), cpu_f(v), unit / G,
                     unit % G, tile * TQ, work + each * omp_get_thread_num());
    }
}

struct back {
    float *dq, *dk, *dv; /* dk, dv of this head alone, [T, E] with leading dimension ldk_out */
    const float *dout, *out, *lse, *q, *k, *v;
    int ld_out;
};

/* Query head h of sequence b: dq, and its part of dk and dv. */
static void backward_head(const struct shape *s, const struct back *p, int b, int h, float *dk, float *dv,
                          float *work)
{
    int E = s->E, ldq = s->H * E, ldk = s->G * E, g = h / s->n;
    size_t seq = (size_t)b * s->T;
    float *prob = work, *ds = prob + BQ * BK, *delta = ds + BQ * BK; /* delta[T] */
    const float *q = p->q + seq * ldq + (size_t)h * E, *dout = p->dout + seq * ldq + (size_t)h * E;
    const float *k = p->k + seq * ldk + (size_t)g * E, *v = p->v + seq * ldk + (size_t)g * E;
    const float *out = p->out + seq * ldq + (size_t)h * E, *lse = p->lse + seq * s->H + h;
    float *dq = p->dq + seq * ldq + (size_t)h * E;
    for (int t = 0; t < s->T; t++) {
        delta[t] = vec->dot(dout + (size_t)t * ldq, out + (size_t)t * ldq, (size_t)E);
        memset(dq + (size_t)t * ldq, 0, (size_t)E * sizeof(float));
        memset(dk + (size_t)t * p->ld_out, 0, (size_t)E * sizeof(float));
        memset(dv + (size_t)t * p->ld_out, 0, (size_t)E * sizeof(float));
    }
    for (int k0 = 0; k0 < s->T; k0 += BK) {
        int width = min_int(BK, s->T - k0);
        for (int t0 = k0; t0 < s->T && first_key(s, t0) < k0 + width; t0 += BQ) {
            int nt = min_int(BQ, s->T - t0), nk = min_int(width, t0 + nt - k0);
            product(false, true, nt, nk, E, 1, q + (size_t)t0 * ldq, ldq, k + (size_t)k0 * ldk, ldk, 0, prob,
                    BK);
            product(false, true, nt, nk, E, 1, dout + (size_t)t0 * ldq, ldq, v + (size_t)k0 * ldk, ldk, 0, ds,
                    BK);
            for (int i = 0; i < nt; i++) {
                int t = t0 + i, lo = first_key(s, t) - k0, hi = min_int(nk, t + 1 - k0);
                float *pr = prob + (size_t)i * BK, *dr = ds + (size_t)i * BK;
                lo = lo < 0 ? 0 : min_int(lo, nk);
                if (hi < lo) hi = lo;
                for (int j = 0; j < lo; j++) pr[j] = dr[j] = 0;
                for (int j = hi; j < nk; j++) pr[j] = dr[j] = 0;
                vec->exp_sum(pr + lo, pr + lo, s->scale, lse[(size_t)t * s->H], (size_t)(hi - lo));
                vec->softmax_back(dr + lo, pr + lo, delta[t], s->scale, (size_t)(hi - lo));
            }
            product(true, false, nk, E, nt, 1, prob, BK, dout + (size_t)t0 * ldq, ldq, 1,
                    dv + (size_t)k0 * p->ld_out, p->ld_out);
            product(true, false, nk, E, nt, 1, ds, BK, q + (size_t)t0 * ldq, ldq, 1,
                    dk + (size_t)k0 * p->ld_out, p->ld_out);
            product(false, false, nt, E, nk, 1, ds, BK, k + (size_t)k0 * ldk, ldk, 1, dq + (size_t)t0 * ldq,
                    ldq);
        }
    }
}

void cpu_attention_back(dev dq, dev dk, dev dv, dev dout, dev out, dev lse, dev q, dev k, dev v, int B, int T,
                        int H, int G, int E, float scale, int window)
{
    struct shape s = {B, T, H, G, E, H / G, scale, window};
    struct back p = {cpu_f(dq),  cpu_f(dk), cpu_f(dv), cpu_f(dout), cpu_f(out),
                     cpu_f(lse), cpu_f(q),  cpu_f(k),  cpu_f(v),    H * E};
    size_t each = 2 * BQ * BK + (size_t)T, per_head = (size_t)B * T * H * E;
    float *parts = cpu_scratch(2 * per_head + each * omp_get_max_threads()), *work = parts + 2 * per_head;
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < B * H; i++) {
        int b = i / H, h = i % H;
        float *at = parts + ((size_t)b * T * H + h) * E;
        backward_head(&s, &p, b, h, at, at + per_head, work + each * omp_get_thread_num());
    }
/* the query heads of a key head, in order */
#pragma omp parallel for schedule(static)
    for (int r = 0; r < B * T; r++) {
        for (int g = 0; g < G; g++) {
            float *ok = p.dk + ((size_t)r * G + g) * E, *ov = p.dv + ((size_t)r * G + g) * E;
            for (int j = 0; j < s.n; j++) {
                const float *ik = parts + ((size_t)r * H + g * s.n + j) * E, *iv = ik + per_head;
                if (j == 0) {
                    memcpy(ok, ik, (size_t)E * sizeof(float));
                    memcpy(ov, iv, (size_t)E * sizeof(float));
                } else {
                    vec->add(ok, ok, ik, (size_t)E);
                    vec->add(ov, ov, iv, (size_t)E);
                }
            }
        }
    }
}

/* Asks for part `i` of `parts` of rows [n, width]: in small portions, between other work, the memory keeps
 * up. */
static void prefetch_part(const float *rows, size_t ld, int n, int width, int i, int parts)
{
    int line = CPU_ALIGN / 4, each = (width + line - 1) / line, end = n * each * (i + 1) / parts;
    for (int l = n * each * i / parts; l < end; l++)
        __builtin_prefetch(rows + l / each * ld + l % each * line);
}

/* `groups` neighbouring key heads of one sequence with their query heads. Blocks of keys stay in the cache
 * for all of them: the cache [cap, G*E] is read once, in order. */
static void step_groups(const struct shape *s, int groups, float *out, const float *q, const float *k,
                        const float *v, float *score)
{
    int first = first_key(s, s->T - 1), n = s->T, E = s->E, heads = groups * s->n;
    size_t ld = (size_t)s->G * E;
    for (int t = first; t < n; t += TS) {
        int next = min_int(TS, n - t - TS);
        for (int h = 0; h < heads; h++) {
            prefetch_part(k + (t + TS) * ld, ld, next, groups * E, h, heads);
            vec->scores(score + (size_t)h * n + t, q + (size_t)h * E, k + t * ld + (size_t)(h / s->n) * E, ld,
                        min_int(TS, n - t), E, s->scale);
        }
    }
    for (int h = 0; h < heads; h++) {
        float *row = score + (size_t)h * n + first, max = vec->max(row, (size_t)(n - first)), sum;
        sum = vec->exp_sum(row, row, 1, max == -INFINITY ? 0 : max, (size_t)(n - first));
        vec->scale(row, 1 / sum, row, (size_t)(n - first));
    }
    memset(out, 0, (size_t)heads * E * sizeof(float));
    for (int t = first; t < n; t += TS) {
        int next = min_int(TS, n - t - TS);
        for (int h = 0; h < heads; h++) {
            prefetch_part(v + (t + TS) * ld, ld, next, groups * E, h, heads);
            vec->mix(out + (size_t)h * E, score + (size_t)h * n + t, v + t * ld + (size_t)(h / s->n) * E, ld,
                     min_int(TS, n - t), E);
        }
    }
}

void cpu_attention_step(dev out, dev q, dev kc, dev vc, int B, int n, int cap, int H, int G, int E,
                        float scale, int window)
{
    struct shape s = {B, n, H, G, E, H / G, scale, window};
    int groups = B >= 8 ? G : 1; /* of one task */
    size_t each = (size_t)n * s.n * groups;
    float *work = cpu_scratch(each * omp_get_max_threads());
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < B * G / groups; i++) {
        int b = i * groups / G, g = i * groups % G;
        size_t row = ((size_t)b * H + g * s.n) * E, cache = ((size_t)b * cap * G + g) * E;
        step_groups(&s, groups, cpu_f(out) + row, cpu_f(q) + row, cpu_f(kc) + cache, cpu_f(vc) + cache,
                    work + each * omp_get_thread_num());
    }
}
