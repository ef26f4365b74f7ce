/* SPDX-License-Identifier: Apache-2.0
 * Super-blocks of 256 weights as ggml's K types have them: sub-blocks of 16 or 32 with small integer scales
 * (and minima) over one or two f16 numbers. Here: the best such grid for given weights, and packing. */
#ifndef NT_GGML_KQUANT_H
#define NT_GGML_KQUANT_H
#include <stdbool.h>
#include "common/tensor.h"

enum { KQUANT_BLOCK = 256, KQUANT_SUBS = 16 };

/* What is fixed about a type: value = d * sc * (code - zero) - dmin * mn. */
struct kquant_type {
    enum dtype t;
    int bits, sub;           /* of a code; elements of a sub-block */
    int sc_lo, sc_hi, mn_hi; /* integer scales, minima (0: the type has none) */
    int zero;                /* without minima: code - zero */
};
const struct kquant_type *kquant_type_of(int bits); /* 2..6, else NULL */

/* The grid of one super-block. */
struct kquant_grid {
    uint16_t d, dmin; /* f16 bits */
    int8_t sc[KQUANT_SUBS];
    uint8_t mn[KQUANT_SUBS];
};

/* The grid on which x[256] has the least squared error weighted by h[256] >= 0 (NULL: all 1), by search. */
void kquant_fit(const struct kquant_type *k, const float *x, const float *h, struct kquant_grid *g);
/* Step and offset of sub-block s: value = step * code + offset, exactly as the type is read. */
void kquant_line(const struct kquant_type *k, const struct kquant_grid *g, int s, float *step, float *offset);
/* The nearest code to x on a line. */
int kquant_code(const struct kquant_type *k, float step, float offset, float x);
/* The bytes of one super-block, dtype_block_bytes(k->t) of them. */
void kquant_pack(const struct kquant_type *k, const struct kquant_grid *g, const uint8_t *codes,
                 uint8_t *out);
#endif
