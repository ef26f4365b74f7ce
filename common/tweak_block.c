/* SPDX-License-Identifier: Apache-2.0
 * One block: target forward, forward, loss, backward down to the first norm, Adam. Batch 1, as the authors
 * have it. */
#include "common/tweak_block.h"
#include <float.h>
#include <math.h>
#include <string.h>
#include "common/mem.h"
#include "common/tweak_closed.h"

static size_t row_bytes(const struct tweak_block *t, int rows)
{
    return (size_t)rows * t->D * sizeof(float);
}

static void add_param(struct tweak_block *t, int vector)
{
    int i = t->n_params++, norm = vector % NORM_COUNT;
    size_t at = (size_t)t->n_values;
    t->param[i].p = block_norm_vector(t->q, vector);
    t->param[i].g = dev_at(t->g, at);
    t->param[i].m = dev_at(t->m, at);
    t->param[i].v = dev_at(t->v, at);
    t->param[i].vector = vector, t->param[i].at = t->n_values, t->param[i].n = norm_dim(&t->q->s, norm);
    *(vector < NORM_COUNT ? &t->grads.gain[norm] : &t->grads.bias[norm]) = t->param[i].g;
    t->n_values += t->param[i].n;
    int gain = i; /* where there is a bias, the gain is */
    while (t->param[gain].vector != norm) gain--;
    t->param[i].gain_at = t->param[gain].at;
}

void tweak_block_init(struct tweak_block *t, const struct backend *be, const struct tweak_opts *o,
                      struct block *f, struct block *q, struct boundary_pass *pass, int T, int n,
                      const bool trained[NORM_VECTORS])
{
    *t = (struct tweak_block){.be = be, .o = o, .f = f, .q = q, .pass = pass, .T = T, .D = q->s.D, .n = n};
    size_t all = 0;
    for (int i = 0; i < NORM_VECTORS; i++) all += trained[i] ? (size_t)norm_dim(&q->s, i % NORM_COUNT) : 0;
    t->loss = loss_alloc(be, o->loss, t->D);
    if (o->loss->power) t->target = be->alloc(row_bytes(t, pass->group * T));
    t->dy = be->alloc(row_bytes(t, T));
    t->g = be->alloc(all * sizeof(float));
    t->m = be->alloc(all * sizeof(float));
    t->v = be->alloc(all * sizeof(float));
    for (int i = 0; i < NORM_VECTORS; i++)
        if (trained[i]) add_param(t, i);
    if (o->norm_dtype != DT_NONE || o->relative) t->master = be->alloc(all * sizeof(float));
    if (o->relative) t->start = MEM_NEW(float, all), t->unit = MEM_NEW(float, all);
    t->host = MEM_NEW(float, all);
    t->moments = MEM_NEW(double, ((size_t)n + 1) * 2 * t->D);
    t->known = MEM_NEW(bool, (size_t)n);
}

void tweak_block_clear(struct tweak_block *t)
{
    if (!t->be) return;
    loss_free(t->loss);
    dev held[] = {t->target, t->dy, t->g, t->m, t->v, t->master};
    for (size_t i = 0; i < sizeof held / sizeof *held; i++) t->be->release(held[i]);
    mem_free(t->host);
    mem_free(t->start);
    mem_free(t->unit);
    mem_free(t->moments);
    mem_free(t->known);
    *t = (struct tweak_block){0};
}

void tweak_block_reset(struct tweak_block *t)
{
    t->be->fill(t->m, 0, (size_t)t->n_values);
    t->be->fill(t->v, 0, (size_t)t->n_values);
    t->step = t->held = 0;
    for (int i = 0; i < t->n; i++) t->known[i] = false;
}

void tweak_block_get(const struct tweak_block *t, float *values)
{
    for (int i = 0; i < t->n_params; i++)
        t->be->get(values + t->param[i].at, t->param[i].p, (size_t)t->param[i].n * sizeof *values);
}

void tweak_block_put(const struct tweak_block *t, const float *values)
{
    for (int i = 0; i < t->n_params; i++)
        t->be->put(t->param[i].p, values + t->param[i].at, (size_t)t->param[i].n * sizeof *values);
}

/* ---- targets ---- */

static double *slot_moments(const struct tweak_block *t, int slot)
{
    return t->moments + (size_t)(slot < 0 ? t->n : slot) * 2 * t->D;
}

/* The target itself, for losses that need it. */
static dev target_rows(const struct tweak_block *t, int slot)
{
    size_t skip = (size_t)t->o->skip_first * t->D, seq = (size_t)t->T * t->D;
    return t->o->loss->power ? dev_at(t->target, (size_t)(slot - t->first) * seq + skip) : DEV_NONE;
}

static bool has_target(const struct tweak_block *t, int slot)
{
    if (slot < 0 || !t->known[slot]) return false;
    return !t->o->loss->power || (slot >= t->first && slot < t->first + t->held);
}

/* pass->x holds the sequences' inputs; pass->y is overwritten unless the loss needs the targets themselves.
 */
static void make_targets(struct tweak_block *t, const float *target, int slot, int n)
{
    int skip = t->o->skip_first;
    dev rows = t->o->loss->power ? t->target : t->pass->y;
    if (target)
        t->be->put(rows, target, row_bytes(t, n * t->T));
    else
        block_forward(t->be, t->f, t->pass->work, n, t->T, 0, t->pass->x, rows, NULL, NULL);
    for (int i = 0; i < n; i++) {
        dev row = dev_at(rows, ((size_t)i * t->T + skip) * t->D);
        loss_moments(t->loss, row, t->T - skip, slot_moments(t, slot < 0 ? slot : slot + i));
        if (slot >= 0) t->known[slot + i] = true;
    }
    t->first = slot;
    t->held = t->o->loss->power ? n : 0;
}

void tweak_block_targets(struct tweak_block *t, const float *x, const float *target, int slot, int n)
{
    size_t seq = (size_t)t->T * t->D;
    for (; n && has_target(t, slot); slot++, n--) {
        x += seq;
        if (target) target += seq;
    }
    if (!n) return;
    t->be->put(t->pass->x, x, row_bytes(t, n * t->T));
    make_targets(t, target, slot, n);
}

/* mom[2, D] = mean and unbiased variance from sums of T values and of their squares. */
static void moments_of_sums(const double *sums, int T, int D, double *mom)
{
    for (int c = 0; c < D; c++) {
        double mean = sums[c] / T, left = sums[D + c] - sums[c] * mean;
        mom[c] = mean;
        mom[D + c] = T > 1 && left > 0 ? left / (T - 1) : 0;
    }
}

/* Mean over channels of the squared differences of mean and deviation, as shares of the mean square. */
static double moments_apart(const double *a, const double *b, int D)
{
    double sum = 0;
    for (int c = 0; c < D; c++) {
        double mean = a[c] - b[c], spread = sqrt(a[D + c]) - sqrt(b[D + c]),
               size = a[c] * a[c] + a[D + c] + DBL_MIN;
        sum += (mean * mean + spread * spread) / size;
    }
    return sum / D;
}

bool tweak_block_given(struct tweak_block *t, const float *x, const double *sums, int n)
{
    const double rounding = 1e-6; /* a thousandth, squared: bf16 on one side stays below it */
    size_t each = 2 * (size_t)t->D;
    double *first = MEM_NEW(double, each);
    tweak_block_targets(t, x, NULL, 0, 1);
    moments_of_sums(sums, t->T, t->D, first);
    bool same = moments_apart(slot_moments(t, 0), first, t->D) < rounding;
    for (int i = 1; i < n && same; i++) {
        moments_of_sums(sums + (size_t)i * each, t->T, t->D, slot_moments(t, i));
        t->known[i] = true;
    }
    mem_free(first);
    return same;
}

/* ---- losses ---- */

/* of q's output y[T, D] */
static double loss_of(struct tweak_block *t, dev y, int slot, dev dy)
{
    size_t skip = (size_t)t->o->skip_first * t->D;
    return loss_eval(t->loss, slot_moments(t, slot), target_rows(t, slot), dev_at(y, skip),
                     t->T - t->o->skip_first, dev_ok(dy) ? dev_at(dy, skip) : dy);
}

static double sum_losses(struct tweak_block *t, int slot, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += loss_of(t, dev_at(t->pass->y, (size_t)i * t->T * t->D), slot + i, DEV_NONE);
    return sum;
}

double tweak_block_losses(struct tweak_block *t, const float *x, const float *target, int slot, int n)
{
    size_t seq = (size_t)t->T * t->D;
    double sum = 0;
    for (int i = 0, group = t->pass->group; i < n; i += group) {
        int B = n - i < group ? n - i : group;
        tweak_block_targets(t, x + i * seq, target ? target + i * seq : NULL, slot + i, B);
        t->be->put(t->pass->x, x + i * seq, row_bytes(t, B * t->T));
        block_forward(t->be, t->q, t->pass->work, B, t->T, 0, t->pass->x, t->pass->y, NULL, NULL);
        sum += sum_losses(t, slot + i, B);
    }
    return sum;
}

double tweak_block_visit(struct tweak_block *t, const float *target, int slot, int n)
{
    if (t->o->loss->power) make_targets(t, target, slot, n);
    return sum_losses(t, slot, n);
}

double tweak_block_loss(struct tweak_block *t, const float *x, const float *target, int slot, bool grad)
{
    const struct backend *be = t->be;
    dev dx = t->pass->x, dy = t->pass->y;
    be->put(dx, x, row_bytes(t, t->T));
    if (!has_target(t, slot)) make_targets(t, target, slot, 1);
    block_forward(be, t->q, t->pass->work, 1, t->T, 0, dx, dy, NULL, NULL);
    double value = loss_of(t, dy, slot, grad ? t->dy : DEV_NONE);
    if (!grad) return value;
    if (t->o->skip_first) be->fill(t->dy, 0, (size_t)t->o->skip_first * t->D);
    be->fill(t->g, 0, (size_t)t->n_values);
    block_backward(be, t->q, t->pass->work, 1, t->T, 0, dx, t->dy, DEV_NONE, &t->grads, NULL, NULL);
    return value;
}

/* ---- norms of a file's type ---- */

void tweak_round_norms(float *v, size_t n, enum dtype type, float offset)
{
    uint16_t half;
    for (size_t i = 0; i < n; i++) {
        float x = v[i] - offset;
        dtype_from_f32(&half, type, &x, 1);
        dtype_to_f32(&x, type, &half, 1);
        v[i] = x + offset;
    }
}

/* ---- steps ---- */

/* Before the first step: what Adam steps are the norms themselves, or shares of them that begin at zero. */
static void start_steps(struct tweak_block *t)
{
    tweak_block_get(t, t->host);
    if (dev_ok(t->master)) t->be->put(t->master, t->host, (size_t)t->n_values * sizeof(float));
    if (!t->o->relative) return;
    memcpy(t->start, t->host, (size_t)t->n_values * sizeof *t->start);
    for (int i = 0; i < t->n_params; i++)
        memcpy(t->unit + t->param[i].at, t->start + t->param[i].gain_at,
               (size_t)t->param[i].n * sizeof *t->unit);
    t->be->fill(t->master, 0, (size_t)t->n_values);
}

/* The block's norms become what the stepped values stand for. */
static void put_stepped(struct tweak_block *t)
{
    t->be->get(t->host, t->master, (size_t)t->n_values * sizeof(float));
    for (int i = 0; i < t->n_values && t->o->relative; i++)
        t->host[i] = t->start[i] + t->unit[i] * t->host[i];
    if (t->o->norm_dtype != DT_NONE)
        tweak_round_norms(t->host, (size_t)t->n_values, t->o->norm_dtype, t->norm_offset);
    tweak_block_put(t, t->host);
}

int tweak_block_step(struct tweak_block *t, const float *x, const float *target, int slot, double lr,
                     double *loss)
{
    *loss = tweak_block_loss(t, x, target, slot, true);
    t->be->get(t->host, t->g, (size_t)t->n_values * sizeof(float));
    if (!isfinite(*loss) || f32_first_nonfinite(t->host, (size_t)t->n_values) < (size_t)t->n_values)
        return -1;
    if (t->step++ == 0) start_steps(t);
    if (t->o->relative) {
        t->be->get(t->host, t->g, (size_t)t->n_values * sizeof(float));
        for (int i = 0; i < t->n_values; i++) t->host[i] *= t->unit[i];
        t->be->put(t->g, t->host, (size_t)t->n_values * sizeof(float));
    }
    bool apart = dev_ok(t->master);
    for (int i = 0; i < t->n_params; i++)
        t->be->adam(apart ? dev_at(t->master, (size_t)t->param[i].at) : t->param[i].p, t->param[i].g,
                    t->param[i].m, t->param[i].v, (size_t)t->param[i].n, (float)lr, 0.9f, 0.999f, 1e-8f, 0,
                    t->step);
    if (apart) put_stepped(t);
    return 0;
}

/* ---- closed form ---- */
struct closed {
    const struct backend *be;
    const struct block_shape *s;
    dev *H; /* [sites]: X'X of those that a norm gives; none of others */
};

/* The norm that gives a linear's input: NORM_ATTN, NORM_MLP; -1: none. */
static int norm_before(const struct block_shape *s, enum role r)
{
    int n = r <= ROLE_V || (s->parallel && !s->norm[NORM_MLP]) ? NORM_ATTN : NORM_MLP;
    return s->norm[n] && r != ROLE_O && r != ROLE_DOWN ? n : -1;
}

/* The site whose rows a linear reads: what one norm gives to both sublayers, or to the shared expert, is one input. */
static int input_site(const struct block_shape *s, int linear)
{
    int site = linear_site(linear);
    if (s->experts && site == expert_site(s->experts, SITE_MLP)) site = SITE_MLP;
    return site == SITE_MLP && norm_before(s, ROLE_UP) == NORM_ATTN ? SITE_QKV : site;
}

static void add_gram(void *ctx, int site, dev x, int R, int dim)
{
    struct closed *c = ctx;
    if (dev_ok(c->H[site])) c->be->gram(R, dim, x, c->H[site]);
}

/* Adds up over the linears of one site; what chooses experts is to give what it gives. */
static void add_linears(struct tweak_block *t, int site, dev scratch, dev QQ, dev EQ)
{
    const struct block_shape *s = &t->q->s;
    for (int i = 0; i < block_linears(s); i++) {
        int out, in;
        role_dims(s, i, &out, &in);
        if (block_runs(s, i) && norm_before(s, linear_role(i)) >= 0 && input_site(s, i) == site)
            closed_add_linear(t->be, t->f->w[i], t->q->w[i], out, in, scratch, QQ, EQ);
    }
    if (!s->experts || input_site(s, ROLE_UP) != site) return;
    closed_add_linear(t->be, t->f->router, t->q->router, s->experts, s->D, scratch, QQ, EQ);
    if (dev_ok(t->q->shared_gate))
        closed_add_linear(t->be, t->f->shared_gate, t->q->shared_gate, 1, s->D, scratch, QQ, EQ);
}

/* The equations of one norm: A[D, D], rhs[D]. */
static void set_up(struct tweak_block *t, int n, const dev *H, double *A, double *rhs)
{
    const struct backend *be = t->be;
    const struct block_shape *s = &t->q->s;
    size_t all = (size_t)t->D * t->D;
    int rows = s->experts;
    for (int i = 0; i < block_linears(s); i++) {
        int out, in;
        role_dims(s, i, &out, &in);
        if (norm_before(s, linear_role(i)) >= 0 && out > rows) rows = out;
    }
    dev scratch = be->alloc((size_t)rows * t->D * sizeof(float)), QQ = be->alloc(all * sizeof(float)),
        EQ = be->alloc(all * sizeof(float));
    float *host = MEM_NEW(float, 3 * all);
    for (int site = 0; site < block_sites(s); site++) {
        if (!dev_ok(H[site]) || norm_before(s, site == SITE_QKV ? ROLE_Q : ROLE_UP) != n) continue;
        be->fill(QQ, 0, all), be->fill(EQ, 0, all);
        add_linears(t, site, scratch, QQ, EQ);
        be->get(host, H[site], all * sizeof(float));
        be->get(host + all, QQ, all * sizeof(float));
        be->get(host + 2 * all, EQ, all * sizeof(float));
        closed_add_input(t->D, host, host + all, host + 2 * all, A, rhs);
    }
    be->release(scratch), be->release(QQ), be->release(EQ);
    mem_free(host);
}

static int solve_norm(struct tweak_block *t, int n, const dev *H, double *ridge, struct err *e)
{
    size_t D = (size_t)t->D;
    double *A = MEM_NEW(double, D *D), *rhs = MEM_NEW(double, D), *s = MEM_NEW(double, D);
    float *gain = MEM_NEW(float, D);
    set_up(t, n, H, A, rhs);
    int rc = closed_solve(t->D, A, rhs, ridge, s, e);
    dev vec[] = {t->q->gain[n], t->q->bias[n]};
    for (int i = 0; i < 2 && !rc; i++) {
        if (!dev_ok(vec[i])) continue;
        t->be->get(gain, vec[i], row_bytes(t, 1));
        for (size_t c = 0; c < D; c++) gain[c] = (float)(gain[c] * s[c]);
        t->be->put(vec[i], gain, row_bytes(t, 1));
    }
    mem_free(A), mem_free(rhs), mem_free(s), mem_free(gain);
    return rc;
}

uint64_t tweak_block_closed_bytes(const struct block_shape *s)
{
    uint64_t square = (uint64_t)s->D * (uint64_t)s->D, rows = (uint64_t)s->experts;
    for (int i = 0; i < block_linears(s); i++) {
        int out, in;
        role_dims(s, i, &out, &in);
        if ((uint64_t)out > rows) rows = (uint64_t)out;
    }
    return ((9 + (uint64_t)s->experts) * square + rows * (uint64_t)s->D) * sizeof(float);
}

int tweak_block_closed(struct tweak_block *t, const struct boundary *b, double *ridge, struct err *e)
{
    const struct block_shape *s = &t->q->s;
    struct closed c = {t->be, s, MEM_NEW(dev, block_sites(s))};
    for (int i = 0; i < block_linears(s); i++) {
        dev *H = &c.H[input_site(s, i)];
        if (norm_before(s, linear_role(i)) >= 0 && !dev_ok(*H) && (block_runs(s, i) || (i == ROLE_UP && s->experts)))
            *H = t->be->alloc((size_t)t->D * t->D * sizeof(float));
    }
    int rc = boundary_run(t->pass, t->q, b, NULL, add_gram, NULL, &c, e);
    for (int n = NORM_ATTN; n <= NORM_MLP && !rc; n++) {
        if (!s->norm[n]) continue;
        ridge[n] = t->o->ridge;
        rc = solve_norm(t, n, c.H, &ridge[n], e);
    }
    for (int i = 0; i < block_sites(s); i++) t->be->release(c.H[i]);
    mem_free(c.H);
    if (!rc && t->o->norm_dtype != DT_NONE) {
        tweak_block_get(t, t->host);
        tweak_round_norms(t->host, (size_t)t->n_values, t->o->norm_dtype, t->norm_offset);
        tweak_block_put(t, t->host);
    }
    return rc;
}
