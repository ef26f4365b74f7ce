/* SPDX-License-Identifier: Apache-2.0
 * The loss of the Norm Tweaking authors' experiment code: sum_c (mean_y - mean_f)^2 + (std_y - std_f)^2,
 * std = sqrt(var + 1e-6). */
#include "common/loss.h"
#include <math.h>

static double moments(int D, const double *mf, const double *vf, const double *my, const double *vy,
                      double *dm, double *dv)
{
    double sum = 0;
    for (int c = 0; c < D; c++) {
        double m = my[c] - mf[c], sy = sqrt(vy[c] + 1e-6), s = sy - sqrt(vf[c] + 1e-6);
        sum += m * m + s * s;
        dm[c] = 2 * m;
        dv[c] = s / sy; /* 2 s ds, ds = dv / (2 sy) */
    }
    return sum;
}

const struct loss loss_author = {
    .name = "author",
    .summary = "squared differences of channel means and standard deviations, summed (the authors' code)",
    .lr = 1e-4,
    .lr_scale = 10,
    .moments = moments,
};
