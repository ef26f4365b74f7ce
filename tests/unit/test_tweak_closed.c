/* SPDX-License-Identifier: Apache-2.0
 * The closed form against a dense least-squares problem solved by numpy (tests/data/tweak/closed.json). */
#include "tests/check.h"
#include <jansson.h>
#include "common/mem.h"
#include "common/tweak_closed.h"

enum { D_MAX = 6 };

static float *numbers(const json_t *a)
{
    float *f = MEM_NEW(float, json_array_size(a));
    for (size_t i = 0; i < json_array_size(a); i++) f[i] = (float)json_number_value(json_array_get(a, i));
    return f;
}

static dev upload(const struct backend *be, const float *x, size_t n)
{
    dev d = be->alloc(n * sizeof(float));
    be->put(d, x, n * sizeof(float));
    return d;
}

/* Host copies of H, sum Q'Q, sum (W - Q)'Q. */
static void products(const struct backend *be, const json_t *file, int N, int D, float *H, float *QQ,
                     float *EQ)
{
    size_t square = (size_t)D * D;
    float *X = numbers(json_object_get(file, "X"));
    dev x = upload(be, X, (size_t)N * D), h = be->alloc(square * 4), qq = be->alloc(square * 4),
        eq = be->alloc(square * 4);
    be->gram(N, D, x, h);
    const json_t *outs = json_object_get(file, "outs");
    for (size_t k = 0; k < json_array_size(outs); k++) {
        int out = (int)json_integer_value(json_array_get(outs, k));
        float *W = numbers(json_array_get(json_object_get(file, "W"), k));
        float *Q = numbers(json_array_get(json_object_get(file, "Q"), k));
        dev w = upload(be, W, (size_t)out * D), q = upload(be, Q, (size_t)out * D),
            s = be->alloc((size_t)out * D * 4);
        closed_add_linear(be, w, q, out, D, s, qq, eq);
        be->release(w);
        be->release(q);
        be->release(s);
        mem_free(W);
        mem_free(Q);
    }
    be->get(H, h, square * 4);
    be->get(QQ, qq, square * 4);
    be->get(EQ, eq, square * 4);
    be->release(x);
    be->release(h);
    be->release(qq);
    be->release(eq);
    mem_free(X);
}

static int solve(int D, const float *H, const float *QQ, const float *EQ, double *ridge, double *s, struct err *e)
{
    double A[D_MAX * D_MAX] = {0}, rhs[D_MAX] = {0};
    closed_add_input(D, H, QQ, EQ, A, rhs);
    return closed_solve(D, A, rhs, ridge, s, e);
}

int main(void)
{
    enum { D = D_MAX };
    struct backend *be = backend_open("cpu", 1, false);
    json_t *file = json_load_file("tests/data/tweak/closed.json", 0, NULL);
    int N = (int)json_integer_value(json_object_get(file, "N"));
    float H[D * D], QQ[D * D], EQ[D * D];
    double s[D], ridge = json_number_value(json_object_get(file, "ridge")), used = ridge, worst = 0;
    struct err e = {0};
    CHECK(json_integer_value(json_object_get(file, "D")) == D, "expected values are there");
    products(be, file, N, D, H, QQ, EQ);
    CHECK(solve(D, H, QQ, EQ, &used, s, &e) == 0 && used == ridge, "solved with the ridge asked for");
    const json_t *want = json_object_get(file, "s");
    for (int i = 0; i < D; i++)
        worst = fmax(worst, fabs(s[i] - json_number_value(json_array_get(want, (size_t)i))));
    CHECK(worst < 1e-5, "scales equal numpy's least squares within %.2g", worst);
    CHECK(s[4] == 1, "a channel that is always zero keeps its gain");
    CHECK(json_number_value(json_object_get(file, "after")) <
              0.5 * json_number_value(json_object_get(file, "before")),
          "the case is one where scaling helps");

    /* Two equal channels without a ridge: singular, so the ridge is raised and said. */
    float h2[4] = {1, 9, 1, 1}, q2[4] = {1, 1, 1, 1}, e2[4] = {0.5f, 0.5f, 0.5f, 0.5f};
    double zero = 0;
    CHECK(solve(2, h2, q2, e2, &zero, s, &e) == 0 && zero > 0, "a singular system gets a ridge (%g)",
          zero);
    CHECK(fabs(s[0] - 1.5) < 1e-4 && fabs(s[1] - 1.5) < 1e-4, "equal channels share the correction: %g %g",
          s[0], s[1]);
    float bad[4] = {NAN, 0, 0, 1};
    used = 0.01;
    CHECK(solve(2, bad, q2, e2, &used, s, &e) == -1 && e.code == NT_EXIT_DATA, "NaN is refused: %s",
          e.text);
    float none[4] = {0};
    e = (struct err){0};
    CHECK(solve(2, none, q2, e2, &used, s, &e) == 0 && s[0] == 1 && s[1] == 1,
          "no input: nothing changes");
    json_decref(file);
    backend_close(be);
    return check_done();
}
