/* SPDX-License-Identifier: Apache-2.0
 * What nt-tweak reads and writes: a qweights stream whose quantized tensors pass unchanged, and to which every layer's
 * norms are added, old and new:
 *   Norm   F32 [D]   meta name (the checkpoint's own), layer, which: "old" | "new"
 *   tweak  no payload: layer, lr, train and holdout [loss before, after], moved, changed, dropped (why; only then)
 * The trailer's `verdict` says what held-out data says, its `norms` which norms are valid. */
#ifndef NT_TWEAK_STREAM_H
#define NT_TWEAK_STREAM_H
#include <stdio.h>
#include "common/tweak.h"

/* Header of the output: the input's with params.tweak added; new reference. */
json_t *tweak_header(const json_t *in, const struct tweak_opts *o, const char *params, const struct tokens *tk,
                     const int64_t layers[2]);

/* Copies the records of a layer from r to w up to its LayerEnd (not written yet) and keeps the quantized tensors in
 * q[ROLE_COUNT] (out 0: the linear is not in the stream and stays float). Checks that they are of this model's layer. */
int tweak_read_layer(struct stream_reader *r, struct stream_writer *w, const struct model *m, int layer,
                     struct qtensor *q, struct err *e) NT_MUST_CHECK;
/* Copies what follows the last layer; refuses more layers. */
int tweak_read_rest(struct stream_reader *r, struct stream_writer *w, const struct model *m, struct err *e)
    NT_MUST_CHECK;

/* The norms, the report and the LayerEnd. */
int tweak_write_layer(struct stream_writer *w, const struct tweak *t, const float *old_v, const float *new_v,
                      const struct tweak_report *rep, struct err *e) NT_MUST_CHECK;
json_t *tweak_trailer(const struct tweak_verdict *v); /* new reference */

/* --report: one line a layer. */
#define TWEAK_REPORT_HEAD                                                                                              \
    "layer\tlr\ttrain_before\ttrain_after\tholdout_before\tholdout_after\tmoved\tchanged\tseconds\n"
int tweak_report_line(struct outfile *f, const struct tweak_report *rep, struct err *e) NT_MUST_CHECK;
#endif
