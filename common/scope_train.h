/* SPDX-License-Identifier: Apache-2.0
 * The training run of model scope: windows drawn from the training sequences, the teacher's states for them,
 * warm-up and cosine decay, KL on the held-out sequences every so often, the best step kept, checkpoints. */
#ifndef NT_SCOPE_TRAIN_H
#define NT_SCOPE_TRAIN_H
#include "common/boundary.h"
#include "common/scope_model.h"
#include "common/tweak.h"

/* Window i of step `step`: which training sequence, from which token on. A pure function of its arguments. */
void scope_window(const struct scope_opts *o, const struct tokens *tk, int step, int i, int *sequence,
                  int *offset);
/* lr * min(1, (step + 1) / warmup) * (1 + cos(pi step / steps)) / 2, step from 0; a run of other `steps` than o's is
 * o's whole schedule in short, warm-up too. */
double scope_rate(const struct scope_opts *o, double lr, int step, int steps);
/* What --lr auto tries, with absolute and with relative steps; the second is the default. */
#define SCOPE_RATES 3
extern const double scope_rates[2][SCOPE_RATES];

struct scope_train {
    struct scope *s;
    const struct tokens *tk;
    struct outfile *report; /* or NULL */
    int n_hold;
    struct boundary hold_f; /* the float model's last states of the held-out sequences */
    struct boundary_pass pass;
    float *states; /* [windows, seq, D]: the teacher's, of each window of steps chunk_first .. once */
    int *place;    /* [chunk * batch]: where there those of a step's windows are */
    int chunk, chunk_first, chunk_n;
    double *kl_old, *kl_best, *top1_old, *top1_best; /* [n_hold], one array */
    float *best;                                     /* [n] */
    int step, best_step;                             /* steps taken; the one that best is of */
    double lr;                                       /* as chosen */
    json_t *history;                                 /* [[step, held-out KL], ...] */
    char why[160];                                   /* not empty: training ended early */
    double done;                                     /* for progress: rows through blocks */
    struct tweak_verdict v;
};

uint64_t scope_train_bytes(const struct model_config *c, const struct scope_opts *o, const struct tokens *tk);
int scope_train_open(struct scope_train *t, struct scope *s, const struct tokens *tk,
                     struct err *e) NT_MUST_CHECK;
void scope_train_clear(struct scope_train *t);
/* Resumes from the checkpoint if its file is there, searches the rate if asked to, trains, judges, leaves the
 * values to be written in the scope: the best ones, or the input's where scales were trained in vain. */
int scope_train(struct scope_train *t, struct err *e) NT_MUST_CHECK;
/* KL (with scope_opts.all cross-entropy) and top-1 of the present values by held-out sequence. */
int scope_evaluate(struct scope_train *t, double *kl, double *top1, struct err *e) NT_MUST_CHECK;

/* scope_state.c: 1 loaded, 0 there is no such file. */
int scope_state_read(struct scope_train *t, struct err *e) NT_MUST_CHECK;
int scope_state_write(const struct scope_train *t, struct err *e) NT_MUST_CHECK;

/* KL, with scope_opts.all cross-entropy, on held-out sequences. */
#define SCOPE_REPORT_HEAD "step\tlr\tkl\tce\tgrad_norm\tholdout_%s\tseconds\n"

/* scope_all.c: held-out cross-entropy and top-1 by sequence; all records of a result. */
int scope_all_evaluate(struct scope_train *t, double *ce, double *top1, boundary_visit *visit,
                       struct err *e) NT_MUST_CHECK;
int scope_all_write(const struct scope *s, struct stream_writer *w, struct err *e) NT_MUST_CHECK;
/* scope_run.c: a norm, old and new; i as in scope_input's norms. */
int scope_write_norm(const struct scope *s, struct stream_writer *w, int i, struct err *e) NT_MUST_CHECK;

/* scope_run.c: everything nt-tweak --scope model does after its options: qweights (file or "-") to w's file.
 */
struct scope_job {
    const struct scope_opts *o;
    const struct tokens *tk;
    const char *qweights, *out, *report; /* report may be NULL; no qweights with scope_opts.all */
};
int scope_run(struct model *m, const struct scope_job *job, struct tweak_verdict *v,
              struct err *e) NT_MUST_CHECK;
/* "kl", "ce", "kl+ce" to weights; -1: another name. */
int scope_loss(const char *name, struct scope_opts *o) NT_MUST_CHECK;
#endif
