/* SPDX-License-Identifier: Apache-2.0
 * One pre-norm decoder block on a backend: forward, backward, one-token step. All buffers are parts of one
 * arena that is laid out once; parts whose lifetimes do not meet share addresses. What a block computes: a =
 * x + attention(norm(x)) Wo^T        y = a + (silu(n Wg^T) * (n Wu^T)) Wd^T  with n = norm(a) */
#include "common/block.h"
#include "common/mem.h"

static const char *const role_names[ROLE_COUNT] = {"q", "k", "v", "o", "gate", "up", "down"};
static const char *const site_names[SITE_COUNT] = {"qkv", "o", "mlp", "down"};
static const char *const norm_names[NORM_COUNT] = {"attn_norm",    "mlp_norm", "attn_out_norm",
                                                  "mlp_out_norm", "q_norm",   "k_norm"};

const char *role_name(enum role r)
{
    return role_names[r];
}
const char *site_name(enum site s)
{
    return site_names[s];
}
const char *norm_name(enum norm_id n)
{
    return norm_names[n];
}

bool block_has_role(const struct block_shape *s, enum role r)
{
    return r != ROLE_GATE || s->gated;
}

int norm_dim(const struct block_shape *s, enum norm_id n)
{
    int heads = n == NORM_Q ? s->H : s->G;
    if (!s->norm[n]) return 0;
    if (n != NORM_Q && n != NORM_K) return s->D;
    return s->qk_norm == QK_NORM_HEAD ? s->E : heads * s->E;
}

int norm_max_dim(const struct block_shape *s)
{
    int most = s->D;
    for (int n = 0; n < NORM_COUNT; n++)
        if (norm_dim(s, n) > most) most = norm_dim(s, n);
    return most;
}

void role_dims(const struct block_shape *s, enum role r, int *out, int *in)
{
    if (!block_has_role(s, r)) {
        *out = *in = 0;
        return;
    }
    int qdim = s->H * s->E, kdim = s->G * s->E;
    *in = r == ROLE_O ? qdim : r == ROLE_DOWN ? s->F : s->D;
    *out = r == ROLE_Q                      ? qdim
           : r == ROLE_K || r == ROLE_V     ? kdim
           : r == ROLE_GATE || r == ROLE_UP ? s->F
                                            : s->D;
}

int site_dim(const struct block_shape *s, enum site t)
{
    return t == SITE_O ? s->H * s->E : t == SITE_DOWN ? s->F : s->D;
}

/* Parts of the arena. With backward every forward value that is read again has its own place; without, the
 * feed-forward values overlay the attention ones. Offsets in floats; the arena's part n ends where n + 1
 * starts at the latest. */
struct block_work {
    const struct backend *be;
    struct block_work *lean; /* NULL, or over the same arena: for forwards of more rows than this */
    bool backward;
    int max_R;
    size_t floats;
    dev arena;
    dev xn[NORM_COUNT], stat[NORM_COUNT]; /* norm outputs [R,D], {mean, rstd} [R,2] */
    dev q, k, v, out, lse;                /* [R,HE] [R,GE] [R,GE] [R,HE] [R,H] */
    dev mid;                              /* a [R,D] (backward only; forward alone keeps it in y) */
    dev gate, up, act;                    /* [R,F] */
    dev dmid;                             /* da [R,D] */
    dev dq, dk, dv, dout;                 /* over gate, up, act, which are spent by then */
};

static dev cut(struct block_work *w, size_t floats)
{
    dev p = dev_at(w->arena, w->floats);
    w->floats += (floats + 15) / 16 * 16;
    return p;
}

/* Sets every part relative to w->arena and w->floats to the arena's size. */
static void lay_out(struct block_work *w, const struct block_shape *s)
{
    size_t R = (size_t)w->max_R, D = (size_t)s->D, F = (size_t)s->F;
    size_t qd = (size_t)s->H * (size_t)s->E, kd = (size_t)s->G * (size_t)s->E;
    w->floats = 0;
    for (int n = 0; n <= NORM_MLP; n++) {
        w->xn[n] = n && !w->backward ? w->xn[0] : cut(w, R * D);
        w->stat[n] = n && !w->backward ? w->stat[0] : cut(w, R * 2);
    }
    size_t shared = w->floats;
    w->q = cut(w, R * qd), w->k = cut(w, R * kd), w->v = cut(w, R * kd);
    w->out = cut(w, R * qd), w->lse = cut(w, R * (size_t)s->H);
    size_t end = w->floats;
    if (w->backward) {
        w->mid = cut(w, R * D), w->dmid = cut(w, R * D);
        shared = w->floats;
    } else {
        w->floats = shared;
    }
    w->gate = cut(w, R * F), w->up = cut(w, R * F);
    w->act = w->backward ? cut(w, R * F) : w->gate;
    end = w->floats > end ? w->floats : end;
    if (w->backward) {
        w->floats = shared;
        w->dq = cut(w, R * qd), w->dk = cut(w, R * kd), w->dv = cut(w, R * kd), w->dout = cut(w, R * qd);
    }
    w->floats = w->floats > end ? w->floats : end;
}

size_t block_work_bytes(const struct block_shape *s, int max_R, bool backward)
{
    struct block_work w = {.max_R = max_R, .backward = backward};
    lay_out(&w, s);
    return w.floats * sizeof(float);
}

struct block_work *block_work_alloc(const struct backend *be, const struct block_shape *s, int max_R,
                                    bool backward)
{
    struct block_work *w = MEM_NEW(struct block_work, 1);
    w->be = be, w->max_R = max_R, w->backward = backward;
    w->arena = be->alloc(block_work_bytes(s, max_R, backward));
    lay_out(w, s);
    return w;
}

size_t block_work_bytes_mixed(const struct block_shape *s, int max_R, int save_R)
{
    size_t lean = block_work_bytes(s, max_R, false), full = save_R ? block_work_bytes(s, save_R, true) : 0;
    return lean > full ? lean : full;
}

struct block_work *block_work_alloc_mixed(const struct backend *be, const struct block_shape *s, int max_R,
                                          int save_R)
{
    struct block_work *w = MEM_NEW(struct block_work, 1), *lean = w;
    w->arena = be->alloc(block_work_bytes_mixed(s, max_R, save_R));
    w->be = be;
    if (save_R) {
        w->lean = lean = MEM_NEW(struct block_work, 1);
        lean->be = be, lean->arena = w->arena;
        w->max_R = save_R, w->backward = true;
        lay_out(w, s);
    }
    lean->max_R = max_R;
    lay_out(lean, s);
    return w;
}

void block_work_free(struct block_work *w)
{
    if (!w) return;
    w->be->release(w->arena);
    mem_free(w->lean);
    mem_free(w);
}

/* y[R,out] = beta * y + x[R,in] W^T + b */
static void linear(const struct backend *be, const struct block *blk, enum role r, dev x, float beta, dev y,
                   int R)
{
    int out, in;
    role_dims(&blk->s, r, &out, &in);
    be->gemm(false, true, R, out, in, 1, x, in, blk->w[r], in, beta, y, out);
    if (dev_ok(blk->b[r])) be->add_bias(y, blk->b[r], R, out);
}

/* dx[R,in] = beta * dx + dy[R,out] W */
static void linear_dx(const struct backend *be, const struct block *blk, enum role r, dev dy, float beta,
                      dev dx, int R)
{
    int out, in;
    role_dims(&blk->s, r, &out, &in);
    be->gemm(false, false, R, in, out, 1, dy, out, blk->w[r], in, beta, dx, in);
}

/* dW += dy^T x, db += column sums of dy, and the tap: the parameter side of a linear's backward. */
static void linear_dw(const struct backend *be, const struct block *blk, enum role r, dev x, dev dy, int R,
                      const struct block_grads *g, block_grad_tap *tap, void *ctx)
{
    int out, in;
    role_dims(&blk->s, r, &out, &in);
    if (dev_ok(g->w[r])) be->gemm(true, false, out, in, R, 1, dy, out, x, in, 1, g->w[r], in);
    if (dev_ok(g->b[r])) be->sum_rows(g->b[r], dy, R, out);
    if (tap) tap(ctx, r, x, dy, R);
}

static void norm(const struct backend *be, const struct block *blk, struct block_work *w, enum norm_id n,
                 dev x, int R)
{
    be->norm(blk->s.rms, w->xn[n], w->stat[n], x, blk->gain[n], blk->bias[n], R, blk->s.D, blk->s.eps);
}

/* q, k, v of normed rows, rotated. */
static void project(const struct backend *be, const struct block *blk, struct block_work *w, int R, int T,
                    int pos0)
{
    const struct block_shape *s = &blk->s;
    linear(be, blk, ROLE_Q, w->xn[NORM_ATTN], 0, w->q, R);
    linear(be, blk, ROLE_K, w->xn[NORM_ATTN], 0, w->k, R);
    linear(be, blk, ROLE_V, w->xn[NORM_ATTN], 0, w->v, R);
    be->rope(w->q, R, T, s->H, s->E, s->rot, blk->cossin, pos0, 1);
    be->rope(w->k, R, T, s->G, s->E, s->rot, blk->cossin, pos0, 1);
}

/* From attention's output to y: everything that is the same for whole sequences and for one token. */
static void finish(const struct backend *be, const struct block *blk, struct block_work *w, int R, dev x,
                   dev y, block_tap *tap, void *ctx)
{
    const struct block_shape *s = &blk->s;
    size_t bytes = (size_t)R * (size_t)s->D * sizeof(float);
    dev mid = w->backward ? w->mid : y;
    if (tap) tap(ctx, SITE_O, w->out, R, s->H * s->E);
    be->copy(mid, x, bytes);
    linear(be, blk, ROLE_O, w->out, 1, mid, R);
    norm(be, blk, w, NORM_MLP, mid, R);
    if (tap) tap(ctx, SITE_MLP, w->xn[NORM_MLP], R, s->D);
    linear(be, blk, ROLE_GATE, w->xn[NORM_MLP], 0, w->gate, R);
    linear(be, blk, ROLE_UP, w->xn[NORM_MLP], 0, w->up, R);
    be->swiglu(w->act, w->gate, w->up, (size_t)R * (size_t)s->F);
    if (tap) tap(ctx, SITE_DOWN, w->act, R, s->F);
    if (w->backward) be->copy(y, mid, bytes);
    linear(be, blk, ROLE_DOWN, w->act, 1, y, R);
}

void block_forward(const struct backend *be, const struct block *blk, struct block_work *w, int B, int T,
                   int pos0, dev x, dev y, block_tap *tap, void *ctx)
{
    const struct block_shape *s = &blk->s;
    int R = B * T;
    if (w->lean && R > w->max_R) w = w->lean;
    norm(be, blk, w, NORM_ATTN, x, R);
    if (tap) tap(ctx, SITE_QKV, w->xn[NORM_ATTN], R, s->D);
    project(be, blk, w, R, T, pos0);
    be->attention(w->out, w->lse, w->q, w->k, w->v, B, T, s->H, s->G, s->E, s->scale, s->window);
    finish(be, blk, w, R, x, y, tap, ctx);
}

void block_step(const struct backend *be, const struct block *blk, struct block_work *w, int B, int pos,
                dev x, dev y, dev kc, dev vc, int cap)
{
    const struct block_shape *s = &blk->s;
    size_t kd = (size_t)s->G * (size_t)s->E;
    norm(be, blk, w, NORM_ATTN, x, B);
    project(be, blk, w, B, 1, pos);
    for (int b = 0; b < B; b++) {
        size_t row = ((size_t)b * (size_t)cap + (size_t)pos) * kd;
        be->copy(dev_at(kc, row), dev_at(w->k, (size_t)b * kd), kd * sizeof(float));
        be->copy(dev_at(vc, row), dev_at(w->v, (size_t)b * kd), kd * sizeof(float));
    }
    be->attention_step(w->out, w->q, kc, vc, B, pos + 1, cap, s->H, s->G, s->E, s->scale, s->window);
    finish(be, blk, w, B, x, y, NULL, NULL);
}

/* dmid = gradient of the sum a = x + attention(...); spends gate, up, act and xn[NORM_MLP]. */
static void back_mlp(const struct backend *be, const struct block *blk, struct block_work *w, int R, dev dy,
                     const struct block_grads *g, block_grad_tap *tap, void *ctx)
{
    const struct block_shape *s = &blk->s;
    dev xn = w->xn[NORM_MLP], stat = w->stat[NORM_MLP];
    linear_dw(be, blk, ROLE_DOWN, w->act, dy, R, g, tap, ctx);
    linear_dx(be, blk, ROLE_DOWN, dy, 0, w->act, R);
    be->swiglu_back(w->gate, w->up, w->act, w->gate, w->up, (size_t)R * (size_t)s->F);
    linear_dw(be, blk, ROLE_GATE, xn, w->gate, R, g, tap, ctx);
    linear_dw(be, blk, ROLE_UP, xn, w->up, R, g, tap, ctx);
    linear_dx(be, blk, ROLE_GATE, w->gate, 0, xn, R);
    linear_dx(be, blk, ROLE_UP, w->up, 1, xn, R);
    be->norm_back(s->rms, w->dmid, g->gain[NORM_MLP], g->bias[NORM_MLP], xn, w->mid, stat,
                  blk->gain[NORM_MLP], R, s->D);
    be->add(w->dmid, w->dmid, dy, (size_t)R * (size_t)s->D);
}

/* True when something before attention's output projection wants a gradient. */
static bool wants_front(const struct block_grads *g, dev dx, block_grad_tap *tap)
{
    bool any = dev_ok(dx) || tap || dev_ok(g->gain[NORM_ATTN]) || dev_ok(g->bias[NORM_ATTN]);
    for (int r = ROLE_Q; r <= ROLE_V; r++) any = any || dev_ok(g->w[r]) || dev_ok(g->b[r]);
    return any;
}

void block_backward(const struct backend *be, const struct block *blk, struct block_work *w, int B, int T,
                    int pos0, dev x, dev dy, dev dx, const struct block_grads *g, block_grad_tap *tap,
                    void *ctx)
{
    const struct block_shape *s = &blk->s;
    int R = B * T;
    dev xn = w->xn[NORM_ATTN], stat = w->stat[NORM_ATTN];
    back_mlp(be, blk, w, R, dy, g, tap, ctx);
    linear_dw(be, blk, ROLE_O, w->out, w->dmid, R, g, tap, ctx);
    if (!wants_front(g, dx, tap)) return;
    linear_dx(be, blk, ROLE_O, w->dmid, 0, w->dout, R);
    be->attention_back(w->dq, w->dk, w->dv, w->dout, w->out, w->lse, w->q, w->k, w->v, B, T, s->H, s->G, s->E,
                       s->scale, s->window);
    be->rope(w->dq, R, T, s->H, s->E, s->rot, blk->cossin, pos0, -1);
    be->rope(w->dk, R, T, s->G, s->E, s->rot, blk->cossin, pos0, -1);
    linear_dw(be, blk, ROLE_Q, xn, w->dq, R, g, tap, ctx);
    linear_dw(be, blk, ROLE_K, xn, w->dk, R, g, tap, ctx);
    linear_dw(be, blk, ROLE_V, xn, w->dv, R, g, tap, ctx);
    if (!dev_ok(dx) && !dev_ok(g->gain[NORM_ATTN]) && !dev_ok(g->bias[NORM_ATTN])) return;
    linear_dx(be, blk, ROLE_Q, w->dq, 0, xn, R);
    linear_dx(be, blk, ROLE_K, w->dk, 1, xn, R);
    linear_dx(be, blk, ROLE_V, w->dv, 1, xn, R);
    be->norm_back(s->rms, dx, g->gain[NORM_ATTN], g->bias[NORM_ATTN], xn, x, stat, blk->gain[NORM_ATTN], R,
                  s->D);
    if (dev_ok(dx)) be->add(dx, dx, w->dmid, (size_t)R * (size_t)s->D);
}
