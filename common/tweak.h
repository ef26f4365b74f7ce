/* SPDX-License-Identifier: Apache-2.0
 * Norm tweaking, layer by layer: loads the float block, builds the quantized one, tunes its norms, advances
 * the boundaries, and gives the verdict on held-out sequences at the end. Sees no stream and no file but the
 * model. Boundaries held: the training sequences on the quantized stream (and on the float stream with
 * target_float), and the held-out ones three times: float; same codes with old norms; same codes with new
 * norms. */
#ifndef NT_TWEAK_H
#define NT_TWEAK_H
#include "common/acts.h"
#include "common/qtensor.h"
#include "common/tweak_block.h"

/* Losses before and after are means over the first of the sequences of either kind, at most this many. */
#define TWEAK_EVAL_SEQUENCES 8

struct tweak_report {
    int layer;
    double lr, ridge;
    double train[2], holdout[2]; /* loss before, after; holdout NaN when there is none */
    double moved;                /* largest change of a gain over max(|gain|, mean |gain|) */
    bool tuned, changed;         /* tuned: asked for; changed: some element differs */
    char why[160];               /* not empty: the tweak was dropped, the norms are the old ones */
    double seconds;
};

struct tweak_verdict {
    const char *verdict;       /* "positive", "negative", "none" (no held-out data) */
    const char *norms;         /* which norms are valid: "new", "old" */
    bool changed;              /* some element of some layer */
    long n;                    /* held-out tokens compared */
    bool ce;                   /* kl_*: cross-entropies; top1_*: shares of next tokens (--params all) */
    double kl_old, kl_new;     /* mean KL(float || quantized) in nats */
    double kl_gain_err;        /* standard error of kl_old - kl_new over sequences; NaN with one sequence */
    double top1_old, top1_new; /* share of tokens with the float model's argmax */
};

struct tweak;
/* Memory that tweak_open and the layers will take. */
uint64_t tweak_bytes(const struct model_config *c, const struct tokens *tk, const struct tweak_opts *o);
/* m->be open; m, tk and o are borrowed. */
struct tweak *tweak_open(struct model *m, const struct tokens *tk, const struct tweak_opts *o,
                         struct err *e) NT_MUST_CHECK;
void tweak_close(struct tweak *t);

/* Sequences that all layers will run through a block, for progress. */
double tweak_work(const struct tweak *t, const int64_t layers[2]);

/* What the quantizer made of a layer. */
struct tweak_input {
    bool has[LINEARS_MAX];        /* linears given by tweak_linear; the others stay float */
    bool has_norm[NORM_VECTORS]; /* norms that belong to these codes, where they are not the float model's */
    float *norms;                /* [NORM_VECTORS, norm_max_dim]; NULL when there are none */
    double *target;              /* [training sequences, 2, D]: see tweak_block_given; NULL: none */
};
/* Whether sums of the float block's output spare running it: the number of doubles of them, or 0. */
uint64_t tweak_target_values(const struct tweak *t);
void tweak_input_clear(struct tweak_input *in);
/* A linear of the next layer, before tweak_layer: dequantized at once, so that no stage holds a layer's
 * codes. */
void tweak_linear(struct tweak *t, struct tweak_input *in, int linear, const struct qtensor *q);

/* The next layer (0, 1, ...). tune false: norms kept, boundaries advanced. old_v, new_v
 * [tweak_norm_values()]: norms before and after, in the order of tweak_norm_at. */
int tweak_layer(struct tweak *t, const struct tweak_input *in, bool tune, float *old_v, float *new_v,
                struct tweak_report *rep, struct err *e) NT_MUST_CHECK;
int tweak_norm_values(const struct tweak *t);
/* Vector i of the values: which one it is, its place among them and length. false: no more. */
bool tweak_norm_at(const struct tweak *t, int i, int *vector, int *at, int *n);

/* The boundaries held, in the order of acts streams: returns how many of p are filled. */
#define TWEAK_PATHS 5
int tweak_paths(struct tweak *t, struct acts_path p[TWEAK_PATHS]);
/* They were replaced by inputs of this layer: the next one is this. */
void tweak_start_at(struct tweak *t, int layer);
const struct model *tweak_model(const struct tweak *t);

/* After the last layer (before it: no verdict). Frees the blocks and runs the head. */
int tweak_judge(struct tweak *t, struct tweak_verdict *v, struct err *e) NT_MUST_CHECK;
#endif
