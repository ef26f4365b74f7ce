/* SPDX-License-Identifier: Apache-2.0
 * Causal grouped-query attention in tiles with a running softmax; nothing of size T x T. The backward
 * recomputes the probabilities from lse (FlashAttention-2, algorithm 2). A panel of queries, those of all
 * heads of one key head, token by token, stands in the columns of its tiles; keys outside the causal triangle
 * or the window are skipped. Row t of a sequence sees keys max(0, t - window + 1) .. t. */
#include "kernels/cpu.h"
#include <math.h>
#include <omp.h>
#include <string.h>

/* Keys per tile, forward and backward; tasks that the backward has at least; keys of a block in a decoding
 * step. */
enum { TK = 192, BK = 96, TASKS = 16, TS = 16, MOST = 32 /* rows of a panel */ };

struct shape {
    int B, T, H, G, E, n; /* n query heads per key head */
    float scale, softcap;
    int window;
    const float *slopes; /* or NULL */
    bool plain;          /* logits are the scaled products */
};

static struct shape shape_of(const struct attention *a)
{
    struct shape s = {a->B,     a->T,       a->H,      a->G, a->E, a->H / a->G,
                      a->scale, a->softcap, a->window, NULL, false};
    if (dev_ok(a->slopes)) s.slopes = cpu_f(a->slopes);
    s.plain = !s.slopes && !(s.softcap > 0);
    return s;
}

static int min_int(int a, int b)
{
    return a < b ? a : b;
}
static int max_int(int a, int b)
{
    return a > b ? a : b;
}
static int first_key(const struct shape *s, int t)
{
    return s->window > 0 && t >= s->window ? t - s->window + 1 : 0;
}

/* Rows r0 .. r0 + rows - 1 of the T * n queries of key head g of sequence b. */
struct panel {
    int rows, begin, end;            /* keys begin .. end - 1 are seen by some of them, */
    int all_begin, all_end;          /* all_begin .. all_end - 1 by all */
    int32_t first[MOST], last[MOST]; /* keys that each sees */
    size_t token[MOST], at[MOST];    /* where it is: b * T + t; at its E numbers in [B * T, H * E] */
    float slope[MOST];               /* of its head, where there are slopes */
};

static int count_panels(const struct shape *s)
{
    return (s->T * s->n + vec->panel - 1) / vec->panel;
}

static void find_panel(const struct shape *s, struct panel *p, int b, int g, int number)
{
    int r0 = number * vec->panel, t1;
    p->rows = min_int(vec->panel, s->T * s->n - r0);
    for (int i = 0; i < vec->panel; i++) {
        int r = r0 + min_int(i, p->rows - 1), t = r / s->n;
        p->first[i] = first_key(s, t);
        p->last[i] = t;
        p->token[i] = (size_t)b * s->T + t;
        p->at[i] = (p->token[i] * s->H + g * s->n + r % s->n) * s->E;
        p->slope[i] = s->slopes ? s->slopes[g * s->n + r % s->n] : 0;
    }
    t1 = p->last[p->rows - 1];
    p->begin = p->first[0];
    p->all_begin = first_key(s, t1);
    p->all_end = p->last[0] + 1;
    p->end = t1 + 1;
}

/* tile[rows, E], zeros below up to a whole panel */
static void get_rows(const struct shape *s, const struct panel *p, float *tile, const float *x)
{
    for (int i = 0; i < p->rows; i++)
        memcpy(tile + (size_t)i * s->E, x + p->at[i], (size_t)s->E * sizeof(float));
    memset(tile + (size_t)p->rows * s->E, 0, (size_t)(vec->panel - p->rows) * s->E * sizeof(float));
}

/* Rows of x from acc[E, panel]. */
static void put_rows(const struct shape *s, const struct panel *p, float *x, const float *acc, float *tile)
{
    int P = vec->panel;
    for (int e = 0; e < s->E; e += P) {
        int n = min_int(P, s->E - e);
        vec->pack_panel(tile, acc + (size_t)e * P, (size_t)P, false, n, P);
        for (int i = 0; i < p->rows; i++)
            memcpy(x + p->at[i] + e, tile + (size_t)i * P, (size_t)n * sizeof(float));
    }
}

/* Scores of keys k0 .. k0 + nk - 1. */
static void mask(const struct panel *p, float *score, int k0, int nk)
{
    int P = vec->panel, after = min_int(max_int(p->all_end - k0, 0), nk),
        before = min_int(p->all_begin - k0, nk);
    if (before > 0) vec->panel_mask(score, before, k0, p->first, p->last);
    if (after < nk) vec->panel_mask(score + (size_t)after * P, nk - after, k0 + after, p->first, p->last);
}

/* Products with keys k0 .. k0 + nk - 1 become what is to be multiplied with the returned number before the
 * softmax; those that a query does not see -infinity. */
static float logits(const struct shape *s, const struct panel *p, float *score, int k0, int nk)
{
    if (!s->plain)
        vec->panel_logits(score, nk, k0, s->scale, s->softcap, s->slopes ? p->slope : NULL, p->last);
    mask(p, score, k0, nk);
    return s->plain ? s->scale : 1;
}

static size_t forward_floats(const struct shape *s)
{
    return (size_t)vec->panel * (3 * s->E + TK + vec->panel);
}

static void forward_panel(const struct shape *s, float *out, float *lse, const float *q, const float *k,
                          const float *v, int b, int g, int number, float *work)
{
    int P = vec->panel, E = s->E;
    size_t ldk = (size_t)s->G * E, keys = (size_t)b * s->T * ldk + (size_t)g * E, size = (size_t)P * E;
    float *rows = work, *qt = rows + size, *acc = qt + size, *score = acc + size, *tile = score + TK * P;
    float max[MOST], sum[MOST], factor[MOST];
    struct panel p;
    find_panel(s, &p, b, g, number);
    get_rows(s, &p, rows, q);
    vec->pack_panel(qt, rows, (size_t)E, false, P, E);
    for (int i = 0; i < P; i++) {
        max[i] = -INFINITY;
        sum[i] = 0;
    }
    for (int k0 = p.begin; k0 < p.end; k0 += TK) {
        int nk = min_int(TK, p.end - k0);
        bool more = k0 > p.begin;
        vec->panel_rows(score, (size_t)P, 1, 0, P, qt, k + keys + k0 * ldk, ldk, 1, E, nk);
        vec->panel_softmax(score, nk, logits(s, &p, score, k0, nk), max, sum, factor);
        if (more) vec->panel_scale(acc, E, factor);
        vec->panel_rows(acc, (size_t)P, 1, more, P, score, v + keys + k0 * ldk, 1, ldk, nk, E);
    }
    for (int i = 0; i < P; i++) factor[i] = 1 / sum[i];
    vec->panel_scale(acc, E, factor);
    put_rows(s, &p, out, acc, tile);
    for (int i = 0; lse && i < p.rows; i++) lse[p.at[i] / E] = max[i] + logf(sum[i]);
}

void cpu_attention(dev out, dev lse, dev q, dev k, dev v, const struct attention *a)
{
    struct shape s = shape_of(a);
    int panels = count_panels(&s), B = s.B, G = s.G;
    size_t each = forward_floats(&s);
    float *work = cpu_scratch(each * omp_get_max_threads());
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < B * G * panels; i++) {
        int panel = panels - 1 - i / (B * G), unit = i % (B * G); /* the longest first */
        forward_panel(&s, cpu_f(out), dev_ok(lse) ? cpu_f(lse) : NULL, cpu_f(q), cpu_f(k), cpu_f(v), unit / G,
                      unit % G, panel, work + each * omp_get_thread_num());
    }
}

struct back {
    float *dq;
    const float *dout, *out, *lse, *q, *k, *v;
    int units; /* tasks per key head and sequence */
};

static int e_panels(const struct shape *s)
{
    return (s->E + vec->panel - 1) / vec->panel;
}

static size_t back_floats(const struct shape *s)
{
    size_t P = (size_t)vec->panel;
    return P * (5 * s->E + (s->plain ? 2 : 3) * BK + P + 2 * P * e_panels(s));
}

/* One panel's dq, and what it adds to dk and dv [T, E] of its key head (their rows ld apart). */
static void backward_panel(const struct shape *s, const struct back *a, int b, int g, int number, float *dk,
                           float *dv, size_t ld, float *work)
{
    int P = vec->panel, E = s->E, blocks = e_panels(s);
    size_t ldk = (size_t)s->G * E, keys = (size_t)b * s->T * ldk + (size_t)g * E, size = (size_t)P * E;
    float *rows = work, *drows = rows + size, *qt = drows + size, *dt = qt + size, *acc = dt + size;
    float *score = acc + size, *ds = score + BK * P, *tile = ds + BK * P, *qe = tile + P * P;
    float *de = qe + (size_t)blocks * P * P, lse[MOST] = {0}, delta[MOST] = {0};
    float *product = de + (size_t)blocks * P * P; /* [BK, P] unless plain */
    struct panel p;
    find_panel(s, &p, b, g, number);
    get_rows(s, &p, rows, a->q);
    get_rows(s, &p, drows, a->dout);
    vec->pack_panel(qt, rows, (size_t)E, false, P, E);
    vec->pack_panel(dt, drows, (size_t)E, false, P, E);
    for (int e = 0; e < blocks; e++) {
        int n = min_int(P, E - e * P);
        vec->pack_panel(qe + (size_t)e * P * P, rows + e * P, (size_t)E, true, n, P);
        vec->pack_panel(de + (size_t)e * P * P, drows + e * P, (size_t)E, true, n, P);
    }
    for (int i = 0; i < p.rows; i++) {
        lse[i] = a->lse[p.at[i] / E];
        delta[i] = vec->dot(a->dout + p.at[i], a->out + p.at[i], (size_t)E);
    }
    for (int k0 = p.begin; k0 < p.end; k0 += BK) {
        int nk = min_int(BK, p.end - k0);
        const float *kt = a->k + keys + k0 * ldk;
        vec->panel_rows(score, (size_t)P, 1, 0, P, qt, kt, ldk, 1, E, nk);
        vec->panel_rows(ds, (size_t)P, 1, 0, P, dt, a->v + keys + k0 * ldk, ldk, 1, E, nk);
        if (!s->plain) memcpy(product, score, (size_t)nk * P * sizeof *score);
        vec->panel_softmax_back(score, ds, nk, logits(s, &p, score, k0, nk), lse, delta);
        if (!s->plain) vec->panel_slopes(ds, product, nk, s->scale, s->softcap);
        vec->panel_rows(acc, (size_t)P, 1, k0 > p.begin, P, ds, kt, 1, ldk, nk, E);
        for (int e = 0; e < blocks; e++) {
            int n = min_int(P, E - e * P);
            size_t at = k0 * ld + (size_t)e * P, block = (size_t)e * P * P;
            vec->panel_rows(dv + at, ld, 1, 1, n, de + block, score, (size_t)P, 1, P, nk);
            vec->panel_rows(dk + at, ld, 1, 1, n, qe + block, ds, (size_t)P, 1, P, nk);
        }
    }
    put_rows(s, &p, a->dq, acc, tile);
}

/* Every `units`th panel, which have about the same number of keys in all. */
static void backward_unit(const struct shape *s, const struct back *a, int b, int g, int unit, float *dk,
                          float *dv, size_t ld, float *work)
{
    for (int t = 0; t < s->T; t++) {
        memset(dk + t * ld, 0, (size_t)s->E * sizeof(float));
        memset(dv + t * ld, 0, (size_t)s->E * sizeof(float));
    }
    for (int p = unit, n = count_panels(s); p < n; p += a->units)
        backward_panel(s, a, b, g, p, dk, dv, ld, work);
}

/* dk and dv: the units of a key head, in order. parts[B, G, units, 2, T, E] */
static void add_units(const struct shape *s, int units, float *dk, float *dv, const float *parts)
{
    size_t E = (size_t)s->E, each = 2 * (size_t)s->T * E;
#pragma omp parallel for schedule(static)
    for (int r = 0; r < s->B * s->T; r++)
        for (int g = 0; g < s->G; g++) {
            size_t to = ((size_t)r * s->G + g) * E;
            const float *from = parts + ((size_t)(r / s->T) * s->G + g) * units * each + r % s->T * E;
            memcpy(dk + to, from, E * sizeof(float));
            memcpy(dv + to, from + each / 2, E * sizeof(float));
            for (int u = 1; u < units; u++) {
                vec->add(dk + to, dk + to, from + u * each, E);
                vec->add(dv + to, dv + to, from + u * each + each / 2, E);
            }
        }
}

void cpu_attention_back(dev dq, dev dk, dev dv, dev dout, dev out, dev lse, dev q, dev k, dev v,
                        const struct attention *attn)
{
    struct shape s = shape_of(attn);
    int B = s.B, T = s.T, G = s.G, E = s.E;
    int units = min_int((TASKS + B * G - 1) / (B * G), count_panels(&s));
    struct back a = {cpu_f(dq), cpu_f(dout), cpu_f(out), cpu_f(lse), cpu_f(q), cpu_f(k), cpu_f(v), units};
    size_t each = back_floats(&s), part = units > 1 ? 2 * (size_t)T * E : 0;
    float *parts = cpu_scratch(part * B * G * units + each * omp_get_max_threads());
    float *work = parts + part * B * G * units;
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < B * G * units; i++) {
        int unit = i % units, g = i / units % G, b = i / units / G;
        size_t to = ((size_t)b * T * G + g) * E;
        float *ok = part ? parts + part * i : cpu_f(dk) + to, *ov = part ? ok + part / 2 : cpu_f(dv) + to;
        backward_unit(&s, &a, b, g, unit, ok, ov, part ? (size_t)E : (size_t)G * E,
                      work + each * omp_get_thread_num());
    }
    if (part) add_units(&s, units, cpu_f(dk), cpu_f(dv), parts);
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
                        const float *v, const float *slopes, float *score)
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
    for (int h = 0; h < heads && !s->plain; h++) {
        float *row = score + (size_t)h * n + first;
        if (s->softcap > 0) vec->softcap(row, s->softcap, (size_t)(n - first));
        if (slopes) vec->ramp(row, slopes[h], (float)(first - n + 1), (size_t)(n - first));
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

void cpu_attention_step(dev out, dev q, dev kc, dev vc, int n, int cap, const struct attention *a)
{
    struct shape s = shape_of(a);
    int B = s.B, H = s.H, G = s.G, E = s.E;
    s.T = n;
    int groups = B >= 8 ? G : 1; /* of one task */
    size_t each = (size_t)n * s.n * groups;
    float *work = cpu_scratch(each * omp_get_max_threads());
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < B * G / groups; i++) {
        int b = i * groups / G, g = i * groups % G;
        size_t row = ((size_t)b * H + g * s.n) * E, cache = ((size_t)b * cap * G + g) * E;
        step_groups(&s, groups, cpu_f(out) + row, cpu_f(q) + row, cpu_f(kc) + cache, cpu_f(vc) + cache,
                    s.slopes ? s.slopes + g * s.n : NULL, work + each * omp_get_thread_num());
    }
}
