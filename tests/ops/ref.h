/* SPDX-License-Identifier: Apache-2.0
 * Every operation of kernels/backend.h once more: double precision, one loop per index, nothing tiled. */
#ifndef NT_REF_H
#define NT_REF_H
#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>
#include "kernels/backend.h"

void ref_gemm(bool ta, bool tb, int M, int N, int K, double alpha, const double *A, int lda, const double *B,
              int ldb, double beta, double *C, int ldc);
void ref_norm(bool rms, double *y, const double *x, const double *gain, const double *bias, int R, int D,
              double eps);
/* dgain, dbias are added to */
void ref_norm_back(bool rms, double *dx, double *dgain, double *dbias, const double *dy, const double *x,
                   const double *gain, int R, int D, double eps);
struct ref_attn {
    int B, T, H, G, E, window;
    double scale, softcap; /* 0: none */
    const double *slopes;  /* [H], NULL: none */
};
double ref_act(enum act kind, double x);
double ref_act_slope(enum act kind, double x);
void ref_rope(double *x, int R, int T, int heads, int E, int rot, bool pairs, const double *cossin, int pos0,
              double sign);
void ref_attention(const struct ref_attn *s, double *out, double *lse, const double *q, const double *k,
                   const double *v);
void ref_attention_back(const struct ref_attn *s, double *dq, double *dk, double *dv, const double *dout,
                        const double *q, const double *k, const double *v);
double ref_lse(const double *z, int n);
#endif
