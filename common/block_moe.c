/* SPDX-License-Identifier: Apache-2.0
 * Routed experts (block_moe.h). Tokens are gathered expert by expert, each expert's linears run on its rows, and
 * what they give is added up per token in the order of experts: the same bytes for any number of threads. Which
 * expert gets what is decided on the host, from logits in f32 whatever the precision. */
#include "common/block_moe.h"
#include <math.h>
#include "common/mem.h"

/* ---- memory ---- */

void moe_host_alloc(struct moe_host *h, const struct block_shape *s, int max_R)
{
    size_t R = (size_t)max_R, A = R * (size_t)s->per_token;
    *h = (struct moe_host){0};
    if (!s->experts) return;
    h->p = MEM_NEW(float, R *(size_t)s->experts);
    h->pick = MEM_NEW(int32_t, A), h->at = MEM_NEW(int32_t, A), h->token = MEM_NEW(int32_t, A);
    h->weight = MEM_NEW(float, A), h->mix = MEM_NEW(float, R);
    h->first = MEM_NEW(int, s->experts + 1);
}

void moe_host_free(struct moe_host *h)
{
    mem_free(h->p), mem_free(h->pick), mem_free(h->at), mem_free(h->token);
    mem_free(h->weight), mem_free(h->mix), mem_free(h->first);
}

size_t moe_host_bytes(const struct block_shape *s, int max_R)
{
    size_t row = (size_t)s->experts + 4 * (size_t)s->per_token + 1;
    return s->experts ? (size_t)max_R * row * sizeof(float) : 0;
}

struct cutter {
    dev arena;
    size_t at;
};

static dev cut(struct cutter *c, size_t floats)
{
    dev p = dev_at(c->arena, c->at);
    c->at += (floats + 15) / 16 * 16;
    return p;
}

size_t moe_lay_out(struct moe *m, const struct block_shape *s, int max_R, bool backward, dev arena, size_t at)
{
    size_t R = (size_t)max_R, A = R * (size_t)s->per_token, D = (size_t)s->D;
    size_t each = A * (size_t)s->expert_F, shared = R * (size_t)s->shared_F;
    struct cutter c = {arena, at};
    if (!s->experts) return at;
    size_t wide = !backward && shared > each ? shared : each;
    m->backward = backward;
    m->logits = cut(&c, R * (size_t)s->experts);
    m->token = cut(&c, A), m->weight = cut(&c, A), m->mix = cut(&c, R);
    m->sum = cut(&c, R * D);
    m->x = cut(&c, A * D);
    m->up = cut(&c, wide);
    m->gate = m->act = s->gated ? cut(&c, wide) : m->up;
    m->out = m->x, m->sout = m->x, m->sup = m->up, m->sgate = m->sact = m->gate; /* in turns */
    if (!backward) return c.at;
    m->act = cut(&c, each), m->out = cut(&c, A * D), m->dout = cut(&c, A * D);
    if (!shared) return c.at;
    m->sup = cut(&c, shared), m->sgate = s->gated ? cut(&c, shared) : m->sup;
    m->sact = cut(&c, shared), m->sout = cut(&c, R * D);
    return c.at;
}

/* ---- routing ---- */

static void softmax(float *z, int n)
{
    float most = z[0];
    double sum = 0;
    for (int i = 1; i < n; i++) most = z[i] > most ? z[i] : most;
    for (int i = 0; i < n; i++) sum += z[i] = expf(z[i] - most);
    for (int i = 0; i < n; i++) z[i] = (float)(z[i] / sum);
}

/* The K likeliest, of equals the first. */
static void choose(const float *p, int X, int K, int32_t *pick)
{
    for (int k = 0; k < K; k++) {
        int best = -1;
        for (int x = 0; x < X; x++) {
            bool taken = false;
            for (int j = 0; j < k && !taken; j++) taken = pick[j] == x;
            if (!taken && (best < 0 || p[x] > p[best])) best = x;
        }
        pick[k] = best;
    }
}

/* Sum of the chosen probabilities where weights are divided by it, else 1. */
static double divisor(const struct block_shape *s, const float *p, const int32_t *pick)
{
    double sum = 0;
    for (int k = 0; k < s->per_token; k++) sum += p[pick[k]];
    return s->norm_topk ? sum : 1;
}

/* Places of assignments, tokens in order within an expert. */
static void sort_by_expert(const struct block_shape *s, struct moe_host *h, int R)
{
    int X = s->experts, K = s->per_token;
    for (int x = 0; x <= X; x++) h->first[x] = 0;
    for (int i = 0; i < R * K; i++) h->first[h->pick[i] + 1]++;
    for (int x = 0; x < X; x++) h->first[x + 1] += h->first[x];
    for (int r = 0; r < R; r++) {
        const float *p = h->p + (size_t)r * (size_t)X;
        double sum = divisor(s, p, h->pick + r * K);
        for (int k = 0; k < K; k++) {
            int x = h->pick[r * K + k], a = h->first[x]++;
            h->at[r * K + k] = a, h->token[a] = r;
            h->weight[a] = (float)(p[x] / sum);
        }
    }
    for (int x = X; x > 0; x--) h->first[x] = h->first[x - 1];
    h->first[0] = 0;
}

static void route(const struct backend *be, const struct block *blk, struct moe *m, dev n2, int R)
{
    const struct block_shape *s = &blk->s;
    struct moe_host *h = m->h;
    int X = s->experts, K = s->per_token;
    be->gemm_f32(false, true, R, X, s->D, 1, n2, s->D, blk->router, s->D, 0, m->logits, X);
    be->get(h->p, m->logits, (size_t)R * (size_t)X * sizeof(float));
#pragma omp parallel for schedule(static) if (R * X > 1 << 14)
    for (int r = 0; r < R; r++) {
        float *p = h->p + (size_t)r * (size_t)X;
        softmax(p, X);
        choose(p, X, K, h->pick + (size_t)r * (size_t)K);
    }
    sort_by_expert(s, h, R);
    be->put(m->token, h->token, (size_t)R * (size_t)K * sizeof(int32_t));
    be->put(m->weight, h->weight, (size_t)R * (size_t)K * sizeof(float));
}

/* ---- forward ---- */

static void linear(const struct backend *be, const struct block *blk, int i, dev x, dev y, int R)
{
    int out, in;
    role_dims(&blk->s, i, &out, &in);
    be->gemm(false, true, R, out, in, 1, x, in, blk->w[i], in, 0, y, out);
}

/* Rows of one expert in the buffers of all. */
struct rows {
    int expert, n;
    dev x, gate, up, act, out, dout;
};

static struct rows routed(const struct block_shape *s, const struct moe *m, int x)
{
    size_t at = (size_t)m->h->first[x], D = at * (size_t)s->D, F = at * (size_t)s->expert_F;
    return (struct rows){.expert = x, .n = m->h->first[x + 1] - m->h->first[x],
                         .x = dev_at(m->x, D), .gate = dev_at(m->gate, F), .up = dev_at(m->up, F),
                         .act = dev_at(m->act, F), .out = dev_at(m->out, D)};
}

static struct rows shared(const struct block_shape *s, const struct moe *m, dev n2, int R)
{
    return (struct rows){.expert = s->experts, .n = R, .x = n2, .gate = m->sgate, .up = m->sup, .act = m->sact,
                         .out = m->sout};
}

static void feed_in(const struct backend *be, const struct block *blk, const struct rows *r, block_tap *tap, void *ctx)
{
    if (!r->n) return;
    if (tap) tap(ctx, expert_site(r->expert, SITE_MLP), r->x, r->n, blk->s.D);
    if (blk->s.gated) linear(be, blk, expert_linear(r->expert, ROLE_GATE), r->x, r->gate, r->n);
    linear(be, blk, expert_linear(r->expert, ROLE_UP), r->x, r->up, r->n);
}

static void feed_out(const struct backend *be, const struct block *blk, const struct rows *r, block_tap *tap, void *ctx)
{
    if (!r->n) return;
    int F = site_dim(&blk->s, expert_site(r->expert, SITE_DOWN));
    if (tap) tap(ctx, expert_site(r->expert, SITE_DOWN), r->act, r->n, F);
    linear(be, blk, expert_linear(r->expert, ROLE_DOWN), r->act, r->out, r->n);
}

static void activate(const struct backend *be, const struct block_shape *s, dev act, dev gate, dev up, size_t n)
{
    be->act(s->act, act, gate, s->gated ? up : DEV_NONE, n);
}

/* mix = sigmoid(n2 g), or 1 */
static void mix_shared(const struct backend *be, const struct block *blk, struct moe *m, dev n2, int R)
{
    int D = blk->s.D;
    size_t bytes = (size_t)R * sizeof(float);
    if (dev_ok(blk->shared_gate)) {
        be->gemm_f32(false, true, R, 1, D, 1, n2, D, blk->shared_gate, D, 0, m->mix, 1);
        be->get(m->h->mix, m->mix, bytes);
    }
    for (int r = 0; r < R; r++)
        m->h->mix[r] = dev_ok(blk->shared_gate) ? 1 / (1 + expf(-m->h->mix[r])) : 1;
    be->put(m->mix, m->h->mix, bytes);
}

static void shared_forward(const struct backend *be, const struct block *blk, struct moe *m, dev n2, int R,
                           block_tap *tap, void *ctx)
{
    const struct block_shape *s = &blk->s;
    struct rows r = shared(s, m, n2, R);
    feed_in(be, blk, &r, tap, ctx);
    activate(be, s, m->sact, m->sgate, m->sup, (size_t)R * (size_t)s->shared_F);
    feed_out(be, blk, &r, tap, ctx);
    mix_shared(be, blk, m, n2, R);
    dev scaled = m->backward ? m->dout : m->sout; /* backward wants it as it is */
    be->scale_rows(scaled, m->sout, m->mix, R, s->D);
    be->add(m->sum, m->sum, scaled, (size_t)R * (size_t)s->D);
}

void moe_forward(const struct backend *be, const struct block *blk, struct moe *m, dev n2, int R, block_tap *tap,
                 void *ctx)
{
    const struct block_shape *s = &blk->s;
    int A = R * s->per_token;
    route(be, blk, m, n2, R);
    be->embed(m->x, n2, m->token, A, s->D);
    for (int x = 0; x < s->experts; x++) {
        struct rows r = routed(s, m, x);
        feed_in(be, blk, &r, tap, ctx);
    }
    activate(be, s, m->act, m->gate, m->up, (size_t)A * (size_t)s->expert_F);
    for (int x = 0; x < s->experts; x++) {
        struct rows r = routed(s, m, x);
        feed_out(be, blk, &r, tap, ctx);
    }
    dev scaled = m->backward ? m->dout : m->out;
    be->scale_rows(scaled, m->out, m->weight, A, s->D);
    be->fill(m->sum, 0, (size_t)R * (size_t)s->D);
    be->embed_back(m->sum, scaled, m->token, A, s->D);
    if (s->shared_F) shared_forward(be, blk, m, n2, R, tap, ctx);
}

/* ---- backward ---- */

struct back {
    const struct backend *be;
    const struct block *blk;
    const struct block_grads *g;
    block_grad_tap *tap;
    void *ctx;
};

static void back_dw(const struct back *b, int i, dev x, dev dy, int R)
{
    int out, in;
    role_dims(&b->blk->s, i, &out, &in);
    if (dev_ok(b->g->w[i])) b->be->gemm(true, false, out, in, R, 1, dy, out, x, in, 1, b->g->w[i], in);
    if (b->tap) b->tap(b->ctx, i, x, dy, R);
}

static void back_dx(const struct back *b, int i, dev dy, float beta, dev dx, int R)
{
    int out, in;
    role_dims(&b->blk->s, i, &out, &in);
    b->be->gemm(false, false, R, in, out, 1, dy, out, b->blk->w[i], in, beta, dx, in);
}

/* From the gradient of an expert's output, in r->dout, to that of its input, left in dx. */
static void expert_back(const struct back *b, const struct rows *r, dev dx)
{
    const struct block_shape *s = &b->blk->s;
    int gate = expert_linear(r->expert, ROLE_GATE), up = expert_linear(r->expert, ROLE_UP),
        down = expert_linear(r->expert, ROLE_DOWN), F, D;
    if (!r->n) return;
    role_dims(s, down, &D, &F);
    back_dw(b, down, r->act, r->dout, r->n);
    back_dx(b, down, r->dout, 0, r->act, r->n);
    b->be->act_back(s->act, r->gate, r->up, r->act, r->gate, s->gated ? r->up : DEV_NONE, (size_t)r->n * (size_t)F);
    if (s->gated) back_dw(b, gate, r->x, r->gate, r->n);
    back_dw(b, up, r->x, r->up, r->n);
    if (s->gated) back_dx(b, gate, r->gate, 0, dx, r->n);
    back_dx(b, up, r->up, s->gated ? 1 : 0, dx, r->n);
}

/* Gradient of the router's logits from that of the weights (dw, [A]), through softmax and division. */
static void route_back(const struct block_shape *s, const struct moe_host *h, const float *dw, int r, float *dz)
{
    int X = s->experts, K = s->per_token;
    const float *p = h->p + (size_t)r * (size_t)X;
    const int32_t *pick = h->pick + r * K, *at = h->at + r * K;
    double sum = divisor(s, p, pick), mean = 0, all = 0;
    for (int k = 0; k < K && s->norm_topk; k++) mean += (double)dw[at[k]] * h->weight[at[k]];
    for (int k = 0; k < K; k++) all += (dw[at[k]] - mean) / sum * p[pick[k]];
    for (int x = 0; x < X; x++) dz[x] = (float)(-all * p[x]);
    for (int k = 0; k < K; k++) dz[pick[k]] += (float)((dw[at[k]] - mean) / sum * p[pick[k]]);
}

/* m->logits = gradient of the router's logits; dy: of the sum for every assignment. */
static void weights_back(const struct back *b, struct moe *m, dev n2, dev dy, int R)
{
    const struct block_shape *s = &b->blk->s;
    int A = R * s->per_token, X = s->experts;
    float *dw = MEM_NEW(float, A), *dz = MEM_NEW(float, (size_t)R *(size_t)X);
    b->be->dot_rows(m->weight, dy, m->out, A, s->D);
    b->be->get(dw, m->weight, (size_t)A * sizeof(float));
#pragma omp parallel for schedule(static) if (R * X > 1 << 14)
    for (int r = 0; r < R; r++) route_back(s, m->h, dw, r, dz + (size_t)r * (size_t)X);
    b->be->put(m->logits, dz, (size_t)R * (size_t)X * sizeof(float));
    b->be->put(m->weight, m->h->weight, (size_t)A * sizeof(float));
    if (dev_ok(b->g->router))
        b->be->gemm_f32(true, false, X, s->D, R, 1, m->logits, X, n2, s->D, 1, b->g->router, s->D);
    mem_free(dw), mem_free(dz);
}

/* The shared expert's part of dn2 into m->sout; m->mix becomes the gradient of its gate's logit. */
static void shared_back(const struct back *b, struct moe *m, dev n2, dev dsum, int R)
{
    const struct block_shape *s = &b->blk->s;
    struct rows r = shared(s, m, n2, R);
    float *dz = MEM_NEW(float, R);
    r.dout = m->dout;
    b->be->scale_rows(m->dout, dsum, m->mix, R, s->D);
    b->be->dot_rows(m->mix, dsum, m->sout, R, s->D);
    b->be->get(dz, m->mix, (size_t)R * sizeof(float));
    for (int i = 0; i < R; i++) dz[i] *= m->h->mix[i] * (1 - m->h->mix[i]);
    b->be->put(m->mix, dz, (size_t)R * sizeof(float));
    if (dev_ok(b->g->shared_gate))
        b->be->gemm_f32(true, false, 1, s->D, R, 1, m->mix, 1, n2, s->D, 1, b->g->shared_gate, s->D);
    mem_free(dz);
    expert_back(b, &r, m->sout);
}

void moe_backward(const struct backend *be, const struct block *blk, struct moe *m, dev n2, dev dsum, dev dn2, int R,
                  const struct block_grads *g, block_grad_tap *tap, void *ctx)
{
    const struct block_shape *s = &blk->s;
    const struct back b = {be, blk, g, tap, ctx};
    int A = R * s->per_token, D = s->D, X = s->experts;
    if (s->shared_F) shared_back(&b, m, n2, dsum, R);
    be->embed(m->dout, dsum, m->token, A, D);
    weights_back(&b, m, n2, m->dout, R); /* the last that reads n2 */
    be->scale_rows(m->dout, m->dout, m->weight, A, D);
    for (int x = 0; x < X; x++) {
        struct rows r = routed(s, m, x);
        r.dout = dev_at(m->dout, (size_t)m->h->first[x] * (size_t)D);
        expert_back(&b, &r, r.out);
    }
    be->gemm_f32(false, false, R, D, X, 1, m->logits, X, blk->router, D, 0, dn2, D);
    if (s->shared_F) be->add(dn2, dn2, m->sout, (size_t)R * (size_t)D);
    if (s->shared_F && dev_ok(blk->shared_gate))
        be->gemm_f32(false, false, R, D, 1, 1, m->mix, 1, blk->shared_gate, D, 1, dn2, D);
    be->embed_back(dn2, m->out, m->token, A, D);
}
