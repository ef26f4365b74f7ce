/* SPDX-License-Identifier: Apache-2.0
 * Blocked Cholesky factorisation and triangular inversion. BLAS is called with one thread on one tile at a
 * time and every tile's sum runs in one order, so results do not depend on threads. */
#include "common/triangle.h"
#include <cblas.h>
#include <stdbool.h>
#include <string.h>
#include "common/mem.h"

/* LAPACK, column-major, as OpenBLAS exports it. */
void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info);
void dtrtri_(const char *uplo, const char *diag, const int *n, double *a, const int *lda, int *info);

enum { TILE = TRIANGLE_TILE, TILE_DOUBLES = TILE * TILE };

int triangle_tiles(int n)
{
    return (n + TILE - 1) / TILE;
}

size_t triangle_doubles(int n)
{
    size_t t = (size_t)triangle_tiles(n);
    return t * (t + 1) / 2 * TILE_DOUBLES;
}

/* Columns of tiles one after the other. */
double *triangle_tile(double *A, int n, int row, int col)
{
    size_t t = (size_t)triangle_tiles(n), j = (size_t)col;
    return A + (j * t - j * (j + 1) / 2 + (size_t)row) * TILE_DOUBLES;
}

static int rows_of(int n, int row)
{
    return n - row * TILE < TILE ? n - row * TILE : TILE;
}

/* C -= A B' or (transposed false) C -= A B, of m x n with k between. */
static void subtract_product(double *C, const double *A, const double *B, bool transposed, int m, int n,
                             int k)
{
    cblas_dgemm(CblasColMajor, CblasNoTrans, transposed ? CblasTrans : CblasNoTrans, m, n, k, -1, A, TILE, B,
                TILE, 1, C, TILE);
}

int triangle_factor(double *A, int n)
{
    const int tiles = triangle_tiles(n), ld = TILE;
    for (int k = 0; k < tiles; k++) {
        int kb = rows_of(n, k), below = tiles - k - 1, info = 0;
        double *diagonal = triangle_tile(A, n, k, k);
        dpotrf_("L", &kb, diagonal, &ld, &info);
        if (info) return 1;
#pragma omp parallel
        {
#pragma omp for schedule(dynamic)
            for (int i = k + 1; i < tiles; i++)
                cblas_dtrsm(CblasColMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, rows_of(n, i),
                            kb, 1, diagonal, ld, triangle_tile(A, n, i, k), ld);
#pragma omp for schedule(dynamic)
            for (int p = 0; p < below * below; p++) {
                int i = k + 1 + p / below, j = k + 1 + p % below;
                if (i < j) continue;
                subtract_product(triangle_tile(A, n, i, j), triangle_tile(A, n, i, k),
                                 triangle_tile(A, n, j, k), true, rows_of(n, i), rows_of(n, j), kb);
            }
        }
        /* products of whole tiles also fill the upper part of diagonal ones */
        for (int c = 1; c < kb; c++) memset(diagonal + (size_t)c * ld, 0, (size_t)c * sizeof *diagonal);
    }
    return 0;
}

/* From the last column of tiles to the first: with L = [a 0; b c] and C = inverse(c) in place already, the
 * inverse's b is -C (b inverse(a)). */
void triangle_invert(double *L, int n)
{
    const int tiles = triangle_tiles(n), ld = TILE;
    double *column = MEM_NEW(double, (size_t)tiles *TILE_DOUBLES);
    for (int j = tiles - 1; j >= 0; j--) {
        int jb = rows_of(n, j), info = 0;
        double *diagonal = triangle_tile(L, n, j, j);
        dtrtri_("L", "N", &jb, diagonal, &ld, &info);
#pragma omp parallel
        {
#pragma omp for schedule(dynamic)
            for (int i = j + 1; i < tiles; i++) {
                double *t = triangle_tile(L, n, i, j);
                cblas_dtrmm(CblasColMajor, CblasRight, CblasLower, CblasNoTrans, CblasNonUnit, rows_of(n, i),
                            jb, 1, diagonal, ld, t, ld);
                memcpy(column + (size_t)i * TILE_DOUBLES, t, TILE_DOUBLES * sizeof *t);
                memset(t, 0, TILE_DOUBLES * sizeof *t);
            }
#pragma omp for schedule(dynamic)
            for (int i = tiles - 1; i > j; i--)
                for (int k = j + 1; k <= i; k++)
                    subtract_product(triangle_tile(L, n, i, j), triangle_tile(L, n, i, k),
                                     column + (size_t)k * TILE_DOUBLES, false, rows_of(n, i), jb,
                                     rows_of(n, k));
        }
    }
    mem_free(column);
}
