/* SPDX-License-Identifier: Apache-2.0
 * Every operation but attention against double-precision loops, at odd shapes. */
#include "tests/check.h"
#include "tests/ops/host.h"
#include "tests/ops/ref.h"

static struct backend *be;

static void test_memory(void)
{
    float in[5] = {1, 2, 3, 4, 5}, out[5];
    dev a = be->alloc(20), b = be->alloc(20);
    be->get(out, a, 20);
    CHECK(out[0] == 0 && out[4] == 0, "alloc: zeroed");
    CHECK(a.at % 64 == 0, "alloc: aligned");
    be->put(a, in, 20);
    be->copy(dev_at(b, 1), dev_at(a, 2), 12);
    be->get(out, b, 20);
    CHECK(out[0] == 0 && out[1] == 3 && out[3] == 5 && out[4] == 0, "put, copy with offsets, get");
    be->fill(b, 7, 4);
    be->get(out, b, 20);
    CHECK(out[0] == 7 && out[3] == 7 && out[4] == 0, "fill");
    be->release(DEV_NONE);
    be->release(a);
    be->release(b);
}

static void test_gemm(void)
{
    static const int shapes[][3] = {{1, 1, 1},       {7, 5, 3},      {1, 130, 64},    {33, 517, 65},
                                    {130, 70, 300},  {300, 290, 17}, {16, 1030, 96},  {520, 640, 8},
                                    {64, 64, 64},    {300, 401, 70}, {529, 640, 129}, {290, 500, 1021},
                                    {303, 130, 1024}};
    for (int i = 0; i < (int)(sizeof shapes / sizeof *shapes); i++) {
        double worst = 0;
        for (int mode = 0; mode < 4; mode++) {
            bool ta = mode & 1, tb = mode & 2;
            int M = shapes[i][0], N = shapes[i][1], K = shapes[i][2], pad = mode ? 3 : 0;
            int lda = (ta ? M : K) + pad, ldb = (tb ? K : N) + pad, ldc = N + pad;
            double beta = mode == 1 ? 1 : mode == 2 ? 0.5 : 0, alpha = mode == 3 ? -2 : 1;
            struct arr a, b, c;
            arr_use(be);
            a = arr_random((size_t)(ta ? K : M) * lda, 1);
            b = arr_random((size_t)(tb ? N : K) * ldb, 1);
            c = arr_random((size_t)M * ldc, 1);
            be->gemm(ta, tb, M, N, K, (float)alpha, a.p, lda, b.p, ldb, (float)beta, c.p, ldc);
            ref_gemm(ta, tb, M, N, K, alpha, a.d, lda, b.d, ldb, beta, c.d, ldc);
            worst = fmax(worst, arr_err(&c)); /* the padding too: it must be untouched */
            arr_free_all();
        }
        CHECK(worst < 1e-5, "gemm %dx%dx%d, four transposes, alpha, beta, odd strides: %.1e", shapes[i][0],
              shapes[i][1], shapes[i][2], worst);
    }
}

static void test_gemm_beta_zero(void)
{
    struct arr a, b, c;
    arr_use(be);
    a = arr_random(33 * 20, 1), b = arr_random(20 * 40, 1), c = arr_zero(33 * 40);
    be->fill(c.p, NAN, c.n);
    be->gemm(false, false, 33, 40, 20, 1, a.p, 20, b.p, 40, 0, c.p, 40);
    ref_gemm(false, false, 33, 40, 20, 1, a.d, 20, b.d, 40, 0, c.d, 40);
    CHECK(arr_err(&c) < 1e-5, "gemm with beta 0 does not read C");
    arr_free_all();
}

static void test_gram(void)
{
    static const int shapes[][2] = {{1, 8}, {7, 64}, {130, 200}, {50, 577}, {2100, 130}};
    for (int i = 0; i < 5; i++) {
        int R = shapes[i][0], D = shapes[i][1];
        double worst = 0, top = 0;
        struct arr x, h;
        arr_use(be);
        x = arr_random((size_t)R * D, 1), h = arr_random((size_t)D * D, 1);
        be->gram(R, D, x.p, h.p);
        ref_gemm(true, false, D, D, R, 1, x.d, D, x.d, D, 1, h.d, D);
        arr_fetch(&h);
        for (int r = 0; r < D; r++)
            for (int c = 0; c <= r; c++) {
                worst = fmax(worst, fabs(h.f[r * D + c] - h.d[r * D + c]));
                top = fmax(top, fabs(h.d[r * D + c]));
            }
        CHECK(worst < 1e-5 * top, "gram %dx%d: lower triangle, added", R, D);
        arr_free_all();
    }
}

static void test_act(enum act kind, struct arr *g, struct arr *u, struct arr *b, size_t n)
{
    static const char *const name[] = {"silu", "gelu", "gelu_tanh", "relu", "quick_gelu", "relu2"};
    struct arr h = arr_zero(n), dg = arr_zero(n), du = arr_zero(n), gate = arr_zero(n), up = arr_zero(n);
    for (int gated = 0; gated < 2; gated++) {
        be->act(kind, h.p, g->p, gated ? u->p : DEV_NONE, n);
        for (size_t j = 0; j < n; j++) h.d[j] = ref_act(kind, g->d[j]) * (gated ? u->d[j] : 1);
        double fwd = arr_err(&h);
        be->act_back(kind, dg.p, du.p, b->p, g->p, gated ? u->p : DEV_NONE, n);
        for (size_t j = 0; j < n; j++) {
            dg.d[j] = b->d[j] * (gated ? u->d[j] : 1) * ref_act_slope(kind, g->d[j]);
            du.d[j] = gated ? b->d[j] * ref_act(kind, g->d[j]) : 0;
        }
        CHECK(fwd < 1e-6 && arr_err(&dg) < 2e-6 && arr_err(&du) < 2e-6, "%s n=%zu %s: %.0e, back %.0e %.0e",
              name[kind], n, gated ? "gated" : "plain", fwd, arr_err(&dg), arr_err(&du));
        be->copy(gate.p, g->p, n * 4), be->copy(up.p, u->p, n * 4);
        be->act_back(kind, gate.p, up.p, b->p, gate.p, gated ? up.p : DEV_NONE, n);
        arr_fetch(&dg), arr_fetch(&du), arr_fetch(&gate), arr_fetch(&up);
        CHECK(!memcmp(gate.f, dg.f, n * 4) && (!gated || !memcmp(up.f, du.f, n * 4)),
              "%s back in place: same bytes", name[kind]);
        be->fill(du.p, 0, n);
    }
}

/* GELU far out: either tail is right to the last digits but few, not only beside the largest value. */
static void test_gelu_tails(void)
{
    enum { N = 4000 };
    struct arr x, y;
    double worst = 0;
    arr_use(be);
    x = arr_zero(N), y = arr_zero(N);
    for (int i = 0; i < N; i++) x.d[i] = x.f[i] = -10 + 0.005f * (float)i;
    be->put(x.p, x.f, N * sizeof(float));
    be->act(ACT_GELU, y.p, x.p, DEV_NONE, N);
    arr_fetch(&y);
    for (int i = 0; i < N; i++) {
        double want = ref_act(ACT_GELU, x.d[i]);
        if (want != 0) worst = fmax(worst, fabs(y.f[i] / want - 1));
    }
    CHECK(worst < 8e-6, "gelu between -10 and 10: relative error %.1e", worst);
    arr_free_all();
}

static void test_clamp(void)
{
    struct arr x, d;
    int ends = 0;
    arr_use(be);
    x = arr_random(4096 + 7, 1), d = arr_random(x.n, 1);
    be->clamp(x.p, 0.5f, x.n);
    for (size_t i = 0; i < x.n; i++) {
        bool end = fabs(x.d[i]) > 0.5;
        ends += end;
        x.d[i] = fmin(fmax(x.d[i], -0.5), 0.5);
        if (end) d.d[i] = 0;
    }
    double fwd = arr_err(&x);
    be->clamp_back(d.p, x.p, 0.5f, x.n);
    CHECK(ends > 100 && ends < (int)x.n - 100 && !(fwd > 0) && !(arr_err(&d) > 0),
          "clamp: %d of %zu at an end, differ by %.0e, back %.0e", ends, x.n, fwd, arr_err(&d));
    arr_free_all();
}

static void test_softcap(void)
{
    struct arr z, d;
    double small = 0;
    arr_use(be);
    z = arr_random(16384 + 5, 90), d = arr_random(z.n, 1);
    for (size_t i = 0; i < 100; i++) z.f[i] = (float)(z.d[i] = 1e-4 * (double)i);
    be->put(z.p, z.f, z.n * sizeof(float));
    be->softcap(z.p, 30, z.n);
    for (size_t i = 0; i < z.n; i++) {
        double t = tanh(z.f[i] / 30.0);
        z.d[i] = 30 * t, d.d[i] *= 1 - t * t;
    }
    double fwd = arr_err(&z);
    for (size_t i = 1; i < 100; i++) small = fmax(small, fabs(z.f[i] / z.d[i] - 1));
    be->softcap_back(d.p, z.p, 30, z.n);
    CHECK(fwd < 3e-7 && small < 3e-7 && arr_err(&d) < 1e-6, "softcap %.0e, near zero %.0e, back %.0e", fwd,
          small, arr_err(&d));
    arr_free_all();
}

static void test_elementwise(void)
{
    static const size_t sizes[] = {1, 7, 130, 16384 + 3, 100003};
    for (int i = 0; i < 5; i++) {
        size_t n = sizes[i];
        struct arr a, b, c, g, u;
        arr_use(be);
        a = arr_random(n, 2), b = arr_random(n, 2), c = arr_zero(n), g = arr_random(n, 30),
        u = arr_random(n, 2);
        be->add(c.p, a.p, b.p, n);
        for (size_t j = 0; j < n; j++) c.d[j] = a.d[j] + b.d[j];
        CHECK(arr_err(&c) < 1e-7, "add n=%zu", n);
        be->add(a.p, a.p, b.p, n);
        be->add(b.p, c.p, b.p, n);
        for (size_t j = 0; j < n; j++) a.d[j] = c.d[j], b.d[j] += c.d[j];
        CHECK(arr_err(&a) < 1e-7 && arr_err(&b) < 2e-7, "add onto its own inputs");
        be->axpy(a.p, -0.25f, u.p, n);
        for (size_t j = 0; j < n; j++) a.d[j] -= 0.25 * u.d[j];
        CHECK(arr_err(&a) < 2e-7, "axpy");
        for (int kind = 0; kind < ACT_COUNT; kind++) test_act(kind, &g, &u, &b, n);
        arr_free_all();
    }
}

static void test_swiglu_extremes(void)
{
    float in[6] = {-INFINITY, -200, -88, 88, 200, 0}, one[6] = {1, 1, 1, 1, 1, 1}, out[6];
    dev g = be->alloc(24), u = be->alloc(24), h = be->alloc(24);
    be->put(g, in, 24), be->put(u, one, 24);
    be->act(ACT_SILU, h, g, u, 6);
    be->get(out, h, 24);
    CHECK(fabsf(out[1]) < 1e-30 && fabsf(out[2]) < 1e-30 && out[3] == 88 && out[4] == 200 && out[5] == 0,
          "swiglu at large magnitudes");
    be->release(g), be->release(u), be->release(h);
}

static void test_bias(void)
{
    static const int shapes[][2] = {{1, 8}, {7, 80}, {130, 577}};
    for (int i = 0; i < 3; i++) {
        int R = shapes[i][0], D = shapes[i][1];
        struct arr y, b, s;
        arr_use(be);
        y = arr_random((size_t)R * D, 1), b = arr_random(D, 1), s = arr_random(D, 1);
        be->sum_rows(s.p, y.p, R, D);
        be->add_bias(y.p, b.p, R, D);
        for (int r = 0; r < R; r++)
            for (int c = 0; c < D; c++) {
                s.d[c] += y.d[r * D + c];
                y.d[r * D + c] += b.d[c];
            }
        CHECK(arr_err(&y) < 1e-7 && arr_err(&s) < 2e-6, "add_bias, sum_rows %dx%d", R, D);
        struct arr w = arr_random(R, 1), z = arr_zero((size_t)R * D), dot = arr_zero(R);
        be->scale_rows(z.p, y.p, w.p, R, D);
        be->dot_rows(dot.p, z.p, y.p, R, D);
        for (int r = 0; r < R; r++)
            for (int c = 0; c < D; c++) {
                z.d[r * D + c] = w.d[r] * y.d[r * D + c];
                dot.d[r] += z.d[r * D + c] * y.d[r * D + c];
            }
        CHECK(arr_err(&z) < 1e-6 && arr_err(&dot) < 1e-6, "scale_rows, dot_rows %dx%d", R, D);
        arr_free_all();
    }
}

static void test_norm(void)
{
    static const int shapes[][2] = {{1, 8}, {7, 64}, {130, 577}, {3, 80}};
    for (int i = 0; i < 16; i++) {
        int R = shapes[i / 4][0], D = shapes[i / 4][1];
        bool rms = i & 1, bias = i & 2;
        struct arr x, g, b, y, st, dy, dx, dg, db;
        double *dgain2, err[5];
        arr_use(be);
        x = arr_random((size_t)R * D, 3), g = arr_random(D, 1), b = arr_random(D, 1),
        y = arr_zero((size_t)R * D);
        st = arr_zero(2 * (size_t)R), dy = arr_random((size_t)R * D, 1), dx = arr_zero((size_t)R * D);
        dg = arr_random(D, 1), db = arr_random(D, 1);
        be->norm(rms, y.p, st.p, x.p, g.p, bias ? b.p : DEV_NONE, 1, R, D, 1e-5f);
        ref_norm(rms, y.d, x.d, g.d, bias ? b.d : NULL, R, D, 1e-5);
        err[0] = arr_err(&y);
        be->norm_back(rms, dx.p, dg.p, bias ? db.p : DEV_NONE, dy.p, x.p, st.p, g.p, 1, R, D);
        dgain2 = bias ? db.d : calloc(D, sizeof(double));
        ref_norm_back(rms, dx.d, dg.d, dgain2, dy.d, x.d, g.d, R, D, 1e-5);
        if (!bias) free(dgain2);
        err[1] = arr_err(&dx), err[2] = arr_err(&dg), err[3] = arr_err(&db);
        be->norm_back(rms, DEV_NONE, dg.p, DEV_NONE, dy.p, x.p, st.p, g.p, 1, R, D);
        be->norm_back(rms, dy.p, DEV_NONE, DEV_NONE, dy.p, x.p, st.p, g.p, 1, R, D);
        arr_fetch(&dy);
        err[4] = check_rel(dy.f, dx.d, dx.n);
        CHECK(err[0] < 1e-6 && err[1] < 3e-6 && err[2] < 3e-6 && err[3] < 3e-6 && err[4] < 3e-6,
              "norm and back %dx%d %s%s: %.0e %.0e %.0e %.0e", R, D, rms ? "rms" : "layer",
              bias ? " bias" : "", err[0], err[1], err[2], err[3]);
        arr_free_all();
    }
}

/* Rows with gains of their own, r % 3: as three norms of every third row. */
static void test_norm_gains(void)
{
    enum { G = 3, R = 64 * G * 2 + G, D = 24 };
    for (int rms = 0; rms < 2; rms++) {
        struct arr x, g, b, y, st, dy, dx, dg, db;
        arr_use(be);
        x = arr_random(R * D, 3), g = arr_random(G * D, 1), b = arr_random(G * D, 1), y = arr_zero(R * D);
        st = arr_zero(2 * R), dy = arr_random(R * D, 1), dx = arr_zero(R * D), dg = arr_random(G * D, 1);
        db = arr_random(G * D, 1);
        be->norm(rms, y.p, st.p, x.p, g.p, b.p, G, R, D, 1e-5f);
        be->norm_back(rms, dx.p, dg.p, db.p, dy.p, x.p, st.p, g.p, G, R, D);
        for (int r = 0; r < R; r++) {
            size_t at = (size_t)r * D, own = (size_t)(r % G) * D;
            ref_norm(rms, y.d + at, x.d + at, g.d + own, b.d + own, 1, D, 1e-5);
            ref_norm_back(rms, dx.d + at, dg.d + own, db.d + own, dy.d + at, x.d + at, g.d + own, 1, D, 1e-5);
        }
        CHECK(arr_err(&y) < 1e-6 && arr_err(&dx) < 3e-6 && arr_err(&dg) < 3e-6 && arr_err(&db) < 3e-6,
              "norm of heads, each with its gain, %s", rms ? "rms" : "layer");
        be->norm(rms, x.p, st.p, x.p, g.p, b.p, G, R, D, 1e-5f);
        arr_fetch(&x);
        CHECK(!memcmp(x.f, y.f, R * D * sizeof(float)), "norm in place: same bytes");
        arr_free_all();
    }
}

static void test_norm_differences(void)
{
    /* the reference backward itself, against central differences of the reference forward */
    enum { R = 3, D = 10 };
    for (int rms = 0; rms < 2; rms++) {
        double worst = 0, y[2][R * D], dg[D] = {0}, db[D] = {0}, dx[R * D];
        struct arr x, g, b, dy;
        arr_use(be);
        x = arr_random(R * D, 2), g = arr_random(D, 1), b = arr_random(D, 1), dy = arr_random(R * D, 1);
        ref_norm_back(rms, dx, dg, db, dy.d, x.d, g.d, R, D, 1e-5);
        for (int i = 0; i < R * D + 2 * D; i++) {
            double *at = i < R * D       ? &x.d[i]
                         : i < R * D + D ? &g.d[i - R * D]
                                         : &b.d[i - R * D - D],
                   old = *at, num = 0;
            double want = i < R * D ? dx[i] : i < R * D + D ? dg[i - R * D] : db[i - R * D - D];
            for (int s = 0; s < 2; s++) {
                *at = old + (s ? 1e-5 : -1e-5);
                ref_norm(rms, y[s], x.d, g.d, b.d, R, D, 1e-5);
            }
            *at = old;
            for (int j = 0; j < R * D; j++) num += dy.d[j] * (y[1][j] - y[0][j]) / 2e-5;
            worst = fmax(worst, fabs(num - want));
        }
        CHECK(worst < 1e-7, "reference norm_back (%s) agrees with differences: %.0e", rms ? "rms" : "layer",
              worst);
        arr_free_all();
    }
}

static void test_embed(void)
{
    static const int shapes[][3] = {{1, 8, 5}, {130, 80, 11}, {7, 577, 40}};
    for (int i = 0; i < 3; i++) {
        int R = shapes[i][0], D = shapes[i][1], V = shapes[i][2];
        struct arr x, t, id, dt, dx;
        arr_use(be);
        x = arr_zero((size_t)R * D), t = arr_random((size_t)V * D, 1), id = arr_ids(R, V);
        dt = arr_random((size_t)V * D, 1), dx = arr_random((size_t)R * D, 1);
        be->embed(x.p, t.p, id.p, R, D);
        be->embed_back(dt.p, dx.p, id.p, R, D);
        for (int r = 0; r < R; r++)
            for (int c = 0; c < D; c++) {
                x.d[r * D + c] = t.d[(int)id.d[r] * D + c];
                dt.d[(int)id.d[r] * D + c] += dx.d[r * D + c];
            }
        CHECK(arr_err(&x) == 0 && arr_err(&dt) < 2e-6, "embed, embed_back %dx%d", R, D);
        arr_free_all();
    }
}

/* Columns v0..v0+n-1 of z[R,V] on the device. */
static dev tile(const struct arr *z, int R, int V, int v0, int n, float *buf)
{
    dev p = be->alloc((size_t)R * n * 4);
    for (int r = 0; r < R; r++) memcpy(buf + (size_t)r * n, z->f + (size_t)r * V + v0, (size_t)n * 4);
    be->put(p, buf, (size_t)R * n * 4);
    return p;
}

static void head_case(int R, int V, int step)
{
    struct arr z, q, id, st, best, kst, lse, lseq;
    float *buf = calloc((size_t)R * V, 4);
    double worst_ce = 0, worst_kl = 0, worst_back = 0;
    int wrong = 0;
    arr_use(be);
    z = arr_random((size_t)R * V, 20), q = arr_random((size_t)R * V, 20), id = arr_ids(R, V);
    st = arr_zero(4 * (size_t)R), best = arr_zero(2 * (size_t)R), kst = arr_zero(6 * (size_t)R);
    lse = arr_zero(R), lseq = arr_zero(R);
    ((int32_t *)id.f)[0] = -1, id.d[0] = -1;
    be->put(id.p, id.f, (size_t)R * 4);
    z.f[V - 1] = z.f[V / 2] = 21, z.d[V - 1] = z.d[V / 2] = 21; /* a tie: the lowest wins */
    be->head_init(st.p, best.p, R);
    be->kl_init(kst.p, R);
    for (int v0 = 0; v0 < V; v0 += step) {
        int n = V - v0 < step ? V - v0 : step;
        dev a = tile(&z, R, V, v0, n, buf), b = tile(&q, R, V, v0, n, buf);
        be->head_fold(st.p, best.p, a, id.p, R, n, v0);
        be->kl_fold(kst.p, a, b, R, n);
        be->release(a), be->release(b);
    }
    arr_fetch(&st), arr_fetch(&best), arr_fetch(&kst);
    for (int r = 0; r < R; r++) {
        const double *zr = z.d + (size_t)r * V, *qr = q.d + (size_t)r * V;
        double lp = ref_lse(zr, V), lq = ref_lse(qr, V), kl = 0, got;
        const float *s = st.f + 4 * r, *k = kst.f + 6 * r;
        int arg = 0, t = (int)id.d[r];
        for (int i = 0; i < V; i++) {
            if (zr[i] > zr[arg]) arg = i;
            kl += exp(zr[i] - lp) * ((zr[i] - lp) - (qr[i] - lq));
        }
        worst_ce = fmax(worst_ce, fabs(s[0] + log(s[1]) - lp) / fabs(lp));
        wrong += ((int32_t *)best.f)[2 * r] != arg || best.f[2 * r + 1] != (float)zr[arg] ||
                 (t >= 0 && s[2] != (float)zr[t]);
        got = k[4] / k[1] - ((k[0] + log(k[1])) - (k[2] + log(k[3])));
        worst_kl = fmax(worst_kl, fabs(got - kl) / (1 + kl));
        lse.f[r] = (float)lp, lseq.f[r] = (float)lq;
    }
    be->put(lse.p, lse.f, (size_t)R * 4), be->put(lseq.p, lseq.f, (size_t)R * 4);
    for (int v0 = 0; v0 < V; v0 += step) {
        int n = V - v0 < step ? V - v0 : step;
        for (int kl = 0; kl < 2; kl++) {
            dev a = tile(&z, R, V, v0, n, buf), b = tile(&q, R, V, v0, n, buf);
            if (kl)
                be->kl_back(b, a, lseq.p, lse.p, R, n, 0.5f);
            else
                be->ce_back(a, lse.p, id.p, R, n, v0, 0.5f);
            be->get(buf, kl ? b : a, (size_t)R * n * 4);
            for (int i = 0; i < R * n; i++) {
                int r = i / n, c = v0 + i % n, t = (int)id.d[r];
                double p = exp(z.d[(size_t)r * V + c] - lse.f[r]),
                       s = exp(q.d[(size_t)r * V + c] - lseq.f[r]);
                double want = kl ? 0.5 * (s - p) : t < 0 ? 0 : 0.5 * (p - (c == t));
                worst_back = fmax(worst_back, fabs(buf[i] - want));
            }
            be->release(a), be->release(b);
        }
    }
    CHECK(worst_ce < 1e-6 && !wrong, "head_fold %dx%d in tiles of %d: lse %.0e, argmax, target", R, V, step,
          worst_ce);
    CHECK(worst_kl < 3e-6, "kl_fold: %.0e", worst_kl);
    CHECK(worst_back < 1e-6, "ce_back, kl_back: %.0e", worst_back);
    free(buf);
    arr_free_all();
}

static void test_stats(void)
{
    static const int shapes[][2] = {{1, 8}, {7, 80}, {130, 577}};
    for (int i = 0; i < 3; i++) {
        int R = shapes[i][0], D = shapes[i][1];
        struct arr x, f, w, dq, y, b;
        double *got = malloc(sizeof(double) * 6 * D), worst = 0, mom = 0, diff = 0;
        dev acc = be->alloc(sizeof(double) * 6 * D), mv = be->alloc(sizeof(double) * 2 * D);
        arr_use(be);
        x = arr_random((size_t)R * D, 4), f = arr_random((size_t)R * D, 4), w = arr_random(D, 1);
        dq = arr_zero((size_t)R * D), y = arr_zero((size_t)R * D), b = arr_random(D, 1);
        be->channel_stats(acc, x.p, R, D);
        be->channel_stats(acc, f.p, R, D);
        be->get(got, acc, sizeof(double) * 6 * D);
        for (int c = 0; c < D; c++) {
            double s[6] = {0};
            for (int r = 0; r < 2 * R; r++) {
                double v = (r < R ? x.d : f.d)[(size_t)(r % R) * D + c];
                for (int k = 0; k < 5; k++) s[k] += k == 1 ? fabs(v) : pow(v, k == 0 ? 1 : k);
                s[5] = fmax(s[5], fabs(v));
            }
            for (int k = 0; k < 6; k++) worst = fmax(worst, fabs(got[k * D + c] - s[k]) / (1 + fabs(s[k])));
        }
        be->channel_moments(mv, x.p, R, D);
        be->get(got, mv, sizeof(double) * 2 * D);
        for (int c = 0; c < D; c++) {
            double m = 0, v = 0;
            for (int r = 0; r < R; r++) m += x.d[(size_t)r * D + c] / R;
            for (int r = 0; r < R; r++) v += pow(x.d[(size_t)r * D + c] - m, 2) / R;
            mom = fmax(mom, fabs(got[c] - m) + fabs(got[D + c] - v));
        }
        CHECK(worst < 1e-12 && mom < 1e-12, "channel_stats, channel_moments %dx%d: %.0e %.0e", R, D, worst,
              mom);
        be->channel_affine(y.p, x.p, w.p, b.p, R, D);
        for (int j = 0; j < R * D; j++) y.d[j] = w.d[j % D] + b.d[j % D] * x.d[j];
        CHECK(arr_err(&y) < 2e-7, "channel_affine");
        for (int p = 1; p <= 2; p++) {
            be->channel_diff(mv, dq.p, x.p, f.p, w.p, p, R, D);
            be->get(got, mv, sizeof(double) * D);
            for (int c = 0; c < D; c++) {
                double e = 0;
                for (int r = 0; r < R; r++) {
                    double d = x.d[(size_t)r * D + c] - f.d[(size_t)r * D + c];
                    e += pow(fabs(d), p);
                    dq.d[(size_t)r * D + c] = w.d[c] * (p == 2 ? 2 * d : (d > 0) - (d < 0));
                }
                diff = fmax(diff, fabs(got[c] - e) / (1 + e));
            }
            CHECK(diff < 1e-12 && arr_err(&dq) < 2e-7, "channel_diff p=%d", p);
            be->channel_diff(mv, DEV_NONE, x.p, f.p, w.p, p, R, D);
        }
        be->release(acc), be->release(mv);
        free(got);
        arr_free_all();
    }
}

static void test_adam(void)
{
    static const size_t sizes[] = {1, 7, 130, 20011};
    for (int i = 0; i < 4; i++) {
        size_t n = sizes[i];
        struct arr p, g, m, v;
        double lr = 0.01, b1 = 0.9, b2 = 0.999, eps = 1e-8, wd = 0.1;
        arr_use(be);
        p = arr_random(n, 1), g = arr_random(n, 1), m = arr_zero(n), v = arr_zero(n);
        for (int t = 1; t <= 5; t++) {
            be->adam(p.p, g.p, m.p, v.p, n, (float)lr, (float)b1, (float)b2, (float)eps, (float)wd, t);
            for (size_t j = 0; j < n; j++) {
                m.d[j] = b1 * m.d[j] + (1 - b1) * g.d[j];
                v.d[j] = b2 * v.d[j] + (1 - b2) * g.d[j] * g.d[j];
                p.d[j] -=
                    lr * (m.d[j] / (1 - pow(b1, t)) / (sqrt(v.d[j] / (1 - pow(b2, t))) + eps) + wd * p.d[j]);
            }
        }
        CHECK(arr_err(&p) < 1e-6 && arr_err(&m) < 1e-6 && arr_err(&v) < 2e-5, "adam n=%zu, 5 steps", n);
        arr_free_all();
    }
}

static void test_nan(void)
{
    enum { R = 5, D = 70 };
    struct arr x, y, g, st, best, id, hst;
    arr_use(be);
    x = arr_zero(R * D), y = arr_zero(R * D), g = arr_random(D, 1), st = arr_zero(2 * R),
    best = arr_zero(2 * R);
    id = arr_ids(R, D), hst = arr_zero(4 * R);
    be->fill(x.p, NAN, x.n);
    be->norm(true, y.p, st.p, x.p, g.p, DEV_NONE, 1, R, D, 1e-5f);
    arr_fetch(&y);
    CHECK(isnan(y.f[0]) && isnan(y.f[R * D - 1]), "norm passes NaN on");
    be->head_init(hst.p, best.p, R);
    be->head_fold(hst.p, best.p, x.p, id.p, R, D, 0);
    arr_fetch(&hst);
    CHECK(isnan(hst.f[0] + logf(hst.f[1])), "head_fold of NaN ends, and its lse is NaN");
    be->fill(x.p, 1, x.n);
    be->fill(dev_at(x.p, 3), NAN, 1);
    be->head_init(hst.p, best.p, R);
    be->head_fold(hst.p, best.p, x.p, id.p, R, D, 0);
    arr_fetch(&hst);
    CHECK(isnan(hst.f[1]) && fabsf(hst.f[5] - D) < 1e-3f, "head_fold: one NaN spoils its row alone");
    arr_free_all();
}

int main(int argc, char **argv)
{
    (void)argc;
    backend_early(argv);
    be = backend_open("cpu", 2, false);
    printf("# backend %s, core %s\n", be->name, be->core);
    test_memory();
    test_gemm();
    test_gemm_beta_zero();
    test_gram();
    test_elementwise();
    test_swiglu_extremes();
    test_gelu_tails();
    test_softcap();
    test_clamp();
    test_bias();
    test_norm();
    test_norm_gains();
    test_norm_differences();
    test_embed();
    head_case(1, 8, 8);
    head_case(7, 130, 33);
    head_case(130, 577, 577);
    test_stats();
    test_adam();
    test_nan();
    backend_close(be);
    return check_done();
}
