/* SPDX-License-Identifier: Apache-2.0
 * Tuning the norms of one block: the loss of one sequence with its gradient, an Adam step, the closed form.
 * Knows two blocks on the device, the float one and the quantized one, and nothing of models, layers or
 * streams. */
#ifndef NT_TWEAK_BLOCK_H
#define NT_TWEAK_BLOCK_H
#include "common/boundary.h"
#include "common/loss.h"

struct tweak_opts {
    const struct loss *loss;
    bool closed_form;    /* else Adam */
    bool target_float;   /* target: the float stream; else the float block on the quantized stream's input */
    double lr, lr_scale; /* layer i of L: lr * (1 + lr_scale * i / L) */
    double ridge;        /* closed form */
    bool qk;             /* norms of q and k are trained, too */
    bool relative;       /* Adam steps the r of gain (1 + r) and the d of bias + gain d */
    int iters;           /* passes over the training sequences; 0: advance only */
    enum dtype norm_dtype; /* new norms are rounded to it, in every forward, too; DT_NONE: not */
    bool bf16;             /* products round their inputs (--precision); for headers */
    int skip_first;        /* leading tokens of every sequence that the loss leaves out */
};

struct tweak_block {
    const struct backend *be;
    const struct tweak_opts *o;
    struct block *f, *q;        /* borrowed */
    struct boundary_pass *pass; /* borrowed; with backward when there is anything to train by gradient */
    int T, D;
    struct loss_work *loss;
    dev dy;     /* [T, D] */
    dev target; /* [pass->group, T, D]: targets of slots first .. first + held - 1; losses of moments need
                   none */
    int first, held;
    dev g, m, v;              /* [n_values]: gradients and Adam's moments of all trained norms */
    struct block_grads grads; /* views into g */
    struct {
        dev p, g, m, v;
        int vector, at, n; /* which of the norm vectors; its place among the values, and how many it has */
        int gain_at;       /* place of its own values, of a bias of the gain beside it */
    } param[NORM_VECTORS];
    int n_params, n_values;
    dev master;          /* [n_values], with norm_dtype or relative: what Adam steps; the block runs with
                            what that stands for */
    float *start, *unit; /* [n_values], with relative: norms are start + unit * master */
    float norm_offset; /* files hold gain - norm_offset: that is what is rounded */
    float *host;       /* [n_values] */
    double *moments;   /* [n + 1, 2, D]: moments of the targets seen, kept for losses that need no more */
    bool *known;       /* [n] */
    int n, step;
};

/* n sequences of T tokens whose targets' moments are kept. trained: which norm vectors are. */
void tweak_block_init(struct tweak_block *t, const struct backend *be, const struct tweak_opts *o,
                      struct block *f, struct block *q, struct boundary_pass *pass, int T, int n,
                      const bool trained[NORM_VECTORS]);
void tweak_block_clear(struct tweak_block *t);
/* New weights are in f and q: forgets targets, gradients and Adam's state. */
void tweak_block_reset(struct tweak_block *t);

/* All trained norms of q, one after the other: gains, then biases where there are any. values[n_values]. */
void tweak_block_get(const struct tweak_block *t, float *values);
void tweak_block_put(const struct tweak_block *t, const float *values);

/* Finds the targets of n consecutive sequences x[n, T, D] (host) together, which is faster than one by one in
 * the calls below: those of slots slot .. slot + n - 1, n at most pass->group. target[n, T, D] (host): rows
 * to aim at; NULL: f's output on x. */
void tweak_block_targets(struct tweak_block *t, const float *x, const float *target, int slot, int n);
/* The same for sequences 0 .. n-1, x[n, T, D], from sums[n, 2, D] of the target and its squares over all
 * tokens, for losses that need no more. The first sequence's target is made, too: when it is another one, by
 * more than rounding, false, and nothing is taken from sums. */
bool tweak_block_given(struct tweak_block *t, const float *x, const double *sums, int n);
/* Sum of the losses of n sequences x[n, T, D] (host) with q's present norms. */
double tweak_block_losses(struct tweak_block *t, const float *x, const float *target, int slot, int n);
/* The same for n <= pass->group sequences that q was just run on: inputs in pass->x, outputs in pass->y,
 * which stay. The moments of their targets are known. */
double tweak_block_visit(struct tweak_block *t, const float *target, int slot, int n);

/* Loss of a sequence x[T, D] (host) with q's present norms. target[T, D] (host): rows to aim at; NULL: f's
 * output on x. slot: index below n under which the moments of its target are kept; -1: not kept. grad: also
 * leaves the gradients in t->g. */
double tweak_block_loss(struct tweak_block *t, const float *x, const float *target, int slot, bool grad);
/* Values as a file keeps them: (v - offset) rounded to F16 or BF16, plus offset. */
void tweak_round_norms(float *v, size_t n, enum dtype type, float offset);
/* One Adam step on one sequence; *loss is the value before it. With norm_dtype the step is taken from
 * unrounded values by the gradient at the rounded ones (straight through). -1 and nothing changed: loss or
 * gradient not finite. */
int tweak_block_step(struct tweak_block *t, const float *x, const float *target, int slot, double lr,
                     double *loss) NT_MUST_CHECK;
/* What the closed form takes beside the blocks. */
uint64_t tweak_block_closed_bytes(const struct block_shape *s);
/* The closed form for the norms that are read by linears, from one pass of q over the boundary.
 * ridge[NORM_COUNT] receives what was used. */
int tweak_block_closed(struct tweak_block *t, const struct boundary *b, double *ridge,
                       struct err *e) NT_MUST_CHECK;
#endif
