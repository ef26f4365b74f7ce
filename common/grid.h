/* SPDX-License-Identifier: Apache-2.0
 * Uniform grids: scale and zero of a group of weights, and the code of a weight on its grid. One rule for
 * RTN, GPTQ and what follows them, in f32 and in f64. Works on panels: x[column * GRID_LANES + row],
 * GRID_LANES rows side by side.
 *
 *   asymmetric  lo = min(w, 0), hi = max(w, 0), scale = (hi - lo) / (2^b - 1), zero = round(-lo / scale)
 *   symmetric   scale = 2 max|w| / (2^b - 1), zero = 2^(b-1): levels -2^(b-1) .. 2^(b-1) - 1 times scale
 *   all zero    scale = 1, zero = 0 (symmetric: 2^(b-1)); a scale below 1e-35 counts as zero
 *   code        clamp(round(w / scale) + zero, 0, 2^b - 1), halves to even; value = scale * (code - zero)
 *
 * The scale is rounded to its storage type before zero and codes are computed. clip_mse shrinks the range
 * by p = 1 - i/40, i = 0 .. 32 (1.0 down to 0.2) and keeps the p with the least sum |w - value|^2.4, the
 * first on ties. */
#ifndef NT_GRID_H
#define NT_GRID_H
#include <stdbool.h>
#include <stdint.h>
#include "common/tensor.h"

#define GRID_LANES 64
#define GRID_CLIP_STEPS 33
#define GRID_CLIP_DIVISOR 40
#define GRID_CLIP_NORM 2.4

struct grid_opts {
    int bits;
    bool sym, clip_mse;
    enum dtype scale_dtype;
};

/* Scale and zero of GRID_LANES groups of `len` weights each. Returns the number of the first `rows` lanes
 * whose scale would lose more than 2^-8 of itself in scale_dtype (an F16 that overflows or underflows):
 * the caller then takes F32. */
int grid_find_f32(const struct grid_opts *g, const float *x, int len, int rows, float *scale, float *zero);
int grid_find_f64(const struct grid_opts *g, const double *x, int len, int rows, double *scale, double *zero);

/* Codes and values of GRID_LANES weights of one column. */
void grid_code_f32(int bits, const float *w, const float *scale, const float *zero, uint8_t *code,
                   float *value);
void grid_code_f64(int bits, const double *w, const double *scale, const double *zero, uint8_t *code,
                   double *value);
#endif
