/* SPDX-License-Identifier: Apache-2.0
 * Statistics per channel, in double precision: each task owns some columns and walks all rows in order. */
#include "kernels/cpu.h"

enum { COLUMNS = 64 };
#define FOR_COLUMNS(D) _Pragma("omp parallel for schedule(static)") for (int c = 0; c < (D); c += COLUMNS)
#define WIDTH(D) ((D)-c < COLUMNS ? (D)-c : COLUMNS)

void cpu_channel_stats(dev acc, dev x, int R, int D)
{
    FOR_COLUMNS(D) vec->stats_cols(cpu_d(acc) + c, (size_t)D, cpu_f(x) + c, (size_t)D, R, WIDTH(D));
}

void cpu_channel_moments(dev out, dev x, int R, int D)
{
    FOR_COLUMNS(D)
    vec->moments_cols(cpu_d(out) + c, cpu_d(out) + D + c, cpu_f(x) + c, (size_t)D, R, WIDTH(D));
}

void cpu_channel_affine(dev dy, dev y, dev a, dev b, int R, int D)
{
#pragma omp parallel for schedule(static)
    for (int r = 0; r < R; r++)
        vec->affine_row(cpu_f(dy) + (size_t)r * D, cpu_f(y) + (size_t)r * D, cpu_f(a), cpu_f(b), D);
}

void cpu_channel_diff(dev err, dev dq, dev q, dev f, dev w, int p, int R, int D)
{
    FOR_COLUMNS(D)
    vec->diff_cols(cpu_d(err) + c, dev_ok(dq) ? cpu_f(dq) + c : NULL, cpu_f(q) + c, cpu_f(f) + c,
                   dev_ok(w) ? cpu_f(w) + c : NULL, p, (size_t)D, R, WIDTH(D));
}
