/* SPDX-License-Identifier: Apache-2.0
 * The GPTQ checkpoint layout, version 1: how codes, zeros and scales of a linear lie in its four tensors.
 *   NAME.qweight I32 [in*b/32, out]   codes packed along in, least significant bits first
 *   NAME.qzeros  I32 [groups, out*b/32]   zero - 1, packed along out, wrapping
 *   NAME.scales  F16 [groups, out]   NAME.g_idx I32 [in]   group of each input */
#ifndef NT_GPTQ_FILE_H
#define NT_GPTQ_FILE_H
#include "common/checkpoint.h"
#include "common/qtensor.h"

struct gptq_linear {
    int bits, groups;
    uint64_t n_qweight, n_qzeros, n_scales; /* elements */
    int32_t *qweight, *qzeros, *g_idx;      /* owned */
    uint16_t *scales;
};

/* Why a tensor cannot be stored so, or NULL. */
const char *gptq_refusal(const struct qtensor *q);
/* *wrapped counts zeros of 0, which version 1 stores as 2^bits - 1. */
void gptq_encode(const struct qtensor *q, struct gptq_linear *g, uint64_t *wrapped);
void gptq_clear(struct gptq_linear *g);

/* Bits of a GPTQ checkpoint of version 1 by its config; 0 with no error when it is none, -1 with an error
 * when it is one of another version. */
int gptq_checkpoint_bits(const struct checkpoint *c, struct err *e) NT_MUST_CHECK;
/* Dequantizes base.qweight and its companions into dst[out, in]. Written apart from the encoder, from the
 * layout above. */
int gptq_read_linear(const struct checkpoint *c, const char *base, int bits, int out, int in, float *dst,
                     struct err *e) NT_MUST_CHECK;
#endif
