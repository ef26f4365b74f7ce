/* SPDX-License-Identifier: Apache-2.0
 * What nt-stream does with whole streams of any kind. Each writes one stream to `out` (taken over). */
#ifndef NT_STREAM_OPS_H
#define NT_STREAM_OPS_H
#include "common/stream.h"

struct stream_select {
    int64_t layers[2]; /* A:B, B excluded; {0, INT64_MAX} = all, records outside layers too */
    const char *kind;  /* NULL: all. LayerEnd always passes */
    const char *name;  /* shell pattern, NULL: all */
};
/* The chosen records of several streams of one kind and model, one after the other. */
int stream_cat(char **paths, int n, const struct stream_select *sel, struct outfile *out,
               struct err *e) NT_MUST_CHECK;

/* Shards of one statistics run, in lock step and in the order given, a piece at a time: `sum` records are
 * added (in double), `max` ones raised, `concat` ones appended along the first dimension; counts are summed.
 */
int stream_merge(char **paths, int n, struct outfile *out, struct err *e) NT_MUST_CHECK;

struct salvage_report {
    uint64_t kept, lost; /* records; lost as far as layer ends and sequence numbers tell */
    uint64_t bad_bytes;  /* skipped between intact records */
    bool whole;          /* nothing lost, header and trailer confirmed */
};
/* The intact records of a damaged or cut file, found by their sync marks. say: called with a sentence for
 * every loss. */
int stream_salvage(const char *path, bool whole_layers, struct outfile *out,
                   void (*say)(const char *fmt, ...), struct salvage_report *rep,
                   struct err *e) NT_MUST_CHECK;
#endif
