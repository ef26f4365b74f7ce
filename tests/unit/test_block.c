/* SPDX-License-Identifier: Apache-2.0
 * The block against a plain double-precision block: forward, every gradient by central differences of that
 * reference, and the one-token step against whole sequences. Odd head counts, grouped keys, biases, a partial
 * rotation, a window. */
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
    double *w[ROLE_COUNT], *b[ROLE_COUNT], *gain[NORM_COUNT];
    double *cossin; /* [T + pos0, rot] */
    int B, T, pos0;
};

static void ref_linear(const struct ref *f, enum role r, const double *x, double *y, int R)
{
    int out, in;
    role_dims(&f->s, r, &out, &in);
    for (int t = 0; t < R; t++)
        for (int o = 0; o < out; o++) {
            double s = f->b[r] ? f->b[r][o] : 0;
            for (int i = 0; i < in; i++) s += x[t * in + i] * f->w[r][o * in + i];
            y[t * out + o] = s;
        }
}

static void ref_norm(const struct ref *f, enum norm_id n, const double *x, double *y, int R)
{
    int D = f->s.D;
    for (int t = 0; t < R; t++) {
        double ms = 0;
        for (int c = 0; c < D; c++) ms += x[t * D + c] * x[t * D + c] / D;
        for (int c = 0; c < D; c++) y[t * D + c] = x[t * D + c] / sqrt(ms + (double)f->s.eps) * f->gain[n][c];
    }
}

static void ref_rope(const struct ref *f, double *x, int heads, int R)
{
    int E = f->s.E, half = f->s.rot / 2;
    for (int t = 0; t < R; t++)
        for (int h = 0; h < heads; h++)
            for (int i = 0; i < half; i++) {
                const double *cs = f->cossin + (f->pos0 + t % f->T) * f->s.rot;
                double *p = x + (t * heads + h) * E, a = p[i], b = p[i + half];
                p[i] = a * cs[i] - b * cs[half + i], p[i + half] = b * cs[i] + a * cs[half + i];
            }
}

static void ref_attention(const struct ref *f, const double *q, const double *k, const double *v, double *out)
{
    int H = f->s.H, G = f->s.G, E = f->s.E;
    double p[64];
    for (int t = 0; t < f->B * f->T; t++)
        for (int h = 0; h < H; h++) {
            int t0 = t / f->T * f->T, g = h / (H / G);
            double sum = 0;
            if (f->s.window && t - f->s.window + 1 > t0) t0 = t - f->s.window + 1;
            for (int j = t0; j <= t; j++) {
                double dot = 0;
                for (int i = 0; i < E; i++) dot += q[(t * H + h) * E + i] * k[(j * G + g) * E + i];
                sum += p[j - t0] = exp(dot * (double)f->s.scale);
            }
            for (int i = 0; i < E; i++) {
                double o = 0;
                for (int j = t0; j <= t; j++) o += p[j - t0] / sum * v[(j * G + g) * E + i];
                out[(t * H + h) * E + i] = o;
            }
        }
}

static void ref_block(const struct ref *f, const double *x, double *y)
{
    int R = f->B * f->T, D = f->s.D, F = f->s.F, qd = f->s.H * f->s.E, kd = f->s.G * f->s.E;
    double *n = MEM_NEW(double, R *D), *q = MEM_NEW(double, R *qd), *k = MEM_NEW(double, R *kd),
           *v = MEM_NEW(double, R *kd);
    double *o = MEM_NEW(double, R *qd), *g = MEM_NEW(double, R *F), *u = MEM_NEW(double, R *F),
           *a = MEM_NEW(double, R *D);
    ref_norm(f, NORM_ATTN, x, n, R);
    ref_linear(f, ROLE_Q, n, q, R), ref_linear(f, ROLE_K, n, k, R), ref_linear(f, ROLE_V, n, v, R);
    ref_rope(f, q, f->s.H, R), ref_rope(f, k, f->s.G, R);
    ref_attention(f, q, k, v, o);
    ref_linear(f, ROLE_O, o, a, R);
    for (int i = 0; i < R * D; i++) a[i] += x[i];
    ref_norm(f, NORM_MLP, a, n, R);
    ref_linear(f, ROLE_GATE, n, g, R), ref_linear(f, ROLE_UP, n, u, R);
    for (int i = 0; i < R * F; i++) g[i] = g[i] / (1 + exp(-g[i])) * u[i];
    ref_linear(f, ROLE_DOWN, g, y, R);
    for (int i = 0; i < R * D; i++) y[i] += a[i];
    mem_free(n), mem_free(q), mem_free(k), mem_free(v), mem_free(o), mem_free(g), mem_free(u), mem_free(a);
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

static void set_up(struct test *c, struct block_shape s, int B, int T, int pos0, bool bias)
{
    size_t RD = (size_t)B * (size_t)T * (size_t)s.D;
    s.eps = 1e-5f, s.scale = (float)(1 / sqrt(s.E));
    s.norm[NORM_ATTN] = s.norm[NORM_MLP] = s.rms = s.gated = true, s.residual = 1;
    c->f = (struct ref){.s = s, .B = B, .T = T, .pos0 = pos0};
    c->blk.s = s;
    for (int r = 0; r < ROLE_COUNT; r++) {
        int out, in;
        role_dims(&s, r, &out, &in);
        size_t n = (size_t)out * (size_t)in;
        c->f.w[r] = draw(n, 0, 2.0 / sqrt(in), 10 + (uint64_t)r);
        c->blk.w[r] = upload(c->f.w[r], n), c->g.w[r] = be->alloc(n * sizeof(float));
        if (!bias) continue;
        c->f.b[r] = draw((size_t)out, 0, 0.3, 20 + (uint64_t)r);
        c->blk.b[r] = upload(c->f.b[r], (size_t)out), c->g.b[r] = be->alloc((size_t)out * sizeof(float));
    }
    for (int n = 0; n <= NORM_MLP; n++) {
        c->f.gain[n] = draw((size_t)s.D, 1, 0.5, 30 + (uint64_t)n);
        c->blk.gain[n] = upload(c->f.gain[n], (size_t)s.D),
        c->g.gain[n] = be->alloc((size_t)s.D * sizeof(float));
    }
    c->f.cossin = draw((size_t)((T + pos0) * s.rot), 0, 1, 40);
    for (int p = 0; p < T + pos0; p++)
        for (int i = 0; i < s.rot / 2; i++) {
            c->f.cossin[p * s.rot + i] = (double)(float)cos(p * pow(50, -2.0 * i / s.rot));
            c->f.cossin[p * s.rot + s.rot / 2 + i] = (double)(float)sin(p * pow(50, -2.0 * i / s.rot));
        }
    c->blk.cossin = upload(c->f.cossin, (size_t)((T + pos0) * s.rot));
    c->x = draw(RD, 0.1, 1.5, 50), c->dy = draw(RD, 0, 1, 51);
    c->dx_x = upload(c->x, RD), c->dx_dy = upload(c->dy, RD);
    c->y = be->alloc(RD * sizeof(float)), c->dx = be->alloc(RD * sizeof(float));
}

static void tear_down(struct test *c)
{
    for (int r = 0; r < ROLE_COUNT; r++) {
        mem_free(c->f.w[r]), mem_free(c->f.b[r]);
        be->release(c->blk.w[r]), be->release(c->blk.b[r]), be->release(c->g.w[r]), be->release(c->g.b[r]);
    }
    for (int n = 0; n <= NORM_MLP; n++)
        mem_free(c->f.gain[n]), be->release(c->blk.gain[n]), be->release(c->g.gain[n]);
    mem_free(c->f.cossin), mem_free(c->x), mem_free(c->dy);
    be->release(c->blk.cossin), be->release(c->dx_x), be->release(c->dx_dy), be->release(c->y),
        be->release(c->dx);
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
    float *all = MEM_NEW(float, n), some[64];
    double want[64], d;
    be->get(all, got, n * sizeof(float));
    for (size_t i = 0; i < n && m < 64; i += step, m++) {
        double keep = p[i], h = 1e-5, up, down;
        p[i] = keep + h, up = loss(c);
        p[i] = keep - h, down = loss(c);
        p[i] = keep;
        want[m] = (up - down) / (2 * h), some[m] = all[i];
    }
    d = check_rel(some, want, m);
    CHECK(d < 1e-5, "%s: gradient of %s differs by %.1e", c->name, what, d);
    mem_free(all);
}

static int grad_taps;
static void count_grad_tap(void *ctx, enum role r, dev x, dev dy, int R)
{
    (void)ctx, (void)R;
    if (dev_ok(x) && dev_ok(dy)) grad_taps |= 1 << r;
}

static int taps;
static void count_tap(void *ctx, enum site s, dev x, int R, int dim)
{
    const struct test *c = ctx;
    if (dev_ok(x) && R == c->f.B * c->f.T && dim == site_dim(&c->f.s, s)) taps |= 1 << s;
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
    taps = grad_taps = 0;
    block_forward(be, &c->blk, lean, c->f.B, c->f.T, c->f.pos0, c->dx_x, c->y, count_tap, c);
    be->get(got, c->y, n * sizeof(float));
    d = check_rel(got, want, n);
    CHECK(d < 2e-6 && taps == (1 << SITE_COUNT) - 1, "%s: forward differs by %.1e, every input tapped",
          c->name, d);
    check_twice(c, w, want);
    block_forward(be, &c->blk, w, c->f.B, c->f.T, c->f.pos0, c->dx_x, c->y, NULL, NULL);
    be->get(got, c->y, n * sizeof(float));
    d = check_rel(got, want, n);
    CHECK(d < 2e-6, "%s: forward that saves differs by %.1e", c->name, d);
    block_backward(be, &c->blk, w, c->f.B, c->f.T, c->f.pos0, c->dx_x, c->dx_dy, c->dx, &c->g, count_grad_tap,
                   NULL);
    CHECK(grad_taps == (1 << ROLE_COUNT) - 1, "%s: every linear's gradient tapped", c->name);
    for (int r = 0; r < ROLE_COUNT; r++) {
        int out, in;
        role_dims(s, r, &out, &in);
        check_grad(c, role_name(r), c->f.w[r], c->g.w[r], (size_t)out * (size_t)in);
        if (c->f.b[r]) check_grad(c, "a bias", c->f.b[r], c->g.b[r], (size_t)out);
    }
    for (int i = 0; i <= NORM_MLP; i++)
        check_grad(c, norm_name(i), c->f.gain[i], c->g.gain[i], (size_t)s->D);
    check_grad(c, "x", c->x, c->dx, n);
    block_work_free(w), block_work_free(lean);
    mem_free(want), mem_free(got);
}

/* Gains alone, without dx: the same numbers, and added to what is there. */
static void check_gains_only(struct test *c)
{
    const struct block_shape *s = &c->f.s;
    int R = c->f.B * c->f.T;
    float full[256], part[256];
    double twice[256];
    struct block_work *w = block_work_alloc(be, s, R, true);
    struct block_grads g = {.gain = {c->g.gain[0], c->g.gain[1]}};
    for (int n = 0; n <= NORM_MLP; n++) {
        be->get(full, c->g.gain[n], (size_t)s->D * sizeof(float));
        struct block_grads one = {.gain = {n == 0 ? g.gain[0] : DEV_NONE, n == 1 ? g.gain[1] : DEV_NONE}};
        block_forward(be, &c->blk, w, c->f.B, c->f.T, c->f.pos0, c->dx_x, c->y, NULL, NULL);
        block_backward(be, &c->blk, w, c->f.B, c->f.T, c->f.pos0, c->dx_x, c->dx_dy, DEV_NONE, &one, NULL,
                       NULL);
        be->get(part, c->g.gain[n], (size_t)s->D * sizeof(float));
        for (int i = 0; i < s->D; i++) twice[i] = 2.0 * (double)full[i];
        double d = check_rel(part, twice, (size_t)s->D);
        CHECK(d < 1e-6, "%s: %s alone adds the same gradient (%.1e)", c->name, norm_name(n), d);
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
    set_up(&c, s, B, T, pos0, bias);
    check_backward(&c);
    check_gains_only(&c);
    check_step(&c);
    tear_down(&c);
}

int main(int argc, char **argv)
{
    (void)argc;
    backend_early(argv);
    be = backend_open("cpu", 0, false);
    run("grouped keys, biases", (struct block_shape){.D = 24, .H = 6, .G = 2, .E = 6, .F = 20, .rot = 6}, 2,
        7, 0, true);
    run("odd heads, wide heads", (struct block_shape){.D = 15, .H = 3, .G = 1, .E = 10, .F = 9, .rot = 10}, 1,
        11, 3, false);
    run("partial rotation, window",
        (struct block_shape){.D = 16, .H = 2, .G = 2, .E = 8, .F = 40, .rot = 4, .window = 4}, 2, 9, 0,
        false);
    backend_close(be);
    return check_done();
}
