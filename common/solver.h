/* SPDX-License-Identifier: Apache-2.0
 * The column solver of the GPTQ family: quantize columns one by one and push each column's error onto the
 * columns to come, so that tr((W-Q) H (W-Q)') stays small. Everything that depends on H alone is in struct
 * solver_factor.
 *
 * H = X'X (sum over tokens). Columns with H_jj = 0 are dead: their weights become 0, their diagonal the
 * mean of the live ones. With A = H + damp * mean(live diagonal) * I in processing order, A = R R' with R
 * upper triangular (a Cholesky factorisation from the last column to the first); U = inverse(R) is the
 * upper Cholesky factor of inverse(A). For each column j: e = (w_j - q_j) / U_jj, and w_k -= e U_jk for k
 * > j. Sum of e^2 is tr((W-Q) A (W-Q)'). */
#ifndef NT_SOLVER_H
#define NT_SOLVER_H
#include <stdbool.h>
#include "common/quantizer.h"

struct solver_factor {
    int n;
    int *order; /* [n] original column of each step */
    bool *dead; /* [n] by original column */
    int n_dead;
    double damp; /* the fraction of the mean diagonal that was enough */
    float *U;    /* [n, n] row-major upper triangle in processing order; NULL in f64 mode */
    double *U64; /* the same, NULL in f32 mode; both NULL: no error moves */
};

/* Factors H[n, n] (f64). Damping grows tenfold until the factorisation succeeds, at most to 1e3 times the
 * mean diagonal; what happened goes to info ("damp", "damp_raised", "dead"). NULL and a sentence when H is
 * not finite, has a negative diagonal or is all zero. */
struct solver_factor *solver_factor_alloc(const float *H, int n, const struct quant_opts *o, json_t *info,
                                          struct err *e) NT_MUST_CHECK;
/* No Hessian: columns in order, no error moves (plain rounding). */
struct solver_factor *solver_factor_none(int n);
void solver_factor_free(struct solver_factor *f); /* NULL ok */

/* Quantizes W[out, f->n] into q (codes, scale, zero; scale_dtype becomes F32 where needed). *objective =
 * sum of e^2. */
int solver_run(const struct solver_factor *f, const float *W, int out, const struct quant_opts *o,
               struct qtensor *q, double *objective, struct err *e) NT_MUST_CHECK;
#endif
