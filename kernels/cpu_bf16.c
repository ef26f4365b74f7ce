/* SPDX-License-Identifier: Apache-2.0
 * --precision bf16 on the CPU: gemm rounds both inputs to bf16, sums in f32. Tiles of rows (and, of few rows,
 * chunks of columns) are functions of the shape alone; each is one single-threaded product by oneDNN. Weights
 * that were announced (hold) are rounded and laid out once, until something is written to them. */
#include "kernels/cpu_bf16.h"
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum {
    FEW_ROWS = 64, /* up to here columns are shared out instead of rows */
    UNIT = 16,     /* rows of a tile are a multiple of this, so that few different products are made */
    TILE = 128,    /* at most, */
    TILES = 16,    /* less when there would be fewer tiles than this, */
    TILE_BYTES = 512 << 10, /* or more of A than stays in a core's second cache */
};

/* Announced weights, and the forms of them that gemm has made. */
struct region {
    uintptr_t from, to;
    struct region *next;
};
struct form {
    uintptr_t from, to;
    const float *at;
    int n, k, ld;
    bool transposed, stale;
    struct bf16_matrix *b;
    struct form *next;
};
static struct region *regions;
static struct form *forms;
static struct backend cpu; /* what is wrapped */

/* ---- weights ---- */

static void hold(dev p, size_t n)
{
    struct region *r = cpu_bytes(sizeof *r);
    *r = (struct region){p.at, p.at + n * sizeof(float), regions};
    regions = r;
}

static bool held(uintptr_t from, uintptr_t to)
{
    const struct region *r = regions;
    while (r && !(r->from <= from && to <= r->to)) r = r->next;
    return r != NULL;
}

static void written(dev p, size_t bytes)
{
    for (struct form *f = forms; f; f = f->next)
        if (f->from < p.at + bytes && p.at < f->to) f->stale = true;
}

static void forget(uintptr_t from, uintptr_t to)
{
    for (struct form **at = &forms, *f; (f = *at);) {
        if (f->from >= to || f->to <= from) {
            at = &f->next;
            continue;
        }
        *at = f->next;
        bf16_matrix_free(f->b);
        free(f);
    }
}

static void release(dev p)
{
    for (struct region **at = &regions, *r; dev_ok(p) && (r = *at);) {
        if (r->from != p.at) {
            at = &r->next;
            continue;
        }
        *at = r->next;
        forget(r->from, r->to);
        free(r);
    }
    cpu.release(p);
}

static void put(dev dst, const void *src, size_t bytes)
{
    cpu.put(dst, src, bytes);
    written(dst, bytes);
}

static void copy(dev dst, dev src, size_t bytes)
{
    cpu.copy(dst, src, bytes);
    written(dst, bytes);
}

static void fill(dev dst, float value, size_t n)
{
    cpu.fill(dst, value, n);
    written(dst, n * sizeof(float));
}

static void adam(dev p, dev g, dev m, dev v, size_t n, float lr, float b1, float b2, float eps, float wd,
                 int t)
{
    cpu.adam(p, g, m, v, n, lr, b1, b2, eps, wd, t);
    written(p, n * sizeof(float));
}

/* The form of op(B) [k, n] to multiply with: kept when it is announced weights. *temporary: the caller frees
 * it. */
static struct bf16_matrix *right_side(const float *b, bool transposed, int n, int k, int ld, bool *temporary)
{
    size_t rows = (size_t)(transposed ? n : k), cols = (size_t)(transposed ? k : n);
    uintptr_t from = (uintptr_t)b, to = (uintptr_t)(b + (rows - 1) * (size_t)ld + cols);
    struct form **at = &forms, *f;
    *temporary = !held(from, to);
    while (!*temporary && (f = *at) &&
           (f->at != b || f->n != n || f->k != k || f->ld != ld || f->transposed != transposed))
        at = &f->next;
    if (!*temporary && f) {
        *at = f->next;
    } else {
        struct bf16_matrix *m = bf16_matrix_alloc(n, k);
        if (*temporary) {
            bf16_matrix_fill(m, b, transposed, ld);
            return m;
        }
        f = cpu_bytes(sizeof *f);
        *f = (struct form){from, to, b, n, k, ld, transposed, true, m, NULL};
    }
    f->next = forms, forms = f;
    if (f->stale) bf16_matrix_fill(f->b, b, transposed, ld);
    f->stale = false;
    return f->b;
}

/* ---- products ---- */

struct product {
    bool ta;
    int M, N, K, lda, ldc;
    float alpha, beta;
    const float *a;
    float *c;
    const struct bf16_matrix *b;
    bool direct, chunked; /* oneDNN writes to C itself; columns are shared out */
    int rows;             /* of a tile */
};

static int round_up(int x, int unit)
{
    return (x + unit - 1) / unit * unit;
}

static int tile_rows(const struct product *p)
{
    int fit = (int)(TILE_BYTES / sizeof(uint16_t) / (size_t)p->K) / UNIT * UNIT, rows;
    rows = p->chunked ? p->M : p->M / TILES;
    if (rows > TILE) rows = TILE;
    if (rows > fit) rows = fit;
    return round_up(rows < 1 ? 1 : rows, UNIT);
}

/* Columns r..r+n-1 of A, stored [K, M], to n rows; wide: a transposed tile [n, panel]. */
static void narrow_columns(const struct product *p, int r, int n, uint16_t *to, float *wide)
{
    for (int k = 0; k < p->K; k += vec->panel) {
        int m = p->K - k < vec->panel ? p->K - k : vec->panel;
        vec->pack_panel(wide, p->a + (size_t)k * (size_t)p->lda + r, (size_t)p->lda, false, m, n);
        for (int i = 0; i < n; i++)
            bf16_narrow(to + (size_t)i * (size_t)p->K + k, wide + (size_t)i * (size_t)vec->panel, (size_t)m);
    }
}

/* Rows r.. of op(A), rounded; those beyond its end are zero. wide: room for UNIT panels. */
static void narrow_rows(const struct product *p, int r, int rows, uint16_t *to, float *wide)
{
    int have = p->M - r < rows ? p->M - r : rows;
    size_t K = (size_t)p->K;
    for (int i = 0; i < have && p->ta; i += UNIT)
        narrow_columns(p, r + i, have - i < UNIT ? have - i : UNIT, to + (size_t)i * K, wide);
    for (int i = 0; i < have && !p->ta; i++)
        bf16_narrow(to + (size_t)i * K, p->a + (size_t)(r + i) * (size_t)p->lda, K);
    memset(to + (size_t)have * K, 0, (size_t)(rows - have) * K * sizeof *to);
}

static void combine(const struct product *p, int r, int have, int c0, int n, const float *z)
{
    for (int i = 0; i < have; i++) {
        float *c = p->c + (size_t)(r + i) * (size_t)p->ldc + c0;
        const float *from = z + (size_t)i * (size_t)n;
        for (int j = 0; j < n; j++) c[j] = p->alpha * from[j] + (p->beta == 0 ? 0 : p->beta * c[j]);
    }
}

/* What one thread works in. */
struct space {
    uint16_t *a;
    float *wide, *z;
};

static size_t space_floats(const struct product *p, int cols)
{
    size_t a = ((size_t)p->rows * (size_t)p->K / 2 + 15) / 16 * 16;
    return a + (p->ta ? (size_t)UNIT * (size_t)vec->panel : 0) + (size_t)p->rows * (size_t)cols;
}

static struct space space_at(const struct product *p, float *at)
{
    size_t a = ((size_t)p->rows * (size_t)p->K / 2 + 15) / 16 * 16;
    return (struct space){(uint16_t *)at, at + a, at + a + (p->ta ? (size_t)UNIT * (size_t)vec->panel : 0)};
}

/* Tile i of rows times chunk j of columns (-1: all). */
static void tile(const struct product *p, int i, int j, const struct bf16_plan *plan, bool direct,
                 struct space s)
{
    int r = i * p->rows, have = p->M - r < p->rows ? p->M - r : p->rows;
    int width = bf16_chunk_width(p->b), c0 = j < 0 ? 0 : j * width;
    int n = j < 0 || p->N - c0 < width ? p->N - c0 : width;
    narrow_rows(p, r, round_up(have, UNIT), s.a, s.wide);
    bf16_run(plan, p->b, j, s.a, direct ? p->c + (size_t)r * (size_t)p->ldc : s.z);
    if (!direct) combine(p, r, have, c0, n, s.z);
}

static void multiply(const struct product *p)
{
    int parts = p->chunked ? bf16_chunks(p->b) : 1, tiles = (p->M + p->rows - 1) / p->rows;
    int last = p->M - (tiles - 1) * p->rows;
    const struct bf16_plan *plan[2][2]; /* [the last tile][the last chunk] */
    bool direct[2] = {p->direct, p->direct && last % UNIT == 0};
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++)
            plan[i][j] = bf16_plan(p->b,
                                   !p->chunked ? -1
                                   : j         ? parts - 1
                                               : 0,
                                   i ? round_up(last, UNIT) : p->rows, direct[i] && p->beta != 0);
    size_t each = space_floats(p, direct[0] && direct[1] ? 0 : p->chunked ? bf16_chunk_width(p->b) : p->N);
    float *work = cpu_scratch(each * (size_t)omp_get_max_threads());
#pragma omp parallel for schedule(dynamic)
    for (int u = 0; u < tiles * parts; u++) {
        int i = u / parts, j = u % parts, end = i == tiles - 1;
        tile(p, i, p->chunked ? j : -1, plan[end][j == parts - 1], direct[end],
             space_at(p, work + each * (size_t)omp_get_thread_num()));
    }
}

static void gemm(bool ta, bool tb, int M, int N, int K, float alpha, dev A, int lda, dev B, int ldb,
                 float beta, dev C, int ldc)
{
    struct product p = {
        .ta = ta, .M = M, .N = N, .K = K, .lda = lda, .ldc = ldc, .alpha = alpha, .beta = beta};
    bool temporary;
    if (M <= 0 || N <= 0) return;
    if (K <= 0) {
        cpu.gemm(ta, tb, M, N, K, alpha, A, lda, B, ldb, beta, C, ldc);
        return;
    }
    struct bf16_matrix *b = right_side(cpu_f(B), tb, N, K, ldb, &temporary);
    p.a = cpu_f(A), p.c = cpu_f(C), p.b = b;
    p.chunked = M <= FEW_ROWS && bf16_chunks(b) > 1;
    p.direct = !p.chunked && ldc == N && alpha == 1 && (beta == 0 || beta == 1);
    p.rows = tile_rows(&p);
    multiply(&p);
    if (temporary) bf16_matrix_free(b);
}

static void attention(dev out, dev lse, dev q, dev k, dev v, const struct attention *a)
{
    if (!bf16_attention(out, lse, q, k, v, a)) cpu.attention(out, lse, q, k, v, a);
}

static void close_bf16(struct backend *be)
{
    while (regions) {
        struct region *r = regions;
        regions = r->next;
        free(r);
    }
    forget(0, UINTPTR_MAX);
    bf16_end();
    cpu.close(be);
}

void cpu_bf16_open(struct backend *be)
{
    cpu = *be;
    bf16_start(be->threads);
    be->bf16 = true;
    be->release = release;
    be->put = put;
    be->copy = copy;
    be->fill = fill;
    be->hold = hold;
    be->gemm = gemm;
    be->attention = attention;
    be->adam = adam;
    be->close = close_bf16;
}
