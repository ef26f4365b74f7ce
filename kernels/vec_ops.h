/* SPDX-License-Identifier: Apache-2.0
 * The vector loops, included by vec_base.c, vec_avx2.c and vec_avx512.c, which set the instruction set: plain
 * C that the compiler vectorises. Reductions are declared to it one by one, so that everything else keeps
 * IEEE semantics. VEC_FMA is a * b + c in the cheapest accurate way of the instruction set, VEC_VFMA the same
 * of whole vectors; VEC_BYTES is a vector's size, VEC_COLS the columns of a block of panel_product. */
#include "kernels/cpu.h"
#include <math.h>
#include <string.h>

/* exp(x) within 2 ulp: x = n ln 2 + r, a polynomial on r, two steps of scaling so that the largest results do
 * not overflow early. Below -86.5 the result is 0 (no subnormals); NaN stays NaN. Branch-free. */
static inline float vexp(float x)
{
    const float log2e = 1.44269504088896341f, ln2_hi = 0.693359375f, ln2_lo = -2.12194440e-4f;
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    float c = x > 88.8f ? 88.8f : x < -86.5f ? -86.5f : x;
    union {
        float f;
        uint32_t u;
    } t = {VEC_FMA(c, log2e, magic)}, s; /* n is in the low bits of t */
    float n = t.f - magic;
    float r = VEC_FMA(n, -ln2_lo, VEC_FMA(n, -ln2_hi, c));
    float p = 1.9875691500e-4f;
    float y;
    p = VEC_FMA(p, r, 1.3981999507e-3f);
    p = VEC_FMA(p, r, 8.3334519073e-3f);
    p = VEC_FMA(p, r, 4.1665795894e-2f);
    p = VEC_FMA(p, r, 1.6666665459e-1f);
    p = VEC_FMA(p, r, 5.0000001201e-1f);
    p = VEC_FMA(p, r * r, r) + 1.0f;
    s.u = (t.u + 126u) << 23;
    y = p * s.f * 2.0f;
    return x < -86.5f ? 0.0f : y;
}

static void vec_add(float *y, const float *a, const float *b, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

static void vec_axpy(float *y, float s, const float *x, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) y[i] = VEC_FMA(s, x[i], y[i]);
}

static float vec_dot(const float *a, const float *b, size_t n)
{
    float s = 0;
#pragma omp simd reduction(+ : s)
    for (size_t i = 0; i < n; i++) s += a[i] * b[i];
    return s;
}

static void vec_scale(float *y, float s, const float *x, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) y[i] = s * x[i];
}

static void vec_exp(float *y, const float *x, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) y[i] = vexp(x[i]);
}

static float vec_max(const float *x, size_t n)
{
    float m = -INFINITY;
#pragma omp simd reduction(max : m)
    for (size_t i = 0; i < n; i++) m = x[i] > m ? x[i] : m;
    return m;
}

static float vec_exp_sum(float *y, const float *x, float scale, float sub, size_t n)
{
    float s = 0;
#pragma omp simd reduction(+ : s)
    for (size_t i = 0; i < n; i++) {
        float e = vexp(VEC_FMA(scale, x[i], -sub));
        y[i] = e;
        s += e;
    }
    return s;
}

#include "kernels/vec_act.h"

static void vec_norm_row(bool rms, float *y, float *stat, const float *x, const float *gain,
                         const float *bias, int D, float eps)
{
    float mean = 0, var = 0, rstd;
    if (!rms) {
#pragma omp simd reduction(+ : mean)
        for (int c = 0; c < D; c++) mean += x[c];
        mean /= (float)D;
    }
#pragma omp simd reduction(+ : var)
    for (int c = 0; c < D; c++) var += (x[c] - mean) * (x[c] - mean);
    rstd = 1.0f / sqrtf(var / (float)D + eps);
    stat[0] = mean;
    stat[1] = rstd;
    if (bias) {
#pragma omp simd
        for (int c = 0; c < D; c++) y[c] = VEC_FMA((x[c] - mean) * rstd, gain[c], bias[c]);
    } else {
#pragma omp simd
        for (int c = 0; c < D; c++) y[c] = (x[c] - mean) * rstd * gain[c];
    }
}

static void vec_norm_back_row(bool rms, float *dx, float *dgain, float *dbias, const float *dy,
                              const float *x, const float *stat, const float *gain, int D)
{
    float mean = stat[0], rstd = stat[1], sum_g = 0, sum_gx = 0;
    if (dgain) {
#pragma omp simd
        for (int c = 0; c < D; c++) dgain[c] = VEC_FMA(dy[c], (x[c] - mean) * rstd, dgain[c]);
    }
    if (dbias) {
#pragma omp simd
        for (int c = 0; c < D; c++) dbias[c] += dy[c];
    }
    if (!dx) return;
#pragma omp simd reduction(+ : sum_g, sum_gx)
    for (int c = 0; c < D; c++) {
        float g = dy[c] * gain[c];
        sum_g += g;
        sum_gx += g * ((x[c] - mean) * rstd);
    }
    sum_g = rms ? 0.0f : sum_g / (float)D;
    sum_gx /= (float)D;
#pragma omp simd
    for (int c = 0; c < D; c++) dx[c] = rstd * (dy[c] * gain[c] - sum_g - (x[c] - mean) * rstd * sum_gx);
}

static void vec_rope_row(float *x, int heads, int E, int rot, bool pairs, const float *cossin, float sign)
{
    int half = rot / 2;
    const float *co = cossin, *si = cossin + half;
    for (int h = 0; h < heads; h++, x += E) {
        if (pairs) {
#pragma omp simd
            for (int i = 0; i < half; i++) {
                float p = x[2 * i], q = x[2 * i + 1], s = sign * si[i];
                x[2 * i] = p * co[i] - q * s;
                x[2 * i + 1] = q * co[i] + p * s;
            }
            continue;
        }
        float *a = x, *b = x + half;
#pragma omp simd
        for (int i = 0; i < half; i++) {
            float p = a[i], q = b[i], s = sign * si[i];
            a[i] = p * co[i] - q * s;
            b[i] = q * co[i] + p * s;
        }
    }
}

static float vec_sum_exp(const float *z, float sub, size_t n)
{
    float s = 0;
#pragma omp simd reduction(+ : s)
    for (size_t i = 0; i < n; i++) s += vexp(z[i] - sub);
    return s;
}

static float vec_sum_exp_diff(const float *p, const float *q, float sub, float *dot, size_t n)
{
    float s = 0, d = 0;
#pragma omp simd reduction(+ : s, d)
    for (size_t i = 0; i < n; i++) {
        float e = vexp(p[i] - sub);
        s += e;
        d += e * (p[i] - q[i]);
    }
    *dot = d;
    return s;
}

static void vec_ce_row(float *z, float lse, float scale, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) z[i] = scale * vexp(z[i] - lse);
}

static void vec_kl_row(float *zq, const float *zp, float lse_q, float lse_p, float scale, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) zq[i] = scale * (vexp(zq[i] - lse_q) - vexp(zp[i] - lse_p));
}

static void vec_stats_cols(double *acc, size_t ld, const float *x, size_t ldx, int R, int n)
{
    double *s1 = acc, *sa = acc + ld, *s2 = acc + 2 * ld, *s3 = acc + 3 * ld, *s4 = acc + 4 * ld,
           *mx = acc + 5 * ld;
    for (int r = 0; r < R; r++, x += ldx) {
#pragma omp simd
        for (int c = 0; c < n; c++) {
            double v = x[c], a = fabs(v), v2 = v * v;
            s1[c] += v;
            sa[c] += a;
            s2[c] += v2;
            s3[c] += v2 * v;
            s4[c] += v2 * v2;
            mx[c] = a > mx[c] || a != a ? a : mx[c]; /* a NaN is kept, so that it is seen */
        }
    }
}

static void vec_moments_cols(double *mean, double *var, const float *x, size_t ldx, int R, int n)
{
    for (int c = 0; c < n; c++) mean[c] = var[c] = 0;
    for (int r = 0; r < R; r++) {
        const float *row = x + r * ldx;
#pragma omp simd
        for (int c = 0; c < n; c++) mean[c] += row[c];
    }
    for (int c = 0; c < n; c++) mean[c] /= R;
    for (int r = 0; r < R; r++) {
        const float *row = x + r * ldx;
#pragma omp simd
        for (int c = 0; c < n; c++) {
            double d = row[c] - mean[c];
            var[c] += d * d;
        }
    }
    for (int c = 0; c < n; c++) var[c] /= R;
}

static void vec_affine_row(float *dy, const float *y, const float *a, const float *b, int D)
{
#pragma omp simd
    for (int c = 0; c < D; c++) dy[c] = VEC_FMA(b[c], y[c], a[c]);
}

static void vec_diff_cols(double *err, float *dq, const float *q, const float *f, const float *w, int p,
                          size_t ld, int R, int n)
{
    for (int c = 0; c < n; c++) err[c] = 0;
    for (int r = 0; r < R; r++) {
        const float *qr = q + r * ld, *fr = f + r * ld;
        float *dr = dq ? dq + r * ld : NULL;
        if (p == 1) {
#pragma omp simd
            for (int c = 0; c < n; c++) err[c] += fabs((double)qr[c] - fr[c]);
        } else {
#pragma omp simd
            for (int c = 0; c < n; c++) {
                double d = (double)qr[c] - fr[c];
                err[c] += d * d;
            }
        }
        if (!dr) continue;
        if (p == 1) {
#pragma omp simd
            for (int c = 0; c < n; c++) {
                float d = qr[c] - fr[c];
                dr[c] = d > 0 ? w[c] : d < 0 ? -w[c] : d; /* 0 at 0, NaN for NaN */
            }
        } else {
#pragma omp simd
            for (int c = 0; c < n; c++) dr[c] = 2.0f * w[c] * (qr[c] - fr[c]);
        }
    }
}

static void vec_adam(float *p, const float *g, float *m, float *v, size_t n, float step, float b1, float b2,
                     float root_bc2, float eps, float decay)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float mi = b1 * m[i] + (1.0f - b1) * g[i];
        float vi = b2 * v[i] + (1.0f - b2) * g[i] * g[i];
        m[i] = mi;
        v[i] = vi;
        p[i] = p[i] * decay - step * mi / (sqrtf(vi) / root_bc2 + eps);
    }
}

#include "kernels/vec_gemm.h"
#include "kernels/vec_attention.h"

/* {a0 + a1, a2 + a3, .., b0 + b1, ..} */
static inline vf pair_sums(vf a, vf b)
{
    vi even;
    for (int i = 0; i < LANES; i++) even[i] = 2 * i;
    return __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, even + 1);
}

/* s[i] = scale q . k_i; LANES keys at a time, their sums reduced together */
static void vec_scores(float *s, const float *q, const float *k, size_t ldk, int n, int E, float scale)
{
    int i = 0, whole = E / LANES * LANES;
    for (; i + LANES <= n; i += LANES, k += LANES * ldk) {
        vf part[LANES], sum;
        for (int j = 0; j < LANES; j++) part[j] = SPREAD(0.0f);
        for (int e = 0; e < whole; e += LANES) {
            vf x = LOAD(q + e);
#pragma GCC unroll 16
            for (int j = 0; j < LANES; j++) part[j] = VEC_VFMA(x, LOAD(k + j * ldk + e), part[j]);
        }
#pragma GCC unroll 4
        for (int half = LANES / 2; half > 0; half /= 2)
#pragma GCC unroll 8
            for (int j = 0; j < half; j++) part[j] = pair_sums(part[2 * j], part[2 * j + 1]);
        sum = part[0];
        for (int e = whole; e < E; e++)
            for (int j = 0; j < LANES; j++) sum[j] += q[e] * k[j * ldk + e];
        STORE(s + i, sum * scale);
    }
    for (; i < n; i++, k += ldk) s[i] = scale * vec_dot(q, k, (size_t)E);
}

/* o += sum_i p[i] v_i */
static void vec_mix(float *o, const float *p, const float *v, size_t ldv, int n, int E)
{
    int e = 0;
    for (; e + 4 * LANES <= E; e += 4 * LANES) {
        vf a0 = LOAD(o + e), a1 = LOAD(o + e + LANES), a2 = LOAD(o + e + 2 * LANES),
           a3 = LOAD(o + e + 3 * LANES);
        const float *row = v + e;
        for (int i = 0; i < n; i++, row += ldv) {
            vf w = SPREAD(p[i]);
            a0 = VEC_VFMA(w, LOAD(row), a0);
            a1 = VEC_VFMA(w, LOAD(row + LANES), a1);
            a2 = VEC_VFMA(w, LOAD(row + 2 * LANES), a2);
            a3 = VEC_VFMA(w, LOAD(row + 3 * LANES), a3);
        }
        STORE(o + e, a0);
        STORE(o + e + LANES, a1);
        STORE(o + e + 2 * LANES, a2);
        STORE(o + e + 3 * LANES, a3);
    }
    if (e == E) return;
    for (int i = 0; i < n; i++) vec_axpy(o + e, p[i], v + (size_t)i * ldv + e, (size_t)(E - e));
}

const struct vec_ops VEC_TABLE = {
    VEC_NAME,          PANEL,           VEC_COLS,          vec_panel_product,
    vec_panel_rows,    vec_copy_strip,  vec_pack_panel,    vec_scores,
    vec_mix,           vec_add,         vec_axpy,          vec_dot,
    vec_scale,         vec_exp,         vec_max,           vec_exp_sum,
    vec_act,           vec_act_back,    vec_softcap,       vec_softcap_back,
    vec_ramp,          vec_norm_row,    vec_norm_back_row, vec_rope_row,
    vec_sum_exp,       vec_sum_exp_diff, vec_ce_row,       vec_kl_row,
    vec_panel_mask,    vec_panel_logits, vec_panel_softmax, vec_panel_softmax_back,
    vec_panel_slopes,  vec_panel_scale, vec_stats_cols,    vec_moments_cols,
    vec_affine_row,    vec_diff_cols,   vec_adam,
};
