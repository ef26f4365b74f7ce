/* SPDX-License-Identifier: Apache-2.0
 * GPTQ on the grids of ggml's K types (common/kquant_solve.h): -b 2 to 6 are Q2_K to Q6_K. The codes are
 * those that leave in a GGUF file. */
#include "common/kquant_solve.h"
#include "common/mem.h"

struct prepared {
    struct solver_factor *f;
    float *importance;
};

static void *kquant_prepare(const struct site_stats *st, const struct quant_opts *o, json_t *info,
                            struct err *e)
{
    struct quant_opts single = *o;
    single.true_f64 = false;
    single.order_block = kquant_block(st->dim);
    struct solver_factor *f = solver_factor_alloc(st->hessian, st->dim, &single, info, e);
    if (!f) return NULL;
    struct prepared *p = MEM_NEW(struct prepared, 1);
    p->f = f;
    p->importance = MEM_NEW(float, (size_t)st->dim);
    for (size_t i = 0, n = (size_t)st->dim; i < n; i++) {
        float u =
            f->U[i * n +
                 i]; /* what columns to come cannot make up for: the sum of (error / U_ii)^2 is minimised */
        p->importance[f->order[i]] = 1 / (u * u);
    }
    return p;
}

static void kquant_release(void *prepared)
{
    struct prepared *p = prepared;
    if (!p) return;
    solver_factor_free(p->f);
    mem_free(p->importance);
    mem_free(p);
}

static int kquant_run(const struct backend *be, const float *W, int out, int in, const struct site_stats *st,
                      const void *prepared, const struct quant_opts *o, struct qtensor *q, struct err *e)
{
    const struct prepared *p = prepared;
    (void)be, (void)st;
    return kquant_solve(p->f, p->importance, W, out, in, o, q, e);
}

const struct quantizer quantizer_kquant = {
    .name = "kquant",
    .summary = "GPTQ on the grids of llama.cpp's Q2_K to Q6_K (-b 2..6), for --format gguf",
    .needs = "hessian",
    .prepare = kquant_prepare,
    .release = kquant_release,
    .run = kquant_run,
};
