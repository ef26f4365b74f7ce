/* SPDX-License-Identifier: Apache-2.0
 * vec_ops.h for any machine. */
#define VEC_TABLE vec_base
#define VEC_NAME "base"
#define VEC_FMA(a, b, c) ((a) * (b) + (c))
#define VEC_VFMA(a, b, c) ((a) * (b) + (c))
#define VEC_BYTES 16
#define VEC_COLS 4
#include "kernels/vec_ops.h"
