/* SPDX-License-Identifier: Apache-2.0
 * A variant found in the authors' code: (1/C) sum_c (mean_y - mean_f)^2 + (var_y - var_f)^2. */
#include "common/loss.h"

static double moments(int D, const double *mf, const double *vf, const double *my, const double *vy,
                      double *dm, double *dv)
{
    double sum = 0;
    for (int c = 0; c < D; c++) {
        double m = my[c] - mf[c], v = vy[c] - vf[c];
        sum += m * m + v * v;
        dm[c] = 2 * m / D;
        dv[c] = 2 * v / D;
    }
    return sum / D;
}

const struct loss loss_author2 = {
    .name = "author2",
    .summary = "squared differences of channel means and variances, averaged (a variant of the authors)",
    .lr = 1e-4,
    .lr_scale = 10,
    .moments = moments,
};
