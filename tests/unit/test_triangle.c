/* SPDX-License-Identifier: Apache-2.0
 * The tiled triangle against plain loops: A = L L', inverse(L) L = 1, refusal of what is not positive
 * definite, and the same bytes for any number of threads. */
#include "tests/check.h"
#include <math.h>
#include <omp.h>
#include <string.h>
#include "common/mem.h"
#include "common/rng.h"
#include "common/triangle.h"

/* A[n, n]: X X' of n x (n + 8) seeded numbers, plus something on the diagonal. */
static double *make_matrix(int n)
{
    int k = n + 8;
    double *X = MEM_NEW(double, (size_t)n *k), *A = MEM_NEW(double, (size_t)n *n);
    for (int i = 0; i < n * k; i++) X[i] = rng_uniform(5, (uint64_t)n, (uint64_t)i) - 0.5;
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++) {
            double s = i == j ? 0.1 : 0;
            for (int c = 0; c < k; c++) s += X[(size_t)i * k + c] * X[(size_t)j * k + c];
            A[(size_t)i * n + j] = A[(size_t)j * n + i] = s;
        }
    mem_free(X);
    return A;
}

static double *element(double *T, int n, int i, int j)
{
    return triangle_tile(T, n, i / TRIANGLE_TILE, j / TRIANGLE_TILE) +
           (size_t)(j % TRIANGLE_TILE) * TRIANGLE_TILE + i % TRIANGLE_TILE;
}

static double *load(const double *A, int n)
{
    double *T = MEM_NEW(double, triangle_doubles(n));
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++) *element(T, n, i, j) = A[(size_t)i * n + j];
    return T;
}

static void test_size(int n)
{
    double *A = make_matrix(n), *L = load(A, n), *C = load(A, n), worst = 0, off = 0;
    size_t bytes = triangle_doubles(n) * sizeof(double);
    omp_set_num_threads(1);
    CHECK(triangle_factor(L, n) == 0 && triangle_factor(C, n) == 0, "%d: factored", n);
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++) {
            double s = 0;
            for (int k = 0; k <= j; k++) s += *element(L, n, i, k) * *element(L, n, j, k);
            worst = fmax(worst, fabs(s - A[(size_t)i * n + j]));
        }
    triangle_invert(C, n);
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++) {
            double s = 0;
            for (int k = j; k <= i; k++) s += *element(C, n, i, k) * *element(L, n, k, j);
            off = fmax(off, fabs(s - (i == j)));
        }
    CHECK(worst < 1e-11 * n && off < 1e-11 * n, "%d: L L' within %.2g, inverse(L) L within %.2g", n, worst,
          off);
    omp_set_num_threads(3);
    double *again = load(A, n);
    int rc = triangle_factor(again, n);
    triangle_invert(again, n);
    CHECK(rc == 0 && !memcmp(again, C, bytes), "%d: 1 and 3 threads give the same bytes", n);
    mem_free(A), mem_free(L), mem_free(C), mem_free(again);
}

int main(void)
{
    static const int sizes[] = {1, 2, 127, 128, 129, 256, 300, 411};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) test_size(sizes[i]);
    double *A = make_matrix(200);
    A[150 * 200 + 150] = -1;
    double *T = load(A, 200);
    CHECK(triangle_factor(T, 200) == 1, "not positive definite in the second tile: said so");
    CHECK(triangle_doubles(11008) * sizeof(double) < 470ull << 20, "half a matrix: 11008 take %zu MiB",
          triangle_doubles(11008) * sizeof(double) >> 20);
    mem_free(A), mem_free(T);
    return check_done();
}
