/* SPDX-License-Identifier: Apache-2.0
 * The output head: running softmax statistics over tiles of the vocabulary, and the gradients of
 * cross-entropy and KL. */
#include "kernels/cpu.h"
#include <math.h>

enum { ST = 4, KL = 6 };

void cpu_head_init(dev st, dev best, int R)
{
    float *s = cpu_f(st), *b = cpu_f(best);
    for (int r = 0; r < R; r++) {
        s[r * ST] = -INFINITY;
        s[r * ST + 1] = s[r * ST + 2] = s[r * ST + 3] = 0;
        ((int32_t *)b)[2 * r] = 0;
        b[2 * r + 1] = -INFINITY;
    }
}

/* Raises a running (max, sum) to a new maximum; returns the factor that old sums were multiplied with. */
static float raise(float *max, float *sum, float m)
{
    float f = 1;
    if (m > *max) {
        f = *max == -INFINITY ? 0 : expf(*max - m);
        *sum *= f;
        *max = m;
    }
    return f;
}

void cpu_head_fold(dev st, dev best, dev z, dev targets, int R, int n, int v0)
{
#pragma omp parallel for schedule(static)
    for (int r = 0; r < R; r++) {
        const float *row = cpu_f(z) + (size_t)r * n;
        float *s = cpu_f(st) + (size_t)r * ST, *b = cpu_f(best) + 2 * (size_t)r, m = vec->max(row, (size_t)n);
        int32_t t = cpu_i(targets)[r];
        if (m > b[1]) {
            int i = 0;
            while (row[i] != m) i++;
            ((int32_t *)b)[0] = v0 + i;
            b[1] = m;
        }
        raise(&s[0], &s[1], m);
        if (s[0] != -INFINITY)
            s[1] += vec->sum_exp(row, s[0], (size_t)n);
        else
            for (int i = 0; i < n; i++)
                if (row[i] != row[i]) s[1] = NAN; /* no number but NaN so far */
        if (t >= v0 && t < v0 + n) s[2] = row[t - v0];
    }
}

void cpu_kl_init(dev st, int R)
{
    float *s = cpu_f(st);
    for (int r = 0; r < R; r++, s += KL) {
        s[0] = s[2] = -INFINITY;
        s[1] = s[3] = s[4] = s[5] = 0;
    }
}

void cpu_kl_fold(dev st, dev zp, dev zq, int R, int n)
{
#pragma omp parallel for schedule(static)
    for (int r = 0; r < R; r++) {
        const float *p = cpu_f(zp) + (size_t)r * n, *q = cpu_f(zq) + (size_t)r * n;
        float *s = cpu_f(st) + (size_t)r * KL, dot;
        s[4] *= raise(&s[0], &s[1], vec->max(p, (size_t)n));
        raise(&s[2], &s[3], vec->max(q, (size_t)n));
        s[1] += vec->sum_exp_diff(p, q, s[0], &dot, (size_t)n);
        s[4] += dot;
        s[3] += vec->sum_exp(q, s[2], (size_t)n);
    }
}

void cpu_ce_back(dev z, dev lse, dev targets, int R, int n, int v0, float scale)
{
#pragma omp parallel for schedule(static)
    for (int r = 0; r < R; r++) {
        float *row = cpu_f(z) + (size_t)r * n;
        int32_t t = cpu_i(targets)[r];
        if (t < 0) {
            for (int i = 0; i < n; i++) row[i] = 0;
            continue;
        }
        vec->ce_row(row, cpu_f(lse)[r], scale, (size_t)n);
        if (t >= v0 && t < v0 + n) row[t - v0] -= scale;
    }
}

void cpu_kl_back(dev zq, dev zp, dev lse_q, dev lse_p, int R, int n, float scale)
{
#pragma omp parallel for schedule(static)
    for (int r = 0; r < R; r++)
        vec->kl_row(cpu_f(zq) + (size_t)r * n, cpu_f(zp) + (size_t)r * n, cpu_f(lse_q)[r], cpu_f(lse_p)[r],
                    scale, (size_t)n);
}
