/* SPDX-License-Identifier: Apache-2.0
 * llama.cpp's importance matrix as a GGUF file: per linear the sums of squares of its inputs and the number
 * of tokens, under the GGUF tensor names. Merging several is llama-imatrix's affair: sums and counts add. */
#ifndef NT_IMATRIX_H
#define NT_IMATRIX_H
#include <stdint.h>
#include "common/err.h"

struct imatrix;
/* The output is opened at once, so that a path that cannot be written is known before the work. dataset: what
 * the sums were taken over, for people; a chunk is one sequence. */
struct imatrix *imatrix_open(const char *path, const char *dataset, uint32_t chunk_count, uint32_t chunk_size,
                             struct err *e) NT_MUST_CHECK;
void imatrix_discard(struct imatrix *im); /* nothing is written; NULL ok */
/* name: the GGUF tensor, "blk.0.attn_q.weight"; sum2[dim] = sum of x^2 over count tokens. Experts of one tensor: one
 * after the other from 0 on; others are expert 0. */
void imatrix_add(struct imatrix *im, const char *name, int expert, const double *sum2, int dim, uint64_t count);
/* Writes the file, frees im in every case. */
int imatrix_finish(struct imatrix *im, struct err *e) NT_MUST_CHECK;
#endif
