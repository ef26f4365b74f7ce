/* SPDX-License-Identifier: Apache-2.0
 * See the header for the equations. Products are the backend's, the D x D system is solved here in double. */
#include "common/tweak_closed.h"
#include <math.h>
#include "common/mem.h"

void closed_add_linear(const struct backend *be, dev W, dev Q, int out, int in, dev scratch, dev QQ, dev EQ)
{
    size_t n = (size_t)out * in;
    be->copy(scratch, W, n * sizeof(float));
    be->axpy(scratch, -1, Q, n);
    be->gemm_f32(true, false, in, in, out, 1, Q, in, Q, in, 1, QQ, in);
    be->gemm_f32(true, false, in, in, out, 1, scratch, in, Q, in, 1, EQ, in);
}

void closed_add_input(int D, const float *H, const float *QQ, const float *EQ, double *A, double *rhs)
{
    for (int i = 0; i < D; i++)
        for (int j = 0; j < D; j++) {
            double h = j <= i ? H[(size_t)i * D + j] : H[(size_t)j * D + i];
            rhs[i] += h * EQ[(size_t)j * D + i];
            if (j <= i) A[(size_t)j * D + i] += h * QQ[(size_t)i * D + j];
        }
}

/* A = L L' in place (lower triangle); col[D] holds a copy of the column so that the inner loop runs along
 * memory. -1: not positive definite. */
static int cholesky(int D, double *A, double *col)
{
    for (int j = 0; j < D; j++) {
        double *row = A + (size_t)j * D;
        if (!(row[j] > 0) || !isfinite(row[j])) return -1;
        double inv = 1 / sqrt(row[j]);
        for (int i = j; i < D; i++) col[i] = A[(size_t)i * D + j] *= inv;
        for (int i = j + 1; i < D; i++) {
            double *to = A + (size_t)i * D, f = col[i];
            for (int k = j + 1; k <= i; k++) to[k] -= f * col[k];
        }
    }
    return 0;
}

static void solve(int D, const double *L, double *x)
{
    for (int i = 0; i < D; i++) {
        for (int k = 0; k < i; k++) x[i] -= L[(size_t)i * D + k] * x[k];
        x[i] /= L[(size_t)i * D + i];
    }
    for (int i = D - 1; i >= 0; i--) {
        x[i] /= L[(size_t)i * D + i];
        for (int k = 0; k < i; k++) x[k] -= L[(size_t)i * D + k] * x[i];
    }
}

int closed_solve(int D, double *A, double *rhs, double *ridge, double *s, struct err *e)
{
    double mean = 0, *diagonal = MEM_NEW(double, (size_t)D), *col = MEM_NEW(double, (size_t)D);
    for (int i = 0; i < D; i++) {
        diagonal[i] = A[(size_t)i * D + i];
        mean += diagonal[i] / D;
        if (!isfinite(rhs[i])) mean = NAN;
    }
    int rc = -1;
    for (int i = 0; i < D; i++) s[i] = 1;
    if (mean == 0) rc = 0; /* quantized weights or inputs are all zero: nothing that a gain could do */
    for (double r = *ridge; rc && isfinite(mean) && r <= 1; r = r > 0 ? r * 10 : 1e-6) {
        for (int i = 0; i < D; i++) {
            for (int j = 0; j < i; j++) A[(size_t)i * D + j] = A[(size_t)j * D + i];
            A[(size_t)i * D + i] = diagonal[i] + r * mean;
        }
        if (cholesky(D, A, col)) continue;
        solve(D, A, rhs);
        for (int i = 0; i < D; i++) s[i] = 1 + rhs[i];
        *ridge = r;
        rc = 0;
    }
    mem_free(diagonal);
    mem_free(col);
    if (rc)
        return err_set(e, NT_EXIT_DATA, "the closed form has no solution: the inputs' statistics are %s",
                       isfinite(mean) ? "not positive definite" : "not finite");
    return 0;
}
