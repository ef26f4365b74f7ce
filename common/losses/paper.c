/* SPDX-License-Identifier: Apache-2.0
 * The loss as the Norm Tweaking paper prints it: (1/C) sum_c |mean_y - mean_f| + |var_y - var_f|. */
#include "common/loss.h"
#include <math.h>

static double moments(int D, const double *mf, const double *vf, const double *my, const double *vy,
                      double *dm, double *dv)
{
    double sum = 0;
    for (int c = 0; c < D; c++) {
        double m = my[c] - mf[c], v = vy[c] - vf[c];
        sum += fabs(m) + fabs(v);
        dm[c] = (double)((m > 0) - (m < 0)) / D;
        dv[c] = (double)((v > 0) - (v < 0)) / D;
    }
    return sum / D;
}

const struct loss loss_paper = {
    .name = "paper",
    .summary = "absolute differences of channel means and variances, averaged (as the paper prints it)",
    .lr = 1e-4,
    .lr_scale = 10,
    .moments = moments,
};
