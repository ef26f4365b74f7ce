/* SPDX-License-Identifier: Apache-2.0
 * Mean squared error with every channel divided by its variance in the target, so that a few channels of
 * massive activations do not outweigh all others: mean_c mean_r (y - f)^2 / (var_f + 1e-6). */
#include "common/loss.h"

static void weights(int D, int R, const double *var_f, double *w)
{
    for (int c = 0; c < D; c++) w[c] = 1.0 / ((double)R * D * (var_f[c] + 1e-6));
}

const struct loss loss_nmse = {
    .name = "nmse",
    .summary = "mean squared error, each channel in units of its variance in the target",
    .lr = 1e-3,
    .lr_scale = 1,
    .power = 2,
    .weights = weights,
};
