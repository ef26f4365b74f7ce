/* SPDX-License-Identifier: Apache-2.0
 * Training the norms (and group scales) of a whole quantized model by the output of the float one: the loss
 * of a batch of windows with its gradient, and the optimiser's step. One layer is on the device at a time:
 * the forward keeps each layer's input, the backward runs each layer again from it. Schedule, held-out data
 * and files are scope_train.c's. */
#ifndef NT_SCOPE_MODEL_H
#define NT_SCOPE_MODEL_H
#include "common/scope_input.h"
#include "common/tokens.h"

struct scope_opts {
    double kl, ce;           /* weights of the two losses; 0 = off */
    bool scales, final_norm; /* trained beside the blocks' norms */
    bool qk;                 /* norms of q and k are trained, too */
    bool relative;           /* Adam steps the r of gain (1 + r) and the d of bias + gain d */
    bool all;                /* everything is: no quantized stream, no teacher, cross-entropy (scope_all.c) */
    double lr,
        scales_step; /* of norms (NAN: searched); scales move scales_step * lr, as a share of themselves */
    double weight_decay, clip; /* clip 0: none */
    int steps, batch, seq, warmup, eval_every, checkpoint_every;
    int64_t layers[2]; /* whose parameters are trained; the second excluded */
    uint64_t seed;
    enum dtype norm_dtype;  /* new norms are rounded to it, in every forward, too; DT_NONE: not */
    bool bf16;              /* products round their inputs (--precision); for headers */
    const char *checkpoint; /* file or NULL */
};
/* The settings by their names, for headers: what a result depends on. New reference. */
json_t *scope_settings(const struct scope_opts *o, const struct tokens *tk);

#define SCOPE_NONE SIZE_MAX

/* What is trained is one vector of n values: norms first, from n_norms on scales as factors r of the input's
 * (start 1), then minima as shifts d in units of the input's scale (start 0); with `all` matrices instead.
 * The model runs with scale = round(s0 r) and minimum = round(m0 + s0 d), rounded to the element type they
 * are stored in; the gradient passes the rounding as if it were not there. */
struct scope {
    struct model *m;
    const struct backend *be;
    const struct scope_opts *o;
    struct scope_input *in;
    int L, D, R;
    struct block *blk;
    struct block_work *work;
    dev bound;          /* [L + 1, R, D]: input of every layer, output of the last */
    dev xt, dy, dx;     /* [R, D]: the teacher's last hidden states; gradients */
    dev dw[LINEARS_MAX]; /* weight gradients of one layer, only with scales */
    struct head *teacher, *student;
    size_t n, n_norms, final_at; /* final_at: that of the final norm's gain in norm_at */
    size_t *norm_at, *scale_at,
        *min_at;         /* [in->n_norms], [L * in->per]: place in the vector or SCOPE_NONE */
    dev p, g, am, av;    /* [n]: what Adam steps, gradients, Adam's moments */
    float *value, *grad; /* [n] on the host; value is what the model runs with */
    size_t *matrix_at;   /* with `all`: place of each matrix (scope_all.c) or SCOPE_NONE */
    float *first;        /* with `all`: the matrices of the input */
    dev ids;             /* with `all`: [R] */
    float *w, *scale, *minimum; /* one linear: dequantized, its present scales and minima */
    double *kl_row, *nll_row;   /* [R] */
    int32_t *target;            /* [R] */
};

uint64_t scope_bytes(const struct model_config *c, const struct scope_opts *o, const struct scope_input *in);
/* in has been read. All is borrowed; m->be open. max_pos: positions of the longest sequence to run. */
struct scope *scope_open(struct model *m, struct scope_input *in, const struct scope_opts *o, int max_pos,
                         struct err *e) NT_MUST_CHECK;
void scope_close(struct scope *s);

void scope_start(struct scope *s);                   /* values of the input, no moments */
void scope_put(struct scope *s, const float *value); /* other values */
/* With norm_dtype the model runs with norms rounded, with relative s->p holds shares of gains: turns what
 * Adam steps, value[n], into what the model runs with. */
void scope_apply(const struct scope *s, float *value);

/* The layer with the float model's weights, or with the present values. */
int scope_load_float(struct scope *s, int layer, struct err *e) NT_MUST_CHECK;
int scope_load(struct scope *s, int layer, struct err *e) NT_MUST_CHECK;
/* Present scales and minima of a linear, rounded, into s->scale and s->minimum; -1: one left the range of its
 * type. */
int scope_scales(struct scope *s, int layer, int r, struct err *e) NT_MUST_CHECK;
const float *scope_norm(const struct scope *s, int i); /* i as in scope_input's norms */

/* Loss terms of windows ids[batch, seq], means over their positions; s->xt must hold the teacher's states
 * when o->kl. The gradient of kl * o->kl + ce * o->ce is left in s->grad. */
int scope_gradient(struct scope *s, const int32_t *ids, double *kl, double *ce, struct err *e) NT_MUST_CHECK;
/* Clips s->grad and takes Adam's step number `step` (from 1). Returns the gradient's norm before clipping;
 * when it is not finite nothing is changed. */
double scope_step(struct scope *s, int step, double lr);

/* scope_all.c: how many values the matrices have; their places, from n on; their values, after the heads are
 * there; the layer's matrices, and where their gradients go; embedding and its gradient. */
uint64_t scope_all_values(const struct model_config *c);
size_t scope_all_place(struct scope *s, size_t n);
int scope_all_open(struct scope *s, struct err *e) NT_MUST_CHECK;
void scope_all_load(struct scope *s, int layer);
void scope_all_grads(const struct scope *s, int layer, struct block_grads *g);
void scope_all_embed(struct scope *s, const int32_t *ids, dev x);
void scope_all_embed_back(struct scope *s, dev dx);
int scope_all_check(const struct model *m, struct err *e) NT_MUST_CHECK;
#endif
