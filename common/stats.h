/* SPDX-License-Identifier: Apache-2.0
 * What a linear's input looked like: sums and counts, never means, so that shards merge. One set per site of a layer.
 * In a stats stream, per layer and site, records (meta: name "layers.L.SITE.STAT", layer, site, linears [tensor names],
 * merge, count = rows seen):
 *   hessian   F32 [in(in+1)/2]  lower triangle of X'X row by row (sum)
 *   sums      F64 [5, in]       sum x, sum |x|, sum x^2, sum x^3, sum x^4 (sum)
 *   absmax    F32 [in]          (max)
 *   rows      F32 [n, in]       seeded sample rows (concat)
 * and per layer  target F64 [seqs, 2, D]: per sequence sums of x and x^2 of the float block's output (concat). */
#ifndef NT_STATS_H
#define NT_STATS_H
#include <stdint.h>
#include "common/block.h"
#include "common/stream.h"

struct site_stats {
    enum site site;
    int dim;
    uint64_t count;          /* rows (tokens) seen */
    float *hessian;          /* [dim, dim] full symmetric X'X (sum over tokens, undamped), or NULL */
    double *sums;            /* [5, dim] or NULL */
    float *absmax;           /* [dim] or NULL */
    float *rows; int n_rows; /* or NULL */
};
void site_stats_clear(struct site_stats *s);

/* Reads all records of one layer up to LayerEnd into st[SITE_COUNT] (unused ones have dim 0). 1 layer read (*layer),
 * 0 end of stream, -1 error. Checks shapes, counts, finiteness. */
int stats_read_layer(struct stream_reader *r, int *layer, struct site_stats st[SITE_COUNT], struct err *e) NT_MUST_CHECK;
#endif
