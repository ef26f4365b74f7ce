/* SPDX-License-Identifier: Apache-2.0
 * Uniform grids in f32 and f64 (grid.h has the rules, grid_real.h the code). */
#include "common/grid.h"
#include <math.h>
#include <string.h>

/* The hot loops are plain C that the compiler vectorises; one copy per CPU, chosen at run time. No
 * contraction into fused multiply-adds (-ffp-contract=off), so all copies give the same bytes. Sanitized
 * builds take the plain copy: resolvers run before the sanitizer's own start. */
#if defined __x86_64__ && !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

static float grid_round_scale(float s, enum dtype t)
{
    return t == DT_F16 ? f16_to_f32(f32_to_f16(s)) : t == DT_BF16 ? bf16_to_f32(f32_to_bf16(s)) : s;
}

/* |x|^2.4 as x^2 * 2^(0.4 log2 |x|): only the ranking of clip candidates hangs on it, so a relative error
 * of about 1e-6 is enough, and it vectorises where powf does not. |x| below 1e-15 counts as 1e-15 (the
 * comparison is made on the bits: a branch here would undo the vectorisation). */
static inline __attribute__((always_inline)) float pow24_fast(float x)
{
    int32_t bits, floor_bits = 0x26901d7d; /* 1e-15 */
    memcpy(&bits, &x, 4);
    bits &= 0x7fffffff;
    bits = bits > floor_bits ? bits : floor_bits;
    int32_t e = (bits - 0x3f3504f3) >> 23; /* mantissa in [1/sqrt 2, sqrt 2) */
    int32_t mbits = bits - e * (1 << 23);
    float m, a;
    memcpy(&m, &mbits, 4);
    memcpy(&a, &bits, 4);
    /* log2 m = 2/ln 2 * atanh((m-1)/(m+1)) */
    float u = (m - 1) / (m + 1), u2 = u * u;
    float l = u * (2.88539008f + u2 * (0.961796694f + u2 * (0.577078016f + u2 * 0.412198583f)));
    float y = 0.4f * (l + (float)e);
    float k = (y + 12582912.0f) - 12582912.0f, f = (y - k) * 0.693147181f;
    float p = 1 + f * (1 + f * (0.5f + f * (0.166666667f + f * (0.0416666667f +
                                                                f * (0.00833333333f + f * 0.00138888889f)))));
    int32_t sbits = ((int32_t)k + 127) * (1 << 23);
    float s;
    memcpy(&s, &sbits, 4);
    return a * a * (p * s);
}

#define REAL float
#define R(name) name##_f32
#define MAGIC 12582912.0f /* 1.5 * 2^23 */
#define POW24(x) pow24_fast(x)
#include "common/grid_real.h"
#undef REAL
#undef R
#undef MAGIC
#undef POW24

#define REAL double
#define R(name) name##_f64
#define MAGIC 6755399441055744.0 /* 1.5 * 2^52 */
#define POW24(x) pow(fabs(x), GRID_CLIP_NORM)
#include "common/grid_real.h"
