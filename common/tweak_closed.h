/* SPDX-License-Identifier: Apache-2.0
 * Norm tweaking without gradients: one ridge least-squares problem per norm. X[N, D] is what the norm gives
 * to the linears that it feeds (gain and bias included), W_k their float weights, Q_k the quantized ones.
 * Scale the norm's output by s, one number a channel, such that
 *
 *   sum_k || X diag(s) Q_k' - X W_k' ||^2 + lam || s - 1 ||^2   is smallest.
 *
 * With H = X'X the derivative by s is zero where
 *
 *   (H o sum_k Q_k'Q_k + lam I) s = diag(H sum_k W_k'Q_k) + lam        (o: element by element)
 *
 * and for s = 1 + d, because (H o Q'Q) 1 = diag(H Q'Q), where
 *
 *   (H o sum_k Q_k'Q_k + lam I) d = diag(H sum_k (W_k - Q_k)'Q_k),
 *
 * which is what is solved: nothing cancels. lam = ridge * the mean of diag(H o sum Q'Q). The new gain is s o
 * gain (and the new bias s o bias, where there is one). A channel that is always zero keeps s = 1.
 *
 * Linears that see different rows (experts, each of which has tokens of its own) add up: both sides are then sums
 * over the inputs X. */
#ifndef NT_TWEAK_CLOSED_H
#define NT_TWEAK_CLOSED_H
#include "common/err.h"
#include "kernels/backend.h"

/* Adds one linear W, Q [out, in] (device) to QQ[in, in] = sum Q'Q and EQ[in, in] = sum (W - Q)'Q;
 * scratch[out, in]. */
void closed_add_linear(const struct backend *be, dev W, dev Q, int out, int in, dev scratch, dev QQ, dev EQ);

/* Adds the linears of one input, from the lower triangle of its H and their QQ, EQ (host, [D, D]): the upper triangle
 * of A[D, D] += H o QQ, rhs[D] += diag(H EQ). */
void closed_add_input(int D, const float *H, const float *QQ, const float *EQ, double *A, double *rhs);

/* s[D]. Spends A's lower triangle and rhs. When the matrix is not positive definite the ridge is raised tenfold, up to
 * 1; *ridge is what was used. -1: non-finite input or still not solvable. */
int closed_solve(int D, double *A, double *rhs, double *ridge, double *s, struct err *e) NT_MUST_CHECK;
#endif
