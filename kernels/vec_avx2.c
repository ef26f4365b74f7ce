/* SPDX-License-Identifier: Apache-2.0
 * vec_ops.h for AVX2 and FMA. */
#if defined(__x86_64__)
#pragma GCC target("avx,avx2,fma")
#include <immintrin.h>
#define VEC_FMA(a, b, c) __builtin_fmaf((a), (b), (c))
#define VEC_VFMA(a, b, c) _mm256_fmadd_ps((a), (b), (c))
#else
#define VEC_FMA(a, b, c) ((a) * (b) + (c))
#define VEC_VFMA(a, b, c) ((a) * (b) + (c))
#endif
#define VEC_BYTES 32
#define VEC_COLS 6
#define VEC_TABLE vec_avx2
#define VEC_NAME "avx2"
#include "kernels/vec_ops.h"
