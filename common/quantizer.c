/* SPDX-License-Identifier: Apache-2.0
 * The table of methods (made from the directory common/quantizers), their options, and what is the same
 * around every method: checking the input, sharing per-site preparation, measuring the error. */
#include "common/quantizer.h"
#include <cblas.h>
#include <math.h>
#include <string.h>
#include <strings.h>
#include "common/mem.h"

#define X(stem) extern const struct quantizer quantizer_##stem;
#include "quantizers.inc"
#undef X

static const struct quantizer *const table[] = {
#define X(stem) &quantizer_##stem,
#include "quantizers.inc"
#undef X
    NULL};

const struct quantizer *quantizer_find(const char *name)
{
    for (int i = 0; table[i]; i++)
        if (!strcmp(table[i]->name, name)) return table[i];
    return NULL;
}

const struct quantizer *quantizer_at(int i)
{
    return table[i];
}

/* ---- options ---- */

void quant_opts_init(struct quant_opts *o)
{
    *o = (struct quant_opts){.bits = 4, .group = 128, .damp = 0.01, .block = 128, .scale_dtype = DT_F16};
}

int quant_opts_check(const struct quant_opts *o, struct err *e)
{
    if (o->bits < 2 || o->bits > 8) return err_set(e, NT_EXIT_USAGE, "bits must be 2 to 8, not %d", o->bits);
    if (o->group < 0)
        return err_set(e, NT_EXIT_USAGE, "group must be 0 (one per row) or more, not %d", o->group);
    if (!(o->damp >= 0) || o->damp > 1e3)
        return err_set(e, NT_EXIT_USAGE, "damping must be 0 to 1000, not %g", o->damp);
    if (o->block < 1 || o->block > 1 << 20)
        return err_set(e, NT_EXIT_USAGE, "block must be 1 to 1048576, not %d", o->block);
    if (o->scale_dtype != DT_F16 && o->scale_dtype != DT_F32 && o->scale_dtype != DT_BF16)
        return err_set(e, NT_EXIT_USAGE, "scales are stored as F16, F32 or BF16");
    return 0;
}

enum dtype quant_scale_dtype(const char *name)
{
    return !strcasecmp(name, "f16")    ? DT_F16
           : !strcasecmp(name, "f32")  ? DT_F32
           : !strcasecmp(name, "bf16") ? DT_BF16
                                       : DT_NONE;
}

json_t *quant_opts_json(const struct quantizer *qz, const struct quant_opts *o)
{
    json_t *j = json_pack("{s:s, s:i, s:i, s:b, s:s, s:s}", "method", qz->name, "bits", o->bits, "group",
                          o->group, "sym", o->sym, "clip", o->clip_mse ? "mse" : "none", "scale_dtype",
                          dtype_name(o->scale_dtype));
    if (qz->needs[0]) {
        json_object_set_new(j, "act_order", json_boolean(o->act_order));
        json_object_set_new(j, "static_groups", json_boolean(o->static_groups || o->act_order));
        json_object_set_new(j, "damp", json_real(o->damp));
        json_object_set_new(j, "block", json_integer(o->block));
    }
    if (o->true_f64) json_object_set_new(j, "f64", json_true());
    return j;
}

/* ---- preparation, shared by the linears of a site ---- */

struct prepared {
    const struct quantizer *qz;
    struct quant_opts o;
    int site;
    void *what;
    json_t *info;
};

struct quantizer_cache {
    struct prepared *v;
    size_t n, cap;
};

struct quantizer_cache *quantizer_cache_alloc(void)
{
    return MEM_NEW(struct quantizer_cache, 1);
}

void quantizer_cache_clear(struct quantizer_cache *c)
{
    for (size_t i = 0; i < c->n; i++) {
        c->v[i].qz->release(c->v[i].what);
        json_decref(c->v[i].info);
    }
    c->n = 0;
}

void quantizer_cache_free(struct quantizer_cache *c)
{
    if (!c) return;
    quantizer_cache_clear(c);
    mem_free(c->v);
    mem_free(c);
}

/* What a preparation depends on; bits, group and grid do not enter it. */
static bool same_preparation(const struct prepared *p, const struct quantizer *qz, int site,
                             const struct quant_opts *o)
{
    return p->qz == qz && p->site == site && p->o.act_order == o->act_order && p->o.damp == o->damp &&
           p->o.true_f64 == o->true_f64;
}

static const struct prepared *prepare(struct quantizer_cache *c, const struct quantizer *qz,
                                      const struct site_stats *st, const struct quant_opts *o, struct err *e)
{
    for (size_t i = 0; i < c->n; i++)
        if (same_preparation(&c->v[i], qz, st->site, o)) return &c->v[i];
    json_t *info = json_object();
    void *what = qz->prepare(st, o, info, e);
    if (!what) {
        json_decref(info);
        return NULL;
    }
    c->v = mem_grow(c->v, &c->cap, c->n + 1, sizeof *c->v);
    c->v[c->n] = (struct prepared){qz, *o, st->site, what, info};
    return &c->v[c->n++];
}

/* ---- errors ---- */

#define OBJECTIVE_ROWS 64
#define OBJECTIVE_COLS 256

/* Columns j .. j+n-1 of M[rows, in] against themselves and those to their right. */
static double objective_cols(const float *m, int rows, int in, int j, int n, const float *H, float *mh)
{
    double own = 0, right = 0;
    int width = in - j;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, width, n, 1, m + j, in,
                H + (size_t)j * in + j, in, 0, mh, width);
    for (int r = 0; r < rows; r++) {
        const float *a = mh + (size_t)r * width, *b = m + (size_t)r * in + j;
        for (int i = 0; i < n; i++) own += (double)a[i] * (double)b[i];
        for (int i = n; i < width; i++) right += (double)a[i] * (double)b[i];
    }
    return own + 2 * right;
}

double quantizer_objective(const float *M, int out, int in, const float *H)
{
    int tiles = (out + OBJECTIVE_ROWS - 1) / OBJECTIVE_ROWS;
    double *part = MEM_NEW(double, (size_t)tiles), sum = 0;
    openblas_set_num_threads(1);
#pragma omp parallel for schedule(dynamic)
    for (int t = 0; t < tiles; t++) {
        int r0 = t * OBJECTIVE_ROWS, rows = out - r0 < OBJECTIVE_ROWS ? out - r0 : OBJECTIVE_ROWS;
        const float *m = M + (size_t)r0 * in;
        float *mh = MEM_NEW(float, (size_t)rows *in);
        for (int j = 0; j < in;
             j += OBJECTIVE_COLS) /* H is symmetric: its blocks right of the diagonal count twice */
            part[t] +=
                objective_cols(m, rows, in, j, in - j < OBJECTIVE_COLS ? in - j : OBJECTIVE_COLS, H, mh);
        mem_free(mh);
    }
    for (int t = 0; t < tiles; t++) sum += part[t];
    mem_free(part);
    return sum;
}

static double squares(const float *x, size_t n)
{
    double s = 0;
    for (size_t i = 0; i < n; i++) s += (double)x[i] * (double)x[i];
    return s;
}

static void note_error(const float *W, const struct site_stats *st, struct qtensor *q)
{
    size_t n = (size_t)q->out * q->in;
    float *d = MEM_NEW(float, n);
    qtensor_dequant(q, d);
    for (size_t i = 0; i < n; i++) d[i] = W[i] - d[i];
    double w = squares(W, n);
    json_object_set_new(q->info, "rel_weights", json_real(w > 0 ? sqrt(squares(d, n) / w) : 0));
    if (st && st->hessian) {
        double all = quantizer_objective(W, q->out, q->in, st->hessian);
        double left = quantizer_objective(d, q->out, q->in, st->hessian);
        json_object_set_new(q->info, "rel_objective", json_real(all > 0 ? left / all : 0));
    }
    mem_free(d);
}

static int check_stats(const struct quantizer *qz, int in, const struct site_stats *st, const char *name,
                       struct err *e)
{
    if (!qz->needs[0] || (st && st->dim == in && (!strstr(qz->needs, "hessian") || st->hessian))) return 0;
    return err_set(e, NT_EXIT_DATA, "%s: the statistics hold no %s of %d inputs for it", name, qz->needs, in);
}

int quantizer_prepare(const struct quantizer *qz, struct quantizer_cache *c, int in,
                      const struct site_stats *st, const struct quant_opts *o, const char *name,
                      struct err *e)
{
    if (quant_opts_check(o, e) || check_stats(qz, in, st, name, e)) return -1;
    return qz->prepare && !prepare(c, qz, st, o, e) ? err_prefix(e, "%s", name) : 0;
}

int quantizer_run(const struct quantizer *qz, struct quantizer_cache *c, const struct backend *be,
                  const float *W, int out, int in, const struct site_stats *st, const struct quant_opts *o,
                  struct qtensor *q, struct err *e)
{
    const struct prepared *p = NULL;
    size_t bad = f32_first_nonfinite(W, (size_t)out * in);

    if (quant_opts_check(o, e)) return -1;
    if (bad < (size_t)out * in)
        return err_set(e, NT_EXIT_DATA, "%s: weight [%zu, %zu] is not finite", q->name, bad / in, bad % in);
    if (check_stats(qz, in, st, q->name, e)) return -1;
    if (!q->info) q->info = quant_opts_json(qz, o);
    if (qz->prepare && !(p = prepare(c, qz, st, o, e))) return err_prefix(e, "%s", q->name);
    if (qz->run(be, W, out, in, st, p ? p->what : NULL, o, q, e)) return err_prefix(e, "%s", q->name);
    if (p) json_object_update(q->info, p->info);
    note_error(W, st, q);
    return 0;
}
