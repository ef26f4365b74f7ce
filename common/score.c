/* SPDX-License-Identifier: Apache-2.0
 * Batches of sequences through all blocks and the head, layers outermost. */
#include "common/score.h"
#include <math.h>
#include <string.h>
#include "common/mem.h"
#include "common/tool.h"

/* ---- sequences ---- */

static struct score_batch *batch_for(struct score_set *s, int T)
{
    struct score_batch *b = s->n ? &s->batch[s->n - 1] : NULL;
    if (b && b->T == T && (b->B + 1) * T <= SCORE_ROWS) return b;
    if (s->n == s->cap) {
        struct score_batch *more = MEM_NEW(struct score_batch, s->cap * 2 + 8);
        if (s->n) memcpy(more, s->batch, (size_t)s->n * sizeof *more);
        mem_free(s->batch);
        s->batch = more, s->cap = s->cap * 2 + 8;
    }
    b = &s->batch[s->n++];
    int rows = T > SCORE_ROWS ? T : SCORE_ROWS / T * T;
    *b = (struct score_batch){.T = T, .ids = MEM_NEW(int32_t, rows), .targets = MEM_NEW(int32_t, rows)};
    return b;
}

void score_add_padded(struct score_set *s, const int32_t *ids, const int32_t *targets, int len, int T)
{
    struct score_batch *b = batch_for(s, T);
    int32_t *to = b->ids + b->B * T, *target = b->targets + b->B * T;
    for (int i = 0; i < T; i++) {
        to[i] = i < len ? ids[i] : ids[len - 1];
        target[i] = i < len ? targets[i] : -1;
    }
    b->B++;
}

void score_add(struct score_set *s, const int32_t *ids, const int32_t *targets, int T)
{
    score_add_padded(s, ids, targets, T, T);
}

void score_clear(struct score_set *s)
{
    for (int i = 0; i < s->n; i++) {
        struct score_batch *b = &s->batch[i];
        mem_free(b->ids), mem_free(b->targets), mem_free(b->nll), mem_free(b->kl), mem_free(b->best),
            mem_free(b->best_ref);
    }
    mem_free(s->batch);
    memset(s, 0, sizeof *s);
}

uint64_t score_tokens(const struct score_set *s)
{
    uint64_t n = 0;
    for (int i = 0; i < s->n; i++) n += (uint64_t)s->batch[i].B * (uint64_t)s->batch[i].T;
    return n;
}

static int longest(const struct score_set *s)
{
    int T = 1;
    for (int i = 0; i < s->n; i++)
        if (s->batch[i].T > T) T = s->batch[i].T;
    return T;
}

static int most_rows(const struct score_set *s)
{
    int R = 1;
    for (int i = 0; i < s->n; i++)
        if (s->batch[i].B * s->batch[i].T > R) R = s->batch[i].B * s->batch[i].T;
    return R;
}

/* ---- sources ---- */

int score_load(struct score_source *s, struct block *b, int layer, struct err *e)
{
    if (block_load(s->m, b, layer, e)) return -1;
    return s->q ? qweights_apply(s->q, s->m, b, layer, e) : 0;
}

double score_model_bits(const struct model *m)
{
    double bits = 0, weights = 0;
    for (int l = 0; l < m->c.n_layers; l++)
        for (int r = 0; r < block_linears(&m->c.block); r++) {
            const struct weight_part *p = &m->layers[l].w[r];
            if (!p->t) continue;
            double n = (double)(p->rows * p->cols);
            bits += 8.0 * n * (double)p->t->t.nbytes / (double)tensor_count(&p->t->t);
            weights += n;
        }
    return bits / weights;
}

/* ---- one model's way through the layers ---- */

struct lane {
    struct score_source *s;
    struct block *blk;
    struct block_work *work;
    dev *x;          /* per batch [B * T, D] */
    dev spare;       /* the next output; changes places with x */
    double *moments; /* [2, D] of one batch, then [2, D] merged: mean and sum of squared deviations */
    double rows;
};

static void lane_open(struct lane *l, struct score_source *s, const struct score_set *set)
{
    const struct backend *be = s->m->be;
    size_t D = (size_t)s->m->c.block.D;
    l->s = s;
    l->blk = block_alloc(s->m, longest(set));
    l->work = block_work_alloc(be, &s->m->c.block, most_rows(set), false);
    l->x = MEM_NEW(dev, set->n);
    for (int i = 0; i < set->n; i++) l->x[i] = be->alloc((size_t)most_rows(set) * D * sizeof(float));
    l->spare = be->alloc((size_t)most_rows(set) * D * sizeof(float));
    l->moments = MEM_NEW(double, 4 * D);
}

/* The blocks are not needed any more; the boundary is. */
static void lane_end_blocks(struct lane *l)
{
    if (!l->s) return;
    block_free(l->s->m, l->blk);
    block_work_free(l->work);
    l->s->m->be->release(l->spare);
    l->blk = NULL, l->work = NULL, l->spare = DEV_NONE;
}

static void lane_close(struct lane *l, int n)
{
    if (!l->s) return;
    lane_end_blocks(l);
    for (int i = 0; i < n; i++) l->s->m->be->release(l->x[i]);
    mem_free(l->x), mem_free(l->moments);
}

static void lane_forward(struct lane *l, const struct score_batch *b, int i)
{
    dev y = l->spare;
    block_forward(l->s->m->be, l->blk, l->work, b->B, b->T, 0, l->x[i], y, NULL, NULL);
    l->spare = l->x[i], l->x[i] = y;
}

/* Adds a batch's channel moments to the merged ones (Chan, Golub, LeVeque 1979). */
static void lane_moments(struct lane *l, dev acc, int i, int R)
{
    size_t D = (size_t)l->s->m->c.block.D;
    double *one = l->moments, *all = l->moments + 2 * D, n = l->rows + R;
    l->s->m->be->channel_moments(acc, l->x[i], R, (int)D);
    l->s->m->be->get(one, acc, 2 * D * sizeof(double));
    for (size_t c = 0; c < D; c++) {
        double d = one[c] - all[c];
        all[c] += d * R / n;
        all[D + c] += one[D + c] * R + d * d * l->rows * R / n;
    }
    l->rows = n;
}

static void lane_moments_reset(struct lane *l)
{
    memset(l->moments, 0, 4 * (size_t)l->s->m->c.block.D * sizeof *l->moments);
    l->rows = 0;
}

static void average(const double *x, size_t n, double *mean, double *err)
{
    double s = 0, ss = 0;
    for (size_t i = 0; i < n; i++) s += x[i] / (double)n;
    for (size_t i = 0; i < n; i++) ss += (x[i] - s) * (x[i] - s);
    *mean = s, *err = n > 1 ? sqrt(ss / (double)(n - 1) / (double)n) : NAN;
}

static struct score_drift drift_of(const struct lane *a, const struct lane *ref)
{
    size_t D = (size_t)a->s->m->c.block.D;
    const double *m = a->moments + 2 * D, *r = ref->moments + 2 * D;
    double *dm = MEM_NEW(double, D), *dv = MEM_NEW(double, D);
    struct score_drift out;
    for (size_t c = 0; c < D; c++) {
        double var = m[D + c] / a->rows, var_ref = r[D + c] / ref->rows;
        dm[c] = var_ref > 0 ? fabs(m[c] - r[c]) / sqrt(var_ref) : 0;
        dv[c] = var_ref > 0 ? fabs(var - var_ref) / var_ref : 0;
    }
    average(dm, D, &out.mean, &out.mean_err);
    average(dv, D, &out.var, &out.var_err);
    mem_free(dm), mem_free(dv);
    return out;
}

/* ---- the run ---- */

struct run {
    struct lane lane[2]; /* the model, the reference */
    int lanes;
    struct score_set *set;
    struct score_drift *drift;
    dev acc;            /* f64 [2, D] */
    double done, total; /* row-layers; the head counts as its share of a block's work */
    double head_cost;
};

static int embed(struct run *r, struct err *e)
{
    for (int k = 0; k < r->lanes; k++)
        for (int i = 0; i < r->set->n; i++) {
            const struct score_batch *b = &r->set->batch[i];
            if (model_embed(r->lane[k].s->m, b->ids, b->B, b->T, 0, r->lane[k].x[i], e)) return -1;
        }
    return 0;
}

static int one_layer(struct run *r, int layer, struct err *e)
{
    for (int k = 0; k < r->lanes; k++) {
        if (score_load(r->lane[k].s, r->lane[k].blk, layer, e)) return -1;
        lane_moments_reset(&r->lane[k]);
    }
    for (int i = 0; i < r->set->n; i++) {
        const struct score_batch *b = &r->set->batch[i];
        for (int k = 0; k < r->lanes; k++) {
            lane_forward(&r->lane[k], b, i);
            if (r->drift) lane_moments(&r->lane[k], r->acc, i, b->B * b->T);
        }
        if (tool_stopping())
            return err_set(e, 128 + err_stop_signal, "stopped by a signal in layer %d", layer);
        progress_at(r->done += b->B * b->T, "layer %d", layer);
    }
    if (r->drift) r->drift[layer] = drift_of(&r->lane[0], &r->lane[1]);
    return 0;
}

static int check_scores(const struct score_batch *b, int i, struct err *e)
{
    for (int t = 0; t < b->B * b->T; t++)
        if (!isfinite(b->nll[t]) || (b->kl && !isfinite(b->kl[t])))
            return err_set(e, NT_EXIT_DATA,
                           "the model's output is not finite (batch %d, sequence %d, token %d)", i, t / b->T,
                           t % b->T);
    return 0;
}

/* Heads whose weights are the same matrix of the same file are held once. */
static int heads_open(struct run *r, struct head *h[2], struct err *e)
{
    for (int k = 0; k < r->lanes; k++) {
        struct score_source *s = r->lane[k].s;
        const float *gain = s->q ? qweights_final_gain(s->q) : NULL;
        bool same = k && !strcmp(s->m->ck->path, r->lane[0].s->m->ck->path);
        h[k] = same ? head_share(s->m, h[0], gain, e) : head_open(s->m, gain, e);
        if (!h[k]) return -1;
        if (s->q) head_put_norm(h[k], NULL, qweights_final_bias(s->q));
    }
    return 0;
}

static int run_head(struct run *r, struct err *e)
{
    struct head *h[2] = {NULL, NULL};
    int rc = heads_open(r, h, e);
    for (int i = 0; i < r->set->n && !rc; i++) {
        struct score_batch *b = &r->set->batch[i];
        int R = b->B * b->T;
        b->nll = MEM_NEW(double, R), b->best = MEM_NEW(int32_t, R);
        if (r->lanes == 2) {
            b->kl = MEM_NEW(double, R), b->best_ref = MEM_NEW(int32_t, R);
            head_compare(h[1], r->lane[1].x[i], h[0], r->lane[0].x[i], b->targets, R, b->nll, b->kl,
                         b->best_ref, b->best);
            for (int t = 0; t < R; t++)
                if (b->targets[t] < 0) b->kl[t] = 0;
        } else {
            head_nll(h[0], r->lane[0].x[i], b->targets, R, b->nll, b->best);
        }
        rc = check_scores(b, i, e);
        if (!rc && tool_stopping()) rc = err_set(e, 128 + err_stop_signal, "stopped by a signal in the head");
        progress_at(r->done += r->head_cost * R, "head");
    }
    head_free(h[1]), head_free(h[0]);
    return rc;
}

int score_run(struct score_source *s, struct model *ref, struct score_set *set, struct score_drift *drift,
              struct err *e)
{
    const struct model_config *c = &s->m->c;
    struct score_source other = {.m = ref};
    struct run r = {.lanes = ref ? 2 : 1, .set = set, .drift = ref ? drift : NULL};
    if (ref && (ref->c.vocab != c->vocab || ref->c.n_layers != c->n_layers || ref->c.block.D != c->block.D))
        return err_set(e, NT_EXIT_DATA,
                       "%s (%d layers, hidden %d, vocabulary %d) cannot be compared with %s (%d, %d, %d)",
                       s->m->ck->path, c->n_layers, c->block.D, c->vocab, ref->ck->path, ref->c.n_layers,
                       ref->c.block.D, ref->c.vocab);
    r.head_cost = (double)c->vocab / ((double)block_bytes(c) / 4 / c->block.D);
    r.total = (double)score_tokens(set) * (c->n_layers + r.head_cost);
    lane_open(&r.lane[0], s, set);
    if (ref) lane_open(&r.lane[1], &other, set);
    if (r.drift) r.acc = s->m->be->alloc(2 * (size_t)c->block.D * sizeof(double));
    progress_start("eval", "token-layer", r.total);
    int rc = embed(&r, e);
    for (int l = 0; l < c->n_layers && !rc; l++) rc = one_layer(&r, l, e);
    for (int k = 0; k < 2; k++) lane_end_blocks(&r.lane[k]);
    if (!rc) rc = run_head(&r, e);
    progress_end();
    s->m->be->release(r.acc);
    for (int k = 0; k < 2; k++) lane_close(&r.lane[k], set->n);
    return rc;
}

uint64_t score_bytes(const struct model_config *c, const struct score_set *set, bool ref)
{
    uint64_t D = (uint64_t)c->block.D, lanes = ref ? 2 : 1, R = (uint64_t)most_rows(set);
    uint64_t held = lanes * (uint64_t)set->n * R * D * 4 + score_tokens(set) * (ref ? 32 : 20);
    uint64_t blocks = lanes * (block_bytes(c) + block_work_bytes(&c->block, (int)R, false) + R * D * 4 +
                               (uint64_t)longest(set) * c->block.rot * 8);
    uint64_t head = lanes * head_bytes(c);
    return held + (blocks > head ? blocks : head);
}
