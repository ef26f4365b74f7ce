/* SPDX-License-Identifier: Apache-2.0
 * Every tweak loss: value and gradient against PyTorch autograd (tests/data/tweak/losses.json) and against
 * finite differences of definitions written out here in double. */
#include "tests/check.h"
#include <jansson.h>
#include "common/loss.h"

enum { MAX_R = 16, MAX_D = 8 };

static int numbers(const json_t *a, double *d, float *f)
{
    int n = (int)json_array_size(a);
    for (int i = 0; i < n; i++) {
        double v = json_number_value(json_array_get(a, (size_t)i));
        if (d) d[i] = v;
        if (f) f[i] = (float)v;
    }
    return n;
}

/* The definitions, straight from the tables of the method. y, f [R, D]. */
static double defined(const char *name, int R, int D, const double *f, const double *y)
{
    double sum = 0;
    for (int c = 0; c < D; c++) {
        double mf = 0, my = 0, vf = 0, vy = 0, se = 0, ae = 0;
        for (int r = 0; r < R; r++) mf += f[r * D + c] / R, my += y[r * D + c] / R;
        for (int r = 0; r < R; r++) {
            vf += pow(f[r * D + c] - mf, 2) / (R - 1);
            vy += pow(y[r * D + c] - my, 2) / (R - 1);
            se += pow(y[r * D + c] - f[r * D + c], 2);
            ae += fabs(y[r * D + c] - f[r * D + c]);
        }
        if (!strcmp(name, "author")) sum += pow(my - mf, 2) + pow(sqrt(vy + 1e-6) - sqrt(vf + 1e-6), 2);
        if (!strcmp(name, "author2")) sum += (pow(my - mf, 2) + pow(vy - vf, 2)) / D;
        if (!strcmp(name, "paper")) sum += (fabs(my - mf) + fabs(vy - vf)) / D;
        if (!strcmp(name, "mse")) sum += se / (R * D);
        if (!strcmp(name, "mae")) sum += ae / (R * D);
        if (!strcmp(name, "nmse")) sum += se / R / (vf + 1e-6) / D;
    }
    return sum;
}

static void run_loss(const struct backend *be, const struct loss *l, int R, int D, const float *f,
                     const float *y, double *value, float *grad)
{
    struct loss_work *w = loss_alloc(be, l, D);
    size_t bytes = (size_t)R * D * sizeof(float);
    dev df = be->alloc(bytes), dy = be->alloc(bytes), dg = be->alloc(bytes);
    double mom[2 * MAX_D];
    be->put(df, f, bytes);
    be->put(dy, y, bytes);
    be->fill(dg, 7, (size_t)R * D); /* the gradient overwrites */
    loss_moments(w, df, R, mom);
    *value = loss_eval(w, mom, l->power ? df : DEV_NONE, dy, R, dg);
    be->get(grad, dg, bytes);
    double again = loss_eval(w, mom, l->power ? df : DEV_NONE, dy, R, DEV_NONE);
    CHECK(again == *value, "%s: same value without a gradient", l->name);
    be->release(df);
    be->release(dy);
    be->release(dg);
    loss_free(w);
}

static void test_one(const struct backend *be, const struct loss *l, const json_t *file)
{
    double fd[MAX_R * MAX_D], yd[MAX_R * MAX_D], want[MAX_R * MAX_D], value;
    float f[MAX_R * MAX_D], y[MAX_R * MAX_D], grad[MAX_R * MAX_D];
    int R = (int)json_integer_value(json_object_get(file, "R")),
        D = (int)json_integer_value(json_object_get(file, "D"));
    int n = numbers(json_object_get(file, "f"), fd, f);
    numbers(json_object_get(file, "q"), yd, y);
    const json_t *exp = json_object_get(json_object_get(file, "losses"), l->name);
    double torch = json_number_value(json_object_get(exp, "value"));
    int m = numbers(json_object_get(exp, "grad"), want, NULL);
    CHECK(n == R * D && m == n, "%s: expected values of PyTorch are there", l->name);
    run_loss(be, l, R, D, f, y, &value, grad);
    CHECK(fabs(value - torch) <= 1e-6 * torch, "%s: value %.9g, PyTorch %.9g", l->name, value, torch);
    double rel = check_rel(grad, want, (size_t)n);
    CHECK(rel < 1e-5, "%s: gradient against PyTorch, relative %.2g", l->name, rel);

    double h = 1e-5;
    for (int i = 0; i < n; i++) {
        double keep = yd[i];
        yd[i] = keep + h;
        double up = defined(l->name, R, D, fd, yd);
        yd[i] = keep - h;
        want[i] = (up - defined(l->name, R, D, fd, yd)) / (2 * h);
        yd[i] = keep;
    }
    rel = check_rel(grad, want, (size_t)n);
    CHECK(rel < 1e-5, "%s: gradient against finite differences, relative %.2g", l->name, rel);
    run_loss(be, l, R, D, f, f, &value, grad);
    double most = 0;
    for (int i = 0; i < n; i++) most = fmax(most, fabs((double)grad[i]));
    CHECK(value == 0 && most < 1e-6, "%s: zero where output and target agree (gradient %.2g)", l->name, most);
}

int main(void)
{
    struct backend *be = backend_open("cpu", 1, false);
    json_t *file = json_load_file("tests/data/tweak/losses.json", 0, NULL);
    int n = 0;
    CHECK(file != NULL, "tests/data/tweak/losses.json can be read");
    for (; loss_at(n); n++) {
        CHECK(loss_find(loss_at(n)->name) == loss_at(n), "%s is found by its name", loss_at(n)->name);
        CHECK(loss_at(n)->lr > 0 && loss_at(n)->lr_scale >= 0, "%s has defaults", loss_at(n)->name);
        test_one(be, loss_at(n), file);
    }
    CHECK(n == 6, "six losses");
    CHECK(!loss_find("no-such-loss"), "an unknown loss is not found");
    json_decref(file);
    backend_close(be);
    return check_done();
}
