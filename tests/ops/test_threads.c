/* SPDX-License-Identifier: Apache-2.0
 * Every operation gives the same bytes with 1, 2 and 3 threads. */
#include "tests/check.h"
#include "tests/ops/host.h"

enum { R = 263, T = 263, D = 192, H = 3, G = 1, E = 64, V = 700, N_OUT = 32 };
static struct backend *be;
static float *first[N_OUT];

/* Compares with what the first thread count gave. */
static void same(int i, const char *name, struct arr *a, int threads)
{
    size_t bytes = a->n * sizeof(float);
    arr_fetch(a);
    if (threads == 1) {
        first[i] = malloc(bytes);
        memcpy(first[i], a->f, bytes);
    } else {
        CHECK(!memcmp(first[i], a->f, bytes), "%s: %d threads give the bytes of one", name, threads);
    }
}

static void attention_ops(int n)
{
    struct arr q = arr_random((size_t)R * H * E, 2), k = arr_random((size_t)R * G * E, 2),
               v = arr_random((size_t)R * G * E, 1);
    struct arr o = arr_zero(q.n), l = arr_zero(R * H), d = arr_random(q.n, 1), dq = arr_zero(q.n);
    struct arr dk = arr_zero(k.n), dv = arr_zero(k.n), o1 = arr_zero(H * E),
               cs = arr_random((size_t)R * E, 1);
    struct attention a = {1, T, H, G, E, 0.125f, 0, 0, DEV_NONE};
    be->attention(o.p, l.p, q.p, k.p, v.p, &a);
    same(0, "attention", &o, n), same(1, "attention lse", &l, n);
    be->attention_back(dq.p, dk.p, dv.p, d.p, o.p, l.p, q.p, k.p, v.p, &a);
    same(2, "attention_back dq", &dq, n), same(3, "attention_back dk", &dk, n),
        same(4, "attention_back dv", &dv, n);
    be->attention_step(o1.p, q.p, k.p, v.p, T, T, &a);
    same(5, "attention_step", &o1, n);
    be->rope(q.p, R, T, H, E, E, false, cs.p, 0, 1);
    same(6, "rope", &q, n);
}

static void matrix_ops(int n)
{
    struct arr a = arr_random((size_t)R * D, 1), b = arr_random((size_t)V * D, 1),
               c = arr_zero((size_t)R * V);
    struct arr w = arr_zero((size_t)V * D), h = arr_zero((size_t)D * D), s = arr_zero((size_t)32 * V);
    be->gemm(false, true, R, V, D, 1, a.p, D, b.p, D, 0, c.p, V);
    same(7, "gemm", &c, n);
    be->gemm(true, false, V, D, R, 1, c.p, V, a.p, D, 0, w.p, D);
    same(8, "gemm, gradient of weights", &w, n);
    be->gemm(false, true, 32, V, D, 1, a.p, D, b.p, D, 0, s.p, V);
    same(9, "gemm, few rows", &s, n);
    be->gemm(false, false, R, D, V, 1, c.p, V, b.p, D, 0, a.p, D);
    same(31, "gemm, gradient of the input", &a, n);
    be->gram(R, D, a.p, h.p);
    same(10, "gram", &h, n);
}

static void row_ops(int n)
{
    struct arr x = arr_random((size_t)R * D, 1), y = arr_zero(x.n), st = arr_zero(2 * R),
               g = arr_random(D, 1);
    struct arr dx = arr_zero(x.n), dg = arr_zero(D), db = arr_zero(D), dy = arr_random(x.n, 1),
               u = arr_random(x.n, 1);
    be->norm(false, y.p, st.p, x.p, g.p, g.p, 1, R, D, 1e-5f);
    same(11, "norm", &y, n);
    be->norm_back(false, dx.p, dg.p, db.p, dy.p, x.p, st.p, g.p, 1, R, D);
    same(12, "norm_back dx", &dx, n), same(13, "norm_back dgain", &dg, n),
        same(14, "norm_back dbias", &db, n);
    be->sum_rows(db.p, dy.p, R, D);
    same(15, "sum_rows", &db, n);
    be->act(ACT_SILU, y.p, x.p, u.p, x.n);
    same(16, "swiglu", &y, n);
    be->act_back(ACT_SILU, dx.p, y.p, dy.p, x.p, u.p, x.n);
    same(17, "swiglu_back", &dx, n);
    be->axpy(y.p, 0.3f, dx.p, x.n);
    be->add(y.p, y.p, u.p, x.n);
    be->add_bias(y.p, g.p, R, D);
    same(18, "axpy, add, add_bias", &y, n);
    be->adam(y.p, dy.p, x.p, u.p, x.n, 0.1f, 0.9f, 0.99f, 1e-3f, 0, 1);
    same(19, "adam", &y, n);
}

static void head_ops(int n)
{
    struct arr z = arr_random((size_t)R * V, 9), q = arr_random((size_t)R * V, 9), id = arr_ids(R, V),
               st = arr_zero(4 * R);
    struct arr best = arr_zero(2 * R), kst = arr_zero(6 * R), lse = arr_random(R, 9),
               t = arr_random((size_t)V * D, 1);
    struct arr x = arr_zero((size_t)R * D);
    be->head_init(st.p, best.p, R), be->kl_init(kst.p, R);
    be->head_fold(st.p, best.p, z.p, id.p, R, V, 0);
    be->kl_fold(kst.p, z.p, q.p, R, V);
    same(20, "head_fold", &st, n), same(21, "head_fold best", &best, n), same(22, "kl_fold", &kst, n);
    be->kl_back(q.p, z.p, lse.p, lse.p, R, V, 1);
    be->ce_back(z.p, lse.p, id.p, R, V, 0, 1);
    same(23, "ce_back", &z, n), same(24, "kl_back", &q, n);
    be->embed(x.p, t.p, id.p, R, D);
    be->embed_back(t.p, x.p, id.p, R, D);
    same(25, "embed_back", &t, n);
}

static void stat_ops(int n)
{
    struct arr x = arr_random((size_t)R * D, 1), f = arr_random((size_t)R * D, 1), w = arr_random(D, 1);
    struct arr acc = arr_zero(12 * D), dq = arr_zero(x.n);
    be->channel_stats(acc.p, x.p, R, D);
    same(26, "channel_stats", &acc, n);
    be->channel_moments(acc.p, x.p, R, D);
    same(27, "channel_moments", &acc, n);
    be->channel_diff(acc.p, dq.p, x.p, f.p, w.p, 2, R, D);
    same(28, "channel_diff", &acc, n), same(29, "channel_diff dq", &dq, n);
    be->channel_affine(dq.p, x.p, w.p, w.p, R, D);
    same(30, "channel_affine", &dq, n);
}

int main(int argc, char **argv)
{
    (void)argc;
    backend_early(argv);
    for (int n = 1; n <= 3; n++) {
        be = backend_open("cpu", n, false);
        arr_use(be);
        attention_ops(n);
        matrix_ops(n);
        row_ops(n);
        head_ops(n);
        stat_ops(n);
        arr_free_all();
        backend_close(be);
    }
    for (int i = 0; i < N_OUT; i++) free(first[i]);
    return check_done();
}
