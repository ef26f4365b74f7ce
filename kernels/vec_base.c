/* SPDX-License-Identifier: Apache-2.0
 * vec_ops.h for any machine. */
#define VEC_TABLE vec_base
#define VEC_NAME "base"
#define VEC_FMA(a, b, c) ((a) * (b) + (c))
#include "kernels/vec_ops.h"
