/* SPDX-License-Identifier: Apache-2.0
 * A quantized tensor in a ggml type, without loss: the value of every element stays the same float. Only when
 * no block type can do that is a float type chosen. */
#ifndef NT_GGML_ENCODE_H
#define NT_GGML_ENCODE_H
#include "common/qtensor.h"

/* Of plain tensors (imported blocks, too) their own type, else the smallest of Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 F16
 * BF16 F32 that holds every value of q exactly. Block types need rows of whole blocks of 32, one group per
 * block, scales (and minima) that are exact in f16. */
enum dtype ggml_encode_choose(const struct qtensor *q);
/* Row `row` of q in that type; dst holds in / dtype_block(t) blocks. */
void ggml_encode_row(const struct qtensor *q, enum dtype t, int row, void *dst);
/* Which of F16 (bit 0) and BF16 (bit 1) hold n values exactly; and them over pieces, from FLOAT_TYPES_ALL. */
enum { FLOAT_TYPES_ALL = 3 };
unsigned float_types_for(const float *x, size_t n);
enum dtype float_type_of(unsigned types); /* F16, else BF16, else F32 */
#endif
