/* SPDX-License-Identifier: Apache-2.0
 * GPTQ (Frantar et al., ICLR 2023): round column by column and let the columns to come make up for each
 * error, as the Hessian of the inputs has it. The solver is common/solver.h; linears of one site share one
 * factor. */
#include "common/quantizer.h"
#include "common/solver.h"

static void *gptq_prepare(const struct site_stats *st, const struct quant_opts *o, json_t *info,
                          struct err *e)
{
    return solver_factor_alloc(st->hessian, st->dim, o, info, e);
}

static void gptq_release(void *prepared)
{
    solver_factor_free(prepared);
}

static int gptq_run(const struct backend *be, const float *W, int out, int in, const struct site_stats *st,
                    const void *prepared, const struct quant_opts *o, struct qtensor *q, struct err *e)
{
    double objective;
    (void)be, (void)in, (void)st;
    return solver_run(prepared, W, out, o, q, &objective, e);
}

const struct quantizer quantizer_gptq = {
    .name = "gptq",
    .summary = "error compensation by the inputs' Hessian (act-order, static groups, growing damping)",
    .needs = "hessian",
    .prepare = gptq_prepare,
    .release = gptq_release,
    .run = gptq_run,
};
