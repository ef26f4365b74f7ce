/* SPDX-License-Identifier: Apache-2.0
 * llama.cpp's importance matrix as a GGUF file: per linear the sums of squares of its inputs and the number
 * of tokens, under the GGUF tensor names. Merging several is llama-imatrix's affair: sums and counts add. */
#ifndef NT_IMATRIX_H
#define NT_IMATRIX_H
#include <stdint.h>
#include "common/err.h"

struct imatrix;
/* dataset: what the sums were taken over, for people; a chunk is one sequence. */
struct imatrix *imatrix_alloc(const char *dataset, uint32_t chunk_count, uint32_t chunk_size);
void imatrix_free(struct imatrix *im); /* NULL ok */
/* name: the GGUF tensor, "blk.0.attn_q.weight"; sum2[dim] = sum of x^2 over count tokens. */
void imatrix_add(struct imatrix *im, const char *name, const double *sum2, int dim, uint64_t count);
int imatrix_write(const struct imatrix *im, const char *path, struct err *e) NT_MUST_CHECK;
#endif
