/* SPDX-License-Identifier: Apache-2.0
 * Rotary embedding and attention, forward, backward and one step, against double-precision loops. */
#include "tests/check.h"
#include "tests/ops/host.h"
#include "tests/ops/ref.h"

static struct backend *be;

static void test_rope(void)
{
    static const int cases[][5] = {
        {1, 1, 8, 8, 0}, {14, 7, 64, 64, 3}, {130, 130, 80, 32, 0}, {6, 3, 64, 10, 1}};
    for (int i = 0; i < 4; i++) {
        int R = cases[i][0], T = cases[i][1], E = cases[i][2], rot = cases[i][3], pos0 = cases[i][4],
            heads = 3;
        struct arr x, cs;
        double fwd;
        arr_use(be);
        x = arr_random((size_t)R * heads * E, 1), cs = arr_zero((size_t)(T + pos0) * rot);
        for (size_t j = 0; j < cs.n; j++) {
            double a = (double)(j / rot) / (1 + j % (rot / 2));
            cs.f[j] = (float)((int)(j % rot) < rot / 2 ? cos(a) : sin(a));
            cs.d[j] = cs.f[j];
        }
        be->put(cs.p, cs.f, cs.n * 4);
        for (int pairs = 0; pairs < 2; pairs++) {
            be->rope(x.p, R, T, heads, E, rot, pairs, cs.p, pos0, 1);
            ref_rope(x.d, R, T, heads, E, rot, pairs, cs.d, pos0, 1);
            fwd = arr_err(&x);
            be->rope(x.p, R, T, heads, E, rot, pairs, cs.p, pos0, -1);
            ref_rope(x.d, R, T, heads, E, rot, pairs, cs.d, pos0, -1);
            CHECK(fwd < 3e-7 && arr_err(&x) < 4e-7,
                  "rope R=%d T=%d E=%d rot=%d pos0=%d %s, and its transpose", R, T, E, rot, pos0,
                  pairs ? "pairs" : "halves");
        }
        arr_free_all();
    }
}

/* What the next cases have beside a window: a soft cap, slopes. */
static double cap;
static bool sloped;

static struct attention case_of(struct ref_attn *s)
{
    struct attention a = {s->B,      s->T,    s->H, s->G, s->E, (float)s->scale, (float)(s->softcap = cap),
                          s->window, DEV_NONE};
    if (!sloped) return a;
    struct arr slopes = arr_random((size_t)s->H, 0.5);
    s->slopes = slopes.d, a.slopes = slopes.p;
    return a;
}

static void attention_case(int B, int T, int H, int G, int E, int window, double size)
{
    struct ref_attn s = {B, T, H, G, E, window, 1 / sqrt(E), 0, NULL};
    struct attention a;
    size_t nq = (size_t)B * T * H * E, nk = (size_t)B * T * G * E;
    struct arr q, k, v, o, l, d, dq, dk, dv;
    double e[5], tol = 4e-6 + 2e-7 * size * size * sqrt(E); /* float rounds a score by its own size */
    arr_use(be);
    a = case_of(&s);
    q = arr_random(nq, size), k = arr_random(nk, size), v = arr_random(nk, 1), o = arr_zero(nq);
    l = arr_zero((size_t)B * T * H), d = arr_random(nq, 1), dq = arr_zero(nq), dk = arr_zero(nk),
    dv = arr_zero(nk);
    be->attention(o.p, l.p, q.p, k.p, v.p, &a);
    ref_attention(&s, o.d, l.d, q.d, k.d, v.d);
    e[0] = arr_err(&o), e[1] = arr_err(&l);
    be->fill(dq.p, NAN, nq), be->fill(dk.p, NAN, nk), be->fill(dv.p, NAN, nk); /* they are overwritten */
    be->attention_back(dq.p, dk.p, dv.p, d.p, o.p, l.p, q.p, k.p, v.p, &a);
    ref_attention_back(&s, dq.d, dk.d, dv.d, d.d, q.d, k.d, v.d);
    e[2] = arr_err(&dq), e[3] = arr_err(&dk), e[4] = arr_err(&dv);
    CHECK(e[0] < tol && e[1] < 2e-6 && e[2] < 2 * tol && e[3] < 2 * tol && e[4] < 2 * tol,
          "attention B=%d T=%d H=%d G=%d E=%d window=%d cap=%g%s: out %.0e lse %.0e dq %.0e dk %.0e dv %.0e",
          B, T, H, G, E, window, cap, sloped ? " slopes" : "", e[0], e[1], e[2], e[3], e[4]);
    arr_free_all();
}

static void step_case(int B, int n, int room, int H, int G, int E, int window)
{
    struct ref_attn s = {B, n, H, G, E, window, 1 / sqrt(E), 0, NULL};
    struct attention a;
    size_t row = (size_t)G * E;
    struct arr q, k, v, o, q1, kc, vc, o1;
    arr_use(be);
    a = case_of(&s);
    q = arr_random((size_t)B * n * H * E, 2), k = arr_random(B * n * row, 2), v = arr_random(B * n * row, 1);
    o = arr_zero(q.n), q1 = arr_zero((size_t)B * H * E), o1 = arr_zero((size_t)B * H * E);
    kc = arr_zero(B * room * row), vc = arr_zero(B * room * row);
    be->fill(kc.p, NAN, kc.n), be->fill(vc.p, NAN, vc.n); /* beyond n: never read */
    ref_attention(&s, o.d, NULL, q.d, k.d, v.d);
    for (int b = 0; b < B; b++) {
        size_t last = ((size_t)b * n + n - 1) * H * E;
        be->copy(dev_at(kc.p, b * room * row), dev_at(k.p, b * n * row), n * row * 4);
        be->copy(dev_at(vc.p, b * room * row), dev_at(v.p, b * n * row), n * row * 4);
        be->copy(dev_at(q1.p, (size_t)b * H * E), dev_at(q.p, last), (size_t)H * E * 4);
        memcpy(o1.d + (size_t)b * H * E, o.d + last, (size_t)H * E * sizeof(double));
    }
    be->attention_step(o1.p, q1.p, kc.p, vc.p, n, room, &a);
    CHECK(arr_err(&o1) < 5e-6, "attention_step B=%d n=%d room=%d H=%d G=%d E=%d window=%d cap=%g%s", B, n,
          room, H, G, E, window, cap, sloped ? " slopes" : "");
    arr_free_all();
}

static void test_differences(void)
{
    /* the reference backward itself, against central differences of the reference forward */
    enum { B = 2, T = 5, H = 3, G = 1, E = 4, NQ = B * T * H * E, NK = B * T * G * E };
    const double slopes[H] = {0.5, -0.25, 1};
    struct ref_attn s = {B, T, H, G, E, 3, 0.5, 0.7, slopes};
    double o[2][NQ], dq[NQ], dk[NK], dv[NK], worst = 0;
    struct arr q, k, v, d;
    arr_use(be);
    q = arr_random(NQ, 1), k = arr_random(NK, 1), v = arr_random(NK, 1), d = arr_random(NQ, 1);
    ref_attention_back(&s, dq, dk, dv, d.d, q.d, k.d, v.d);
    for (int i = 0; i < NQ + 2 * NK; i++) {
        double *at = i < NQ ? &q.d[i] : i < NQ + NK ? &k.d[i - NQ] : &v.d[i - NQ - NK], old = *at, num = 0;
        double want = i < NQ ? dq[i] : i < NQ + NK ? dk[i - NQ] : dv[i - NQ - NK];
        for (int j = 0; j < 2; j++) {
            *at = old + (j ? 1e-5 : -1e-5);
            ref_attention(&s, o[j], NULL, q.d, k.d, v.d);
        }
        *at = old;
        for (int j = 0; j < NQ; j++) num += d.d[j] * (o[1][j] - o[0][j]) / 2e-5;
        worst = fmax(worst, fabs(num - want));
    }
    CHECK(worst < 1e-7, "reference attention_back agrees with differences: %.0e", worst);
    arr_free_all();
}

static void test_nan(void)
{
    struct arr q, o, l;
    arr_use(be);
    q = arr_zero(9 * 64), o = arr_zero(9 * 64), l = arr_zero(9);
    be->fill(q.p, NAN, q.n);
    for (int capped = 0; capped < 2; capped++) {
        struct attention a = {1, 9, 1, 1, 64, 1, 2 * (float)capped, 0, DEV_NONE};
        be->attention(o.p, l.p, q.p, q.p, q.p, &a);
        arr_fetch(&o), arr_fetch(&l);
        CHECK(isnan(o.f[0]) && isnan(l.f[8]), "attention of NaN ends and gives NaN");
    }
    arr_free_all();
}

int main(int argc, char **argv)
{
    (void)argc;
    backend_early(argv);
    be = backend_open("cpu", 2, false);
    test_rope();
    test_differences();
    attention_case(1, 1, 1, 1, 8, 0, 1);
    attention_case(2, 7, 3, 1, 8, 0, 2);
    attention_case(1, 130, 3, 3, 64, 0, 3);
    attention_case(2, 65, 6, 2, 80, 0, 3);
    attention_case(1, 300, 3, 1, 64, 0, 3);
    attention_case(1, 300, 3, 1, 16, 100, 3);
    attention_case(2, 131, 2, 2, 64, 1, 3);
    attention_case(1, 270, 4, 2, 64, 33, 10);
    attention_case(1, 520, 1, 1, 80, 257, 3);
    attention_case(1, 40, 2, 1, 64, 0, 60);
    step_case(1, 1, 4, 3, 1, 64, 0);
    step_case(3, 7, 9, 3, 3, 8, 0);
    step_case(2, 130, 140, 6, 2, 80, 0);
    step_case(2, 130, 131, 3, 1, 64, 50);
    step_case(9, 70, 71, 6, 2, 72, 0);
    step_case(8, 33, 40, 4, 2, 5, 20);
    for (int i = 1; i < 4; i++) {
        cap = i & 1 ? 1.5 : 0, sloped = i & 2;
        attention_case(2, 7, 3, 1, 8, 0, 2);
        attention_case(2, 65, 6, 2, 80, 0, 3);
        attention_case(1, 300, 3, 1, 16, 100, 3);
        attention_case(1, 40, 2, 1, 64, 0, 10);
        step_case(3, 7, 9, 3, 3, 8, 0);
        step_case(2, 130, 131, 3, 1, 64, 50);
        step_case(9, 70, 71, 6, 2, 72, 0);
    }
    test_nan();
    backend_close(be);
    return check_done();
}
