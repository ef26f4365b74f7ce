/* SPDX-License-Identifier: Apache-2.0
 * Acts streams: boundaries of the quantized stream on their way between processes. Boundary l is the input of
 * block l: one record "Acts" per sequence, F32 [T, D], meta {layer, seq, split: train|holdout, path}, closed
 * by LayerEnd l. path "q" (every sequence) is what the codes with the tweaked norms make, "old" (held-out
 * ones) the same codes with the old norms, "float" the float model's (held-out ones; all with --target
 * float). The header names the model, the tokens (hash) and in params the options of the codes and of the
 * tweak. */
#ifndef NT_ACTS_H
#define NT_ACTS_H
#include "common/boundary.h"
#include "common/stream.h"

/* Some sequences of one path; several entries may have the same path. */
struct acts_path {
    const char *path;
    struct boundary *b;
};

/* params (borrowed): of the qweights stream that the boundary comes from; which layers they cover is left
 * out, so that runs of one layer each and one run of all write the same header. New reference. */
json_t *acts_header(struct model *m, const char *tokens_hash, const json_t *params);
/* The boundary, path after path, and its LayerEnd. */
int acts_write(struct stream_writer *w, const struct acts_path *p, int n, int layer,
               struct err *e) NT_MUST_CHECK;

/* Checks that the stream is of this model and these tokens. A FIFO is waited for; watch_fd: the stage's
 * output
 * (-1: none), whose reader's end also ends the wait, then and in every read. */
struct stream_reader *acts_open(const char *path, int watch_fd, struct model *m, const char *tokens_hash,
                                struct err *e) NT_MUST_CHECK;
/* The options in the header must be these (as for acts_header). */
int acts_check_params(const struct stream_reader *r, const json_t *params, struct err *e) NT_MUST_CHECK;
/* Passes over boundaries before `layer`; fills p[].b (allocated, any sequences) and sets their layer.
 * Sequences and paths that no entry wants are skipped; one that is wanted and not there is an error, and so
 * are values that are not finite. */
int acts_read(struct stream_reader *r, const struct acts_path *p, int n, int layer,
              struct err *e) NT_MUST_CHECK;
/* Reads what follows to the end, so that a cut stream is noticed and its identity is known. */
int acts_read_rest(struct stream_reader *r, struct err *e) NT_MUST_CHECK;

/* Opens --acts-out. For a FIFO: waits until somebody reads it. Meanwhile it watches stdin (watch_stdin: the
 * qweights come from there); when that ends before a reader came, what is left in it is read and checked: if
 * it is whole, it is kept for the reader to come, else the error is the reason. Nothing may have been read
 * from stdin before. */
struct outfile *acts_open_ring(const char *path, bool watch_stdin, struct err *e) NT_MUST_CHECK;
#endif
