/* SPDX-License-Identifier: Apache-2.0
 * What a linear's input looked like: sums and counts, never means, so that shards merge. One set per site of
 * a layer; experts have their own (site "mlp.3": what was routed to expert 3). In a stats stream, per layer and
 * site, records (meta: name "layers.L.SITE.STAT", layer, site,
 * linears [tensor names], dim, merge, count = rows seen): hessian   F32 [in(in+1)/2]  lower triangle of X'X
 * row by row (sum) sums      F64 [5, in]       sum x, sum |x|, sum x^2, sum x^3, sum x^4 (sum) absmax    F32
 * [in]          (max) rows      F32 [n, in]       seeded sample rows (concat) and per layer  target F64
 * [seqs, 2, D]: per sequence sums of x and x^2 of the float block's output (concat). */
#ifndef NT_STATS_H
#define NT_STATS_H
#include <stdint.h>
#include "common/block.h"
#include "common/stream.h"

#define STATS_SUMS_ROWS 5

struct site_stats {
    int site; /* numbered as in block.h */
    int dim;
    uint64_t count; /* rows (tokens) seen; of an expert perhaps 0 */
    float *hessian; /* [dim, dim] full symmetric X'X (sum over tokens, undamped), or NULL */
    double *sums;   /* [5, dim] or NULL */
    float *absmax;  /* [dim] or NULL */
    float *rows;
    int n_rows; /* or NULL */
};
void site_stats_clear(struct site_stats *s);

/* ---- what is wanted ---- */
enum { STATS_HESSIAN = 1, STATS_SUMS = 2, STATS_ABSMAX = 4, STATS_ROWS = 8, STATS_TARGETS = 16 };
struct stats_want {
    unsigned mask;
    int rows;
};
/* "hessian,sums,absmax,rows:N,targets" in any order; unknown words, repeats and an empty list are usage
 * errors. */
int stats_want_parse(const char *list, struct stats_want *w, struct err *e) NT_MUST_CHECK;
void stats_want_text(const struct stats_want *w, char out[96]); /* the same list in the canonical order */
/* Bytes of one site's statistics in memory and in a stream (payloads, heads and padding). */
uint64_t stats_site_bytes(const struct stats_want *w, int dim);
uint64_t stats_site_disk(const struct stats_want *w, int dim);

/* ---- writing ---- */
/* The records of one site: whatever s holds. Only the lower triangle of s->hessian is read. Checks that
 * everything is finite and names layer, site and first index when it is not. linears: array of tensor names
 * (borrowed). */
int stats_write_site(struct stream_writer *w, int layer, const struct site_stats *s, const json_t *linears,
                     struct err *e) NT_MUST_CHECK;
/* The record of X'X alone, for a matrix that lies elsewhere: rows(ctx, i, n, dst) copies rows i .. i+n-1, [n,
 * dim]. What s->hessian holds is passed over. */
typedef void stats_rows(void *ctx, int i, int n, float *dst);
int stats_write_hessian(struct stream_writer *w, int layer, const struct site_stats *s, const json_t *linears,
                        stats_rows *rows, void *ctx, struct err *e) NT_MUST_CHECK;
/* target[n, 2, D]; count = tokens of the n sequences. */
int stats_write_target(struct stream_writer *w, int layer, const double *target, int n, int D, uint64_t count,
                       struct err *e) NT_MUST_CHECK;

/* ---- reading ---- */
/* Where target records go: to w those of layers first .. end - 1, when all of their layer is read. Not before: in the
 * ring nobody reads w until the stage that fills this stream is done with its first layer. */
struct stats_targets {
    struct stream_writer *w;
    int first, end;
};
/* Reads all records of one layer up to LayerEnd into st[n_sites] (unused ones have dim 0; n_sites at least
 * SITE_COUNT). 1 layer read (*layer), 0 end of stream, -1 error (st is then empty). Checks shapes, counts,
 * finiteness. targets NULL: they are passed over. */
int stats_read_layer(struct stream_reader *r, int *layer, struct site_stats *st, int n_sites,
                     const struct stats_targets *targets, struct err *e) NT_MUST_CHECK;
#endif
