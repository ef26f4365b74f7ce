/* SPDX-License-Identifier: Apache-2.0
 * --precision bf16: how inputs are rounded (exactly), products against double-precision loops over rounded
 * inputs, weights that change, and the same bytes for any number of threads. Skipped, aloud, where it cannot
 * be had. */
#include "tests/check.h"
#include "tests/ops/host.h"
#include "tests/ops/ref.h"
#include <sys/wait.h>
#include <unistd.h>

static struct backend *be;

/* Whether backend_open gives bf16 here; its sentence goes to stderr. */
static bool available(void)
{
    int status = 1;
    pid_t pid = fork();
    if (!pid) {
        backend_close(backend_open("cpu", 1, true));
        _exit(0);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

/* The nearest number with 8 bits of significand, ties to even; beyond the largest, infinity. For normal
 * numbers. */
static double round_bf16(double x)
{
    int e;
    if (x == 0 || !isfinite(x)) return x;
    double m = frexp(x, &e) * 256, r = nearbyint(m); /* 128 <= |m| < 256 */
    double y = ldexp(r, e - 8);
    return fabs(y) > 0x1.fep127 ? copysign(INFINITY, x) : y;
}

static void round_all(struct arr *a)
{
    for (size_t i = 0; i < a->n; i++) a->d[i] = round_bf16(a->d[i]);
}

/* ---- rounding, seen through products with the unit matrix ---- */

static void test_rounding(void)
{
    static const float special[] = {
        1.0f,          0x1.01p0f, 0x1.03p0f, 0x1.010002p0f, 0x1.00fffep0f, -0x1.01p0f,      -0x1.03p0f,
        0x1.fefffep0f, 0x1.ffp0f, 0x1p-126f, 0x1.8p-120f,   0x1.fep127f,   0x1.fefffep127f, 0.0f,
        -0.0f,         3e38f,     65504.0f,  0.1f};
    enum { N = 70, K = 41, SPECIAL = sizeof special / sizeof *special };
    for (int side = 0; side < 3; side++) {
        struct arr x, unit, c;
        int wrong = 0;
        arr_use(be);
        x = arr_random(K * K, 2), unit = arr_zero(K * K), c = arr_zero(K * K);
        for (int i = 0; i < SPECIAL; i++) x.f[i * 3] = special[i], x.d[i * 3] = special[i];
        for (int i = 0; i < K; i++) unit.f[i * K + i] = 1;
        be->put(x.p, x.f, x.n * sizeof(float)), be->put(unit.p, unit.f, unit.n * sizeof(float));
        if (side == 0) be->gemm(false, true, K, K, K, 1, x.p, K, unit.p, K, 0, c.p, K);  /* X I' */
        if (side == 1) be->gemm(false, false, K, K, K, 1, unit.p, K, x.p, K, 0, c.p, K); /* I X */
        if (side == 2) be->gemm(true, false, K, K, K, 1, unit.p, K, x.p, K, 0, c.p, K);  /* I' X */
        arr_fetch(&c);
        for (int i = 0; i < K * K; i++) wrong += c.f[i] != round_bf16(x.d[i]);
        CHECK(!wrong, "%s: rounded to nearest, ties to even: %d of %d differ",
              side == 0   ? "left side"
              : side == 1 ? "right side"
                          : "right side, left one transposed",
              wrong, K * K);
        arr_free_all();
    }
}

/* ---- products ---- */

/* Sums of K products of bf16 numbers are exact up to the rounding of each addition to f32: K + 2 of them with
 * alpha and beta, each at most 2^-24 of a partial sum, and no partial sum is larger than the sum of
 * magnitudes. Returns the largest error in units of that bound. */
static double bound_share(const struct arr *c, const struct arr *a, const struct arr *b, bool ta, bool tb,
                          int M, int N, int K, int lda, int ldb, int ldc, double alpha, double beta,
                          const double *old)
{
    double worst = 0;
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++) {
            double sum = 0, size = 0;
            for (int k = 0; k < K; k++) {
                double p = a->d[ta ? (size_t)k * lda + m : (size_t)m * lda + k] *
                           b->d[tb ? (size_t)n * ldb + k : (size_t)k * ldb + n];
                sum += p, size += fabs(p);
            }
            size_t i = (size_t)m * ldc + n;
            double want = alpha * sum + (beta ? beta * old[i] : 0);
            size = fabs(alpha) * size + (beta ? fabs(beta * old[i]) : 0);
            double share = fabs(c->f[i] - want) / ((K + 2) * 0x1p-24 * size);
            worst = share > worst || isnan(share) ? share : worst;
        }
    return worst;
}

static void test_product(int M, int N, int K)
{
    double worst = 0;
    int moved = 0;
    for (int mode = 0; mode < 8; mode++) {
        bool ta = mode & 1, tb = mode & 2, keep = mode & 4;
        int pad = mode % 4 ? 3 : 0, lda = (ta ? M : K) + pad, ldb = (tb ? K : N) + pad,
            ldc = N + (mode == 3 ? 3 : 0);
        double beta = mode == 3 ? 0.5 : mode & 1 ? 1 : 0, alpha = mode == 7 ? -2 : 1;
        arr_use(be);
        struct arr a = arr_random((size_t)(ta ? K : M) * lda, 1),
                   b = arr_random((size_t)(tb ? N : K) * ldb, 1), c = arr_random((size_t)M * ldc, 1);
        round_all(&a), round_all(&b);
        if (keep) be->hold(b.p, b.n);
        if (!beta) be->fill(c.p, NAN, c.n);
        be->gemm(ta, tb, M, N, K, (float)alpha, a.p, lda, b.p, ldb, (float)beta, c.p, ldc);
        arr_fetch(&c);
        worst = fmax(worst, bound_share(&c, &a, &b, ta, tb, M, N, K, lda, ldb, ldc, alpha, beta, c.d));
        for (int m = 0; m < M; m++)
            for (int n = N; n < ldc; n++)
                moved += c.f[(size_t)m * ldc + n] != (float)c.d[(size_t)m * ldc + n];
        arr_free_all();
    }
    CHECK(worst <= 1 && !moved,
          "gemm %dx%dx%d, transposes, alpha, beta, strides, held weights: %.3f of the bound", M, N, K, worst);
}

static void test_exact(void)
{
    enum { M = 33, N = 130, K = 65 };
    int wrong = 0;
    arr_use(be);
    struct arr a = arr_ids(M * K, 1), b = arr_ids(N * K, 1), c = arr_zero(M * N);
    for (int i = 0; i < M * K; i++) a.d[i] = a.f[i] = (float)(i * 7 % 31) - 15;
    for (int i = 0; i < N * K; i++) b.d[i] = b.f[i] = (float)(i * 5 % 29) - 14;
    be->put(a.p, a.f, a.n * sizeof(float)), be->put(b.p, b.f, b.n * sizeof(float));
    be->gemm(false, true, M, N, K, 1, a.p, K, b.p, K, 0, c.p, N);
    ref_gemm(false, true, M, N, K, 1, a.d, K, b.d, K, 0, c.d, N);
    arr_fetch(&c);
    for (int i = 0; i < M * N; i++) wrong += c.f[i] != c.d[i];
    CHECK(!wrong, "whole numbers: exact");
    a.f[0] = NAN;
    be->put(a.p, a.f, a.n * sizeof(float));
    be->gemm(false, true, M, N, K, 1, a.p, K, b.p, K, 0, c.p, N);
    arr_fetch(&c);
    CHECK(isnan(c.f[0]) && isnan(c.f[N - 1]) && c.f[N] == c.d[N], "NaN spreads along its row");
    arr_free_all();
}

/* ---- attention ---- */

/* Inputs are bf16 numbers; so scores, and with them lse, are f32's. Probabilities, each off by at most 2^-9
 * of itself, are the weights of a mean of values of at most 1. A head dimension that does not fit, or a soft
 * cap, goes the f32 way. */
static void test_attention(int B, int T, int H, int G, int E, int window, double cap, bool fits)
{
    struct ref_attn s = {B, T, H, G, E, window, 1 / sqrt(E), cap, NULL};
    struct attention a = {B, T, H, G, E, (float)s.scale, (float)cap, window, DEV_NONE};
    arr_use(be);
    struct arr q = arr_random((size_t)B * T * H * E, 2), k = arr_random((size_t)B * T * G * E, 2),
               v = arr_random(k.n, 1), out = arr_zero(q.n), lse = arr_zero((size_t)B * T * H);
    if (fits) {
        struct arr *all[] = {&q, &k, &v};
        for (int i = 0; i < 3; i++) {
            round_all(all[i]);
            be->gemm(false, false, 1, 1, 1, 1, q.p, 1, k.p, 1, 0, lse.p, 1); /* other products in between */
        }
    }
    be->attention(out.p, lse.p, q.p, k.p, v.p, &a);
    ref_attention(&s, out.d, lse.d, q.d, k.d, v.d);
    arr_fetch(&out), arr_fetch(&lse);
    double worst = 0, worst_lse = 0;
    for (size_t i = 0; i < out.n; i++) worst = fmax(worst, fabs(out.f[i] - out.d[i]));
    for (size_t i = 0; i < lse.n; i++) worst_lse = fmax(worst_lse, fabs(lse.f[i] - lse.d[i]));
    CHECK(worst <= (fits ? 0x1p-9 + 1e-5 : 1e-5) && worst_lse <= 2e-5 && (!fits || T == 1 || worst > 1e-6),
          "attention %dx%d, %d heads on %d, E %d, window %d: %.1e, lse %.1e%s", B, T, H, G, E, window, worst,
          worst_lse, fits ? "" : " (f32)");
    arr_free_all();
}

/* ---- weights ---- */

enum { W_OUT = 96, W_IN = 64, W_ROWS = 20 };
static struct arr x, w, y;

static bool follows(void)
{
    be->gemm(false, true, W_ROWS, W_OUT, W_IN, 1, x.p, W_IN, w.p, W_IN, 0, y.p, W_OUT);
    arr_fetch(&y), arr_fetch(&w);
    for (size_t i = 0; i < w.n; i++) w.d[i] = round_bf16(w.f[i]);
    return bound_share(&y, &x, &w, false, true, W_ROWS, W_OUT, W_IN, W_IN, W_IN, W_OUT, 1, 0, NULL) <= 1;
}

static void test_weights(void)
{
    arr_use(be);
    x = arr_random(W_ROWS * W_IN, 1), w = arr_random(W_OUT * W_IN, 1), y = arr_zero(W_ROWS * W_OUT);
    struct arr other = arr_random(w.n, 1), m = arr_zero(w.n), v = arr_zero(w.n);
    round_all(&x);
    be->hold(w.p, w.n);
    CHECK(follows() && follows(), "held weights, twice");
    be->put(dev_at(w.p, 700), other.f, 40 * sizeof(float));
    CHECK(follows(), "after put into their middle");
    be->copy(w.p, other.p, w.n * sizeof(float));
    CHECK(follows(), "after copy");
    be->fill(dev_at(w.p, w.n - 1), 3, 1);
    CHECK(follows(), "after fill of the last");
    be->adam(w.p, other.p, m.p, v.p, w.n, 0.1f, 0.9f, 0.99f, 1e-8f, 0, 1);
    CHECK(follows(), "after adam");
    be->gemm(false, true, W_ROWS, 32, W_IN, 1, x.p, W_IN, dev_at(w.p, 32 * W_IN), W_IN, 0, y.p, 32);
    be->put(w.p, other.f, w.n * sizeof(float));
    CHECK(follows(), "after put, with another form of a part of them");
    dev mine = be->alloc(w.n * sizeof(float)), listed = w.p;
    be->hold(mine, w.n);
    be->copy(w.p = mine, other.p, w.n * sizeof(float));
    CHECK(follows(), "a second array");
    be->release(mine);
    w.p = mine = be->alloc(w.n * sizeof(float)); /* most likely at the same address */
    be->add(w.p, other.p, other.p, w.n);
    CHECK(follows(), "after release, an array that is not held");
    be->add(w.p, w.p, other.p, w.n);
    CHECK(follows(), "and one that changed by something else");
    be->release(mine);
    w.p = listed;
    arr_free_all();
}

/* ---- what stays f32, and threads ---- */

enum { R = 263, D = 192, V = 700, OUTS = 6 };
static float *first[2][OUTS];

static void same(int set, int i, const char *name, struct arr *a, int threads)
{
    arr_fetch(a);
    if (!first[set][i]) {
        first[set][i] = malloc(a->n * sizeof(float));
        memcpy(first[set][i], a->f, a->n * sizeof(float));
    } else {
        CHECK(!memcmp(first[set][i], a->f, a->n * sizeof(float)), "%s: the same bytes with %d threads%s",
              name, threads, set ? " and in f32" : "");
    }
}

static void products(int n)
{
    arr_use(be);
    struct arr a = arr_random((size_t)R * D, 1), b = arr_random((size_t)V * D, 1),
               c = arr_zero((size_t)R * V), g = arr_zero((size_t)V * D), s = arr_zero((size_t)32 * V),
               h = arr_zero((size_t)D * D), f = arr_zero((size_t)R * V), one = arr_zero(V);
    if (be->bf16) {
        be->hold(b.p, b.n);
        be->gemm(false, true, R, V, D, 1, a.p, D, b.p, D, 0, c.p, V);
        same(0, 0, "gemm", &c, n);
        be->gemm(true, false, V, D, R, 1, c.p, V, a.p, D, 0, g.p, D);
        same(0, 1, "gemm, gradient of weights", &g, n);
        be->gemm(false, true, 32, V, D, 1, a.p, D, b.p, D, 0, s.p, V);
        same(0, 2, "gemm, few rows", &s, n);
        be->gemm(false, true, 1, V, D, 1, a.p, D, b.p, D, 0, one.p, V);
        same(0, 3, "gemm, one row", &one, n);
        struct arr z = arr_zero((size_t)R * D), lse = arr_zero((size_t)R * 3);
        struct attention attn = {1, R, 3, 3, 64, 0.125f, 0, 0, DEV_NONE};
        be->attention(z.p, lse.p, a.p, a.p, b.p, &attn);
        same(0, 4, "attention", &z, n), same(0, 5, "attention, lse", &lse, n);
    }
    be->gemm_f32(false, true, R, V, D, 1, a.p, D, b.p, D, 0, f.p, V);
    same(1, 0, "gemm_f32", &f, n);
    be->gram(R, D, a.p, h.p);
    same(1, 1, "gram", &h, n);
    arr_free_all();
}

int main(int argc, char **argv)
{
    static const int shapes[][3] = {{1, 1, 1},      {7, 5, 3},      {1, 130, 64},   {33, 517, 65},
                                    {130, 70, 300}, {300, 290, 17}, {64, 64, 64},   {16, 1030, 96},
                                    {520, 640, 8},  {65, 576, 129}, {529, 200, 77}, {290, 100, 1021}};
    (void)argc;
    backend_early(argv);
    if (!available()) {
        SKIP("no bf16 here: built without oneDNN, or not for this CPU");
        return check_done();
    }
    for (int n = 0; n <= 3; n++) { /* 0: f32, for what must not change */
        be = backend_open("cpu", n ? n : 1, n > 0);
        products(n ? n : 1);
        if (n == 2) {
            test_rounding();
            test_exact();
            test_weights();
            for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
                test_product(shapes[i][0], shapes[i][1], shapes[i][2]);
            test_attention(1, 263, 9, 3, 64, 0, 0, true);
            test_attention(2, 70, 4, 4, 32, 0, 0, false);
            test_attention(1, 600, 6, 1, 64, 100, 0, true);
            test_attention(1, 300, 6, 1, 64, 100, 5, false);
            test_attention(2, 333, 8, 1, 128, 0, 0, true);
            test_attention(3, 1, 2, 2, 64, 0, 0, true);
            test_attention(1, 80, 3, 1, 40, 0, 0, false);
        }
        backend_close(be);
    }
    for (int i = 0; i < 2 * OUTS; i++) free(first[i / OUTS][i % OUTS]);
    return check_done();
}
