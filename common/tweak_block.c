/* SPDX-License-Identifier: Apache-2.0
 * One block: target forward, forward, loss, backward down to the first norm, Adam. Batch 1, as the authors
 * have it. */
#include "common/tweak_block.h"
#include <math.h>
#include "common/mem.h"
#include "common/tweak_closed.h"

static size_t row_bytes(const struct tweak_block *t, int rows)
{
    return (size_t)rows * t->D * sizeof(float);
}

static void add_param(struct tweak_block *t, dev p, dev *grad)
{
    if (!dev_ok(p)) return;
    size_t at = (size_t)t->n_params * t->D;
    t->param[t->n_params].p = p;
    *grad = t->param[t->n_params].g = dev_at(t->g, at);
    t->param[t->n_params].m = dev_at(t->m, at);
    t->param[t->n_params].v = dev_at(t->v, at);
    t->n_params++;
    t->n_values += t->D;
}

void tweak_block_init(struct tweak_block *t, const struct backend *be, const struct tweak_opts *o,
                      struct block *f, struct block *q, struct boundary_pass *pass, int T, int n)
{
    *t = (struct tweak_block){.be = be, .o = o, .f = f, .q = q, .pass = pass, .T = T, .D = q->s.D, .n = n};
    size_t all = (size_t)TWEAK_PARAMS * t->D;
    t->loss = loss_alloc(be, o->loss, t->D);
    t->target = be->alloc(row_bytes(t, T));
    t->dy = be->alloc(row_bytes(t, T));
    t->g = be->alloc(all * sizeof(float));
    t->m = be->alloc(all * sizeof(float));
    t->v = be->alloc(all * sizeof(float));
    for (int i = 0; i < NORM_COUNT; i++) add_param(t, q->gain[i], &t->grads.gain[i]);
    for (int i = 0; i < NORM_COUNT; i++) add_param(t, q->bias[i], &t->grads.bias[i]);
    t->host = MEM_NEW(float, all);
    t->moments = MEM_NEW(double, ((size_t)n + 1) * 2 * t->D);
    t->known = MEM_NEW(bool, (size_t)n);
}

void tweak_block_clear(struct tweak_block *t)
{
    if (!t->be) return;
    loss_free(t->loss);
    dev held[] = {t->target, t->dy, t->g, t->m, t->v};
    for (size_t i = 0; i < sizeof held / sizeof *held; i++) t->be->release(held[i]);
    mem_free(t->host);
    mem_free(t->moments);
    mem_free(t->known);
    *t = (struct tweak_block){0};
}

void tweak_block_reset(struct tweak_block *t)
{
    t->be->fill(t->m, 0, (size_t)t->n_values);
    t->be->fill(t->v, 0, (size_t)t->n_values);
    t->step = 0;
    for (int i = 0; i < t->n; i++) t->known[i] = false;
}

void tweak_block_get(const struct tweak_block *t, float *values)
{
    for (int i = 0; i < t->n_params; i++)
        t->be->get(values + (size_t)i * t->D, t->param[i].p, row_bytes(t, 1));
}

void tweak_block_put(const struct tweak_block *t, const float *values)
{
    for (int i = 0; i < t->n_params; i++)
        t->be->put(t->param[i].p, values + (size_t)i * t->D, row_bytes(t, 1));
}

/* The target's moments; for point-wise losses t->target then holds the target itself. x is on the device. */
static const double *find_target(struct tweak_block *t, const float *target, int slot)
{
    int at = slot < 0 ? t->n : slot, skip = t->o->skip_first;
    double *mom = t->moments + (size_t)at * 2 * t->D;
    if (slot >= 0 && t->known[slot] && !t->o->loss->power) return mom;
    if (target)
        t->be->put(t->target, target, row_bytes(t, t->T));
    else
        block_forward(t->be, t->f, t->pass->work, 1, t->T, 0, t->pass->x, t->target, NULL, NULL);
    loss_moments(t->loss, dev_at(t->target, (size_t)skip * t->D), t->T - skip, mom);
    if (slot >= 0) t->known[slot] = true;
    return mom;
}

double tweak_block_loss(struct tweak_block *t, const float *x, const float *target, int slot, bool grad)
{
    const struct backend *be = t->be;
    dev dx = t->pass->x, dy = t->pass->y;
    size_t skip = (size_t)t->o->skip_first * t->D;
    be->put(dx, x, row_bytes(t, t->T));
    const double *mom = find_target(t, target, slot);
    block_forward(be, t->q, t->pass->work, 1, t->T, 0, dx, dy, NULL, NULL);
    double value =
        loss_eval(t->loss, mom, t->o->loss->power ? dev_at(t->target, skip) : DEV_NONE, dev_at(dy, skip),
                  t->T - t->o->skip_first, grad ? dev_at(t->dy, skip) : DEV_NONE);
    if (!grad) return value;
    if (skip) be->fill(t->dy, 0, skip);
    be->fill(t->g, 0, (size_t)t->n_values);
    block_backward(be, t->q, t->pass->work, 1, t->T, 0, dx, t->dy, DEV_NONE, &t->grads, NULL, NULL);
    return value;
}

int tweak_block_step(struct tweak_block *t, const float *x, const float *target, int slot, double lr,
                     double *loss)
{
    *loss = tweak_block_loss(t, x, target, slot, true);
    t->be->get(t->host, t->g, (size_t)t->n_values * sizeof(float));
    if (!isfinite(*loss) || f32_first_nonfinite(t->host, (size_t)t->n_values) < (size_t)t->n_values)
        return -1;
    t->step++;
    for (int i = 0; i < t->n_params; i++)
        t->be->adam(t->param[i].p, t->param[i].g, t->param[i].m, t->param[i].v, (size_t)t->D, (float)lr, 0.9f,
                    0.999f, 1e-8f, 0, t->step);
    return 0;
}

/* ---- closed form ---- */
struct closed {
    const struct backend *be;
    dev H[NORM_COUNT];
};

static enum site norm_site(int n)
{
    return n == NORM_ATTN ? SITE_QKV : SITE_MLP;
}

static void add_gram(void *ctx, enum site site, dev x, int R, int dim)
{
    struct closed *c = ctx;
    for (int n = 0; n < NORM_COUNT; n++)
        if (norm_site(n) == site) c->be->gram(R, dim, x, c->H[n]);
}

static int solve_norm(struct tweak_block *t, int n, dev H, double *ridge, struct err *e)
{
    const struct backend *be = t->be;
    int D = t->D, rows = 0;
    size_t all = (size_t)D * D;
    for (int r = 0; r < ROLE_COUNT; r++) {
        int out, in;
        role_dims(&t->q->s, r, &out, &in);
        if (role_site(r) == norm_site(n) && out > rows) rows = out;
    }
    dev scratch = be->alloc((size_t)rows * D * sizeof(float)), QQ = be->alloc(all * sizeof(float)),
        EQ = be->alloc(all * sizeof(float));
    for (int r = 0; r < ROLE_COUNT; r++) {
        int out, in;
        role_dims(&t->q->s, r, &out, &in);
        if (role_site(r) == norm_site(n))
            closed_add_linear(be, t->f->w[r], t->q->w[r], out, in, scratch, QQ, EQ);
    }
    float *host = MEM_NEW(float, 3 * all), *gain = MEM_NEW(float, (size_t)D);
    double *s = MEM_NEW(double, (size_t)D);
    be->get(host, H, all * sizeof(float));
    be->get(host + all, QQ, all * sizeof(float));
    be->get(host + 2 * all, EQ, all * sizeof(float));
    int rc = closed_solve(D, host, host + all, host + 2 * all, ridge, s, e);
    dev vec[] = {t->q->gain[n], t->q->bias[n]};
    for (int i = 0; i < 2 && !rc; i++) {
        if (!dev_ok(vec[i])) continue;
        be->get(gain, vec[i], row_bytes(t, 1));
        for (int c = 0; c < D; c++) gain[c] = (float)(gain[c] * s[c]);
        be->put(vec[i], gain, row_bytes(t, 1));
    }
    be->release(scratch);
    be->release(QQ);
    be->release(EQ);
    mem_free(host);
    mem_free(gain);
    mem_free(s);
    return rc;
}

int tweak_block_closed(struct tweak_block *t, const struct boundary *b, double *ridge, struct err *e)
{
    struct closed c = {.be = t->be};
    for (int n = 0; n < NORM_COUNT; n++) c.H[n] = t->be->alloc((size_t)t->D * t->D * sizeof(float));
    int rc = boundary_run(t->pass, t->q, b, NULL, add_gram, NULL, &c, e);
    for (int n = 0; n < NORM_COUNT && !rc; n++) {
        ridge[n] = t->o->ridge;
        rc = solve_norm(t, n, c.H[n], &ridge[n], e);
    }
    for (int n = 0; n < NORM_COUNT; n++) t->be->release(c.H[n]);
    return rc;
}
