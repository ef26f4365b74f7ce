/* SPDX-License-Identifier: Apache-2.0
 * The one value that flows: element type, shape, bytes. Row-major (C order), little-endian, innermost
 * dimension last. Element types are those of safetensors plus ggml's block types; a "row" is the innermost
 * dimension and block types need it to be a multiple of the block size. */
#ifndef NT_TENSOR_H
#define NT_TENSOR_H
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include "common/err.h"

enum dtype {
    DT_NONE,
    DT_F64,
    DT_F32,
    DT_F16,
    DT_BF16,
    DT_I64,
    DT_I32,
    DT_I16,
    DT_I8,
    DT_U64,
    DT_U32,
    DT_U16,
    DT_U8,
    DT_BOOL,
    DT_F8_E4M3,
    DT_F8_E5M2,
    DT_F8_E8M0,
    /* ggml block types: 32, 64 or 256 elements a block */
    DT_Q4_0,
    DT_Q4_1,
    DT_Q5_0,
    DT_Q5_1,
    DT_Q8_0,
    DT_Q2_K,
    DT_Q3_K,
    DT_Q4_K,
    DT_Q5_K,
    DT_Q6_K,
    DT_IQ1_S,
    DT_IQ1_M,
    DT_IQ2_XXS,
    DT_IQ2_XS,
    DT_IQ2_S,
    DT_IQ3_XXS,
    DT_IQ3_S,
    DT_IQ4_NL,
    DT_IQ4_XS,
    DT_TQ1_0,
    DT_TQ2_0,
    DT_MXFP4,
    DT_NVFP4,
    DT_Q1_0,
    DT_Q2_0,
    DT_COUNT
};

#define TENSOR_MAX_RANK 8

struct tensor {
    enum dtype dtype;
    int rank;
    uint64_t shape[TENSOR_MAX_RANK];
    uint64_t nbytes;
    void *data; /* who owns it is said by the function that fills the struct */
};

const char *dtype_name(enum dtype t);     /* "F32", "Q4_1", ... as safetensors and ggml spell them */
enum dtype dtype_parse(const char *name); /* DT_NONE when unknown */
int dtype_block(enum dtype t);            /* elements per block, 1 for plain types */
int dtype_block_bytes(enum dtype t);      /* bytes per block (per element for plain types) */
bool dtype_is_float(enum dtype t);        /* plain float or ggml block type: dtype_to_f32 accepts it */

/* Bytes of a row-major tensor; -1 with an error on overflow, rank > 8 or a row that is no whole number of
 * blocks. */
int tensor_nbytes(enum dtype t, int rank, const uint64_t *shape, uint64_t *nbytes,
                  struct err *e) NT_MUST_CHECK;
uint64_t tensor_count(const struct tensor *t); /* product of the shape (checked when nbytes was computed) */

/* n elements (a multiple of the block size) of any float or block type to F32. Exact for every type. */
void dtype_to_f32(float *dst, enum dtype t, const void *src, size_t n);
/* F32 to a plain float type F32 F16 BF16 F8_E4M3 (round to nearest even; overflow gives infinity, of E4M3
 * NaN) or F8_E8M0 (positive, rounded down). */
void dtype_from_f32(void *dst, enum dtype t, const float *src, size_t n);
float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);
float bf16_to_f32(uint16_t h);
uint16_t f32_to_bf16(float f);

/* Index of the first non-finite value, or n. */
size_t f32_first_nonfinite(const float *x, size_t n);
size_t f64_first_nonfinite(const double *x, size_t n);
#endif
