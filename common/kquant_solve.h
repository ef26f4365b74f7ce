/* SPDX-License-Identifier: Apache-2.0
 * Linears on the grids of ggml_kquant.h: the codes and the bytes that leave in a GGUF file. */
#ifndef NT_KQUANT_SOLVE_H
#define NT_KQUANT_SOLVE_H
#include "common/solver.h"

/* Columns of a block in rows of `in`. */
int kquant_block(int in);
/* W[out, in] as blocks of the type for o->bits in q, QF_PLAIN. importance[in]: what a squared error of a
 * column counts when scales are searched. f NULL: every weight gets its nearest code; else columns are
 * rounded in the factor's order and those to come make up for each error. Scales are searched for the weights
 * as they are when their block is reached (an order must leave blocks together), or, with static groups, for
 * W. */
int kquant_solve(const struct solver_factor *f, const float *importance, const float *W, int out, int in,
                 const struct quant_opts *o, struct qtensor *q, struct err *e) NT_MUST_CHECK;
#endif
