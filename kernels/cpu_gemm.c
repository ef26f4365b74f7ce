/* SPDX-License-Identifier: Apache-2.0
 * Matrix products on fixed tiles of the result: each tile is one single-threaded BLAS call, so the result does not
 * depend on who computes which. Tiles are large enough for BLAS to run near its peak and many enough to share out. */
#include "kernels/cpu.h"
#include <cblas.h>

struct tiles { int m, n; }; /* size of a tile of C */

/* Rounds x / parts up to a multiple of `unit`. */
static int part_size(int x, int parts, int unit)
{
    int p = (x + parts - 1) / parts;
    return (p + unit - 1) / unit * unit;
}

/* A function of the shape alone: near 256 x 512, M and N each in equal parts. */
static struct tiles choose_tiles(int M, int N)
{
    struct tiles t;
    t.m = part_size(M, (M + 255) / 256, 8);
    t.n = part_size(N, (N + 511) / 512, 16);
    if (M <= 64) t.n = N >= 512 ? 256 : part_size(N, 2, 16);
    return t;
}

void cpu_gemm(bool ta, bool tb, int M, int N, int K, float alpha, dev A, int lda, dev B, int ldb, float beta, dev C, int ldc)
{
    const float *a = cpu_f(A), *b = cpu_f(B);
    float *c = cpu_f(C);
    struct tiles t = choose_tiles(M, N);
    int nm, nn;
    if (M <= 0 || N <= 0) return;
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
    int size = D <= 192 ? part_size(D, 2, 16) : part_size(D, (D + 255) / 256, 16);
    int n = (D + size - 1) / size;
    #pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < n * (n + 1) / 2; i++) {
        int row = 0, col = i, r, s;
        while (col > row) col -= ++row;
        r = row * size;
        s = col * size;
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, D - r < size ? D - r : size, D - s < size ? D - s : size, R,
                    1.0f, x + r, D, x + s, D, 1.0f, h + (size_t)r * D + s, D);
    }
}
