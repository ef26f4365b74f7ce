/* SPDX-License-Identifier: Apache-2.0
 * The slot of tweak losses and the chain rule from per-channel numbers to activations:
 *   dL/dy[r,c] = dL/dmean[c] / R + dL/dvar[c] * 2 (y[r,c] - mean[c]) / (R - 1) = a[c] + b[c] y[r,c]. */
#include "common/loss.h"
#include <string.h>
#include "common/mem.h"

#define X(n) extern const struct loss loss_##n;
#include "losses.inc"
#undef X

static const struct loss *const all[] = {
#define X(n) &loss_##n,
#include "losses.inc"
#undef X
};

struct loss_work {
    const struct backend *be;
    const struct loss *l;
    int D;
    dev wide;      /* f64[2, D]: moments or errors */
    dev a, b;      /* f32[D] */
    double *host;  /* [5, D] */
    float *narrow; /* [2, D] */
};

const struct loss *loss_at(int i)
{
    return i >= 0 && (size_t)i < sizeof all / sizeof *all ? all[i] : NULL;
}

const struct loss *loss_find(const char *name)
{
    for (int i = 0; loss_at(i); i++)
        if (!strcmp(all[i]->name, name)) return all[i];
    return NULL;
}

struct loss_work *loss_alloc(const struct backend *be, const struct loss *l, int D)
{
    struct loss_work *w = MEM_NEW(struct loss_work, 1);
    w->be = be;
    w->l = l;
    w->D = D;
    w->wide = be->alloc(2 * (size_t)D * sizeof(double));
    w->a = be->alloc((size_t)D * sizeof(float));
    w->b = be->alloc((size_t)D * sizeof(float));
    w->host = MEM_NEW(double, 5 * (size_t)D);
    w->narrow = MEM_NEW(float, 2 * (size_t)D);
    return w;
}

void loss_free(struct loss_work *w)
{
    if (!w) return;
    w->be->release(w->wide);
    w->be->release(w->a);
    w->be->release(w->b);
    mem_free(w->host);
    mem_free(w->narrow);
    mem_free(w);
}

void loss_moments(struct loss_work *w, dev f, int R, double *mom)
{
    w->be->channel_moments(w->wide, f, R, w->D);
    w->be->get(mom, w->wide, 2 * (size_t)w->D * sizeof(double));
    double unbias = R > 1 ? (double)R / (R - 1) : 0; /* one token has no spread */
    for (int c = 0; c < w->D; c++) mom[w->D + c] *= unbias;
}

static double eval_moments(struct loss_work *w, const double *mom, dev y, int R, dev dy)
{
    int D = w->D;
    double *my = w->host, *dmean = my + 2 * (size_t)D, *dvar = dmean + D;
    float *a = w->narrow, *b = a + D;
    loss_moments(w, y, R, my);
    double value = w->l->moments(D, mom, mom + D, my, my + D, dmean, dvar);
    if (!dev_ok(dy)) return value;
    for (int c = 0; c < D; c++) {
        double slope = R > 1 ? 2 * dvar[c] / (R - 1) : 0;
        b[c] = (float)slope;
        a[c] = (float)(dmean[c] / R - slope * my[c]);
    }
    w->be->put(w->a, a, (size_t)D * sizeof *a);
    w->be->put(w->b, b, (size_t)D * sizeof *b);
    w->be->channel_affine(dy, y, w->a, w->b, R, D);
    return value;
}

static double eval_points(struct loss_work *w, const double *mom, dev f, dev y, int R, dev dy)
{
    int D = w->D;
    double *weight = w->host, *err = weight + D, value = 0;
    w->l->weights(D, R, mom + D, weight);
    for (int c = 0; c < D; c++) w->narrow[c] = (float)weight[c];
    w->be->put(w->a, w->narrow, (size_t)D * sizeof *w->narrow);
    w->be->channel_diff(w->wide, dy, y, f, w->a, w->l->power, R, D);
    w->be->get(err, w->wide, (size_t)D * sizeof *err);
    for (int c = 0; c < D; c++) value += weight[c] * err[c];
    return value;
}

double loss_eval(struct loss_work *w, const double *mom, dev f, dev y, int R, dev dy)
{
    return w->l->power ? eval_points(w, mom, f, y, R, dy) : eval_moments(w, mom, y, R, dy);
}
