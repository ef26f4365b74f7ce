/* SPDX-License-Identifier: Apache-2.0
 * vec_ops.h for AVX-512 (F, DQ, BW, VL). */
#if defined(__x86_64__)
#pragma GCC target("avx,avx2,fma,avx512f,avx512dq,avx512bw,avx512vl,prefer-vector-width=512")
#include <immintrin.h>
#define VEC_FMA(a, b, c) __builtin_fmaf((a), (b), (c))
#define VEC_VFMA(a, b, c) _mm512_fmadd_ps((a), (b), (c))
#else
#define VEC_FMA(a, b, c) ((a) * (b) + (c))
#define VEC_VFMA(a, b, c) ((a) * (b) + (c))
#endif
#define VEC_BYTES 64
#define VEC_COLS 12
#define VEC_TABLE vec_avx512
#define VEC_NAME "avx512"
#include "kernels/vec_ops.h"
