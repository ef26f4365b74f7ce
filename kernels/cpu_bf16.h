/* SPDX-License-Identifier: Apache-2.0
 * Inside --precision bf16: single-threaded products of bf16 matrices by oneDNN, and matrices in the layout
 * that it asks for. Everything here but bf16_run and bf16_narrow is for the main thread, outside parallel
 * regions. */
#ifndef NT_CPU_BF16_H
#define NT_CPU_BF16_H
#include "kernels/cpu.h"

/* The right-hand side of products, [k, n] in oneDNN's own layout; also cut into chunks of columns. */
struct bf16_matrix;
struct bf16_matrix *bf16_matrix_alloc(int n, int k);
void bf16_matrix_free(struct bf16_matrix *b);
/* From f32 numbers: stored [n, k] when transposed, else [k, n]; rounded to nearest, ties to even. */
void bf16_matrix_fill(struct bf16_matrix *b, const float *from, bool transposed, int ld);
int bf16_chunks(const struct bf16_matrix *b); /* 1: it cannot be cut */
int bf16_chunk_width(const struct bf16_matrix *b);

/* c[m, n] = a[m, k] b (+ c when add), dense; of one chunk of b or (chunk < 0) all of it. f32 sums. */
struct bf16_plan;
const struct bf16_plan *bf16_plan(const struct bf16_matrix *b, int chunk, int m, bool add);
void bf16_run(const struct bf16_plan *p, const struct bf16_matrix *b, int chunk, const uint16_t *a, float *c);

/* Right sides that the caller packs: [n / columns][k / 2][columns][2], what oneDNN asks for on CPUs known so
 * far. bf16_pair_columns: the columns of such a block, 0 when oneDNN wants another layout or padding. */
int bf16_pair_columns(int n, int k);
const struct bf16_plan *bf16_plan_pairs(int m, int n, int k, int columns, bool add); /* NULL: cannot be had */
void bf16_run_at(const struct bf16_plan *p, const uint16_t *a, const uint16_t *b, float *c);

/* to[k] = from[k] rounded to nearest, ties to even; subnormal numbers may become zero */
void bf16_narrow(uint16_t *to, const float *from, size_t n);

void bf16_start(int threads); /* dies with 71 where oneDNN has no bf16 products for this CPU */
void bf16_end(void);

/* As backend.h's attention; false: not for this shape on this CPU, nothing was done. */
bool bf16_attention(dev out, dev lse, dev q, dev k, dev v, const struct attention *a);

/* Makes a backend of cpu_open one whose matrix products round their inputs to bf16. */
void cpu_bf16_open(struct backend *be);
#endif
