/* SPDX-License-Identifier: Apache-2.0
 * What nt-tweak reads and writes: a qweights stream whose quantized tensors pass unchanged, and to which
 * every layer's norms are added, old (unless the input has them) and new.
 *
 *   Norm   F32 [D]; meta: name (the checkpoint's own), layer, which ("old" | "new")
 *   tweak  no payload; meta: layer, changed, lr, train and holdout ([loss before, after]), moved, dropped
 *
 * The trailer's `verdict` is what held-out data says, its `norms` which norms are valid. */
#ifndef NT_TWEAK_STREAM_H
#define NT_TWEAK_STREAM_H
#include <stdio.h>
#include "common/tweak.h"

/* Header of the output: the input's with params.tweak added; new reference. */
json_t *tweak_header(const json_t *in, const struct tweak_opts *o, const char *params,
                     const struct tokens *tk, const int64_t layers[2]);

/* Reads the records of a layer up to its LayerEnd: quantized tensors (a linear that has none stays float) and
 * old norms, which are put into t. Checks that they are of this model's layer. Copying is the stream's
 * (stream_tee). */
int tweak_read_layer(struct stream_reader *r, struct tweak *t, const struct model *m, int layer,
                     struct tweak_input *in, struct err *e) NT_MUST_CHECK;
/* Reads what follows the last layer; refuses more layers. */
int tweak_read_rest(struct stream_reader *r, const struct model *m, struct err *e) NT_MUST_CHECK;

/* The norms, the report and the LayerEnd. */
int tweak_write_layer(struct stream_writer *w, const struct tweak *t, const struct tweak_input *in,
                      const float *old_v, const float *new_v, const struct tweak_report *rep,
                      struct err *e) NT_MUST_CHECK;
json_t *tweak_trailer(const struct tweak_verdict *v,
                      const json_t *in); /* new reference; effective bits are kept from in's */

/* --report: one line a layer. */
#define TWEAK_REPORT_HEAD                                                                                    \
    "layer\tlr\ttrain_before\ttrain_after\tholdout_before\tholdout_after\tmoved\tchanged\tseconds\n"
int tweak_report_line(struct outfile *f, const struct tweak_report *rep, struct err *e) NT_MUST_CHECK;
#endif
