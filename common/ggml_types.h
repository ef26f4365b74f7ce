/* SPDX-License-Identifier: Apache-2.0
 * ggml's element types as GGUF files number them, and their block types: sizes, values, and exact encoding of numbers
 * that already lie on a type's grid. Little-endian, f16 scales. */
#ifndef NT_GGML_TYPES_H
#define NT_GGML_TYPES_H
#include "common/tensor.h"

/* n elements (a multiple of the block size) of a ggml block type to F32. Equal to the gguf Python package bit by bit. */
void ggml_to_f32(float *dst, enum dtype t, const void *src, size_t n);

/* GGUF's number of a type, or -1; and back, DT_NONE for a type that is not supported. */
int ggml_type_id(enum dtype t);
enum dtype ggml_type_dtype(uint32_t id);
/* "IQ2_XS" for ids known by name only, "" for the rest: for messages. */
const char *ggml_type_name(uint32_t id);

/* One block of 32 from codes. Q4_0: value d*(code-8); Q4_1: d*code+m; Q8_0: d*q, q in -128..127. d, m are f16 bits. */
void ggml_pack_q4_0(uint8_t out[18], uint16_t d, const uint8_t code[32]);
void ggml_pack_q4_1(uint8_t out[20], uint16_t d, uint16_t m, const uint8_t code[32]);
void ggml_pack_q8_0(uint8_t out[34], uint16_t d, const int8_t q[32]);
#endif
