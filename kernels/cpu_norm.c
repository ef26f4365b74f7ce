/* SPDX-License-Identifier: Apache-2.0
 * RMSNorm and LayerNorm. Gradients of gain and bias are summed per chunk of rows, then the chunks in order.
 */
#include "kernels/cpu.h"
#include <string.h>

enum { ROWS = 64 }; /* rows per chunk */

void cpu_norm(bool rms, dev y, dev stat, dev x, dev gain, dev bias, int R, int D, float eps)
{
    float *py = cpu_f(y), *ps = cpu_f(stat);
    const float *px = cpu_f(x), *pg = cpu_f(gain), *pb = dev_ok(bias) ? cpu_f(bias) : NULL;
#pragma omp parallel for schedule(static)
    for (int r = 0; r < R; r++)
        vec->norm_row(rms, py + (size_t)r * D, ps + 2 * (size_t)r, px + (size_t)r * D, pg, pb, D, eps);
}

void cpu_norm_back(bool rms, dev dx, dev dgain, dev dbias, dev dy, dev x, dev stat, dev gain, int R, int D)
{
    float *pdx = dev_ok(dx) ? cpu_f(dx) : NULL;
    const float *pdy = cpu_f(dy), *px = cpu_f(x), *ps = cpu_f(stat), *pg = cpu_f(gain);
    int chunks = (R + ROWS - 1) / ROWS;
    bool want_gain = dev_ok(dgain), want_bias = dev_ok(dbias);
    float *parts = cpu_scratch(2 * (size_t)chunks * D); /* [chunks, 2, D]: gain, bias */
#pragma omp parallel for schedule(static)
    for (int k = 0; k < chunks; k++) {
        float *dg = parts + 2 * (size_t)k * D, *db = dg + D;
        int end = (k + 1) * ROWS < R ? (k + 1) * ROWS : R;
        if (want_gain) memset(dg, 0, (size_t)D * sizeof(float));
        if (want_bias) memset(db, 0, (size_t)D * sizeof(float));
        for (int r = k * ROWS; r < end; r++) {
            size_t at = (size_t)r * D;
            vec->norm_back_row(rms, pdx ? pdx + at : NULL, want_gain ? dg : NULL, want_bias ? db : NULL,
                               pdy + at, px + at, ps + 2 * (size_t)r, pg, D);
        }
    }
    for (int k = 0; k < chunks; k++) {
        float *dg = parts + 2 * (size_t)k * D, *db = dg + D;
        if (want_gain) vec->add(cpu_f(dgain), cpu_f(dgain), dg, (size_t)D);
        if (want_bias) vec->add(cpu_f(dbias), cpu_f(dbias), db, (size_t)D);
    }
}
