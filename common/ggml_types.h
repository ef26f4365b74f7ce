/* SPDX-License-Identifier: Apache-2.0
 * ggml's element types as GGUF files number them, and their block types: sizes, values, and exact encoding of
 * numbers that already lie on a type's grid. Little-endian, f16 scales. */
#ifndef NT_GGML_TYPES_H
#define NT_GGML_TYPES_H
#include "common/tensor.h"

/* n elements (a multiple of the block size) of a ggml block type to F32. Equal to the gguf Python package bit
 * by bit. */
void ggml_to_f32(float *dst, enum dtype t, const void *src, size_t n);

/* GGUF's number of a type, or -1; and back, DT_NONE for a type that is not supported. */
int ggml_type_id(enum dtype t);
enum dtype ggml_type_dtype(uint32_t id);
/* "IQ2_XS" for ids known by name only, "" for the rest: for messages. */
const char *ggml_type_name(uint32_t id);

/* One block each of the types whose levels come from a table (ggml_iq.c), and their code books. */
void ggml_iq1_s(float *y, const uint8_t *b);
void ggml_iq1_m(float *y, const uint8_t *b);
void ggml_iq2_xxs(float *y, const uint8_t *b);
void ggml_iq2_xs(float *y, const uint8_t *b);
void ggml_iq2_s(float *y, const uint8_t *b);
void ggml_iq3_xxs(float *y, const uint8_t *b);
void ggml_iq3_s(float *y, const uint8_t *b);
void ggml_iq4_nl(float *y, const uint8_t *b);
void ggml_iq4_xs(float *y, const uint8_t *b);
void ggml_tq1_0(float *y, const uint8_t *b);
void ggml_tq2_0(float *y, const uint8_t *b);
void ggml_mxfp4(float *y, const uint8_t *b);
void ggml_nvfp4(float *y, const uint8_t *b);
extern const uint16_t ggml_grid_iq2_xxs[256], ggml_grid_iq2_xs[512], ggml_grid_iq2_s[1024],
    ggml_grid_iq3_xxs[256], ggml_grid_iq3_s[512], ggml_grid_iq1_s[2048];

/* One block of 32 of Q4_0, Q4_1, Q5_0, Q5_1 or Q8_0 from numbers n: value d*n (Q4_0: n in -8..7, Q5_0:
 * -16..15, Q8_0: -128..127) or d*n + m (Q4_1: n in 0..15, Q5_1: 0..31). d, m are f16 bits; m is ignored where
 * the type has none. */
void ggml_pack_block(uint8_t *out, enum dtype t, uint16_t d, uint16_t m, const int n[32]);
#endif
