/* SPDX-License-Identifier: Apache-2.0
 * Final norm and vocabulary projection in tiles: HEAD_ROWS rows by HEAD_COLS words of logits exist at a time,
 * folded at once into a few running numbers per row. The weights stay on the device; heads of one model can
 * share them. Backward needs logits twice, and keeps those of fewer rows over the whole vocabulary instead of
 * making them again. Logits are softcap(scale (W p + b)), p = P norm(x); norm, P, b and the soft cap may be
 * absent. */
#include <math.h>
#include <string.h>
#include "common/mem.h"
#include "common/model.h"

enum {
    HEAD_ROWS = 1024,
    HEAD_COLS = 1024,
    READ_ROWS = 1024,
    KEPT_BYTES = 64 << 20, /* of logits, of more than */
    KEPT_ROWS = 64         /* these, which are enough to be fast */
};

struct head {
    const struct backend *be;
    struct block_shape s;
    int V, E;             /* E: columns of W */
    float scale, softcap; /* softcap 0: none */
    dev W;                /* [V, E] */
    dev dW;               /* the same, or none */
    bool owns_W;
    dev gain, bias;   /* [D], or none */
    dev P;            /* [E, D], or none: then E = D */
    dev b;            /* scale * bias of the logits [V], or none */
    dev xn, stat;     /* [HEAD_ROWS, D], [HEAD_ROWS, 2] */
    dev p;            /* [HEAD_ROWS, E] with P; else xn */
    dev z;            /* [HEAD_ROWS * HEAD_COLS] */
    dev st, best, kl; /* [HEAD_ROWS, 4], [HEAD_ROWS, 2], [HEAD_ROWS, 6] */
    dev targets, lse; /* [HEAD_ROWS] */
    dev dxn, dp;      /* [HEAD_ROWS, D], [HEAD_ROWS, E], made by the first backward; without P the same */
    dev kept;         /* [kept_rows * V], made by the first backward */
    dev z_ce;         /* as z, made by the first backward of both losses */
    dev z_cap;        /* as z, made by the first backward with a soft cap */
};

static dev floats(const struct head *h, size_t n)
{
    return h->be->alloc(n * sizeof(float));
}

static int load_norm(struct head *h, struct model *m, const float *final_gain, struct err *e)
{
    size_t D = (size_t)h->s.D;
    float *gain = MEM_NEW(float, D), *bias = MEM_NEW(float, D);
    int rc = m->c.hf.final_norm ? model_read_final_norm(m, gain, bias, e) : 0;
    if (m->c.hf.final_norm) h->gain = floats(h, D);
    if (m->final_bias.t) h->bias = floats(h, D);
    if (!rc) head_put_norm(h, final_gain ? final_gain : gain, bias);
    mem_free(gain), mem_free(bias);
    return rc;
}

/* Values of a part, all multiplied with scale; none if there is no such part. */
static int load_part(struct head *h, struct model *m, const struct weight_part *part, float scale, dev *to,
                     struct err *e)
{
    if (!part->t) return 0;
    size_t n = (size_t)(part->rows * part->cols);
    float *buf = MEM_NEW(float, n);
    int rc = model_read_part(m, part, buf, e);
    for (size_t i = 0; i < n && scale != 1; i++) buf[i] *= scale;
    *to = floats(h, n);
    if (!rc) h->be->put(*to, buf, n * sizeof(float));
    mem_free(buf);
    return rc;
}

/* Everything but W. */
static struct head *head_alloc(struct model *m, const float *final_gain, struct err *e)
{
    struct head *h = MEM_NEW(struct head, 1);
    size_t D = (size_t)m->c.block.D;
    h->be = m->be, h->s = m->c.block, h->V = m->c.vocab, h->E = m->c.embed_dim;
    h->scale = m->c.logit_scale, h->softcap = m->c.logit_softcap;
    if (load_norm(h, m, final_gain, e) || load_part(h, m, &m->project_out, 1, &h->P, e) ||
        load_part(h, m, &m->head_bias, h->scale, &h->b, e)) {
        head_free(h);
        return NULL;
    }
    h->xn = floats(h, HEAD_ROWS * D), h->stat = floats(h, HEAD_ROWS * 2),
    h->z = floats(h, (size_t)HEAD_ROWS * HEAD_COLS);
    h->st = floats(h, HEAD_ROWS * 4), h->best = floats(h, HEAD_ROWS * 2), h->kl = floats(h, HEAD_ROWS * 6);
    h->targets = floats(h, HEAD_ROWS), h->lse = floats(h, HEAD_ROWS);
    h->p = dev_ok(h->P) ? floats(h, HEAD_ROWS * (size_t)h->E) : h->xn;
    return h;
}

struct head *head_open(struct model *m, const float *final_gain, struct err *e)
{
    size_t E = (size_t)m->c.embed_dim;
    struct head *h = head_alloc(m, final_gain, e);
    float *buf;
    if (!h) return NULL;
    h->W = floats(h, (size_t)h->V * E), h->owns_W = true;
    h->be->hold(h->W, (size_t)h->V * E);
    buf = MEM_NEW(float, READ_ROWS *E);
    for (int r0 = 0; r0 < h->V; r0 += READ_ROWS) {
        int n = h->V - r0 < READ_ROWS ? h->V - r0 : READ_ROWS;
        if (model_read_head(m, r0, n, buf, e)) {
            head_free(h);
            mem_free(buf);
            return NULL;
        }
        h->be->put(dev_at(h->W, (size_t)r0 * E), buf, (size_t)n * E * sizeof(float));
    }
    checkpoint_release(m->ck, m->head.t);
    mem_free(buf);
    return h;
}

struct head *head_share(struct model *m, const struct head *with, const float *final_gain, struct err *e)
{
    struct head *h = head_alloc(m, final_gain, e);
    if (h) h->W = with->W;
    return h;
}

void head_put_norm(struct head *h, const float *gain, const float *bias)
{
    size_t bytes = (size_t)h->s.D * sizeof(float);
    if (gain && dev_ok(h->gain)) h->be->put(h->gain, gain, bytes);
    if (bias && dev_ok(h->bias)) h->be->put(h->bias, bias, bytes);
}

void head_train(struct head *h, dev W, dev dW)
{
    if (h->owns_W) h->be->release(h->W);
    h->W = W, h->dW = dW, h->owns_W = false;
}

void head_free(struct head *h)
{
    if (!h) return;
    dev parts[] = {h->gain,
                   h->bias,
                   h->P,
                   h->b,
                   h->xn,
                   h->stat,
                   h->z,
                   h->st,
                   h->best,
                   h->kl,
                   h->targets,
                   h->lse,
                   h->dxn,
                   h->kept,
                   h->z_ce,
                   h->z_cap,
                   h->P.at ? h->p : DEV_NONE,
                   h->P.at ? h->dp : DEV_NONE};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) h->be->release(parts[i]);
    if (h->owns_W) h->be->release(h->W);
    mem_free(h);
}

uint64_t head_back_bytes(const struct model_config *c)
{
    return c->bf16 ? (uint64_t)c->vocab * (uint64_t)c->embed_dim * sizeof(uint16_t) : 0;
}

/* Rows whose logits are kept. */
static int kept_rows(uint64_t V)
{
    int rows = HEAD_ROWS;
    while (rows > KEPT_ROWS && (uint64_t)rows * V * sizeof(float) > KEPT_BYTES) rows /= 2;
    return rows;
}

uint64_t head_kept_bytes(const struct model_config *c)
{
    return (uint64_t)kept_rows((uint64_t)c->vocab) * (uint64_t)c->vocab * sizeof(float);
}

uint64_t head_bytes(const struct model_config *c)
{
    uint64_t D = (uint64_t)c->block.D, E = (uint64_t)c->embed_dim, more = 0;
    if (E != D) more += E * D + 2 * HEAD_ROWS * E;
    if (c->logit_softcap > 0) more += (uint64_t)HEAD_ROWS * HEAD_COLS;
    if (c->head_bias) more += 2 * (uint64_t)c->vocab;
    return head_back_bytes(c) +
           4 * ((uint64_t)c->vocab * E + 2 * HEAD_ROWS * D + (uint64_t)HEAD_ROWS * HEAD_COLS +
                HEAD_ROWS * 16 + READ_ROWS * E + 2 * D + more);
}

/* ---- one tile ---- */

static void norm_rows(struct head *h, dev x, int R)
{
    int D = h->s.D;
    if (dev_ok(h->gain))
        h->be->norm(h->s.rms, h->xn, h->stat, x, h->gain, h->bias, 1, R, D, h->s.eps);
    else
        h->be->copy(h->xn, x, (size_t)R * (size_t)D * sizeof(float));
    if (dev_ok(h->P)) h->be->gemm(false, true, R, h->E, D, 1, h->xn, D, h->P, D, 0, h->p, h->E);
}

static dev rows_of_W(dev W, const struct head *h, int v0)
{
    return dev_at(W, (size_t)v0 * (size_t)h->E);
}

/* z[R,n] = logits of words v0..v0+n-1 of the R normed rows. */
static void logits_to(struct head *h, int R, int v0, int n, dev z)
{
    int E = h->E;
    h->be->gemm(false, true, R, n, E, h->scale, h->p, E, rows_of_W(h->W, h, v0), E, 0, z, n);
    if (dev_ok(h->b)) h->be->add_bias(z, dev_at(h->b, (size_t)v0), R, n);
    if (h->softcap > 0) h->be->softcap(z, h->softcap, (size_t)R * (size_t)n);
}

static void logits_tile(struct head *h, int R, int v0, int n)
{
    logits_to(h, R, v0, n, h->z);
}

/* The kept logits of R rows: one tile behind the other. */
static dev kept_tile(const struct head *h, int R, int v0)
{
    return dev_at(h->kept, (size_t)R * (size_t)v0);
}

static int cols_left(const struct head *h, int v0)
{
    return h->V - v0 < HEAD_COLS ? h->V - v0 : HEAD_COLS;
}
static int rows_left(int R, int r0)
{
    return R - r0 < HEAD_ROWS ? R - r0 : HEAD_ROWS;
}

static void put_targets(struct head *h, const int32_t *targets, int R)
{
    int32_t none[HEAD_ROWS];
    for (int r = 0; r < R && !targets; r++) none[r] = -1;
    h->be->put(h->targets, targets ? targets : none, (size_t)R * sizeof(int32_t));
}

/* ---- reading results ---- */

static double lse_of(const float *st)
{
    return st[0] + log((double)st[1]);
}

static void get_nll(struct head *h, const int32_t *targets, int R, double *nll)
{
    float st[HEAD_ROWS][4];
    h->be->get(st, h->st, (size_t)R * sizeof *st);
    for (int r = 0; r < R; r++) nll[r] = targets[r] < 0 ? 0 : lse_of(st[r]) - st[r][2];
}

static void get_best(struct head *h, int R, int32_t *best)
{
    int32_t b[HEAD_ROWS][2]; /* the second is a float and not needed */
    h->be->get(b, h->best, (size_t)R * sizeof *b);
    for (int r = 0; r < R; r++) best[r] = b[r][0];
}

static void get_kl(struct head *h, int R, double *kl)
{
    float st[HEAD_ROWS][6];
    h->be->get(st, h->kl, (size_t)R * sizeof *st);
    for (int r = 0; r < R; r++) kl[r] = st[r][4] / (double)st[r][1] - (lse_of(st[r]) - lse_of(st[r] + 2));
}

/* ---- what callers see ---- */

void head_nll(struct head *h, dev x, const int32_t *targets, int R, double *nll, int32_t *best)
{
    for (int r0 = 0; r0 < R; r0 += HEAD_ROWS) {
        int n = rows_left(R, r0);
        norm_rows(h, dev_at(x, (size_t)r0 * (size_t)h->s.D), n);
        put_targets(h, targets + r0, n);
        h->be->head_init(h->st, h->best, n);
        for (int v0 = 0; v0 < h->V; v0 += HEAD_COLS) {
            logits_tile(h, n, v0, cols_left(h, v0));
            h->be->head_fold(h->st, h->best, h->z, h->targets, n, cols_left(h, v0), v0);
        }
        get_nll(h, targets + r0, n, nll + r0);
        if (best) get_best(h, n, best + r0);
    }
}

void head_compare(struct head *t, dev xt, struct head *s, dev xs, const int32_t *targets, int R, double *nll,
                  double *kl, int32_t *best_t, int32_t *best_s)
{
    const struct backend *be = s->be;
    bool fold_s = best_s || nll;
    for (int r0 = 0; r0 < R; r0 += HEAD_ROWS) {
        int n = rows_left(R, r0);
        size_t at = (size_t)r0 * (size_t)s->s.D;
        norm_rows(t, dev_at(xt, at), n), norm_rows(s, dev_at(xs, at), n);
        put_targets(s, targets ? targets + r0 : NULL, n);
        if (best_t) put_targets(t, NULL, n), be->head_init(t->st, t->best, n);
        if (fold_s) be->head_init(s->st, s->best, n);
        be->kl_init(s->kl, n);
        for (int v0 = 0; v0 < s->V; v0 += HEAD_COLS) {
            int c = cols_left(s, v0);
            logits_tile(t, n, v0, c), logits_tile(s, n, v0, c);
            if (best_t) be->head_fold(t->st, t->best, t->z, t->targets, n, c, v0);
            if (fold_s) be->head_fold(s->st, s->best, s->z, s->targets, n, c, v0);
            be->kl_fold(s->kl, t->z, s->z, n, c);
        }
        get_kl(s, n, kl + r0);
        if (nll) get_nll(s, targets + r0, n, nll + r0);
        if (best_t) get_best(t, n, best_t + r0);
        if (best_s) get_best(s, n, best_s + r0);
    }
}

void head_kl(struct head *teacher, dev xt, struct head *student, dev xs, int R, double *kl, int32_t *best_t,
             int32_t *best_s)
{
    head_compare(teacher, xt, student, xs, NULL, R, NULL, kl, best_t, best_s);
}

void head_kl_two(struct head *t, dev xt, struct head *const s[2], const dev xs[2], int R, double *const kl[2],
                 int32_t *best_t, int32_t *const best_s[2])
{
    const struct backend *be = t->be;
    struct head *all[] = {t, s[0], s[1]};
    for (int r0 = 0; r0 < R; r0 += HEAD_ROWS) {
        int n = rows_left(R, r0);
        size_t at = (size_t)r0 * (size_t)t->s.D;
        for (int k = 0; k < 3; k++) {
            norm_rows(all[k], dev_at(k ? xs[k - 1] : xt, at), n);
            put_targets(all[k], NULL, n);
            be->head_init(all[k]->st, all[k]->best, n);
            if (k) be->kl_init(all[k]->kl, n);
        }
        for (int v0 = 0; v0 < t->V; v0 += HEAD_COLS) {
            int c = cols_left(t, v0);
            for (int k = 0; k < 3; k++) {
                logits_tile(all[k], n, v0, c);
                be->head_fold(all[k]->st, all[k]->best, all[k]->z, all[k]->targets, n, c, v0);
                if (k) be->kl_fold(all[k]->kl, t->z, all[k]->z, n, c);
            }
        }
        get_best(t, n, best_t + r0);
        for (int k = 0; k < 2; k++) get_kl(s[k], n, kl[k] + r0), get_best(s[k], n, best_s[k] + r0);
    }
}

void head_logits(struct head *h, dev x, int R, float *logits)
{
    float *tile = MEM_NEW(float, (size_t)HEAD_ROWS *HEAD_COLS);
    for (int r0 = 0; r0 < R; r0 += HEAD_ROWS) {
        int n = rows_left(R, r0), step = HEAD_ROWS * HEAD_COLS / n; /* few rows: wide tiles */
        norm_rows(h, dev_at(x, (size_t)r0 * (size_t)h->s.D), n);
        for (int v0 = 0; v0 < h->V; v0 += step) {
            int c = h->V - v0 < step ? h->V - v0 : step;
            logits_tile(h, n, v0, c);
            h->be->get(tile, h->z, (size_t)n * (size_t)c * sizeof(float));
            for (int r = 0; r < n; r++)
                memcpy(logits + ((size_t)(r0 + r) * (size_t)h->V + (size_t)v0), tile + (size_t)r * (size_t)c,
                       (size_t)c * sizeof(float));
        }
    }
    mem_free(tile);
}

/* The first pass finds each row's log of the softmax denominator (the teacher's too, and with it the KL), the
 * second turns the kept logits into gradients and multiplies them back. t NULL: no KL; targets NULL: no
 * cross-entropy. */
static void fold_rows(struct head *t, struct head *s, const int32_t *targets, int R, double *kl, double *nll)
{
    const struct backend *be = s->be;
    float st[HEAD_ROWS][6], lse[2][HEAD_ROWS];
    put_targets(s, targets, R);
    be->head_init(s->st, s->best, R);
    be->kl_init(s->kl, R);
    for (int v0 = 0; v0 < s->V; v0 += HEAD_COLS) {
        int c = cols_left(s, v0);
        dev zs = kept_tile(s, R, v0);
        logits_to(s, R, v0, c, zs);
        if (t) logits_to(t, R, v0, c, kept_tile(t, R, v0)), be->kl_fold(s->kl, kept_tile(t, R, v0), zs, R, c);
        if (targets || !t) be->head_fold(s->st, s->best, zs, s->targets, R, c, v0);
    }
    if (t) be->get(st, s->kl, (size_t)R * sizeof *st);
    for (int r = 0; r < R && t; r++) lse[0][r] = (float)lse_of(st[r] + 2), lse[1][r] = (float)lse_of(st[r]);
    if (t) be->put(t->lse, lse[1], (size_t)R * sizeof **lse);
    if (t && kl) get_kl(s, R, kl);
    if (targets && nll) get_nll(s, targets, R, nll);
    if (!t) {
        float own[HEAD_ROWS][4];
        be->get(own, s->st, (size_t)R * sizeof *own);
        for (int r = 0; r < R; r++) lse[0][r] = (float)lse_of(own[r]);
    }
    be->put(s->lse, lse[0], (size_t)R * sizeof **lse);
}

static void back_rows(struct head *t, struct head *s, bool ce, int R, float kl_scale, float ce_scale)
{
    const struct backend *be = s->be;
    int D = s->s.D, E = s->E;
    for (int v0 = 0; v0 < s->V; v0 += HEAD_COLS) {
        int c = cols_left(s, v0);
        size_t n = (size_t)R * (size_t)c;
        dev zs = kept_tile(s, R, v0), z = zs;
        if (s->softcap > 0) be->copy(s->z_cap, zs, n * sizeof(float));
        if (t && ce) be->copy(z = s->z_ce, zs, n * sizeof(float));
        if (t) be->kl_back(zs, kept_tile(t, R, v0), s->lse, t->lse, R, c, kl_scale);
        if (ce) be->ce_back(z, s->lse, s->targets, R, c, v0, ce_scale);
        if (t && ce) be->add(zs, zs, z, n);
        if (s->softcap > 0) be->softcap_back(zs, s->z_cap, s->softcap, n);
        be->gemm(false, false, R, E, c, s->scale, zs, c, rows_of_W(s->W, s, v0), E, v0 ? 1 : 0, s->dp, E);
        if (dev_ok(s->dW))
            be->gemm(true, false, c, E, R, s->scale, zs, c, s->p, E, 1, rows_of_W(s->dW, s, v0), E);
    }
    if (dev_ok(s->P)) be->gemm(false, false, R, D, E, 1, s->dp, E, s->P, D, 0, s->dxn, D);
}

void head_kl_back(struct head *t, dev xt, struct head *s, dev xs, const int32_t *targets, int R,
                  float kl_scale, float ce_scale, double *kl, double *nll, dev dx, dev dgain, dev dbias)
{
    int D = s->s.D;
    int rows = kept_rows((uint64_t)s->V);
    if (!dev_ok(s->kept)) s->kept = floats(s, (size_t)rows * (size_t)s->V);
    if (t && !dev_ok(t->kept)) t->kept = floats(t, (size_t)rows * (size_t)s->V);
    if (!dev_ok(s->dxn)) {
        s->dxn = floats(s, HEAD_ROWS * (size_t)D);
        s->dp = dev_ok(s->P) ? floats(s, HEAD_ROWS * (size_t)s->E) : s->dxn;
    }
    if (s->softcap > 0 && !dev_ok(s->z_cap)) s->z_cap = floats(s, (size_t)HEAD_ROWS * HEAD_COLS);
    if (t && targets && !dev_ok(s->z_ce)) s->z_ce = floats(s, (size_t)HEAD_ROWS * HEAD_COLS);
    for (int r0 = 0; r0 < R; r0 += rows) {
        int n = R - r0 < rows ? R - r0 : rows;
        dev x = dev_at(xs, (size_t)r0 * (size_t)D);
        norm_rows(s, x, n);
        if (t) norm_rows(t, dev_at(xt, (size_t)r0 * (size_t)D), n);
        fold_rows(t, s, targets ? targets + r0 : NULL, n, kl ? kl + r0 : NULL, nll ? nll + r0 : NULL);
        back_rows(t, s, targets != NULL, n, kl_scale, ce_scale);
        dev to = dev_at(dx, (size_t)r0 * (size_t)D);
        if (dev_ok(s->gain))
            s->be->norm_back(s->s.rms, to, dgain, dbias, s->dxn, x, s->stat, s->gain, 1, n, D);
        else
            s->be->copy(to, s->dxn, (size_t)n * (size_t)D * sizeof(float));
    }
}

void head_ce_back(struct head *h, dev x, const int32_t *targets, int R, float scale, dev dx, dev dgain,
                  dev dbias)
{
    head_kl_back(NULL, DEV_NONE, h, x, targets, R, 0, scale, NULL, NULL, dx, dgain, dbias);
}
