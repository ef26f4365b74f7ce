/* SPDX-License-Identifier: Apache-2.0
 * The block against a plain double-precision block: forward, every gradient by central differences of that
 * reference, and the one-token step against whole sequences. Every flag of struct block_shape. */
#include <stdlib.h>
#include <string.h>
#include "common/block.h"
#include "common/mem.h"
#include "common/rng.h"
#include "tests/check.h"

static struct backend *be;

/* ---- the reference: one struct of host arrays, loops, double ---- */

struct ref {
    struct block_shape s;
    double *w[LINEARS_MAX], *b[ROLE_COUNT], *norm[NORM_VECTORS]; /* gains, biases */
    double *router, *shared_gate;
    double *cossin;                                             /* [T + pos0, rot] */
    double *slopes;
    int B, T, pos0;
};

static void ref_linear(const struct ref *f, int r, const double *x, double *y, int R)
{
    int out, in;
    role_dims(&f->s, r, &out, &in);
    for (int t = 0; t < R; t++)
        for (int o = 0; o < out; o++) {
            double s = r < ROLE_COUNT && f->b[r] ? f->b[r][o] : 0;
            for (int i = 0; i < in; i++) s += x[t * in + i] * f->w[r][o * in + i];
            y[t * out + o] = s;
        }
}

/* R rows of n numbers each by itself; row r has row r % gains of gain and bias. y may be x. */
static void ref_rows(bool rms, const double *gain, const double *bias, int gains, double eps, const double *x,
                     double *y, int R, int n)
{
    for (int t = 0; t < R; t++) {
        const double *row = x + t * n;
        double mean = 0, var = 0;
        for (int c = 0; c < n; c++) mean += rms ? 0 : row[c] / n;
        for (int c = 0; c < n; c++) var += (row[c] - mean) * (row[c] - mean) / n;
        for (int c = 0; c < n; c++) {
            int own = t % gains * n + c;
            y[t * n + c] = (row[c] - mean) / sqrt(var + eps) * gain[own] + (bias ? bias[own] : 0);
        }
    }
}

/* Nothing where the block has no such norm. */
static void ref_norm(const struct ref *f, enum norm_id n, const double *x, double *y, int R)
{
    if (f->s.norm[n])
        ref_rows(f->s.rms, f->norm[n], f->norm[NORM_COUNT + n], 1, (double)f->s.eps, x, y, R, f->s.D);
    else
        memmove(y, x, (size_t)(R * f->s.D) * sizeof *y);
}

static void ref_qk_norm(const struct ref *f, enum norm_id n, double *x, int heads, int R)
{
    const double *gain = f->norm[n], *bias = f->norm[NORM_COUNT + n];
    if (f->s.qk_norm == QK_NORM_WHOLE)
        ref_rows(f->s.qk_rms, gain, bias, 1, (double)f->s.eps, x, x, R, heads * f->s.E);
    else if (f->s.qk_norm != QK_NORM_NONE)
        ref_rows(f->s.qk_rms, gain, bias, f->s.qk_norm == QK_NORM_HEADS ? heads : 1, (double)f->s.eps, x, x,
                 R * heads, f->s.E);
}

static void ref_clip(const struct ref *f, double *x, int n)
{
    double most = (double)f->s.clip;
    for (int i = 0; i < n && most > 0; i++) x[i] = fmin(fmax(x[i], -most), most);
}

static void ref_rope(const struct ref *f, double *x, int heads, int R)
{
    int E = f->s.E, half = f->s.rot / 2;
    for (int t = 0; t < R; t++)
        for (int h = 0; h < heads; h++)
            for (int i = 0; i < half; i++) {
                const double *cs = f->cossin + (f->pos0 + t % f->T) * f->s.rot;
                double *p = x + (t * heads + h) * E, *u = p + (f->s.rot_pairs ? 2 * i : i),
                       *v = f->s.rot_pairs ? u + 1 : u + half, a = *u, b = *v;
                *u = a * cs[i] - b * cs[half + i], *v = b * cs[i] + a * cs[half + i];
            }
}

static void ref_attention(const struct ref *f, const double *q, const double *k, const double *v, double *out)
{
    int H = f->s.H, G = f->s.G, E = f->s.E;
    double p[64], cap = (double)f->s.softcap;
    for (int t = 0; t < f->B * f->T; t++)
        for (int h = 0; h < H; h++) {
            int t0 = t / f->T * f->T, g = h / (H / G);
            double sum = 0;
            if (f->s.window && t - f->s.window + 1 > t0) t0 = t - f->s.window + 1;
            for (int j = t0; j <= t; j++) {
                double dot = 0;
                for (int i = 0; i < E; i++) dot += q[(t * H + h) * E + i] * k[(j * G + g) * E + i];
                dot *= (double)f->s.scale;
                if (cap > 0) dot = cap * tanh(dot / cap);
                if (f->s.alibi) dot += f->slopes[h] * (j % f->T); /* by the key's position, as BLOOM's code */
                sum += p[j - t0] = exp(dot);
            }
            for (int i = 0; i < E; i++) {
                double o = 0;
                for (int j = t0; j <= t; j++) o += p[j - t0] / sum * v[(j * G + g) * E + i];
                out[(t * H + h) * E + i] = o;
            }
        }
}

static double ref_act(enum act act, double x)
{
    switch (act) {
    case ACT_SILU:
        return x / (1 + exp(-x));
    case ACT_GELU:
        return 0.5 * x * erfc(-x / sqrt(2));
    case ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case ACT_RELU:
        return x > 0 ? x : 0;
    case ACT_QUICK_GELU:
        return x / (1 + exp(-1.702 * x));
    default:
        return x > 0 ? x * x : 0;
    }
}

/* o: what attention gives, n: what it reads */
static void ref_attend(const struct ref *f, const double *n, double *o)
{
    int R = f->B * f->T, qd = f->s.H * f->s.E, kd = f->s.G * f->s.E;
    double *q = MEM_NEW(double, R *qd), *k = MEM_NEW(double, R *kd), *v = MEM_NEW(double, R *kd),
           *out = MEM_NEW(double, R *qd);
    ref_linear(f, ROLE_Q, n, q, R), ref_linear(f, ROLE_K, n, k, R), ref_linear(f, ROLE_V, n, v, R);
    ref_clip(f, q, R * qd), ref_clip(f, k, R * kd), ref_clip(f, v, R * kd);
    ref_qk_norm(f, NORM_Q, q, f->s.H, R), ref_qk_norm(f, NORM_K, k, f->s.G, R);
    ref_rope(f, q, f->s.H, R), ref_rope(f, k, f->s.G, R);
    ref_attention(f, q, k, v, out);
    ref_linear(f, ROLE_O, out, o, R);
    mem_free(q), mem_free(k), mem_free(v), mem_free(out);
}

/* One feed-forward: its linears are first, first + 1 (up), first + 2. */
static void ref_feed_of(const struct ref *f, int first, const double *n, double *m, int R)
{
    int F, D;
    role_dims(&f->s, first + 1, &F, &D);
    double *g = MEM_NEW(double, R *F), *u = MEM_NEW(double, R *F);
    ref_linear(f, first + 1, n, u, R);
    if (f->s.gated) ref_linear(f, first, n, g, R);
    for (int i = 0; i < R * F; i++)
        g[i] = f->s.gated ? ref_act(f->s.act, g[i]) * u[i] : ref_act(f->s.act, u[i]);
    ref_linear(f, first + 2, g, m, R);
    mem_free(g), mem_free(u);
}

static double ref_dot(const double *a, const double *b, int n)
{
    double s = 0;
    for (int i = 0; i < n; i++) s += a[i] * b[i];
    return s;
}

/* One token by all experts: those with at least as many likelier ones as it goes to are left out. */
static void ref_token(const struct ref *f, const double *n, double *m)
{
    const struct block_shape *s = &f->s;
    int X = s->experts, D = s->D;
    double p[16], one[64], all = 0, chosen = 0;
    for (int x = 0; x < X; x++) all += p[x] = exp(ref_dot(f->router + x * D, n, D));
    for (int i = 0; i < D; i++) m[i] = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int x = 0; x < X; x++) {
            int likelier = 0;
            for (int k = 0; k < X; k++) likelier += p[k] > p[x];
            if (likelier >= s->per_token) continue;
            if (!pass) {
                chosen += p[x];
                continue;
            }
            ref_feed_of(f, expert_linear(x, ROLE_GATE), n, one, 1);
            for (int i = 0; i < D; i++) m[i] += p[x] / (s->norm_topk ? chosen : all) * one[i];
        }
    if (!s->shared_F) return;
    ref_feed_of(f, expert_linear(X, ROLE_GATE), n, one, 1);
    double mix = f->shared_gate ? 1 / (1 + exp(-ref_dot(f->shared_gate, n, D))) : 1;
    for (int i = 0; i < D; i++) m[i] += mix * one[i];
}

static void ref_feed(const struct ref *f, const double *n, double *m)
{
    int R = f->B * f->T, D = f->s.D;
    if (!f->s.experts) ref_feed_of(f, ROLE_GATE, n, m, R);
    for (int t = 0; t < R && f->s.experts; t++) ref_token(f, n + t * D, m + t * D);
}

/* to = base + residual * part, with the sublayer's norm before or after the sum. */
static void ref_add(const struct ref *f, enum norm_id n, const double *base, double *part, double *to)
{
    int R = f->B * f->T;
    if (!f->s.post_add) ref_norm(f, n, part, part, R);
    for (int i = 0; i < R * f->s.D; i++) to[i] = base[i] + (double)f->s.residual * part[i];
    if (f->s.post_add) ref_norm(f, n, to, to, R);
}

static void ref_block(const struct ref *f, const double *x, double *y)
{
    int R = f->B * f->T, n = R * f->s.D;
    double *n1 = MEM_NEW(double, n), *n2 = MEM_NEW(double, n), *o = MEM_NEW(double, n),
           *a = MEM_NEW(double, n);
    ref_norm(f, NORM_ATTN, x, n1, R);
    ref_attend(f, n1, o);
    ref_add(f, NORM_ATTN_OUT, f->s.residual_normed ? n1 : x, o, a);
    if (f->s.parallel && !f->s.norm[NORM_MLP])
        memcpy(n2, n1, (size_t)n * sizeof *n2);
    else
        ref_norm(f, NORM_MLP, f->s.parallel ? x : a, n2, R);
    ref_feed(f, n2, o);
    ref_add(f, NORM_MLP_OUT, f->s.residual_normed && !f->s.parallel ? n2 : a, o, y);
    mem_free(n1), mem_free(n2), mem_free(o), mem_free(a);
}

/* ---- a random case on both sides ---- */

struct test {
    const char *name;
    struct ref f;
    struct block blk;
    struct block_grads g;
    double *x, *dy; /* dy = weights of the scalar loss sum(dy * y) */
    dev dx_x, dx_dy, y, dx;
};

/* n values that float holds exactly: value 0 + spread * uniform(-1, 1) around mid. */
static double *draw(size_t n, double mid, double spread, uint64_t stream)
{
    double *x = MEM_NEW(double, n);
    for (size_t i = 0; i < n; i++) x[i] = (double)(float)(mid + spread * (2 * rng_uniform(7, stream, i) - 1));
    return x;
}

static dev upload(const double *x, size_t n)
{
    float *f = MEM_NEW(float, n);
    for (size_t i = 0; i < n; i++) f[i] = (float)x[i];
    dev p = be->alloc(n * sizeof(float));
    be->put(p, f, n * sizeof(float));
    mem_free(f);
    return p;
}

static void set_up_norms(struct test *c, bool bias)
{
    const struct block_shape *s = &c->f.s;
    for (int i = 0; i < NORM_VECTORS; i++) {
        size_t n = (size_t)norm_dim(s, i % NORM_COUNT);
        bool qk = !norm_tweaked(i % NORM_COUNT), biased = bias && !(qk ? s->qk_rms : s->rms);
        if (!n || (i >= NORM_COUNT && !biased)) continue;
        c->f.norm[i] = i < NORM_COUNT ? draw(n, 1, 0.5, 30 + (uint64_t)i) : draw(n, 0, 0.5, 60 + (uint64_t)i);
        *(i < NORM_COUNT ? &c->blk.gain[i] : &c->blk.bias[i - NORM_COUNT]) = upload(c->f.norm[i], n);
        *grad_norm_vector(&c->g, i) = be->alloc(n * sizeof(float));
    }
}

static void set_up_positions(struct test *c, int n)
{
    const struct block_shape *s = &c->f.s;
    float slope[64];
    if (s->alibi) {
        block_alibi_slopes(s->H, slope);
        c->f.slopes = MEM_NEW(double, s->H);
        for (int h = 0; h < s->H; h++) c->f.slopes[h] = (double)slope[h];
        c->blk.slopes = upload(c->f.slopes, (size_t)s->H);
    }
    if (!s->rot) return;
    c->f.cossin = MEM_NEW(double, n * s->rot);
    for (int p = 0; p < n; p++)
        for (int i = 0; i < s->rot / 2; i++) {
            c->f.cossin[p * s->rot + i] = (double)(float)cos(p * pow(50, -2.0 * i / s->rot));
            c->f.cossin[p * s->rot + s->rot / 2 + i] = (double)(float)sin(p * pow(50, -2.0 * i / s->rot));
        }
    c->blk.cossin = upload(c->f.cossin, (size_t)(n * s->rot));
}

static void set_up_experts(struct test *c, const struct block_shape *s)
{
    size_t D = (size_t)s->D, n = (size_t)s->experts * D;
    if (!s->experts) return;
    c->f.router = draw(n, 0, 0.7, 70);
    c->blk.router = upload(c->f.router, n), c->g.router = be->alloc(n * sizeof(float));
    if (!s->shared_F || s->norm_topk) return; /* without a gate, too */
    c->f.shared_gate = draw(D, 0, 0.5, 71);
    c->blk.shared_gate = upload(c->f.shared_gate, D), c->g.shared_gate = be->alloc(D * sizeof(float));
}

static void set_up(struct test *c, struct block_shape s, int B, int T, int pos0, bool bias)
{
    size_t RD = (size_t)B * (size_t)T * (size_t)s.D;
    s.eps = 1e-5f, s.scale = (float)(1 / sqrt(s.E));
    c->f = (struct ref){.s = s, .B = B, .T = T, .pos0 = pos0};
    c->blk.s = s;
    for (int r = 0; r < block_linears(&s); r++) {
        int out, in;
        if (!block_has_role(&s, r)) continue;
        role_dims(&s, r, &out, &in);
        size_t n = (size_t)out * (size_t)in;
        c->f.w[r] = draw(n, 0, 2.0 / sqrt(in), (r < ROLE_COUNT ? 10 : 100) + (uint64_t)r);
        c->blk.w[r] = upload(c->f.w[r], n), c->g.w[r] = be->alloc(n * sizeof(float));
        if (!bias || r >= ROLE_COUNT) continue;
        c->f.b[r] = draw((size_t)out, 0, 0.3, 20 + (uint64_t)r);
        c->blk.b[r] = upload(c->f.b[r], (size_t)out), c->g.b[r] = be->alloc((size_t)out * sizeof(float));
    }
    set_up_experts(c, &s);
    set_up_norms(c, bias);
    set_up_positions(c, T + pos0);
    c->x = draw(RD, 0.1, 1.5, 50), c->dy = draw(RD, 0, 1, 51);
    c->dx_x = upload(c->x, RD), c->dx_dy = upload(c->dy, RD);
    c->y = be->alloc(RD * sizeof(float)), c->dx = be->alloc(RD * sizeof(float));
}

static void tear_down(struct test *c)
{
    for (int r = 0; r < LINEARS_MAX; r++)
        mem_free(c->f.w[r]), be->release(c->blk.w[r]), be->release(c->g.w[r]);
    for (int r = 0; r < ROLE_COUNT; r++)
        mem_free(c->f.b[r]), be->release(c->blk.b[r]), be->release(c->g.b[r]);
    mem_free(c->f.router), mem_free(c->f.shared_gate);
    be->release(c->blk.router), be->release(c->blk.shared_gate);
    be->release(c->g.router), be->release(c->g.shared_gate);
    for (int i = 0; i < NORM_VECTORS; i++)
        mem_free(c->f.norm[i]), be->release(block_norm_vector(&c->blk, i)),
            be->release(*grad_norm_vector(&c->g, i));
    mem_free(c->f.cossin), mem_free(c->f.slopes), mem_free(c->x), mem_free(c->dy);
    be->release(c->blk.cossin), be->release(c->blk.slopes), be->release(c->dx_x), be->release(c->dx_dy),
        be->release(c->y), be->release(c->dx);
}

/* ---- gradients ---- */

static double loss(const struct test *c)
{
    size_t n = (size_t)c->f.B * (size_t)c->f.T * (size_t)c->f.s.D;
    double *y = MEM_NEW(double, n), s = 0;
    ref_block(&c->f, c->x, y);
    for (size_t i = 0; i < n; i++) s += y[i] * c->dy[i];
    mem_free(y);
    return s;
}

/* Central differences of the reference for up to 24 elements spread over p[n], against got. */
static void check_grad(const struct test *c, const char *what, double *p, dev got, size_t n)
{
    size_t step = n > 24 ? n / 24 : 1, m = 0;
    float *all = MEM_NEW(float, n), some[65];
    double want[65], d;
    be->get(all, got, n * sizeof(float));
    for (size_t i = 0; i < n && m < 64; i += step, m++) {
        double keep = p[i], h = 1e-5, up, down;
        p[i] = keep + h, up = loss(c);
        p[i] = keep - h, down = loss(c);
        p[i] = keep;
        want[m] = (up - down) / (2 * h), some[m] = all[i];
    }
    want[m] = 0.25, some[m++] = 0.25f; /* the bias of keys may have no effect: a gradient that is but noise */
    d = check_rel(some, want, m);
    CHECK(d < 1e-5, "%s: gradient of %s differs by %.1e", c->name, what, d);
    mem_free(all);
}

static int grad_taps[LINEARS_MAX], taps[SITES_MAX]; /* rows */
static void count_grad_tap(void *ctx, int r, dev x, dev dy, int R)
{
    (void)ctx;
    if (dev_ok(x) && dev_ok(dy)) grad_taps[r] += R;
}

static void count_tap(void *ctx, int s, dev x, int R, int dim)
{
    const struct test *c = ctx;
    if (dev_ok(x) && dim == (s == SITE_MLP ? c->f.s.D : site_dim(&c->f.s, s))) taps[s] += R;
}

/* Every input was seen, whole; those of routed experts so that each token is there as often as it should be. */
static bool all_tapped(const struct test *c)
{
    const struct block_shape *s = &c->f.s;
    int R = c->f.B * c->f.T, routed = 0;
    bool ok = true;
    for (int t = 0; t < block_sites(s); t++)
        if (site_expert(t) < 0 || site_expert(t) >= s->experts)
            ok = ok && taps[t] == (s->experts && t == SITE_DOWN ? 0 : R);
    for (int x = 0; x < s->experts; x++) {
        routed += taps[expert_site(x, SITE_MLP)];
        ok = ok && taps[expert_site(x, SITE_MLP)] == taps[expert_site(x, SITE_DOWN)];
    }
    return ok && routed == R * s->per_token;
}

static bool all_gradients_tapped(const struct test *c)
{
    bool ok = true;
    for (int r = 0; r < block_linears(&c->f.s); r++)
        ok = ok && grad_taps[r] == (block_has_role(&c->f.s, r) ? taps[linear_site(r)] : 0);
    return ok;
}

/* All sequences twice, more rows than w saves: the same output, twice. */
static void check_twice(struct test *c, struct block_work *w, const double *want)
{
    size_t n = (size_t)c->f.B * (size_t)c->f.T * (size_t)c->f.s.D;
    dev x = be->alloc(2 * n * sizeof(float)), y = be->alloc(2 * n * sizeof(float));
    float *got = MEM_NEW(float, 2 * n);
    be->copy(x, c->dx_x, n * sizeof(float)), be->copy(dev_at(x, n), c->dx_x, n * sizeof(float));
    block_forward(be, &c->blk, w, 2 * c->f.B, c->f.T, c->f.pos0, x, y, NULL, NULL);
    be->get(got, y, 2 * n * sizeof(float));
    double d = check_rel(got, want, n);
    CHECK(d < 2e-6 && !memcmp(got, got + n, n * sizeof(float)), "%s: more rows than are saved", c->name);
    be->release(x), be->release(y);
    mem_free(got);
}

static void check_backward(struct test *c)
{
    const struct block_shape *s = &c->f.s;
    int R = c->f.B * c->f.T;
    size_t n = (size_t)R * (size_t)s->D;
    double *want = MEM_NEW(double, n), d;
    float *got = MEM_NEW(float, n);
    struct block_work *w = block_work_alloc_mixed(be, s, 2 * R, R), *lean = block_work_alloc(be, s, R, false);
    ref_block(&c->f, c->x, want);
    memset(taps, 0, sizeof taps), memset(grad_taps, 0, sizeof grad_taps);
    block_forward(be, &c->blk, lean, c->f.B, c->f.T, c->f.pos0, c->dx_x, c->y, count_tap, c);
    be->get(got, c->y, n * sizeof(float));
    d = check_rel(got, want, n);
    CHECK(d < 2e-6 && all_tapped(c), "%s: forward differs by %.1e, every input tapped",
          c->name, d);
    check_twice(c, w, want);
    block_forward(be, &c->blk, w, c->f.B, c->f.T, c->f.pos0, c->dx_x, c->y, NULL, NULL);
    be->get(got, c->y, n * sizeof(float));
    d = check_rel(got, want, n);
    CHECK(d < 2e-6, "%s: forward that saves differs by %.1e", c->name, d);
    block_backward(be, &c->blk, w, c->f.B, c->f.T, c->f.pos0, c->dx_x, c->dx_dy, c->dx, &c->g, count_grad_tap,
                   NULL);
    CHECK(all_gradients_tapped(c), "%s: every linear's gradient tapped", c->name);
    for (int r = 0; r < block_linears(s); r++) {
        int out, in;
        if (!block_has_role(s, r)) continue;
        role_dims(s, r, &out, &in);
        check_grad(c, role_name(r), c->f.w[r], c->g.w[r], (size_t)out * (size_t)in);
        if (r < ROLE_COUNT && c->f.b[r]) check_grad(c, "a bias", c->f.b[r], c->g.b[r], (size_t)out);
    }
    for (int i = 0; i < NORM_VECTORS; i++)
        if (c->f.norm[i])
            check_grad(c, norm_name(i % NORM_COUNT), c->f.norm[i], *grad_norm_vector(&c->g, i),
                       (size_t)norm_dim(s, i % NORM_COUNT));
    if (s->experts) check_grad(c, "the router", c->f.router, c->g.router, (size_t)s->experts * (size_t)s->D);
    if (c->f.shared_gate) check_grad(c, "the shared gate", c->f.shared_gate, c->g.shared_gate, (size_t)s->D);
    check_grad(c, "x", c->x, c->dx, n);
    block_work_free(w), block_work_free(lean);
    mem_free(want), mem_free(got);
}

/* Each vector of the norms alone, without dx, after a forward without y: the same numbers, and added to what
 * is there. */
static void check_norms_only(struct test *c)
{
    const struct block_shape *s = &c->f.s;
    int R = c->f.B * c->f.T;
    float full[256], part[256];
    double twice[256];
    struct block_work *w = block_work_alloc(be, s, R, true);
    for (int i = 0; i < NORM_VECTORS; i++) {
        struct block_grads one = {0};
        size_t n = (size_t)norm_dim(s, i % NORM_COUNT);
        dev to = *grad_norm_vector(&c->g, i);
        if (!dev_ok(to)) continue;
        be->get(full, to, n * sizeof(float));
        *grad_norm_vector(&one, i) = to;
        block_forward(be, &c->blk, w, c->f.B, c->f.T, c->f.pos0, c->dx_x, DEV_NONE, NULL, NULL);
        block_backward(be, &c->blk, w, c->f.B, c->f.T, c->f.pos0, c->dx_x, c->dx_dy, DEV_NONE, &one, NULL,
                       NULL);
        be->get(part, to, n * sizeof(float));
        for (size_t k = 0; k < n; k++) twice[k] = 2.0 * (double)full[k];
        double d = check_rel(part, twice, n);
        CHECK(d < 1e-6, "%s: %s%s alone adds the same gradient (%.1e)", c->name, norm_name(i % NORM_COUNT),
              i < NORM_COUNT ? "" : " bias", d);
    }
    block_work_free(w);
}

/* ---- one token at a time ---- */

static void check_step(struct test *c)
{
    const struct block_shape *s = &c->f.s;
    int B = c->f.B, T = c->f.T, D = s->D, cap = T + 2;
    size_t n = (size_t)B * (size_t)T * (size_t)D,
           cache = (size_t)B * (size_t)cap * (size_t)s->G * (size_t)s->E * sizeof(float);
    float *whole = MEM_NEW(float, n), *row = MEM_NEW(float, B *D), *x = MEM_NEW(float, B *D);
    dev kc = be->alloc(cache), vc = be->alloc(cache), dx = be->alloc((size_t)(B * D) * 4),
        dy = be->alloc((size_t)(B * D) * 4);
    struct block_work *w = block_work_alloc(be, s, B * T, false);
    double worst = 0;
    block_forward(be, &c->blk, w, B, T, 0, c->dx_x, c->y, NULL, NULL);
    be->get(whole, c->y, n * sizeof(float));
    for (int t = 0; t < T; t++) {
        for (int b = 0; b < B; b++)
            for (int i = 0; i < D; i++) x[b * D + i] = (float)c->x[(b * T + t) * D + i];
        be->put(dx, x, (size_t)(B * D) * sizeof(float));
        block_step(be, &c->blk, w, B, t, dx, dy, kc, vc, cap);
        be->get(row, dy, (size_t)(B * D) * sizeof(float));
        for (int b = 0; b < B; b++)
            for (int i = 0; i < D; i++)
                worst = fmax(worst, fabs((double)row[b * D + i] - (double)whole[(b * T + t) * D + i]));
    }
    CHECK(worst < 2e-5, "%s: step by step differs from the whole by %.1e", c->name, worst);
    be->release(kc), be->release(vc), be->release(dx), be->release(dy);
    block_work_free(w);
    mem_free(whole), mem_free(row), mem_free(x);
}

static void run(const char *name, struct block_shape s, int B, int T, int pos0, bool bias)
{
    struct test c = {.name = name};
    if (!s.D) s.D = 16;
    if (!s.G) s.G = 2;
    if (s.residual == 0) s.residual = 1;
    set_up(&c, s, B, T, pos0, bias);
    check_backward(&c);
    check_norms_only(&c);
    check_step(&c);
    tear_down(&c);
}

#define SHAPE(...) ((struct block_shape){__VA_ARGS__}) /* what is not given: see run */
#define PRE_NORMS .norm[NORM_ATTN] = true, .norm[NORM_MLP] = true
#define OUT_NORMS .norm[NORM_ATTN_OUT] = true, .norm[NORM_MLP_OUT] = true
#define QK_NORMS .norm[NORM_Q] = true, .norm[NORM_K] = true

static void run_llama(void)
{
    run("grouped keys, biases",
        SHAPE(.D = 24, .H = 6, .E = 6, .F = 20, .rot = 6, .rms = true, .gated = true, PRE_NORMS), 2, 7, 0,
        true);
    run("odd heads, wide heads",
        SHAPE(.D = 15, .H = 3, .G = 1, .E = 10, .F = 9, .rot = 10, .rms = true, .gated = true, PRE_NORMS), 1,
        11, 3, false);
    run("partial rotation, window",
        SHAPE(.H = 2, .E = 8, .F = 40, .rot = 4, .window = 4, .rms = true, .gated = true, PRE_NORMS), 2, 9, 0,
        false);
}

#define EXPERTS .D = 20, .H = 2, .E = 8, .rot = 8, .rms = true, .gated = true, PRE_NORMS
static void run_experts(void)
{
    run("two of five experts", SHAPE(EXPERTS, .experts = 5, .per_token = 2, .expert_F = 14, .norm_topk = true), 2, 7,
        0, false);
    run("three of four, not divided, a shared one",
        SHAPE(EXPERTS, .experts = 4, .per_token = 3, .expert_F = 9, .shared_F = 17), 1, 9, 0, true);
    run("one of eleven: some get nothing, a shared one without gate",
        SHAPE(EXPERTS, .experts = 11, .per_token = 1, .expert_F = 6, .shared_F = 4, .norm_topk = true), 1, 5, 0, false);
    run("experts without gate, norms after, residual multiplier",
        SHAPE(.D = 12, .H = 2, .E = 6, .rms = true, .act = ACT_GELU, PRE_NORMS, OUT_NORMS, .residual = 0.6f,
              .experts = 3, .per_token = 2, .expert_F = 8),
        1, 6, 0, false);
    run("experts, parallel", SHAPE(EXPERTS, .parallel = true, .experts = 3, .per_token = 2, .expert_F = 8), 1, 6, 0,
        false);
}

static void run_families(void)
{
    run("LayerNorm, plain GELU (GPT-2)", SHAPE(.H = 2, .E = 8, .F = 20, .act = ACT_GELU_TANH, PRE_NORMS), 2,
        7, 0, true);
    run("LayerNorm without bias, ReLU^2",
        SHAPE(.H = 4, .E = 6, .F = 20, .rot = 6, .act = ACT_RELU2, .rot_pairs = true, PRE_NORMS), 2, 7, 2,
        false);
    run("parallel with two norms, partial rotation (GPT-NeoX)",
        SHAPE(.H = 2, .E = 8, .F = 24, .rot = 2, .act = ACT_GELU, .parallel = true, PRE_NORMS), 2, 7, 0,
        true);
    run("parallel with one norm (Phi-2), norms of heads with biases",
        SHAPE(.H = 4, .E = 6, .F = 24, .rot = 4, .act = ACT_GELU_TANH, .parallel = true,
              .qk_norm = QK_NORM_HEAD, .norm[NORM_ATTN] = true, QK_NORMS),
        2, 7, 0, true);
    run("parallel, gated, a gain for every head (Cohere)",
        SHAPE(.H = 4, .E = 6, .F = 12, .rot = 6, .rot_pairs = true, .gated = true, .parallel = true,
              .qk_norm = QK_NORM_HEADS, .norm[NORM_ATTN] = true, QK_NORMS),
        2, 7, 0, false);
    run("norms of what is added alone, of whole q and k (OLMo 2)",
        SHAPE(.H = 4, .E = 6, .F = 12, .rot = 6, .rms = true, .gated = true, .qk_norm = QK_NORM_WHOLE,
              .qk_rms = true, OUT_NORMS, QK_NORMS),
        2, 7, 0, false);
    run("four norms, soft cap, window (Gemma 2)",
        SHAPE(.H = 4, .E = 6, .F = 12, .rot = 6, .rms = true, .gated = true, .act = ACT_GELU_TANH,
              .softcap = 1, .window = 3, PRE_NORMS, OUT_NORMS),
        2, 7, 0, false);
    run("six norms (Gemma 3)",
        SHAPE(.H = 3, .G = 1, .E = 6, .F = 12, .rot = 6, .rms = true, .gated = true, .act = ACT_GELU_TANH,
              .qk_norm = QK_NORM_HEAD, .qk_rms = true, PRE_NORMS, OUT_NORMS, QK_NORMS),
        1, 9, 0, false);
    run("norms of the sums (OPT 350m)",
        SHAPE(.H = 2, .E = 8, .F = 20, .act = ACT_RELU, .post_add = true, OUT_NORMS), 2, 7, 0, true);
    run("norms' outputs are added to, ALiBi of 6 heads (BLOOM)",
        SHAPE(.H = 6, .G = 6, .E = 4, .F = 20, .act = ACT_GELU_TANH, .alibi = true, .residual_normed = true,
              PRE_NORMS),
        2, 9, 0, true);
    run("no rotation, ALiBi of 5 heads, parallel (Falcon)",
        SHAPE(.H = 5, .G = 1, .E = 4, .F = 20, .act = ACT_GELU, .alibi = true, .parallel = true,
              .norm[NORM_ATTN] = true),
        2, 9, 0, false);
    run("residual multiplier (Granite)",
        SHAPE(.H = 2, .E = 8, .F = 20, .rot = 8, .rms = true, .gated = true, .residual = 0.22f, PRE_NORMS), 2,
        7, 0, true);
}

/* What no family has, but the flags allow. */
static void run_mixtures(void)
{
    run("one norm of what is added, residual multiplier",
        SHAPE(.H = 2, .E = 8, .F = 20, .rot = 8, .rms = true, .gated = true, .act = ACT_QUICK_GELU,
              .residual = 0.5f, .norm[NORM_ATTN_OUT] = true, PRE_NORMS),
        2, 7, 0, true);
    run("q k v clamped (OLMo)",
        SHAPE(.H = 4, .E = 6, .F = 20, .rot = 6, .gated = true, .clip = 0.7f, PRE_NORMS), 2, 7, 0, false);
    run("q k v clamped before norms of heads, no rotation",
        SHAPE(.H = 4, .E = 6, .F = 20, .clip = 0.9f, .qk_norm = QK_NORM_HEAD, .qk_rms = true, PRE_NORMS, QK_NORMS),
        2, 6, 0, true);
    run("norms of sums and multiplier",
        SHAPE(.H = 2, .E = 8, .F = 20, .rot = 8, .gated = true, .act = ACT_RELU, .residual = 0.5f,
              .post_add = true, PRE_NORMS, OUT_NORMS),
        2, 7, 0, true);
    run("parallel, norms' outputs are added to, soft cap with slopes",
        SHAPE(.H = 2, .E = 8, .F = 20, .act = ACT_GELU, .parallel = true, .residual_normed = true,
              .alibi = true, .softcap = 0.8f, PRE_NORMS, OUT_NORMS),
        2, 7, 0, true);
    run("no norm at all", SHAPE(.H = 2, .E = 8, .F = 20, .act = ACT_SILU), 2, 7, 0, true);
}

static void check_slopes(void)
{
    /* transformers 5.23, build_alibi_tensor, 6 heads */
    static const double want[6] = {0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125};
    float got[6];
    block_alibi_slopes(6, got);
    CHECK(check_rel(got, want, 6) == 0, "ALiBi slopes of 6 heads");
}

int main(int argc, char **argv)
{
    (void)argc;
    backend_early(argv);
    be = backend_open("cpu", 0, false);
    run_llama();
    run_experts();
    run_families();
    run_mixtures();
    check_slopes();
    backend_close(be);
    return check_done();
}
