/* SPDX-License-Identifier: Apache-2.0
 * RMSNorm and LayerNorm. Gradients of gain and bias are summed per chunk of rows, then the chunks in order.
 */
#include "kernels/cpu.h"
#include <string.h>

enum { ROWS = 64 }; /* rows per chunk, times the rows of the gain */

void cpu_norm(bool rms, dev y, dev stat, dev x, dev gain, dev bias, int gains, int R, int D, float eps)
{
    float *py = cpu_f(y), *ps = cpu_f(stat);
    const float *px = cpu_f(x), *pg = cpu_f(gain), *pb = dev_ok(bias) ? cpu_f(bias) : NULL;
#pragma omp parallel for schedule(static)
    for (int r = 0; r < R; r++) {
        size_t own = (size_t)(r % gains) * D;
        vec->norm_row(rms, py + (size_t)r * D, ps + 2 * (size_t)r, px + (size_t)r * D, pg + own,
                      pb ? pb + own : NULL, D, eps);
    }
}

void cpu_norm_back(bool rms, dev dx, dev dgain, dev dbias, dev dy, dev x, dev stat, dev gain, int gains,
                   int R, int D)
{
    float *pdx = dev_ok(dx) ? cpu_f(dx) : NULL;
    const float *pdy = cpu_f(dy), *px = cpu_f(x), *ps = cpu_f(stat), *pg = cpu_f(gain);
    int each = ROWS * gains, chunks = (R + each - 1) / each;
    size_t all = (size_t)gains * D;
    bool want_gain = dev_ok(dgain), want_bias = dev_ok(dbias);
    float *parts = cpu_scratch(2 * (size_t)chunks * all); /* [chunks, 2, gains, D]: gain, bias */
#pragma omp parallel for schedule(static)
    for (int k = 0; k < chunks; k++) {
        float *dg = parts + 2 * (size_t)k * all, *db = dg + all;
        int end = (k + 1) * each < R ? (k + 1) * each : R;
        if (want_gain) memset(dg, 0, all * sizeof(float));
        if (want_bias) memset(db, 0, all * sizeof(float));
        for (int r = k * each; r < end; r++) {
            size_t at = (size_t)r * D, own = (size_t)(r % gains) * D;
            vec->norm_back_row(rms, pdx ? pdx + at : NULL, want_gain ? dg + own : NULL,
                               want_bias ? db + own : NULL, pdy + at, px + at, ps + 2 * (size_t)r, pg + own,
                               D);
        }
    }
    for (int k = 0; k < chunks; k++) {
        float *dg = parts + 2 * (size_t)k * all, *db = dg + all;
        if (want_gain) vec->add(cpu_f(dgain), cpu_f(dgain), dg, all);
        if (want_bias) vec->add(cpu_f(dbias), cpu_f(dbias), db, all);
    }
}
