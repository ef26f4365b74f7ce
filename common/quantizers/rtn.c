/* SPDX-License-Identifier: Apache-2.0
 * Round to nearest: every weight to the nearest level of its group's grid (common/grid.h). Needs no data. */
#include "common/quantizer.h"
#include "common/solver.h"

static int rtn_run(const struct backend *be, const float *W, int out, int in, const struct site_stats *st,
                   const void *prepared, const struct quant_opts *o, struct qtensor *q, struct err *e)
{
    struct solver_factor *none = solver_factor_none(in);
    double error;
    (void)be, (void)st, (void)prepared;
    int rc = solver_run(none, W, out, o, q, &error, e);
    solver_factor_free(none);
    return rc;
}

const struct quantizer quantizer_rtn = {
    .name = "rtn",
    .summary = "round to nearest, needs no data",
    .needs = "",
    .run = rtn_run,
};
