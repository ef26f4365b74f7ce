/* SPDX-License-Identifier: Apache-2.0
 * How far a block's output y is from its target f, per sequence, and the gradient by y. A loss is one file in
 * common/losses/ that exports `const struct loss loss_NAME`: pure arithmetic on D numbers; everything that
 * touches [R, D] is done here with backend operations, so that activations never come to the host. Means and
 * variances are per channel over the R tokens of one sequence, the variance unbiased (R - 1). */
#ifndef NT_LOSS_H
#define NT_LOSS_H
#include "kernels/backend.h"

struct loss {
    const char *name;
    const char *summary; /* one line for --loss list and the man page */
    double lr, lr_scale; /* defaults of --lr and --lr-scale */
    int power;           /* 0: of moments only; 1, 2: sum_c w[c] sum_r |y - f|^power */
    /* power 0: the value; dmean[D] and dvar[D] receive its derivatives by y's means and variances. */
    double (*moments)(int D, const double *mean_f, const double *var_f, const double *mean_y,
                      const double *var_y, double *dmean, double *dvar);
    /* power 1, 2: w[D] from the target's variances. */
    void (*weights)(int D, int R, const double *var_f, double *w);
};

const struct loss *loss_find(const char *name); /* NULL: unknown */
const struct loss *loss_at(int i);              /* NULL after the last; sorted by name */

/* Scratch memory for blocks of D channels. */
struct loss_work;
struct loss_work *loss_alloc(const struct backend *be, const struct loss *l, int D);
void loss_free(struct loss_work *w);

/* mom[2, D] (host) = means and unbiased variances of f[R, D]. */
void loss_moments(struct loss_work *w, dev f, int R, double *mom);

/* The loss of y[R, D]. mom: the target's moments; f: the target itself, needed when power > 0 (else
 * DEV_NONE). dy[R, D] is overwritten with the gradient; DEV_NONE: value only. */
double loss_eval(struct loss_work *w, const double *mom, dev f, dev y, int R, dev dy);
#endif
