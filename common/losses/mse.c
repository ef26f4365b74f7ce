/* SPDX-License-Identifier: Apache-2.0
 * Mean squared error of the block's output. */
#include "common/loss.h"

static void weights(int D, int R, const double *var_f, double *w)
{
    (void)var_f;
    for (int c = 0; c < D; c++) w[c] = 1.0 / ((double)R * D);
}

const struct loss loss_mse = {
    .name = "mse",
    .summary = "mean squared error of the block's output",
    .lr = 1e-4,
    .lr_scale = 10,
    .power = 2,
    .weights = weights,
};
