/* SPDX-License-Identifier: Apache-2.0
 * Matrix products on fixed tiles of the result, so that it does not depend on who computes which. Two ways:
 * - one single-threaded BLAS call per tile, tiles large enough for BLAS to run near its peak and many enough
 * to share out;
 * - our own (vec_gemm.h), which packs one matrix alone: for few rows (decoding), where BLAS would spend its
 * time on packing B, and with AVX-512, where it is the faster at every size that we use. Every element is one
 * sum over k in order, whatever is packed and shared out how. */
#include "kernels/cpu.h"
#include <cblas.h>
#include <omp.h>

enum {
    FEW_ROWS = 64,
    FEW_PANELS = 8,   /* up to here all threads share one packed A */
    PACK = 128,       /* of K, that one task packs then */
    GRAM_ROWS = 2048, /* of X'X at a time, to bound the packed copy */
    TASKS = 4,        /* for each thread, when a panel of B need not be packed more often than */
    TASK_ROWS = 252,  /* once for this many rows of A */
};

struct tiles {
    int m, n;
}; /* size of a tile of C */

/* Rounds x / parts up to a multiple of `unit`. */
static int part_size(int x, int parts, int unit)
{
    int p = (x + parts - 1) / parts;
    return (p + unit - 1) / unit * unit;
}

/* A function of the shape alone: near 256 x 640, M and N each in equal parts; at least four tiles to share
 * out. */
static struct tiles choose_tiles(int M, int N)
{
    struct tiles t;
    int nm = (M + 255) / 256, nn = (N + 639) / 640;
    while (nm * nn < 4 && N / nn >= 128) nn *= 2;
    t.m = part_size(M, nm, 8);
    t.n = part_size(N, nn, 16);
    return t;
}

struct product {
    bool ta, tb;
    int M, N, K, lda, ldb, ldc;
    float alpha, beta;
    const float *a, *b;
    float *c;
};

#define STRIP_FLOATS ((size_t)4 << 20) /* of B that are packed whole: 16 MiB */

/* Measured on Zen 4. Reading columns of B at strides of a multiple of 4 KiB fights for a few lines of the
 * first cache. */
static bool own_is_better(const struct product *p)
{
    if (p->M <= FEW_ROWS) return true;
    return vec == &vec_avx512 && p->N >= 128 && p->K >= 64 && p->K <= 8192 &&
           (p->tb ? p->ldb % 1024 != 0 : (size_t)p->N * (size_t)p->K <= STRIP_FLOATS);
}

/* Packs columns k..k+n-1 of the rows of panel p. */
static void pack_panel(const struct product *g, float *xt, int p, int k, int n)
{
    int r = p * vec->panel, m = g->M - r < vec->panel ? g->M - r : vec->panel;
    vec->pack_panel(xt + (size_t)k * vec->panel,
                    g->ta ? g->a + (size_t)k * g->lda + r : g->a + (size_t)r * g->lda + k, (size_t)g->lda,
                    g->ta, m, n);
}

/* Columns n0..n1-1 of panels p0..p1-1, which lie packed at xt and stay in the cache while B passes by: B
 * itself, or its packed strips. lower: only blocks that begin at or left of the diagonal. */
static void own_block(const struct product *g, const float *xt, int p0, int p1, int n0, int n1,
                      const float *strips, bool lower)
{
    int cols = vec->cols;
    for (int j = n0; j < n1; j += cols) {
        int n = n1 - j < cols ? n1 - j : cols;
        const float *w = g->tb ? g->b + (size_t)j * g->ldb : g->b + j;
        size_t wj = g->tb ? (size_t)g->ldb : 1, wk = g->tb ? 1 : (size_t)g->ldb;
        int first = lower && j >= (p0 + 1) * vec->panel ? j / vec->panel : p0;
        if (strips && n == cols) w = strips + (size_t)j * g->K, wk = (size_t)cols;
        for (int p = first; p < p1; p++) {
            int r = p * vec->panel, m = g->M - r < vec->panel ? g->M - r : vec->panel;
            vec->panel_product(g->c + (size_t)r * g->ldc + j, (size_t)g->ldc, g->alpha, g->beta, m,
                               xt + (size_t)(p - p0) * g->K * vec->panel, w, wj, wk, g->K, n,
                               strips && p == first);
        }
    }
}

/* Few panels: all threads pack them, then share out the columns. */
static void own_gemm_few(const struct product *g, int panels)
{
    size_t size = (size_t)g->K * vec->panel;
    int parts = (g->K + PACK - 1) / PACK, step = vec->cols;
    float *xt = cpu_scratch(size * panels);
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (int i = 0; i < panels * parts; i++) {
            int k = i % parts * PACK;
            pack_panel(g, xt + i / parts * size, i / parts, k, g->K - k < PACK ? g->K - k : PACK);
        }
#pragma omp for schedule(static)
        for (int n = 0; n < g->N; n += step)
            own_block(g, xt, 0, panels, n, n + step < g->N ? n + step : g->N, NULL, false);
    }
}

/* B's columns in strips [K, cols]; a last, narrower one is read where it lies. */
static void pack_strips(const struct product *g, float *strips)
{
    int cols = vec->cols;
#pragma omp parallel for schedule(static)
    for (int k = 0; k < g->K; k += PACK)
        for (int j = 0; j + cols <= g->N; j += cols)
            vec->copy_strip(strips + (size_t)j * g->K + (size_t)k * cols, g->b + (size_t)k * g->ldb + j,
                            (size_t)g->ldb, g->K - k < PACK ? g->K - k : PACK);
}

/* Each task packs a panel of A and passes B by it: all of it, or (lower) only the columns that begin at or
 * left of the diagonal. */
static void own_panels(const struct product *g, bool lower)
{
    int panel = vec->panel, panels = (g->M + panel - 1) / panel;
    size_t size = (size_t)g->K * panel;
    float *work = cpu_scratch(size * omp_get_max_threads() + (g->tb ? 0 : (size_t)g->K * g->N));
    float *strips = g->tb ? NULL : work + size * omp_get_max_threads();
    if (strips) pack_strips(g, strips);
#pragma omp parallel for schedule(dynamic)
    for (int p = panels - 1; p >= 0; p--) { /* those with most columns first */
        float *xt = work + size * omp_get_thread_num();
        int n = g->N;
        if (lower && (p + 1) * panel < n) n = ((p + 1) * panel + vec->cols - 1) / vec->cols * vec->cols;
        pack_panel(g, xt, p, 0, g->K);
        own_block(g, xt, p, p + 1, 0, n < g->N ? n : g->N, strips, lower);
    }
}

/* The other way round: a task packs a panel of columns of B and passes rows of A by it. Less to pack when B
 * is the smaller one, or would have to be packed anyway, and rows of C are written as they come. */
static void own_rows(const struct product *g)
{
    int panel = vec->panel, panels = (g->N + panel - 1) / panel, tasks = TASKS * omp_get_max_threads();
    int parts = (tasks + panels - 1) / panels, most = (g->M + TASK_ROWS - 1) / TASK_ROWS, rows;
    size_t size = (size_t)g->K * panel;
    float *work = cpu_scratch(size * omp_get_max_threads());
    rows = part_size(g->M, parts < most ? parts : most, vec->cols);
#pragma omp parallel for schedule(dynamic) collapse(2)
    for (int p = 0; p < panels; p++)
        for (int r = 0; r < g->M; r += rows) {
            float *xt = work + size * omp_get_thread_num();
            int n = p * panel, m = g->N - n < panel ? g->N - n : panel;
            vec->pack_panel(xt, g->tb ? g->b + (size_t)n * g->ldb : g->b + n, (size_t)g->ldb, !g->tb, m,
                            g->K);
            vec->panel_rows(g->c + (size_t)r * g->ldc + n, (size_t)g->ldc, g->alpha, g->beta, m, xt,
                            g->a + (size_t)r * g->lda, (size_t)g->lda, 1, g->K,
                            g->M - r < rows ? g->M - r : rows);
        }
}

static void own_gemm(const struct product *g)
{
    int panels = (g->M + vec->panel - 1) / vec->panel;
    bool rows = !g->ta && g->lda % 1024 != 0 && (!g->tb || g->N <= 4 * g->M);
    if (panels <= FEW_PANELS)
        own_gemm_few(g, panels);
    else if (rows)
        own_rows(g);
    else
        own_panels(g, false);
}

void cpu_gemm(bool ta, bool tb, int M, int N, int K, float alpha, dev A, int lda, dev B, int ldb, float beta,
              dev C, int ldc)
{
    const float *a = cpu_f(A), *b = cpu_f(B);
    float *c = cpu_f(C);
    struct tiles t = choose_tiles(M, N);
    int nm, nn;
    if (M <= 0 || N <= 0) return;
    struct product p = {ta, tb, M, N, K, lda, ldb, ldc, alpha, beta, a, b, c};
    if (own_is_better(&p)) {
        own_gemm(&p);
        return;
    }
    nm = (M + t.m - 1) / t.m;
    nn = (N + t.n - 1) / t.n;
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < nm * nn; i++) {
        int r = i / nn * t.m, s = i % nn * t.n;
        int m = M - r < t.m ? M - r : t.m, n = N - s < t.n ? N - s : t.n;
        cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, m, n, K,
                    alpha, ta ? a + r : a + (size_t)r * lda, lda, tb ? b + (size_t)s * ldb : b + s, ldb, beta,
                    c + (size_t)r * ldc + s, ldc);
    }
}

static void blas_gram(int R, int D, const float *x, float *h)
{
    int size = part_size(D, D <= 384 ? 2 : (D + 383) / 384, 16);
    int n = (D + size - 1) / size;
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < n * (n + 1) / 2; i++) {
        int row = 0, col = i, r, s;
        while (col > row) col -= ++row;
        r = row * size;
        s = col * size;
        if (row == col)
            cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, D - r < size ? D - r : size, R, 1.0f, x + r, D,
                        1.0f, h + (size_t)r * D + s, D);
        else
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, D - r < size ? D - r : size, size, R, 1.0f,
                        x + r, D, x + s, D, 1.0f, h + (size_t)r * D + s, D);
    }
}

void cpu_gram(int R, int D, dev X, dev H)
{
    struct product g = {
        .ta = true, .M = D, .N = D, .lda = D, .ldb = D, .ldc = D, .alpha = 1, .beta = 1, .c = cpu_f(H)};
    if (vec != &vec_avx512 || D < 128 || D > 8192) {
        blas_gram(R, D, cpu_f(X), cpu_f(H));
        return;
    }
    for (int r = 0; r < R; r += GRAM_ROWS) {
        g.a = g.b = cpu_f(X) + (size_t)r * D;
        g.K = R - r < GRAM_ROWS ? R - r : GRAM_ROWS;
        own_panels(&g, true);
    }
}
