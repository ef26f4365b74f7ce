/* SPDX-License-Identifier: Apache-2.0
 * Schedule, teacher, held-out evaluation. Nothing here depends on where a run was interrupted: windows are
 * functions of the step, chunks of teacher states begin at the same steps, and windows go through the models
 * in groups of one size. */
#include "common/scope_train.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/mem.h"
#include "common/rng.h"
#include "common/tool.h"

#define WINDOW_STREAM 0x73636f7065u /* "scope": no other draw uses this stream of the seed */
#define STATES_BYTES (192u << 20)

void scope_window(const struct scope_opts *o, const struct tokens *tk, int step, int i, int *sequence,
                  int *offset)
{
    uint64_t at = 2 * ((uint64_t)step * (uint64_t)o->batch + (uint64_t)i);
    *sequence = (int)rng_below(o->seed, WINDOW_STREAM, at, (uint64_t)(tk->n - tk->n_holdout));
    *offset = (int)rng_below(o->seed, WINDOW_STREAM, at + 1, (uint64_t)(tk->T - o->seq + 1));
}

double scope_rate(const struct scope_opts *o, double lr, int step, int steps)
{
    double warmup = (double)o->warmup * steps / o->steps, rise = warmup > step + 1 ? (step + 1) / warmup : 1;
    return lr * rise * 0.5 * (1 + cos(M_PI * step / steps));
}

const double scope_rates[2][SCOPE_RATES] = {{3e-4, 1e-3, 3e-3}, {1e-2, 3e-2, 1e-1}};

/* How many windows' teacher states are kept, and how many steps' that are: all, when no more windows than
 * that can be drawn. */
static int state_windows(const struct scope_opts *o, const struct tokens *tk, int D, int *steps)
{
    uint64_t fit = STATES_BYTES / ((uint64_t)o->seq * (uint64_t)D * sizeof(float)), batch = (uint64_t)o->batch,
             drawn = (uint64_t)o->steps * batch,
             known = (uint64_t)(tk->n - tk->n_holdout) * (uint64_t)(tk->T - o->seq + 1);
    *steps = 0;
    if (o->kl <= 0) return 0;
    *steps = o->steps;
    if (known <= fit || drawn <= fit) return (int)(known < drawn ? known : drawn);
    *steps = fit < batch ? 1 : (int)(fit / batch);
    return *steps * o->batch;
}

uint64_t scope_train_bytes(const struct model_config *c, const struct scope_opts *o, const struct tokens *tk)
{
    int D = c->block.D;
    uint64_t hold = tk->n_holdout
                        ? 2 * boundary_bytes(tk->n_holdout, tk->T, D) + boundary_pass_bytes(c, tk->T, false)
                        : 0;
    int steps, windows = state_windows(o, tk, D, &steps);
    return hold + boundary_bytes(windows, o->seq, D) + (uint64_t)steps * (uint64_t)o->batch * 4 * sizeof(int);
}

static int count_group(void *ctx, int s0, int B, dev x, dev y, struct err *e)
{
    struct scope_train *t = ctx;
    (void)s0, (void)x, (void)y, (void)e;
    progress_at(t->done += (double)B * t->tk->T, "step %d, held-out sequences", t->step);
    return 0;
}

int scope_train_open(struct scope_train *t, struct scope *s, const struct tokens *tk, struct err *e)
{
    *t = (struct scope_train){.s = s, .tk = tk, .n_hold = tk->n_holdout, .lr = s->o->lr};
    size_t n = (size_t)t->n_hold;
    t->kl_old = MEM_NEW(double, 4 * n);
    t->kl_best = t->kl_old + n, t->top1_old = t->kl_old + 2 * n, t->top1_best = t->kl_old + 3 * n;
    t->best = MEM_NEW(float, s->n);
    t->history = json_array();
    size_t windows = (size_t)state_windows(s->o, tk, s->D, &t->chunk);
    t->states = MEM_NEW(float, windows *(size_t)s->o->seq *(size_t)s->D);
    t->place = MEM_NEW(int, (size_t)t->chunk *(size_t)s->o->batch);
    if (!n) return 0;
    boundary_pass_init(&t->pass, s->m, tk->T, false);
    if (s->o->all) return 0;
    int rc = boundary_from_tokens(&t->hold_f, s->m, tk, tk->n - t->n_hold, t->n_hold, e);
    for (int l = 0; l < s->L && !rc; l++)
        rc = scope_load_float(s, l, e) ||
             boundary_run(&t->pass, s->blk, &t->hold_f, &t->hold_f, NULL, count_group, t, e);
    return rc ? -1 : 0;
}

void scope_train_clear(struct scope_train *t)
{
    boundary_clear(&t->hold_f);
    boundary_pass_clear(&t->pass);
    mem_free(t->kl_old);
    mem_free(t->best);
    mem_free(t->states);
    mem_free(t->place);
    json_decref(t->history);
    *t = (struct scope_train){0};
}

/* ---- held-out sequences ---- */

/* n sequences from i on, at once; what the last token of one foretells is not known. */
static void compare(struct scope_train *t, const struct boundary *b, int i, int n, double *kl, double *top1)
{
    struct scope *s = t->s;
    int T = t->tk->T, R = n * T;
    size_t bytes = (size_t)R * (size_t)s->D * sizeof(float);
    double *row = MEM_NEW(double, (size_t)R);
    int32_t *best = MEM_NEW(int32_t, 2 * (size_t)R);
    s->be->put(t->pass.x, boundary_view(&t->hold_f, i), bytes);
    s->be->put(t->pass.y, boundary_view(b, i), bytes);
    head_kl(s->teacher, t->pass.x, s->student, t->pass.y, R, row, best, best + R);
    for (int k = 0; k < n; k++) {
        kl[k] = top1[k] = 0;
        for (int r = k * T; r < (k + 1) * T - 1; r++)
            kl[k] += row[r] / (T - 1), top1[k] += (double)(best[r] == best[R + r]) / (T - 1);
    }
    mem_free(row);
    mem_free(best);
}

int scope_evaluate(struct scope_train *t, double *kl, double *top1, struct err *e)
{
    struct scope *s = t->s;
    struct boundary b;
    if (s->o->all) return scope_all_evaluate(t, kl, top1, count_group, e);
    int rc = boundary_from_tokens(&b, s->m, t->tk, t->tk->n - t->n_hold, t->n_hold, e);
    if (rc) return -1;
    for (int l = 0; l < s->L && !rc; l++)
        rc = scope_load(s, l, e) || boundary_run(&t->pass, s->blk, &b, &b, NULL, count_group, t, e) ? -1 : 0;
    for (int i = 0, n = t->pass.group; i < t->n_hold && !rc; i += n) {
        compare(t, &b, i, t->n_hold - i < n ? t->n_hold - i : n, kl + i, top1 + i);
        rc = err_stopped(e);
    }
    boundary_clear(&b);
    return rc;
}

static double mean(const double *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i];
    return n ? sum / n : NAN;
}

/* Evaluates the present values and keeps them if they are the best so far (without held-out sequences: if
 * they are the last). The start does not count as a step: it is what the verdict compares with. */
static int judge_step(struct scope_train *t, double *kl, struct err *e)
{
    size_t n = (size_t)t->n_hold;
    double *seen = MEM_NEW(double, 2 * n);
    struct err why = {0};
    int rc = n ? scope_evaluate(t, seen, seen + n, &why) : 0;
    *kl = mean(seen, t->n_hold);
    if (rc && t->step &&
        why.code == NT_EXIT_DATA) { /* values so bad that the model overflows lose, they do not end it */
        warn("step %d: %s", t->step, why.text);
        *kl = NAN, rc = 0;
    } else if (rc) {
        *e = why;
    }
    bool better = t->step && (!n || !t->best_step || !(*kl >= mean(t->kl_best, t->n_hold)));
    if (!rc && n)
        json_array_append_new(t->history,
                              json_pack("[i,o]", t->step, isfinite(*kl) ? json_real(*kl) : json_null()));
    if (!rc && !t->step) {
        memcpy(t->kl_old, seen, n * sizeof *seen);
        memcpy(t->top1_old, seen + n, n * sizeof *seen);
    }
    if (!rc && better && (!n || isfinite(*kl))) {
        memcpy(t->kl_best, seen, n * sizeof *seen);
        memcpy(t->top1_best, seen + n, n * sizeof *seen);
        memcpy(t->best, t->s->value, t->s->n * sizeof *t->best);
        t->best_step = t->step;
    }
    mem_free(seen);
    return rc;
}

/* ---- steps ---- */

static void step_windows(const struct scope_train *t, int step, int32_t *ids)
{
    const struct scope_opts *o = t->s->o;
    for (int i = 0; i < o->batch; i++) {
        int sequence, offset;
        scope_window(o, t->tk, step, i, &sequence, &offset);
        memcpy(ids + (size_t)i * (size_t)o->seq, t->tk->ids + (size_t)sequence * (size_t)t->tk->T + offset,
               (size_t)o->seq * sizeof *ids);
    }
}

struct window {
    int sequence, offset, at; /* at: which of the chunk's windows, in order of steps */
};

static int compare_windows(const void *a, const void *b)
{
    const struct window *x = a, *y = b;
    return x->sequence != y->sequence ? (x->sequence > y->sequence) - (x->sequence < y->sequence)
           : x->offset != y->offset   ? (x->offset > y->offset) - (x->offset < y->offset)
                                      : (x->at > y->at) - (x->at < y->at);
}

/* The different windows of steps first .. first + n, whose number is returned; t->place of all. */
static int different_windows(struct scope_train *t, int first, int n, struct window *w)
{
    const struct scope_opts *o = t->s->o;
    int all = n * o->batch, count = 0;
    for (int i = 0; i < all; i++) {
        w[i].at = i;
        scope_window(o, t->tk, first + i / o->batch, i % o->batch, &w[i].sequence, &w[i].offset);
    }
    qsort(w, (size_t)all, sizeof *w, compare_windows);
    for (int i = 0; i < all; i++) {
        if (!count || w[i].sequence != w[count - 1].sequence || w[i].offset != w[count - 1].offset)
            w[count++] = w[i];
        t->place[w[i].at] = count - 1;
    }
    return count;
}

/* States of windows from.. of count, as many as a batch has; the rows of the last batch's rest are any. */
static float *states_at(struct scope_train *t, int from, int count, size_t *n)
{
    const struct scope_opts *o = t->s->o;
    size_t each = (size_t)o->seq * (size_t)t->s->D;
    *n = each * (size_t)(count - from < o->batch ? count - from : o->batch);
    return t->states + each * (size_t)from;
}

static int embed_windows(struct scope_train *t, const struct window *w, int count, int32_t *ids,
                         struct err *e)
{
    struct scope *s = t->s;
    const struct scope_opts *o = s->o;
    for (int k = 0; k < count; k += o->batch) {
        size_t n;
        float *to = states_at(t, k, count, &n);
        for (int i = 0; i < o->batch; i++) {
            const struct window *x = &w[k + i < count ? k + i : count - 1];
            memcpy(ids + (size_t)i * (size_t)o->seq,
                   t->tk->ids + (size_t)x->sequence * (size_t)t->tk->T + x->offset,
                   (size_t)o->seq * sizeof *ids);
        }
        if (model_embed(s->m, ids, o->batch, o->seq, 0, s->dy, e)) return -1;
        s->be->get(to, s->dy, n * sizeof *to);
    }
    return 0;
}

/* Every layer of the float model is read once for all windows. */
static int run_windows(struct scope_train *t, int count, struct err *e)
{
    struct scope *s = t->s;
    const struct scope_opts *o = s->o;
    for (int l = 0; l < s->L; l++) {
        if (scope_load_float(s, l, e)) return -1;
        for (int k = 0; k < count; k += o->batch) {
            size_t n;
            float *x = states_at(t, k, count, &n);
            if (err_stopped(e)) return -1;
            s->be->put(s->dy, x, n * sizeof *x);
            block_forward(s->be, s->blk, s->work, o->batch, o->seq, 0, s->dy, s->dx, NULL, NULL);
            s->be->get(x, s->dx, n * sizeof *x);
            progress_at(t->done += (double)n / s->D, "step %d, float model", t->step);
        }
    }
    return 0;
}

/* The teacher's states of a run of steps at once, of each window once. */
static int fill_states(struct scope_train *t, int first, int n, int32_t *ids, struct err *e)
{
    struct scope *s = t->s;
    struct window *w = MEM_NEW(struct window, (size_t)n *(size_t)s->o->batch);
    t->chunk_n = 0;
    int count = different_windows(t, first, n, w);
    int rc = embed_windows(t, w, count, ids, e) || run_windows(t, count, e) ? -1 : 0;
    mem_free(w);
    if (rc) return -1;
    t->done += (double)s->L * s->o->seq * (n * s->o->batch - count); /* as if each had been run */
    t->chunk_first = first, t->chunk_n = n;
    return 0;
}

static int put_teacher(struct scope_train *t, int step, int32_t *ids, struct err *e)
{
    struct scope *s = t->s;
    size_t each = (size_t)s->o->seq * (size_t)s->D;
    if (s->o->kl <= 0) return 0;
    if (step < t->chunk_first || step >= t->chunk_first + t->chunk_n) {
        int first = step / t->chunk * t->chunk,
            n = s->o->steps - first < t->chunk ? s->o->steps - first : t->chunk;
        if (fill_states(t, first, n, ids, e)) return -1;
    }
    for (int i = 0; i < s->o->batch; i++) {
        int at = t->place[(step - t->chunk_first) * s->o->batch + i];
        s->be->put(dev_at(s->xt, (size_t)i * each), t->states + (size_t)at * each, each * sizeof(float));
    }
    return 0;
}

static int report_step(struct scope_train *t, double lr, double kl, double ce, double norm, double hold,
                       double start, struct err *e)
{
    double v[] = {kl, ce, norm, hold};
    char line[256], *at = line;
    if (!t->report) return 0;
    at += snprintf(at, sizeof line, "%d\t%.6g", t->step, lr);
    for (size_t i = 0; i < sizeof v / sizeof *v; i++)
        at += snprintf(at, sizeof line - (size_t)(at - line), isnan(v[i]) ? "\t" : "\t%.6g", v[i]);
    at += snprintf(at, sizeof line - (size_t)(at - line), "\t%.2f\n", now_seconds() - start);
    return outfile_write(t->report, line, (size_t)(at - line), e);
}

/* One step, with everything due after it. *end: no more steps. */
static int one_step(struct scope_train *t, int steps, double lr, bool search, int32_t *ids, bool *end,
                    struct err *e)
{
    struct scope *s = t->s;
    const struct scope_opts *o = s->o;
    double kl = NAN, ce = NAN, hold = NAN, norm, start = now_seconds(),
           rate = scope_rate(o, lr, t->step, steps);
    struct err why = {0};
    if (put_teacher(t, t->step, ids, e)) return -1;
    step_windows(t, t->step, ids);
    if (scope_gradient(s, ids, &kl, &ce, &why) && (why.code != NT_EXIT_DATA || !t->step)) {
        *e = why;
        return -1;
    }
    double loss = (o->kl > 0 ? o->kl * kl : 0) + (o->ce > 0 ? o->ce * ce : 0);
    norm = !why.code && isfinite(loss) ? scope_step(s, t->step + 1, rate) : NAN;
    *end = !isfinite(norm);
    if (*end) {
        snprintf(t->why, sizeof t->why, "%.*s", (int)sizeof t->why - 1,
                 why.code ? why.text : "loss or gradient is not finite");
        return 0;
    }
    t->step++;
    progress_at(t->done += 4.0 * s->R * s->L, "step %d of %d, lr %.3g, loss %.5g", t->step, steps, rate,
                loss);
    *end = t->step == steps;
    if ((*end || t->step % o->eval_every == 0) && judge_step(t, &hold, e)) return -1;
    if (search) return 0;
    if (report_step(t, rate, kl, ce, norm, hold, start, e)) return -1;
    return o->checkpoint && (*end || t->step % o->checkpoint_every == 0) ? scope_state_write(t, e) : 0;
}

static int run_steps(struct scope_train *t, int steps, double lr, bool search, struct err *e)
{
    int32_t *ids = MEM_NEW(int32_t, (size_t)t->s->R);
    bool end = t->step >= steps;
    int rc = 0;
    while (!rc && !end) rc = one_step(t, steps, lr, search, ids, &end, e);
    mem_free(ids);
    return rc;
}

static void forget(struct scope_train *t)
{
    scope_start(t->s);
    t->step = t->best_step = 0;
    t->why[0] = 0;
    json_array_clear(t->history);
}

/* Short runs, each with its whole schedule; the one whose best step has the lowest held-out KL gives the
 * rate. */
static int search_rate(struct scope_train *t, struct err *e)
{
    const double *rates = scope_rates[t->s->o->relative];
    int steps = (t->s->o->steps + 3) / 4;
    double least = INFINITY;
    t->lr = rates[0];
    for (int i = 0; i < SCOPE_RATES; i++) {
        forget(t);
        if (run_steps(t, steps, rates[i], true, e)) return -1;
        double kl = t->best_step ? mean(t->kl_best, t->n_hold) : INFINITY;
        note("--lr auto: %g: %s %.5f on held-out tokens after %d steps", rates[i],
             t->s->o->all ? "cross-entropy" : "KL", kl, steps);
        if (kl < least) least = kl, t->lr = rates[i];
    }
    forget(t);
    return 0;
}

static void give_verdict(struct scope_train *t)
{
    int n = t->n_hold;
    double sum = 0, square = 0;
    t->v = (struct tweak_verdict){
        .verdict = "none", .norms = "new", .changed = t->best_step > 0, .ce = t->s->o->all};
    if (!n) return;
    if (!t->best_step) { /* no step gave a finite KL: the start stands */
        memcpy(t->kl_best, t->kl_old, (size_t)n * sizeof(double));
        memcpy(t->top1_best, t->top1_old, (size_t)n * sizeof(double));
    }
    for (int i = 0; i < n; i++) {
        double gain = t->kl_old[i] - t->kl_best[i];
        sum += gain;
        square += gain * gain;
    }
    t->v.n = (long)(t->tk->T - 1) * n;
    t->v.kl_old = mean(t->kl_old, n), t->v.kl_new = mean(t->kl_best, n);
    t->v.top1_old = mean(t->top1_old, n), t->v.top1_new = mean(t->top1_best, n);
    t->v.kl_gain_err = n > 1 ? sqrt(fmax(0, square - sum * sum / n) / (n - 1) / n) : NAN;
    bool better = t->v.changed && (t->v.kl_new < t->v.kl_old || !isfinite(t->v.kl_old));
    t->v.verdict = better ? "positive" : "negative";
    t->v.norms = better ? "new" : "old";
}

int scope_train(struct scope_train *t, struct err *e)
{
    const struct scope_opts *o = t->s->o;
    double kl;
    int resumed = o->checkpoint ? scope_state_read(t, e) : 0;
    if (resumed < 0) return -1;
    if (resumed) note("%s: goes on after step %d", o->checkpoint, t->step);
    if (!resumed && isnan(o->lr) && search_rate(t, e)) return -1;
    if (!resumed && judge_step(t, &kl, e)) return -1;
    if (run_steps(t, o->steps, t->lr, false, e)) return -1;
    if (t->why[0] && !t->n_hold && t->step) { /* nothing to choose by: the last values stand */
        memcpy(t->best, t->s->value, t->s->n * sizeof *t->best);
        t->best_step = t->step;
    }
    give_verdict(t);
    bool vain = !t->best_step || ((o->scales || o->all) && t->v.norms[0] == 'o');
    if (vain)
        scope_start(t->s);
    else
        scope_put(t->s, t->best);
    return 0;
}
