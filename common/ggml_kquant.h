/* SPDX-License-Identifier: Apache-2.0
 * Blocks of weights as ggml's K types have them, 256 in sub-blocks of 16 or 32 with small integer scales (and
 * minima) over one or two f16 numbers; and, as their simplest case, the types of 32 weights that rows of
 * other lengths fall back to, where the f16 numbers are the scale and the minimum. Here: the best such grid
 * for given weights, and packing. */
#ifndef NT_GGML_KQUANT_H
#define NT_GGML_KQUANT_H
#include <stdbool.h>
#include "common/tensor.h"

enum { KQUANT_BLOCK = 256, KQUANT_SUBS = 16 }; /* the largest block, the most sub-blocks */

/* What is fixed about a type: value = d * sc * (code - zero) - dmin * mn. */
struct kquant_type {
    enum dtype t;
    int bits, block, sub; /* of a code; elements of a block and of a sub-block */
    int sc_lo, sc_hi,
        mn_hi; /* integer scales, minima (0: the type has none); sc_lo = sc_hi = 1: no integers */
    int zero;  /* without minima: code - zero */
};
/* Q2_K to Q6_K for 2 to 6 bits; for rows of `in` columns, no multiple of 256, what llama.cpp takes in their
 * place: Q4_0, Q4_0, Q5_0, Q5_1 or Q8_0. NULL: other bits, or rows that are no multiple of 32. */
const struct kquant_type *kquant_type_of(int bits, int in);

/* The grid of one block. */
struct kquant_grid {
    uint16_t d, dmin; /* f16 bits */
    int8_t sc[KQUANT_SUBS];
    uint8_t mn[KQUANT_SUBS];
};

/* The grid on which x[block] has the least squared error weighted by h[block] >= 0 (NULL: all 1), by search.
 */
void kquant_fit(const struct kquant_type *k, const float *x, const float *h, struct kquant_grid *g);
/* Step and offset of sub-block s: value = step * code + offset, exactly as the type is read. */
void kquant_line(const struct kquant_type *k, const struct kquant_grid *g, int s, float *step, float *offset);
/* The nearest code to x on a line. */
int kquant_code(const struct kquant_type *k, float step, float offset, float x);
/* The bytes of one block, dtype_block_bytes(k->t) of them. */
void kquant_pack(const struct kquant_type *k, const struct kquant_grid *g, const uint8_t *codes,
                 uint8_t *out);
#endif
