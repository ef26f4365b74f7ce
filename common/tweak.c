/* SPDX-License-Identifier: Apache-2.0
 * The loop over layers: target, tune, re-run with the new norms, judge on held-out sequences. */
#include "common/tweak.h"
#include <math.h>
#include <string.h>
#include "common/mem.h"
#include "common/tool.h"

struct tweak {
    struct model *m;
    const struct tweak_opts *o;
    struct block *f, *q;
    struct boundary_pass pass;
    struct tweak_block tb;
    struct boundary train, train_f, hold_f, hold_old, hold_new;
    int n_hold, layer;
    bool changed; /* some norm so far: the old and new held-out boundaries differ */
    double done;  /* sequences run, for progress */
};

static bool needs_backward(const struct tweak_opts *o)
{
    return !o->closed_form && o->iters > 0;
}

uint64_t tweak_bytes(const struct model_config *c, const struct tokens *tk, const struct tweak_opts *o)
{
    int D = c->block.D, n_train = tk->n - tk->n_holdout;
    uint64_t rows = boundary_bytes(n_train, tk->T, D) * (o->target_float ? 2 : 1) +
                    3 * boundary_bytes(tk->n_holdout, tk->T, D);
    uint64_t work = 2 * block_bytes(c) + boundary_pass_bytes(c, tk->T, needs_backward(o)) +
                    boundary_bytes(1 + (o->loss->power ? boundary_group(&c->block, tk->T) : 0), tk->T, D) +
                    2 * ((uint64_t)n_train + TWEAK_EVAL_SEQUENCES) * 2 * D * sizeof(double);
    if (needs_backward(o)) work += block_back_bytes(c);
    int wide = c->block.F > c->block.expert_F ? c->block.F : c->block.expert_F;
    if (c->block.shared_F > wide) wide = c->block.shared_F;
    work += (uint64_t)wide * D; /* the codes of the largest linear */
    if (o->closed_form) work += tweak_block_closed_bytes(&c->block);
    uint64_t head = tk->n_holdout ? head_bytes(c) : 0;
    return TOOL_BASE_BYTES + rows + (work > head ? work : head);
}

struct tweak *tweak_open(struct model *m, const struct tokens *tk, const struct tweak_opts *o, struct err *e)
{
    struct tweak *t = MEM_NEW(struct tweak, 1);
    int n_train = tk->n - tk->n_holdout;
    t->m = m;
    t->o = o;
    t->n_hold = tk->n_holdout;
    if (boundary_from_tokens(&t->train, m, tk, 0, n_train, e)) goto fail;
    if (o->target_float) boundary_copy(&t->train_f, &t->train);
    if (t->n_hold) {
        if (boundary_from_tokens(&t->hold_f, m, tk, n_train, t->n_hold, e)) goto fail;
        boundary_copy(&t->hold_old, &t->hold_f);
        boundary_copy(&t->hold_new, &t->hold_f);
    }
    t->f = block_alloc(m, tk->T);
    t->q = block_alloc(m, tk->T);
    boundary_pass_init(&t->pass, m, tk->T, needs_backward(o));
    bool trained[NORM_VECTORS];
    model_trained_norms(m, o->qk, trained);
    tweak_block_init(&t->tb, m->be, o, t->f, t->q, &t->pass, tk->T, n_train + TWEAK_EVAL_SEQUENCES, trained);
    t->tb.norm_offset = m->gguf ? 0 : m->c.family->norm_offset;
    return t;
fail:
    tweak_close(t);
    return NULL;
}

static void free_blocks(struct tweak *t)
{
    tweak_block_clear(&t->tb);
    if (t->f) block_free(t->m, t->f);
    if (t->q) block_free(t->m, t->q);
    t->f = t->q = NULL;
}

void tweak_close(struct tweak *t)
{
    if (!t) return;
    free_blocks(t);
    if (t->pass.be) boundary_pass_clear(&t->pass);
    struct boundary *all[] = {&t->train, &t->train_f, &t->hold_f, &t->hold_old, &t->hold_new};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) boundary_clear(all[i]);
    mem_free(t);
}

int tweak_paths(struct tweak *t, struct acts_path p[TWEAK_PATHS])
{
    const struct acts_path all[TWEAK_PATHS] = {{"q", &t->train},
                                               {"q", &t->hold_new},
                                               {"old", &t->hold_old},
                                               {"float", &t->hold_f},
                                               {"float", &t->train_f}};
    int n = 0;
    for (int i = 0; i < TWEAK_PATHS; i++)
        if (all[i].b->n) p[n++] = all[i];
    return n;
}

void tweak_start_at(struct tweak *t, int layer)
{
    t->layer = layer;
    t->changed = t->n_hold && memcmp(t->hold_old.x, t->hold_new.x,
                                     boundary_bytes(t->n_hold, t->hold_new.T, t->hold_new.D)) != 0;
}

const struct model *tweak_model(const struct tweak *t)
{
    return t->m;
}

int tweak_norm_values(const struct tweak *t)
{
    return t->tb.n_values;
}

bool tweak_norm_at(const struct tweak *t, int i, int *vector, int *at, int *n)
{
    if (i >= t->tb.n_params) return false;
    *vector = t->tb.param[i].vector, *at = t->tb.param[i].at, *n = t->tb.param[i].n;
    return true;
}

double tweak_work(const struct tweak *t, const int64_t layers[2])
{
    double first = (double)layers[0],
           last = layers[1] < t->m->c.n_layers ? (double)layers[1] : t->m->c.n_layers;
    double each = t->train.n + t->train_f.n + 3 * t->n_hold, tuned = t->o->closed_form ? 1 : t->o->iters;
    return each * t->m->c.n_layers + (last > first ? last - first : 0) * tuned * t->train.n;
}

uint64_t tweak_target_values(const struct tweak *t)
{
    const struct tweak_opts *o = t->o;
    bool use = needs_backward(o) && !o->target_float && !o->loss->power && !o->skip_first;
    return use ? (uint64_t)t->train.n * 2 * (uint64_t)t->train.D : 0;
}

void tweak_linear(struct tweak *t, struct tweak_input *in, int r, const struct qtensor *q)
{
    size_t width = (size_t)q->in;
    int step = q->in < MODEL_STAGE_FLOATS ? MODEL_STAGE_FLOATS / q->in : 1;
    float *w = MEM_NEW(float, (size_t)step *width);
    for (int r0 = 0; r0 < q->out; r0 += step) {
        int n = q->out - r0 < step ? q->out - r0 : step;
        qtensor_dequant_rows(q, r0, n, w);
        t->m->be->put(dev_at(t->q->w[r], (size_t)r0 * width), w, (size_t)n * width * sizeof *w);
    }
    mem_free(w);
    in->has[r] = true;
}

/* The quantized block: the float one, but for the linears that tweak_linear put into it. */
static void build_quantized(struct tweak *t, const bool has[LINEARS_MAX])
{
    const struct backend *be = t->m->be;
    const struct block_shape *s = &t->q->s;
    block_set_layer(t->m, t->q, t->layer); /* window, rotation, experts */
    if (s->experts) be->copy(t->q->router, t->f->router, (size_t)s->experts * (size_t)s->D * sizeof(float));
    if (dev_ok(t->q->shared_gate)) be->copy(t->q->shared_gate, t->f->shared_gate, (size_t)s->D * sizeof(float));
    for (int r = 0; r < block_linears(s); r++) {
        int out, in;
        if (!block_has_role(s, r)) continue;
        role_dims(s, r, &out, &in);
        if (!has[r]) be->copy(t->q->w[r], t->f->w[r], (size_t)out * (size_t)in * sizeof(float));
        if (r < ROLE_COUNT && dev_ok(t->q->b[r])) be->copy(t->q->b[r], t->f->b[r], (size_t)out * sizeof(float));
    }
    for (int i = 0; i < NORM_VECTORS; i++) {
        dev to = block_norm_vector(t->q, i);
        size_t n = (size_t)norm_dim(&t->q->s, i % NORM_COUNT);
        if (dev_ok(to)) be->copy(to, block_norm_vector(t->f, i), n * sizeof(float));
    }
}

/* One pass over a boundary, and the losses of its first sequences on the way. */
struct pass {
    struct tweak *t;
    const struct boundary *target; /* rows to aim at, or NULL */
    int slot, n;                   /* of the first sequence; how many are measured */
    double sum;
};

static int count_group(void *ctx, int s0, int B, dev x, dev y, struct err *e)
{
    struct pass *p = ctx;
    struct tweak *t = p->t;
    int n = p->n - s0 < B ? p->n - s0 : B;
    (void)x, (void)y, (void)e;
    if (n > 0)
        p->sum += tweak_block_visit(&t->tb, p->target ? boundary_view(p->target, s0) : NULL, p->slot + s0, n);
    t->done += B;
    progress_at(t->done, "layer %d", t->layer);
    return 0;
}

static int advance(struct tweak *t, const struct block *blk, struct boundary *b, struct err *e)
{
    struct pass p = {.t = t};
    return b->n ? boundary_run(&t->pass, blk, b, b, NULL, count_group, &p, e) : 0;
}

static int measured(const struct boundary *b)
{
    return b->n < TWEAK_EVAL_SEQUENCES ? b->n : TWEAK_EVAL_SEQUENCES;
}

/* Where the sequences of training and held-out data aim, and where their targets' moments are kept. */
static const struct boundary *target_of(const struct tweak *t, const struct boundary *b)
{
    return !t->o->target_float ? NULL : b == &t->train ? &t->train_f : &t->hold_f;
}

static int slot_of(const struct tweak *t, const struct boundary *b)
{
    return b == &t->train ? 0 : t->train.n;
}

/* Advances b through q; *loss: the mean over its first sequences with q's present norms, when it is asked
 * for. The last block's output is for the verdict alone: no training sequence needs to go further than it is
 * measured. */
static int advance_measured(struct tweak *t, struct boundary *b, double *loss, struct err *e)
{
    const struct boundary *target = target_of(t, b);
    struct pass p = {t, target, slot_of(t, b), loss ? measured(b) : 0, 0};
    struct boundary part = *b;
    if (b == &t->train && t->layer + 1 == t->m->c.n_layers) part.n = p.n;
    if (part.n && boundary_run(&t->pass, t->q, &part, &part, NULL, count_group, &p, e)) return -1;
    t->done += b->n - part.n;
    b->layer++;
    if (loss) *loss = p.n ? p.sum / p.n : NAN;
    return 0;
}

static double mean_loss(struct tweak *t, const struct boundary *b)
{
    const struct boundary *target = target_of(t, b);
    int n = measured(b);
    if (!n) return NAN;
    return tweak_block_losses(&t->tb, b->x, target ? target->x : NULL, slot_of(t, b), n) / n;
}

/* Targets take no part in training: found for a group of sequences at a time. */
static void next_targets(struct tweak *t, int i)
{
    const struct boundary *b = &t->train, *target = target_of(t, b);
    int n = b->n - i < t->pass.group ? b->n - i : t->pass.group;
    if (i % t->pass.group == 0)
        tweak_block_targets(&t->tb, boundary_view(b, i), target ? boundary_view(target, i) : NULL, i, n);
}

static int train_adam(struct tweak *t, struct tweak_report *rep, struct err *e)
{
    for (int it = 0; it < t->o->iters; it++)
        for (int i = 0; i < t->train.n; i++) {
            double loss;
            if (tool_stopping())
                return err_set(e, 128 + err_stop_signal, "stopped by a signal in layer %d", t->layer);
            next_targets(t, i);
            if (tweak_block_step(&t->tb, boundary_view(&t->train, i),
                                 t->o->target_float ? boundary_view(&t->train_f, i) : NULL, i, rep->lr,
                                 &loss)) {
                snprintf(rep->why, sizeof rep->why,
                         "loss or gradient is not finite at training sequence %d, pass %d", i, it + 1);
                return 0;
            }
            progress_at(++t->done, "layer %d loss %.5g", t->layer, loss);
        }
    return 0;
}

static int train_closed(struct tweak *t, struct tweak_report *rep, struct err *e)
{
    double ridge[NORM_COUNT] = {0};
    struct err why = {0};
    if (!tweak_block_closed(&t->tb, &t->train, ridge, &why)) {
        rep->ridge = fmax(ridge[NORM_ATTN], ridge[NORM_MLP]);
        return 0;
    }
    if (why.code != NT_EXIT_DATA) {
        *e = why;
        return -1;
    }
    snprintf(rep->why, sizeof rep->why, "%.150s", why.text);
    return 0;
}

/* How far the gains went, against max(|gain|, mean |gain|): a gain near zero may move without harm. They are
 * the first of the values. */
static void measure_change(const struct tweak *t, const float *old_v, const float *new_v,
                           struct tweak_report *rep)
{
    int n = 0;
    for (int i = 0; i < t->tb.n_params; i++) n += t->tb.param[i].vector < NORM_COUNT ? t->tb.param[i].n : 0;
    double mean = 0;
    for (int i = 0; i < n; i++) mean += fabs(old_v[i]) / n;
    rep->moved = 0;
    for (int i = 0; i < n; i++) {
        double base = fmax(fabs(old_v[i]), mean),
               d = fabs((double)new_v[i] - old_v[i]) / (base > 0 ? base : 1);
        if (d > rep->moved) rep->moved = d;
    }
    rep->changed = memcmp(old_v, new_v, (size_t)t->tb.n_values * sizeof *old_v) != 0;
}

/* The losses after tuning come from the pass that advances the boundaries; one sequence is tried before,
 * while there is a way back. */
static int tune_norms(struct tweak *t, float *old_v, float *new_v, struct tweak_report *rep, struct err *e)
{
    const struct boundary *target = target_of(t, &t->train);
    rep->train[0] = mean_loss(t, &t->train);
    rep->holdout[0] = mean_loss(t, &t->hold_new);
    if (t->o->closed_form ? train_closed(t, rep, e) : train_adam(t, rep, e)) return -1;
    tweak_block_get(&t->tb, new_v);
    if (!rep->why[0] && f32_first_nonfinite(new_v, (size_t)t->tb.n_values) < (size_t)t->tb.n_values)
        snprintf(rep->why, sizeof rep->why, "a tweaked norm is not finite");
    if (!rep->why[0] && !isfinite(tweak_block_loss(&t->tb, t->train.x, target ? target->x : NULL, 0, false)))
        snprintf(rep->why, sizeof rep->why, "the loss after tweaking is not finite");
    if (rep->why[0]) {
        memcpy(new_v, old_v, (size_t)t->tb.n_values * sizeof *old_v);
        tweak_block_put(&t->tb, old_v);
    }
    measure_change(t, old_v, new_v, rep);
    return 0;
}

static int advance_all(struct tweak *t, const float *old_v, struct tweak_report *rep, struct err *e)
{
    bool same = !t->changed;
    if (advance_measured(t, &t->train, rep->tuned ? &rep->train[1] : NULL, e)) return -1;
    if (!t->n_hold) return 0;
    if (advance_measured(t, &t->hold_new, rep->tuned ? &rep->holdout[1] : NULL, e)) return -1;
    if (same) {
        memcpy(t->hold_old.x, t->hold_new.x, (size_t)boundary_bytes(t->n_hold, t->hold_new.T, t->hold_new.D));
        t->hold_old.layer = t->hold_new.layer;
        t->done += t->n_hold;
        return 0;
    }
    tweak_block_put(&t->tb, old_v);
    return advance(t, t->q, &t->hold_old, e);
}

void tweak_input_clear(struct tweak_input *in)
{
    mem_free(in->norms);
    mem_free(in->target);
    *in = (struct tweak_input){0};
}

/* A quantizer may have folded scales into the norms: then tuning starts from its norms. */
static void start_norms(struct tweak *t, const struct tweak_input *in, float *old_v, float *new_v)
{
    size_t stride = (size_t)norm_max_dim(&t->q->s);
    for (int i = 0; i < NORM_VECTORS; i++)
        if (in->has_norm[i])
            t->m->be->put(block_norm_vector(t->q, i), in->norms + (size_t)i * stride,
                          (size_t)norm_dim(&t->q->s, i % NORM_COUNT) * sizeof(float));
    tweak_block_get(&t->tb, old_v);
    memcpy(new_v, old_v, (size_t)t->tb.n_values * sizeof *old_v);
}

int tweak_layer(struct tweak *t, const struct tweak_input *in, bool tune, float *old_v, float *new_v,
                struct tweak_report *rep, struct err *e)
{
    double start = now_seconds();
    *rep =
        (struct tweak_report){.layer = t->layer, .tuned = tune, .train = {NAN, NAN}, .holdout = {NAN, NAN}};
    rep->lr = t->o->closed_form ? 0 : t->o->lr * (1 + t->o->lr_scale * t->layer / t->m->c.n_layers);
    if (block_load(t->m, t->f, t->layer, e)) return -1;
    build_quantized(t, in->has);
    tweak_block_reset(&t->tb);
    start_norms(t, in, old_v, new_v);
    if (advance(t, t->f, &t->hold_f, e) || advance(t, t->f, &t->train_f, e)) return -1;
    if (tune && in->target && !tweak_block_given(&t->tb, t->train.x, in->target, t->train.n))
        note("layer %d: the target that came with the codes is of other activations, so it is made anew",
             t->layer);
    if (tune && tune_norms(t, old_v, new_v, rep, e)) return -1;
    t->changed |= rep->changed;
    if (advance_all(t, old_v, rep, e)) return -1;
    t->layer++;
    rep->seconds = now_seconds() - start;
    return 0;
}

/* ---- verdict ---- */
struct judge {
    struct head *head[3]; /* the float model, and the student with old and with new norms */
    dev x[3];             /* [T, D]: their last states */
    double *kl[2];        /* [T - 1]: old, new */
    int32_t *best[3];
};

static int judge_open(struct tweak *t, struct judge *j, struct err *e)
{
    int T = t->hold_f.T;
    *j = (struct judge){0};
    for (int i = 0; i < (t->changed ? 3 : 2); i++) {
        j->head[i] = i ? head_share(t->m, j->head[0], NULL, e) : head_open(t->m, NULL, e);
        if (!j->head[i]) return -1;
    }
    for (int i = 0; i < 3; i++) {
        j->x[i] = t->m->be->alloc((size_t)T * t->hold_f.D * sizeof(float));
        j->best[i] = MEM_NEW(int32_t, (size_t)T);
        if (i) j->kl[i - 1] = MEM_NEW(double, (size_t)T);
    }
    return 0;
}

static void judge_close(struct tweak *t, struct judge *j)
{
    for (int i = 2; i >= 0; i--) {
        head_free(j->head[i]);
        t->m->be->release(j->x[i]);
        mem_free(j->best[i]);
        if (i) mem_free(j->kl[i - 1]);
    }
}

/* Held-out sequence i at the T - 1 positions that have a next token: what nt-eval counts. Adds to v; returns
 * the KL that the new norms save. */
static double judge_sequence(struct tweak *t, struct judge *j, int i, struct tweak_verdict *v)
{
    const struct boundary *b[] = {&t->hold_f, &t->hold_old, &t->hold_new};
    int R = t->hold_f.T - 1, n = t->n_hold, last = t->changed ? 1 : 0;
    double kl[2] = {0, 0}, same[2] = {0, 0};
    for (int k = 0; k < 3; k++)
        t->m->be->put(j->x[k], boundary_view(b[k], i), (size_t)R * t->hold_f.D * sizeof(float));
    if (t->changed)
        head_kl_two(j->head[0], j->x[0], j->head + 1, j->x + 1, R, j->kl, j->best[0], j->best + 1);
    else
        head_kl(j->head[0], j->x[0], j->head[1], j->x[1], R, j->kl[0], j->best[0], j->best[1]);
    for (int k = 0; k <= last; k++)
        for (int r = 0; r < R; r++) {
            kl[k] += j->kl[k][r];
            same[k] += j->best[0][r] == j->best[k + 1][r];
        }
    v->kl_old += kl[0] / R / n;
    v->kl_new += kl[last] / R / n;
    v->top1_old += same[0] / R / n;
    v->top1_new += same[last] / R / n;
    return (kl[0] - kl[last]) / R;
}

static void judge_all(struct tweak *t, struct judge *j, struct tweak_verdict *v)
{
    int n = t->n_hold;
    double sum = 0, square = 0;
    for (int i = 0; i < n; i++) {
        double gain = judge_sequence(t, j, i, v);
        sum += gain;
        square += gain * gain;
        progress_at(t->done, "verdict");
    }
    v->n = (long)(t->hold_f.T - 1) * n;
    v->kl_gain_err = n > 1 ? sqrt(fmax(0, square - sum * sum / n) / (n - 1) / n) : NAN;
}

int tweak_judge(struct tweak *t, struct tweak_verdict *v, struct err *e)
{
    *v = (struct tweak_verdict){.verdict = "none", .norms = "new", .changed = t->changed};
    if (!t->n_hold || t->layer < t->m->c.n_layers) return 0;
    free_blocks(t);
    struct judge j;
    int rc = judge_open(t, &j, e);
    if (!rc) judge_all(t, &j, v);
    judge_close(t, &j);
    if (rc) return -1;
    if (!isfinite(v->kl_old) && !isfinite(v->kl_new))
        return err_set(e, NT_EXIT_DATA, "%s: KL on the held-out sequences is not finite", t->m->ck->path);
    bool better = v->changed && (v->kl_new < v->kl_old || !isfinite(v->kl_old));
    v->verdict = better ? "positive" : "negative";
    v->norms = better ? "new" : "old";
    return 0;
}
