/* SPDX-License-Identifier: Apache-2.0
 * Matrix products on fixed tiles of the result: each tile is one single-threaded BLAS call, so the result does not
 * depend on who computes which. Tiles are large enough for BLAS to run near its peak and many enough to share out.
 * With few rows (decoding) BLAS would spend its time on packing B; there a kernel of our own reads B where it lies. */
#include "kernels/cpu.h"
#include <cblas.h>

enum { FEW_ROWS = 64, PACK = 128 };

struct tiles { int m, n; }; /* size of a tile of C */

/* Rounds x / parts up to a multiple of `unit`. */
static int part_size(int x, int parts, int unit)
{
    int p = (x + parts - 1) / parts;
    return (p + unit - 1) / unit * unit;
}

/* A function of the shape alone: near 256 x 640, M and N each in equal parts; at least four tiles to share out. */
static struct tiles choose_tiles(int M, int N)
{
    struct tiles t;
    int nm = (M + 255) / 256, nn = (N + 639) / 640;
    while (nm * nn < 4 && N / nn >= 128) nn *= 2;
    t.m = part_size(M, nm, 8);
    t.n = part_size(N, nn, 16);
    return t;
}

/* M <= FEW_ROWS: op(A) is transposed into panels of rows, then blocks of columns are shared out. */
static void gemm_few_rows(bool ta, bool tb, int M, int N, int K, float alpha, const float *a, int lda, const float *b, int ldb,
                          float beta, float *c, int ldc)
{
    int panel = vec->panel, cols = vec->cols, panels = (M + panel - 1) / panel;
    int parts = (K + PACK - 1) / PACK;
    size_t size = (size_t)K * panel, wj = tb ? (size_t)ldb : 1, wk = tb ? 1 : (size_t)ldb;
    float *xt = cpu_scratch(size * panels);
    #pragma omp parallel
    {
        #pragma omp for schedule(static)
        for (int i = 0; i < panels * parts; i++) {
            int r = i / parts * panel, k = i % parts * PACK, n = K - k < PACK ? K - k : PACK;
            vec->pack_panel(xt + i / parts * size + (size_t)k * panel, ta ? a + (size_t)k * lda + r : a + (size_t)r * lda + k,
                            (size_t)lda, ta, M - r < panel ? M - r : panel, n);
        }
        #pragma omp for schedule(static)
        for (int j = 0; j < N; j += cols)
            for (int p = 0; p < panels; p++) {
                int r = p * panel;
                vec->few_rows(c + (size_t)r * ldc + j, (size_t)ldc, alpha, beta, M - r < panel ? M - r : panel,
                              xt + p * size, b + j * wj, wj, wk, K, N - j < cols ? N - j : cols);
            }
    }
}

void cpu_gemm(bool ta, bool tb, int M, int N, int K, float alpha, dev A, int lda, dev B, int ldb, float beta, dev C, int ldc)
{
    const float *a = cpu_f(A), *b = cpu_f(B);
    float *c = cpu_f(C);
    struct tiles t = choose_tiles(M, N);
    int nm, nn;
    if (M <= 0 || N <= 0) return;
    if (M <= FEW_ROWS) {
        gemm_few_rows(ta, tb, M, N, K, alpha, a, lda, b, ldb, beta, c, ldc);
        return;
    }
    nm = (M + t.m - 1) / t.m;
    nn = (N + t.n - 1) / t.n;
    #pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < nm * nn; i++) {
        int r = i / nn * t.m, s = i % nn * t.n;
        int m = M - r < t.m ? M - r : t.m, n = N - s < t.n ? N - s : t.n;
        cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, m, n, K, alpha,
                    ta ? a + r : a + (size_t)r * lda, lda, tb ? b + (size_t)s * ldb : b + s, ldb, beta,
                    c + (size_t)r * ldc + s, ldc);
    }
}

void cpu_gram(int R, int D, dev X, dev H)
{
    const float *x = cpu_f(X);
    float *h = cpu_f(H);
    int size = part_size(D, D <= 384 ? 2 : (D + 383) / 384, 16);
    int n = (D + size - 1) / size;
    #pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < n * (n + 1) / 2; i++) {
        int row = 0, col = i, r, s;
        while (col > row) col -= ++row;
        r = row * size;
        s = col * size;
        if (row == col)
            cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, D - r < size ? D - r : size, R, 1.0f, x + r, D, 1.0f,
                        h + (size_t)r * D + s, D);
        else
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, D - r < size ? D - r : size, size, R, 1.0f, x + r, D,
                        x + s, D, 1.0f, h + (size_t)r * D + s, D);
    }
}
