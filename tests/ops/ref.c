/* SPDX-License-Identifier: Apache-2.0
 * Double-precision references, written from the definitions. */
#include "tests/ops/ref.h"
#include <math.h>
#include <stdlib.h>

void ref_gemm(bool ta, bool tb, int M, int N, int K, double alpha, const double *A, int lda, const double *B,
              int ldb, double beta, double *C, int ldc)
{
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            double s = 0;
            for (int k = 0; k < K; k++)
                s += (ta ? A[(size_t)k * lda + i] : A[(size_t)i * lda + k]) *
                     (tb ? B[(size_t)j * ldb + k] : B[(size_t)k * ldb + j]);
            C[(size_t)i * ldc + j] = alpha * s + (beta == 0 ? 0 : beta * C[(size_t)i * ldc + j]);
        }
}

static void moments(bool rms, const double *x, int D, double eps, double *mean, double *rstd)
{
    double m = 0, v = 0;
    for (int c = 0; c < D; c++) m += x[c];
    m = rms ? 0 : m / D;
    for (int c = 0; c < D; c++) v += (x[c] - m) * (x[c] - m);
    *mean = m;
    *rstd = 1 / sqrt(v / D + eps);
}

void ref_norm(bool rms, double *y, const double *x, const double *gain, const double *bias, int R, int D,
              double eps)
{
    for (int r = 0; r < R; r++) {
        double m, s;
        moments(rms, x + (size_t)r * D, D, eps, &m, &s);
        for (int c = 0; c < D; c++)
            y[(size_t)r * D + c] = (x[(size_t)r * D + c] - m) * s * gain[c] + (bias ? bias[c] : 0);
    }
}

void ref_norm_back(bool rms, double *dx, double *dgain, double *dbias, const double *dy, const double *x,
                   const double *gain, int R, int D, double eps)
{
    for (int r = 0; r < R; r++) {
        const double *xr = x + (size_t)r * D, *gr = dy + (size_t)r * D;
        double m, s;
        moments(rms, xr, D, eps, &m, &s);
        for (int c = 0; c < D; c++) {
            dgain[c] += gr[c] * (xr[c] - m) * s;
            dbias[c] += gr[c];
        }
        /* dx_j = sum_c dy_c gain_c d xhat_c / d x_j, the Jacobian written out */
        for (int j = 0; j < D; j++) {
            double t = 0;
            for (int c = 0; c < D; c++) {
                double xc = (xr[c] - m) * s, xj = (xr[j] - m) * s;
                t += gr[c] * gain[c] * s * ((c == j) - (rms ? 0 : 1.0 / D) - xc * xj / D);
            }
            dx[(size_t)r * D + j] = t;
        }
    }
}

double ref_act(enum act kind, double x)
{
    switch (kind) {
    case ACT_SILU:
        return x / (1 + exp(-x));
    case ACT_GELU:
        return 0.5 * x * erfc(-x / sqrt(2));
    case ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case ACT_QUICK_GELU:
        return x / (1 + exp(-1.702 * x));
    case ACT_RELU:
        return x > 0 ? x : 0;
    default:
        return x > 0 ? x * x : 0;
    }
}

/* By differences, but where the value is not smooth: nothing to derive wrongly. */
double ref_act_slope(enum act kind, double x)
{
    double h = 1e-4 * (1 + fabs(x));
    if (kind == ACT_RELU) return x > 0;
    if (kind == ACT_RELU2) return x > 0 ? 2 * x : 0;
    return (8 * (ref_act(kind, x + h) - ref_act(kind, x - h)) -
            (ref_act(kind, x + 2 * h) - ref_act(kind, x - 2 * h))) /
           (12 * h);
}

void ref_rope(double *x, int R, int T, int heads, int E, int rot, bool pairs, const double *cossin, int pos0,
              double sign)
{
    for (int r = 0; r < R; r++)
        for (int h = 0; h < heads; h++)
            for (int i = 0; i < rot / 2; i++) {
                double *head = x + ((size_t)r * heads + h) * E, *p = head + (pairs ? 2 * i : i),
                       *q = pairs ? p + 1 : p + rot / 2, a = *p, b = *q;
                const double *t = cossin + (size_t)(pos0 + r % T) * rot;
                *p = a * t[i] - sign * b * t[rot / 2 + i];
                *q = b * t[i] + sign * a * t[rot / 2 + i];
            }
}

static bool sees(const struct ref_attn *s, int t, int u)
{
    return u <= t && (s->window <= 0 || t - u < s->window);
}

static double score(const struct ref_attn *s, const double *q, const double *k, int b, int t, int u, int h)
{
    const double *qr = q + (((size_t)b * s->T + t) * s->H + h) * s->E;
    const double *kr = k + (((size_t)b * s->T + u) * s->G + h / (s->H / s->G)) * s->E;
    double d = 0;
    for (int e = 0; e < s->E; e++) d += qr[e] * kr[e];
    d *= s->scale;
    return s->softcap > 0 ? s->softcap * tanh(d / s->softcap) : d;
}

double ref_lse(const double *z, int n)
{
    double m = -INFINITY, t = 0;
    for (int i = 0; i < n; i++) m = fmax(m, z[i]);
    for (int i = 0; i < n; i++) t += exp(z[i] - m);
    return m + log(t);
}

/* Probabilities of row t, head h over keys 0..t (0 where unseen); returns lse. */
static double row_probs(const struct ref_attn *s, double *p, const double *q, const double *k, int b, int t,
                        int h)
{
    double lse;
    for (int u = 0; u <= t; u++) {
        double bias = s->slopes ? s->slopes[h] * (u - t) : 0;
        p[u] = sees(s, t, u) ? score(s, q, k, b, t, u, h) + bias : -INFINITY;
    }
    lse = ref_lse(p, t + 1);
    for (int u = 0; u <= t; u++) p[u] = exp(p[u] - lse);
    return lse;
}

void ref_attention(const struct ref_attn *s, double *out, double *lse, const double *q, const double *k,
                   const double *v)
{
    double *p = malloc(sizeof(double) * s->T);
    for (int b = 0; b < s->B; b++)
        for (int t = 0; t < s->T; t++)
            for (int h = 0; h < s->H; h++) {
                double *o = out + (((size_t)b * s->T + t) * s->H + h) * s->E;
                double l = row_probs(s, p, q, k, b, t, h);
                if (lse) lse[((size_t)b * s->T + t) * s->H + h] = l;
                for (int e = 0; e < s->E; e++) {
                    o[e] = 0;
                    for (int u = 0; u <= t; u++)
                        o[e] += p[u] * v[(((size_t)b * s->T + u) * s->G + h / (s->H / s->G)) * s->E + e];
                }
            }
    free(p);
}

void ref_attention_back(const struct ref_attn *s, double *dq, double *dk, double *dv, const double *dout,
                        const double *q, const double *k, const double *v)
{
    double *p = malloc(sizeof(double) * s->T), *dp = malloc(sizeof(double) * s->T);
    for (size_t i = 0; i < (size_t)s->B * s->T * s->H * s->E; i++) dq[i] = 0;
    for (size_t i = 0; i < (size_t)s->B * s->T * s->G * s->E; i++) dk[i] = dv[i] = 0;
    for (int b = 0; b < s->B; b++)
        for (int t = 0; t < s->T; t++)
            for (int h = 0; h < s->H; h++) {
                size_t row = (((size_t)b * s->T + t) * s->H + h) * s->E;
                double mean = 0;
                row_probs(s, p, q, k, b, t, h);
                for (int u = 0; u <= t; u++) {
                    size_t key = (((size_t)b * s->T + u) * s->G + h / (s->H / s->G)) * s->E;
                    dp[u] = 0;
                    for (int e = 0; e < s->E; e++) {
                        dp[u] += dout[row + e] * v[key + e];
                        dv[key + e] += p[u] * dout[row + e];
                    }
                    mean += p[u] * dp[u];
                }
                for (int u = 0; u <= t; u++) {
                    size_t key = (((size_t)b * s->T + u) * s->G + h / (s->H / s->G)) * s->E;
                    double ds = p[u] * (dp[u] - mean) * s->scale, z = score(s, q, k, b, t, u, h);
                    if (s->softcap > 0) ds *= 1 - z * z / (s->softcap * s->softcap);
                    for (int e = 0; e < s->E; e++) {
                        dq[row + e] += ds * k[key + e];
                        dk[key + e] += ds * q[row + e];
                    }
                }
            }
    free(p);
    free(dp);
}
