/* SPDX-License-Identifier: Apache-2.0
 * Rounding to nearest on the grids of ggml's K types, scales searched with importance weights: the mean
 * squares of the inputs, which llama.cpp calls an importance matrix, are the Hessian's diagonal. */
#include "common/kquant_solve.h"
#include "common/mem.h"

static int krtn_run(const struct backend *be, const float *W, int out, int in, const struct site_stats *st,
                    const void *prepared, const struct quant_opts *o, struct qtensor *q, struct err *e)
{
    size_t n = (size_t)in;
    float *importance = MEM_NEW(float, n);
    (void)be, (void)prepared;
    for (size_t i = 0; i < n; i++) importance[i] = st->hessian[i * n + i];
    int rc = kquant_solve(NULL, importance, W, out, in, o, q, e);
    mem_free(importance);
    return rc;
}

const struct quantizer quantizer_krtn = {
    .name = "krtn",
    .summary = "round to nearest on the grids of Q2_K to Q6_K (-b 2..6), scales by the inputs' importance",
    .needs = "hessian",
    .run = krtn_run,
};
