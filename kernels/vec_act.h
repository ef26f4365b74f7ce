/* SPDX-License-Identifier: Apache-2.0
 * Part of vec_ops.h: activations with their slopes, and soft caps. */

/* tanh within a few ulp: an odd polynomial near 0, 1 - 2 / (exp(2|x|) + 1) elsewhere. NaN stays NaN. */
static inline float vtanh(float x)
{
    float a = fabsf(x), s = x * x, p = -6.64747838e-3f, far;
    p = VEC_FMA(p, s, 2.12979853e-2f);
    p = VEC_FMA(p, s, -5.38991892e-2f);
    p = VEC_FMA(p, s, 1.33329642e-1f);
    p = VEC_FMA(p, s, -3.33333269e-1f);
    p = VEC_FMA(p * s, x, x);
    far = 1.0f - 2.0f / (vexp(2.0f * a) + 1.0f);
    return a < 0.5f ? p : copysignf(far, x);
}

/* Each gives the value and its slope; a slope that is not used costs nothing. */

static inline float act_silu(float x, float *slope)
{
    float sig = 1.0f / (1.0f + vexp(-x));
    *slope = sig * (1.0f + x * (1.0f - sig));
    return x * sig;
}

/* x Phi(x); the smaller tail of the normal distribution is exp(-x^2/2) erfcx(|x|/sqrt 2) / 2 with a
 * polynomial in 1 / (1 + t/2) for erfcx(t) (relative error below 1e-7), so that both tails keep their
 * accuracy. */
static inline float act_gelu(float x, float *slope)
{
    float t = fabsf(x) * 0.707106781f, y = 1.0f / (1.0f + 0.5f * t), z = y - 0.5f, e = vexp(-t * t);
    float p = -5.90696937e-2f, tail, phi;
    p = VEC_FMA(p, z, 4.82996567e-2f);
    p = VEC_FMA(p, z, 9.53298318e-2f);
    p = VEC_FMA(p, z, -1.02996807e-1f);
    p = VEC_FMA(p, z, -1.71868620e-1f);
    p = VEC_FMA(p, z, 1.45740749e-1f);
    p = VEC_FMA(p, z, 5.58939262e-1f);
    p = VEC_FMA(p, z, 6.87160973e-1f);
    p = VEC_FMA(p, z, 5.10791371e-1f);
    tail = 0.5f * e * y * p;
    phi = x > 0.0f ? 1.0f - tail : tail;
    *slope = VEC_FMA(x, 0.398942280f * e, phi);
    return x * phi;
}

/* 0.5 (1 + tanh(u)) = sigmoid(2u) */
static inline float act_gelu_tanh(float x, float *slope)
{
    const float c = 1.59576912f, d = 0.044715f; /* 2 sqrt(2/pi) */
    float sq = x * x, sig = 1.0f / (1.0f + vexp(-c * x * VEC_FMA(d, sq, 1.0f)));
    *slope = sig * (1.0f + x * (1.0f - sig) * c * VEC_FMA(3.0f * d, sq, 1.0f));
    return x * sig;
}

static inline float act_quick_gelu(float x, float *slope)
{
    float sig = 1.0f / (1.0f + vexp(-1.702f * x));
    *slope = sig * (1.0f + 1.702f * x * (1.0f - sig));
    return x * sig;
}

static inline float act_relu(float x, float *slope)
{
    *slope = x > 0.0f ? 1.0f : 0.0f;
    return x < 0.0f ? 0.0f : x; /* keeps NaN */
}

static inline float act_relu2(float x, float *slope)
{
    float r = x < 0.0f ? 0.0f : x;
    *slope = 2.0f * r;
    return r * r;
}

#define ACT_LOOPS(NAME)                                                                                      \
    static void NAME##_row(float *h, const float *gate, const float *up, size_t n)                           \
    {                                                                                                        \
        float slope;                                                                                         \
        if (up) {                                                                                            \
            _Pragma("omp simd private(slope)") for (size_t i = 0; i < n; i++) h[i] =                         \
                NAME(gate[i], &slope) * up[i];                                                               \
        } else {                                                                                             \
            _Pragma("omp simd private(slope)") for (size_t i = 0; i < n; i++) h[i] = NAME(gate[i], &slope);  \
        }                                                                                                    \
    }                                                                                                        \
    static void NAME##_back(float *dgate, float *dup, const float *dh, const float *gate, const float *up,   \
                            size_t n)                                                                        \
    {                                                                                                        \
        float slope;                                                                                         \
        if (up) {                                                                                            \
            _Pragma("omp simd private(slope)") for (size_t i = 0; i < n; i++)                                \
            {                                                                                                \
                float u = up[i], d = dh[i], v = NAME(gate[i], &slope);                                       \
                dgate[i] = d * u * slope;                                                                    \
                dup[i] = d * v;                                                                              \
            }                                                                                                \
        } else {                                                                                             \
            _Pragma("omp simd private(slope)") for (size_t i = 0; i < n; i++)                                \
            {                                                                                                \
                float d = dh[i];                                                                             \
                NAME(gate[i], &slope);                                                                       \
                dgate[i] = d * slope;                                                                        \
            }                                                                                                \
        }                                                                                                    \
    }
ACT_LOOPS(act_silu)
ACT_LOOPS(act_gelu)
ACT_LOOPS(act_gelu_tanh)
ACT_LOOPS(act_relu)
ACT_LOOPS(act_quick_gelu)
ACT_LOOPS(act_relu2)

/* The most common one, in fewer operations. */
static void swiglu_row(float *h, const float *gate, const float *up, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) h[i] = gate[i] / (1.0f + vexp(-gate[i])) * up[i];
}

static void swiglu_back(float *dgate, float *dup, const float *dh, const float *gate, const float *up,
                        size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float g = gate[i], u = up[i], d = dh[i];
        float sig = 1.0f / (1.0f + vexp(-g));
        dgate[i] = d * u * sig * (1.0f + g * (1.0f - sig));
        dup[i] = d * g * sig;
    }
}

static void vec_act(enum act kind, float *h, const float *gate, const float *up, size_t n)
{
    static void (*const loop[ACT_COUNT])(float *, const float *, const float *, size_t) = {
        act_silu_row, act_gelu_row, act_gelu_tanh_row, act_relu_row, act_quick_gelu_row, act_relu2_row};
    (kind == ACT_SILU && up ? swiglu_row : loop[kind])(h, gate, up, n);
}

static void vec_act_back(enum act kind, float *dgate, float *dup, const float *dh, const float *gate,
                         const float *up, size_t n)
{
    static void (*const loop[ACT_COUNT])(float *, float *, const float *, const float *, const float *,
                                         size_t) = {act_silu_back, act_gelu_back,       act_gelu_tanh_back,
                                                    act_relu_back, act_quick_gelu_back, act_relu2_back};
    (kind == ACT_SILU && up ? swiglu_back : loop[kind])(dgate, dup, dh, gate, up, n);
}

/* z = cap tanh(z / cap) */
static void vec_softcap(float *z, float cap, size_t n)
{
    float inv = 1.0f / cap;
#pragma omp simd
    for (size_t i = 0; i < n; i++) z[i] = cap * vtanh(z[i] * inv);
}

/* dz times the slope at what softcap gave */
static void vec_softcap_back(float *dz, const float *z, float cap, size_t n)
{
    float inv = 1.0f / cap;
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float t = z[i] * inv;
        dz[i] *= 1.0f - t * t;
    }
}

/* s[i] += slope (first + i): the linear bias of a row of keys */
static void vec_ramp(float *s, float slope, float first, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) s[i] = VEC_FMA(slope, first + (float)(int32_t)i, s[i]);
}
