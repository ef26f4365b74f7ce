/* SPDX-License-Identifier: Apache-2.0
 * One decoder block on a backend: forward, backward, one-token step. All buffers are parts of one arena that
 * is laid out once; parts whose lifetimes do not meet share addresses. With n1, n2 the norms before the
 * sublayers, o1, o2 those of what they give (each may be absent), r the residual multiplier:
 *   a = x + r o1(attention(n1 x) Wo)     y = a + r o2(mlp(n2 a))          serial
 *   y = x + r o1(attention(n1 x) Wo) + r o2(mlp(n2 x))                    parallel
 *   a = o1(x + r ...), y = o2(a + r ...)                                  post_add
 * and with residual_normed n1 x, n2 a in the place of x, a as terms of the sums. */
#include "common/block.h"
#include <math.h>
#include <stdio.h>
#include "common/block_moe.h"
#include "common/mem.h"

static const char *const role_names[ROLE_COUNT] = {"q", "k", "v", "o", "gate", "up", "down"};
static const char *const site_names[SITE_COUNT] = {"qkv", "o", "mlp", "down"};
static const char *const norm_names[NORM_COUNT] = {"attn_norm",    "mlp_norm", "attn_out_norm",
                                                   "mlp_out_norm", "q_norm",   "k_norm"};

const char *role_name(int linear)
{
    return role_names[linear_role(linear)];
}
struct site_name site_name(int site)
{
    struct site_name n;
    if (site < SITE_COUNT)
        snprintf(n.text, sizeof n.text, "%s", site_names[site]);
    else
        snprintf(n.text, sizeof n.text, "%s.%d", (site - SITE_COUNT) % 2 ? "down" : "mlp", site_expert(site));
    return n;
}
const char *norm_name(enum norm_id n)
{
    return norm_names[n];
}

int block_linears(const struct block_shape *s)
{
    return ROLE_COUNT + 3 * block_experts(s);
}
int block_sites(const struct block_shape *s)
{
    return SITE_COUNT + 2 * block_experts(s);
}

/* Width of the feed-forward that this expert, or -1: the block itself, is; 0: there is none. */
static int feed_width(const struct block_shape *s, int expert)
{
    return expert < 0 ? s->F : expert < s->experts ? s->expert_F : expert < block_experts(s) ? s->shared_F : 0;
}

bool block_has_role(const struct block_shape *s, int linear)
{
    enum role r = linear_role(linear);
    return r < ROLE_GATE || (feed_width(s, linear_expert(linear)) > 0 && (r != ROLE_GATE || s->gated));
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

void role_dims(const struct block_shape *s, int linear, int *out, int *in)
{
    if (!block_has_role(s, linear)) {
        *out = *in = 0;
        return;
    }
    enum role r = linear_role(linear);
    int F = feed_width(s, linear_expert(linear));
    int qdim = s->H * s->E, kdim = s->G * s->E;
    *in = r == ROLE_O ? qdim : r == ROLE_DOWN ? F : s->D;
    *out = r == ROLE_Q                      ? qdim
           : r == ROLE_K || r == ROLE_V     ? kdim
           : r == ROLE_GATE || r == ROLE_UP ? F
                                            : s->D;
}

uint64_t block_weights(const struct block_shape *s)
{
    uint64_t n = 0;
    for (int r = 0, out, in; r < block_linears(s); r++) {
        role_dims(s, r, &out, &in);
        n += (uint64_t)out * (uint64_t)in;
    }
    return n;
}

int site_dim(const struct block_shape *s, int site)
{
    int expert = site_expert(site);
    if (expert >= 0) {
        int F = feed_width(s, expert);
        return F && site == expert_site(expert, SITE_MLP) ? s->D : F;
    }
    return site == SITE_O ? s->H * s->E : site == SITE_DOWN ? s->F : site == SITE_MLP && !s->F ? 0 : s->D;
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
    dev xn[NORM_MLP + 1];  /* norm outputs [R,D] */
    dev stat[NORM_COUNT];  /* {mean, rstd} [R,2]; of q and k [R * heads, 2] at most */
    dev q, k, v, out, lse; /* [R,HE] [R,GE] [R,GE] [R,HE] [R,H] */
    dev raw[2];            /* q and k as projected and clamped; without backward q and k themselves */
    dev mid;               /* a [R,D] (backward only; forward alone keeps it in y) */
    dev sub[2];            /* [R,D] of attention and feed-forward: what their output norms read */
    dev gate, up, act;     /* [R,F]; without gate both are up */
    dev dmid, dsum, dsub;  /* [R,D]: da, gradient of the last sum, of a sublayer's output */
    dev dq, dk, dv, dout;  /* over gate, up, act, which are spent by then */
    struct moe moe;        /* over gate, up, act */
    struct moe_host *host; /* of moe; the lean one's is the same */
};

static dev cut(struct block_work *w, size_t floats)
{
    dev p = dev_at(w->arena, w->floats);
    w->floats += (floats + 15) / 16 * 16;
    return p;
}

/* What a sublayer gives is changed before it is added, so that it is made beside the sum. */
static bool is_apart(const struct block_shape *s, enum norm_id out)
{
    return (s->norm[out] && !s->post_add) || s->residual != 1;
}

static void lay_out_norms(struct block_work *w, const struct block_shape *s)
{
    size_t R = (size_t)w->max_R, D = (size_t)s->D;
    size_t width[2] = {(size_t)s->H * (size_t)s->E, (size_t)s->G * (size_t)s->E};
    bool any_out = s->norm[NORM_ATTN_OUT] || s->norm[NORM_MLP_OUT];
    for (int n = 0; n <= NORM_MLP; n++) {
        w->xn[n] = n && !w->backward ? w->xn[0] : cut(w, R * D);
        w->stat[n] = n && !w->backward ? w->stat[0] : cut(w, R * 2);
    }
    for (int i = 0; i < 2; i++) {
        enum norm_id out = NORM_ATTN_OUT + i, qk = NORM_Q + i;
        if (s->norm[out]) w->stat[out] = w->backward ? cut(w, R * 2) : w->stat[0];
        if (i && dev_ok(w->sub[0]) && !(w->backward && any_out))
            w->sub[1] = w->sub[0]; /* nobody reads it again */
        else if (s->norm[out] || is_apart(s, out))
            w->sub[i] = cut(w, R * D);
        if (s->norm[qk]) w->stat[qk] = cut(w, R * 2 * width[i] / (size_t)s->E);
        if (w->backward && (s->norm[qk] || s->clip > 0)) w->raw[i] = cut(w, R * width[i]);
    }
}

/* Sets every part relative to w->arena and w->floats to the arena's size. */
static void lay_out(struct block_work *w, const struct block_shape *s)
{
    size_t R = (size_t)w->max_R, D = (size_t)s->D, F = (size_t)s->F;
    size_t qd = (size_t)s->H * (size_t)s->E, kd = (size_t)s->G * (size_t)s->E;
    w->floats = 0;
    lay_out_norms(w, s);
    size_t shared = w->floats;
    w->q = cut(w, R * qd), w->k = cut(w, R * kd), w->v = cut(w, R * kd);
    w->out = cut(w, R * qd), w->lse = cut(w, R * (size_t)s->H);
    if (!w->backward) w->raw[0] = w->q, w->raw[1] = w->k;
    size_t end = w->floats;
    if (w->backward) {
        w->mid = cut(w, R * D), w->dmid = cut(w, R * D);
        if (s->norm[NORM_MLP_OUT] && s->post_add) w->dsum = cut(w, R * D);
        if (is_apart(s, NORM_ATTN_OUT) || is_apart(s, NORM_MLP_OUT)) w->dsub = cut(w, R * D);
        shared = w->floats;
    } else {
        w->floats = shared;
    }
    w->up = cut(w, R * F);
    w->gate = s->gated ? cut(w, R * F) : w->up;
    w->act = w->backward ? cut(w, R * F) : w->gate;
    end = w->floats > end ? w->floats : end;
    size_t moe = moe_lay_out(&w->moe, s, w->max_R, w->backward, w->arena, shared);
    end = moe > end ? moe : end;
    w->moe.h = w->host;
    if (w->backward) {
        w->floats = shared;
        w->dq = cut(w, R * qd), w->dk = cut(w, R * kd), w->dv = cut(w, R * kd), w->dout = cut(w, R * qd);
    }
    w->floats = w->floats > end ? w->floats : end;
}

static size_t arena_bytes(const struct block_shape *s, int max_R, bool backward)
{
    struct block_work w = {.max_R = max_R, .backward = backward};
    lay_out(&w, s);
    return w.floats * sizeof(float);
}

size_t block_work_bytes(const struct block_shape *s, int max_R, bool backward)
{
    return arena_bytes(s, max_R, backward) + moe_host_bytes(s, max_R);
}

static struct moe_host *host_alloc(const struct block_shape *s, int max_R)
{
    struct moe_host *h = MEM_NEW(struct moe_host, 1);
    moe_host_alloc(h, s, max_R);
    return h;
}

struct block_work *block_work_alloc(const struct backend *be, const struct block_shape *s, int max_R,
                                    bool backward)
{
    struct block_work *w = MEM_NEW(struct block_work, 1);
    w->be = be, w->max_R = max_R, w->backward = backward;
    w->host = host_alloc(s, max_R);
    w->arena = be->alloc(arena_bytes(s, max_R, backward));
    lay_out(w, s);
    return w;
}

static size_t arena_bytes_mixed(const struct block_shape *s, int max_R, int save_R)
{
    size_t lean = arena_bytes(s, max_R, false), full = save_R ? arena_bytes(s, save_R, true) : 0;
    return lean > full ? lean : full;
}

size_t block_work_bytes_mixed(const struct block_shape *s, int max_R, int save_R)
{
    return arena_bytes_mixed(s, max_R, save_R) + moe_host_bytes(s, max_R > save_R ? max_R : save_R);
}

struct block_work *block_work_alloc_mixed(const struct backend *be, const struct block_shape *s, int max_R,
                                          int save_R)
{
    struct block_work *w = MEM_NEW(struct block_work, 1), *lean = w;
    w->arena = be->alloc(arena_bytes_mixed(s, max_R, save_R));
    w->host = host_alloc(s, max_R > save_R ? max_R : save_R);
    w->be = be;
    if (save_R) {
        w->lean = lean = MEM_NEW(struct block_work, 1);
        lean->be = be, lean->arena = w->arena, lean->host = w->host;
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
    moe_host_free(w->host), mem_free(w->host);
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

static void norm(const struct backend *be, const struct block *blk, enum norm_id n, dev x, dev y, dev stat,
                 int R)
{
    be->norm(blk->s.rms, y, stat, x, blk->gain[n], blk->bias[n], 1, R, blk->s.D, blk->s.eps);
}

/* dx may be dy */
static void norm_back(const struct backend *be, const struct block *blk, enum norm_id n, dev x, dev stat,
                      dev dy, dev dx, int R, const struct block_grads *g)
{
    be->norm_back(blk->s.rms, dx, g->gain[n], g->bias[n], dy, x, stat, blk->gain[n], 1, R, blk->s.D);
}

/* Rows of a norm of q or k in R rows: how many, their length, and how many a gain has. */
struct qk_rows {
    int n, width, gains;
};
static struct qk_rows qk_rows(const struct block_shape *s, enum norm_id n, int R)
{
    int heads = n == NORM_Q ? s->H : s->G;
    if (s->qk_norm == QK_NORM_WHOLE) return (struct qk_rows){R, heads * s->E, 1};
    return (struct qk_rows){R * heads, s->E, s->qk_norm == QK_NORM_HEADS ? heads : 1};
}

/* q or k of normed rows: linear, clamp, norm, rotation. */
static void project_qk(const struct backend *be, const struct block *blk, struct block_work *w, int i, dev x,
                       int R, int T, int pos0)
{
    const struct block_shape *s = &blk->s;
    enum norm_id n = NORM_Q + i;
    dev y = i ? w->k : w->q, raw = s->norm[n] || s->clip > 0 ? w->raw[i] : y;
    size_t count = (size_t)R * (size_t)(i ? s->G : s->H) * (size_t)s->E;
    linear(be, blk, ROLE_Q + i, x, 0, raw, R);
    if (s->clip > 0) be->clamp(raw, s->clip, count);
    if (!s->norm[n] && raw.at != y.at) be->copy(y, raw, count * sizeof(float));
    if (s->norm[n]) {
        struct qk_rows r = qk_rows(s, n, R);
        be->norm(s->qk_rms, y, w->stat[n], raw, blk->gain[n], blk->bias[n], r.gains, r.n, r.width, s->eps);
    }
    if (s->rot) be->rope(y, R, T, i ? s->G : s->H, s->E, s->rot, s->rot_pairs, blk->cossin, pos0, 1);
}

static void project(const struct backend *be, const struct block *blk, struct block_work *w, dev x, int R,
                    int T, int pos0)
{
    project_qk(be, blk, w, 0, x, R, T, pos0);
    project_qk(be, blk, w, 1, x, R, T, pos0);
    linear(be, blk, ROLE_V, x, 0, w->v, R);
    if (blk->s.clip > 0) be->clamp(w->v, blk->s.clip, (size_t)R * (size_t)blk->s.G * (size_t)blk->s.E);
}

/* y = beta * y + what this role, or in the place of ROLE_DOWN all experts, give. beta is 0 or 1. */
static void give(const struct backend *be, const struct block *blk, struct block_work *w, enum role r, dev in,
                 float beta, dev y, int R)
{
    size_t count = (size_t)R * (size_t)blk->s.D;
    if (r != ROLE_DOWN || !blk->s.experts)
        linear(be, blk, r, in, beta, y, R);
    else if (beta > 0)
        be->add(y, y, w->moe.sum, count);
    else
        be->copy(y, w->moe.sum, count * sizeof(float));
}

/* to = base + residual * (what role gives for in), with the sublayer's output norm where it belongs. base may
 * be to. */
static void add_sublayer(const struct backend *be, const struct block *blk, struct block_work *w, enum role r,
                         dev in, dev base, dev to, int R)
{
    const struct block_shape *s = &blk->s;
    enum norm_id n = r == ROLE_O ? NORM_ATTN_OUT : NORM_MLP_OUT;
    size_t count = (size_t)R * (size_t)s->D;
    bool after = s->norm[n] && s->post_add;
    dev sub = w->sub[n - NORM_ATTN_OUT], sum = after ? sub : to, term = sub;
    if (after && s->residual != 1) term = w->backward ? w->dsub : w->xn[0];
    if (base.at != sum.at) be->copy(sum, base, count * sizeof(float));
    if (is_apart(s, n)) {
        give(be, blk, w, r, in, 0, term, R);
        if (s->norm[n] && !after) {
            dev normed = w->backward ? w->dsub : sub; /* no gradient is there yet */
            norm(be, blk, n, sub, normed, w->stat[n], R);
            term = normed;
        }
        be->axpy(sum, s->residual, term, count);
    } else {
        give(be, blk, w, r, in, 1, sum, R);
    }
    if (after) norm(be, blk, n, sum, to, w->stat[n], R);
}

/* act(gate) * up of the feed-forward's input, R rows. */
static void feed(const struct backend *be, const struct block *blk, struct block_work *w, dev x, int R)
{
    const struct block_shape *s = &blk->s;
    if (s->gated) linear(be, blk, ROLE_GATE, x, 0, w->gate, R);
    linear(be, blk, ROLE_UP, x, 0, w->up, R);
    be->act(s->act, w->act, w->gate, s->gated ? w->up : DEV_NONE, (size_t)R * (size_t)s->F);
}

/* What attention (the feed-forward) reads: a norm's output, or its input as it is. */
static dev attention_input(const struct block *blk, const struct block_work *w, dev x)
{
    return blk->s.norm[NORM_ATTN] ? w->xn[NORM_ATTN] : x;
}

static dev feed_input(const struct block *blk, const struct block_work *w, dev x, dev mid)
{
    if (blk->s.norm[NORM_MLP]) return w->xn[NORM_MLP];
    return blk->s.parallel ? attention_input(blk, w, x) : mid;
}

/* From attention's output to y: everything that is the same for whole sequences and for one token. */
static void finish(const struct backend *be, const struct block *blk, struct block_work *w, int R, dev x,
                   dev y, block_tap *tap, void *ctx)
{
    const struct block_shape *s = &blk->s;
    dev mid = w->backward ? w->mid : y, n1 = attention_input(blk, w, x), n2 = feed_input(blk, w, x, mid);
    if (tap) tap(ctx, SITE_O, w->out, R, s->H * s->E);
    add_sublayer(be, blk, w, ROLE_O, w->out, s->residual_normed ? n1 : x, mid, R);
    if (s->norm[NORM_MLP]) norm(be, blk, NORM_MLP, s->parallel ? x : mid, n2, w->stat[NORM_MLP], R);
    if (tap) tap(ctx, SITE_MLP, n2, R, s->D);
    if (s->experts)
        moe_forward(be, blk, &w->moe, n2, R, tap, ctx);
    else
        feed(be, blk, w, n2, R);
    if (tap && !s->experts) tap(ctx, SITE_DOWN, w->act, R, s->F);
    if (!dev_ok(y) && !s->norm[NORM_MLP_OUT]) return;
    if (!dev_ok(y)) y = w->dmid; /* what that norm reads is wanted, and no gradient is there yet */
    add_sublayer(be, blk, w, ROLE_DOWN, w->act, s->residual_normed && !s->parallel ? n2 : mid, y, R);
}

static struct attention attention_of(const struct block *blk, int B, int T)
{
    const struct block_shape *s = &blk->s;
    return (struct attention){
        B, T, s->H, s->G, s->E, s->scale, s->softcap, s->window, s->alibi ? blk->slopes : DEV_NONE};
}

void block_forward(const struct backend *be, const struct block *blk, struct block_work *w, int B, int T,
                   int pos0, dev x, dev y, block_tap *tap, void *ctx)
{
    const struct block_shape *s = &blk->s;
    struct attention a = attention_of(blk, B, T);
    int R = B * T;
    if (w->lean && R > w->max_R) w = w->lean;
    dev n1 = attention_input(blk, w, x);
    if (s->norm[NORM_ATTN]) norm(be, blk, NORM_ATTN, x, n1, w->stat[NORM_ATTN], R);
    if (tap) tap(ctx, SITE_QKV, n1, R, s->D);
    project(be, blk, w, n1, R, T, pos0);
    be->attention(w->out, w->lse, w->q, w->k, w->v, &a);
    finish(be, blk, w, R, x, y, tap, ctx);
}

void block_step(const struct backend *be, const struct block *blk, struct block_work *w, int B, int pos,
                dev x, dev y, dev kc, dev vc, int cap)
{
    const struct block_shape *s = &blk->s;
    struct attention a = attention_of(blk, B, 1);
    size_t kd = (size_t)s->G * (size_t)s->E;
    dev n1 = attention_input(blk, w, x);
    if (s->norm[NORM_ATTN]) norm(be, blk, NORM_ATTN, x, n1, w->stat[NORM_ATTN], B);
    project(be, blk, w, n1, B, 1, pos);
    for (int b = 0; b < B; b++) {
        size_t row = ((size_t)b * (size_t)cap + (size_t)pos) * kd;
        be->copy(dev_at(kc, row), dev_at(w->k, (size_t)b * kd), kd * sizeof(float));
        be->copy(dev_at(vc, row), dev_at(w->v, (size_t)b * kd), kd * sizeof(float));
    }
    be->attention_step(w->out, w->q, kc, vc, pos + 1, cap, &a);
    finish(be, blk, w, B, x, y, NULL, NULL);
}

/* ---- backward ---- */

/* The arguments of block_backward, which its parts share. */
struct back {
    const struct backend *be;
    const struct block *blk;
    struct block_work *w;
    int R;
    const struct block_grads *g;
    block_grad_tap *tap;
    void *ctx;
};

static void back_dw(const struct back *b, enum role r, dev x, dev dy)
{
    linear_dw(b->be, b->blk, r, x, dy, b->R, b->g, b->tap, b->ctx);
}

/* Gradient of what the linear of a sublayer gave, from that of the sum (the sum's own norm undone): dsum
 * itself, or in w->dsub. */
static dev sublayer_back(const struct back *b, enum norm_id n, dev dsum)
{
    const struct block_shape *s = &b->blk->s;
    size_t count = (size_t)b->R * (size_t)s->D;
    if (!is_apart(s, n)) return dsum;
    dev d = b->w->dsub;
    if (s->residual != 1) {
        b->be->fill(d, 0, count);
        b->be->axpy(d, s->residual, dsum, count);
        dsum = d;
    }
    if (s->norm[n] && !s->post_add)
        norm_back(b->be, b->blk, n, b->w->sub[n - NORM_ATTN_OUT], b->w->stat[n], dsum, d, b->R, b->g);
    return d;
}

/* Gradient of the feed-forward's input n2 into w->xn[NORM_MLP], from that of what it gave; spends gate, up,
 * act and xn[NORM_MLP]. */
static void feed_back(const struct back *b, dev n2, dev dout)
{
    const struct backend *be = b->be;
    const struct block_shape *s = &b->blk->s;
    struct block_work *w = b->w;
    size_t n = (size_t)b->R * (size_t)s->F;
    if (s->experts) {
        moe_backward(be, b->blk, &w->moe, n2, dout, w->xn[NORM_MLP], b->R, b->g, b->tap, b->ctx);
        return;
    }
    back_dw(b, ROLE_DOWN, w->act, dout);
    linear_dx(be, b->blk, ROLE_DOWN, dout, 0, w->act, b->R);
    be->act_back(s->act, w->gate, w->up, w->act, w->gate, s->gated ? w->up : DEV_NONE, n);
    if (s->gated) back_dw(b, ROLE_GATE, n2, w->gate);
    back_dw(b, ROLE_UP, n2, w->up);
    if (s->gated) linear_dx(be, b->blk, ROLE_GATE, w->gate, 0, w->xn[NORM_MLP], b->R);
    linear_dx(be, b->blk, ROLE_UP, w->up, s->gated ? 1 : 0, w->xn[NORM_MLP], b->R);
}

/* The feed-forward's part. Leaves in w->dmid the gradient of the sum a (serial), of x by way of the norm
 * before the feed-forward (parallel, with that norm), or of n1 (parallel, without). */
static void back_mlp(const struct back *b, dev x, dev dsum)
{
    const struct backend *be = b->be;
    const struct block_shape *s = &b->blk->s;
    struct block_work *w = b->w;
    size_t count = (size_t)b->R * (size_t)s->D;
    dev dn2 = w->xn[NORM_MLP];
    feed_back(b, feed_input(b->blk, w, x, w->mid), sublayer_back(b, NORM_MLP_OUT, dsum));
    if (s->residual_normed && !s->parallel) be->add(dn2, dn2, dsum, count);
    if (s->norm[NORM_MLP])
        norm_back(be, b->blk, NORM_MLP, s->parallel ? x : w->mid, w->stat[NORM_MLP], dn2, w->dmid, b->R,
                  b->g);
    else
        be->copy(w->dmid, dn2, count * sizeof(float));
    if (!s->parallel && !s->residual_normed) be->add(w->dmid, w->dmid, dsum, count);
}

/* Of q or k: rotation and norm undone in place. */
static void back_qk(const struct back *b, int i, dev d, int T, int pos0)
{
    const struct block_shape *s = &b->blk->s;
    enum norm_id n = NORM_Q + i;
    if (s->rot)
        b->be->rope(d, b->R, T, i ? s->G : s->H, s->E, s->rot, s->rot_pairs, b->blk->cossin, pos0, -1);
    struct qk_rows r = qk_rows(s, n, b->R);
    if (s->norm[n])
        b->be->norm_back(s->qk_rms, d, b->g->gain[n], b->g->bias[n], d, b->w->raw[i], b->w->stat[n],
                         b->blk->gain[n], r.gains, r.n, r.width);
    if (s->clip > 0) b->be->clamp_back(d, b->w->raw[i], s->clip, (size_t)r.n * (size_t)r.width);
}

/* True when something before attention's output projection wants a gradient. */
static bool wants_front(const struct block_grads *g, dev dx, block_grad_tap *tap)
{
    static const enum norm_id front[] = {NORM_ATTN, NORM_Q, NORM_K};
    bool any = dev_ok(dx) || tap;
    for (int r = ROLE_Q; r <= ROLE_V; r++) any = any || dev_ok(g->w[r]) || dev_ok(g->b[r]);
    for (int i = 0; i < 3; i++) any = any || dev_ok(g->gain[front[i]]) || dev_ok(g->bias[front[i]]);
    return any;
}

/* Attention's part from the gradient of its output projection's result to, with `input`, that of its input
 * n1, which is left in w->xn[NORM_ATTN]. */
static void back_attention(const struct back *b, int B, int T, int pos0, dev n1, dev dproj, bool input)
{
    const struct backend *be = b->be;
    struct block_work *w = b->w;
    struct attention a = attention_of(b->blk, B, T);
    const dev d[] = {w->dq, w->dk, w->dv};
    linear_dx(be, b->blk, ROLE_O, dproj, 0, w->dout, b->R);
    be->attention_back(w->dq, w->dk, w->dv, w->dout, w->out, w->lse, w->q, w->k, w->v, &a);
    for (int i = 0; i < 2; i++) back_qk(b, i, d[i], T, pos0);
    const struct block_shape *s = &b->blk->s;
    if (s->clip > 0) be->clamp_back(w->dv, w->v, s->clip, (size_t)b->R * (size_t)s->G * (size_t)s->E);
    for (int i = 0; i < 3; i++) back_dw(b, ROLE_Q + i, n1, d[i]);
    for (int i = 0; i < 3 && input; i++)
        linear_dx(be, b->blk, ROLE_Q + i, d[i], i ? 1 : 0, w->xn[NORM_ATTN], b->R);
}

void block_backward(const struct backend *be, const struct block *blk, struct block_work *w, int B, int T,
                    int pos0, dev x, dev dy, dev dx, const struct block_grads *g, block_grad_tap *tap,
                    void *ctx)
{
    const struct block_shape *s = &blk->s;
    const struct back b = {be, blk, w, B * T, g, tap, ctx};
    size_t count = (size_t)b.R * (size_t)s->D;
    dev n1 = attention_input(blk, w, x), dn1 = w->xn[NORM_ATTN], dsum = dy, da;
    bool input = dev_ok(dx) || dev_ok(g->gain[NORM_ATTN]) || dev_ok(g->bias[NORM_ATTN]);
    if (s->norm[NORM_MLP_OUT] && s->post_add) {
        dsum = w->dsum;
        norm_back(be, blk, NORM_MLP_OUT, w->sub[1], w->stat[NORM_MLP_OUT], dy, dsum, b.R, g);
    }
    back_mlp(&b, x, dsum);
    da = s->parallel ? dsum : w->dmid; /* of the sum with attention's output */
    if (s->norm[NORM_ATTN_OUT] && s->post_add)
        norm_back(be, blk, NORM_ATTN_OUT, w->sub[0], w->stat[NORM_ATTN_OUT], da, da, b.R, g);
    dev dproj = sublayer_back(&b, NORM_ATTN_OUT, da);
    back_dw(&b, ROLE_O, w->out, dproj);
    if (!wants_front(g, dx, tap)) return;
    back_attention(&b, B, T, pos0, n1, dproj, input);
    if (!input) return;
    if (s->parallel && !s->norm[NORM_MLP]) be->add(dn1, dn1, w->dmid, count);
    if (s->residual_normed) be->add(dn1, dn1, da, count);
    if (s->norm[NORM_ATTN])
        norm_back(be, blk, NORM_ATTN, x, w->stat[NORM_ATTN], dn1, dx, b.R, g);
    else if (dev_ok(dx))
        be->copy(dx, dn1, count * sizeof(float));
    if (dev_ok(dx) && !s->residual_normed) be->add(dx, dx, da, count);
    if (dev_ok(dx) && s->parallel && s->norm[NORM_MLP]) be->add(dx, dx, w->dmid, count);
}

/* The slopes of Press, Smith, Lewis 2022 as their code has them: a power of two of heads has the powers of
 * 2^(-8/n); other numbers fill up with every second of twice that power of two. */
void block_alibi_slopes(int H, float *slope)
{
    int n = 1;
    while (2 * n <= H) n *= 2;
    for (int h = 0; h < H; h++)
        slope[h] = (float)(h < n ? exp2(-8.0 * (h + 1) / n) : exp2(-4.0 * (2 * (h - n) + 1) / n));
}
