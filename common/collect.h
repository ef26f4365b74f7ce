/* SPDX-License-Identifier: Apache-2.0
 * The pass of nt-collect: runs the training sequences through the float model's blocks layer by
 * layer and writes what every linear's input looked like. Holdout sequences take no part. */
#ifndef NT_COLLECT_H
#define NT_COLLECT_H
#include "common/imatrix.h"
#include "common/model.h"
#include "common/stats.h"
#include "common/tokens.h"

struct collect_opts {
    struct stats_want want;
    int layers[2];       /* records for layers [0] .. [1]-1; the blocks before them only advance */
    int shard, n_shards; /* run `shard` of the training sequences cut into n_shards runs; 0, 1 = all */
    uint64_t seed;       /* of the sample rows */
    const char *acts; /* NULL: the float stream; else an acts stream, from which the inputs of all layers but
                         0 come */
    int watch_fd;     /* with acts: the output, whose reader's end ends all waiting; -1: none */
};

/* "I/N", 0 <= I < N. */
int collect_shard_parse(const char *text, struct collect_opts *o, struct err *e) NT_MUST_CHECK;
/* The training sequences of the shard: first and how many. Consecutive ones, so that shards merged in order
 * give the concatenated statistics (rows, targets) of the whole run. */
int collect_range(const struct tokens *t, const struct collect_opts *o, int *first, int *n,
                  struct err *e) NT_MUST_CHECK;
/* Ascending indices of min(n, total) rows out of total, a function of seed, n and total alone; allocated. */
uint64_t *collect_choose_rows(uint64_t total, int n, uint64_t seed, int *chosen);

/* The stats stream's header; new reference. */
json_t *collect_header(struct model *m, const struct tokens *t, const struct collect_opts *o);
void collect_predict(const struct model *m, const struct tokens *t, const struct collect_opts *o, int n,
                     uint64_t *mem_bytes, uint64_t *disk_bytes);
/* Writes the records of every layer and its LayerEnd. im may be NULL; else each linear is added to it. With
 * o->acts nothing of layer l is written before the end of its input was read. */
int collect_run(struct model *m, const struct tokens *t, const struct collect_opts *o,
                struct stream_writer *w, struct imatrix *im, struct err *e) NT_MUST_CHECK;
#endif
