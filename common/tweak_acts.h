/* SPDX-License-Identifier: Apache-2.0
 * Runs of nt-tweak that exchange boundaries: --acts-out writes the input of every next layer for nt-collect
 * or for the next run, --acts-in starts in the middle of the model. What a boundary looks like is acts.c's.
 */
#ifndef NT_TWEAK_ACTS_H
#define NT_TWEAK_ACTS_H
#include "common/stream.h"
#include "common/tweak.h"

struct tweak_acts {
    const char *in, *out; /* options; NULL: not given */
    int first, end;       /* layers of this run */
    /* the rest is private */
    struct outfile *file;
    struct stream_writer *w;
    json_t *from; /* provenance of `in` */
    bool pipe;    /* not a regular file: ended as soon as nothing more comes */
};

/* Before everything else: the ring. stdin_input: the qweights come from stdin. */
int tweak_acts_open(struct tweak_acts *a, bool stdin_input, struct err *e) NT_MUST_CHECK;
/* Sets first and end: all layers, unless boundaries are exchanged and --layers says fewer. */
int tweak_acts_range(struct tweak_acts *a, const struct model *m, const int64_t layers[2],
                     struct err *e) NT_MUST_CHECK;
/* Brings t to layer `first` and starts the output. params: of the qweights stream that is written. r: the one
 * that is read; when the ring's reader died, the reason may come that way. */
int tweak_acts_start(struct tweak_acts *a, struct tweak *t, struct model *m, const struct tokens *tk,
                     const json_t *params, struct stream_reader *r, struct err *e) NT_MUST_CHECK;
/* Tokens and boundary that a run was given, for its output's trailer. */
void tweak_acts_note(const struct tweak_acts *a, const struct tokens *tk, struct stream_writer *w);
/* After a layer: its outputs, the input of the next one. */
int tweak_acts_layer(struct tweak_acts *a, struct tweak *t, int layer, struct stream_reader *r,
                     struct err *e) NT_MUST_CHECK;
/* The end of a regular file; to be called before the qweights appear. */
int tweak_acts_finish(struct tweak_acts *a, struct err *e) NT_MUST_CHECK;
#endif
