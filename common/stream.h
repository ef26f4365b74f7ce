/* SPDX-License-Identifier: Apache-2.0
 * NTS/1, the pipe format (man/nt-stream.5): magic, header map, records with aligned payload segments,
 * trailer, end ext. This module hides msgpack, segments, alignment and checksums. Maps are jansson objects
 * (key order is kept). File and pipe carry the same bytes; nothing is allocated from a length alone. */
#ifndef NT_STREAM_H
#define NT_STREAM_H
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <jansson.h>
#include "common/err.h"
#include "common/outfile.h"
#include "common/tensor.h"

#define STREAM_SEGMENT_MAX (64u << 20)

/* ---- writing ---- */
struct stream_writer;

/* `header` (borrowed) must hold "kind" and may hold params, seed, model, need and more; producer and align
 * are added. `out` is taken over, also on failure. A writer still open when the program exits is aborted with
 * the reason, so die() needs no cleaning up before it. */
struct stream_writer *stream_create(struct outfile *out, const json_t *header, struct err *e) NT_MUST_CHECK;

/* One record. kind: a lower-case first letter may be skipped by readers that do not know it, an upper-case
 * one must be understood. meta (borrowed, may be NULL): name, layer, merge, count, form ...; dtype, shape,
 * nbytes and segs are added from t. t NULL: a record without payload. */
int stream_write(struct stream_writer *w, const char *kind, const json_t *meta, const struct tensor *t,
                 struct err *e) NT_MUST_CHECK;

/* The same with the payload delivered in pieces: begin, put until nbytes are there, (end is implied by the
 * last byte). */
int stream_write_begin(struct stream_writer *w, const char *kind, const json_t *meta, enum dtype dtype,
                       int rank, const uint64_t *shape, struct err *e) NT_MUST_CHECK;
int stream_write_put(struct stream_writer *w, const void *p, uint64_t n, struct err *e) NT_MUST_CHECK;

/* LayerEnd {layer, records}: closes a layer and flushes; seq starts again at 0. */
int stream_layer_end(struct stream_writer *w, int layer, struct err *e) NT_MUST_CHECK;

/* Provenance: what the trailer lists. stream_note_input copies an input stream's identity and history
 * forward: call it when the input has been read to its end. stream_note_file does so for another kind of
 * input (name: a logical one such as "model", never a path; hash_key "sha256" or "xxh3"). The stage's own
 * history entry is added by itself. */
struct stream_reader;
void stream_note_input(struct stream_writer *w, const struct stream_reader *r);
/* The same in two steps, for an input whose reader is closed by then: {input, history}, new reference. */
json_t *stream_provenance(const struct stream_reader *r);
void stream_note_provenance(struct stream_writer *w, const json_t *provenance);
void stream_note_file(struct stream_writer *w, const char *name, const char *hash_key, const char *hash,
                      uint64_t bytes);

/* Trailer with status ok, end ext, commit of the file. `extra` (borrowed, may be NULL): verdict and other
 * keys. Frees the writer in every case. */
int stream_finish(struct stream_writer *w, const json_t *extra, struct err *e) NT_MUST_CHECK;
/* Trailer with status error and the reason, so that it travels down a pipe; a regular file is removed
 * instead. Frees the writer; never fails. */
void stream_abort(struct stream_writer *w, const struct err *why);

/* ---- reading ---- */
struct record {
    const char *kind; /* "LayerEnd", "hessian", ... valid until the next stream_next */
    json_t *meta;     /* borrowed, valid until the next stream_next */
    const char *name; /* meta.name or "" */
    int64_t layer;    /* meta.layer or -1 */
    uint64_t seq;
    bool has_payload;
    struct tensor t; /* dtype, rank, shape, nbytes; data NULL until stream_payload */
};

/* path "-" = stdin. Checks the magic and that header.kind is `kind` (NULL: any). zstd-compressed input is
 * refused with the hint to use zstd -d. */
struct stream_reader *stream_open(const char *path, const char *kind, struct err *e) NT_MUST_CHECK;
/* The same for a FIFO whose writer may never come: gives up when watch_fd (the write end of a pipe, such as
 * stdout) has lost its reader. Anything but a FIFO: as stream_open. In both cases followed by stream_watch.
 */
struct stream_reader *stream_open_watch(const char *path, const char *kind, int watch_fd,
                                        struct err *e) NT_MUST_CHECK;
/* From here on every wait for input also ends when fd (-1: none), the pipe that the caller writes to, has
 * lost its reader: a stage whose successor died must not wait for its predecessor. */
void stream_watch(struct stream_reader *r, int fd);
const json_t *stream_header(const struct stream_reader *r);
const char *stream_name(const struct stream_reader *r); /* file name or "<stdin>" */

/* 1: *rec is the next record (an unread payload of the one before is skipped, still hashed and checked); 0:
 * end of stream, trailer and end ext verified; -1: error, among them truncation and an upstream error
 * trailer. Concatenated streams of the same kind are read through. */
int stream_next(struct stream_reader *r, struct record *rec, struct err *e) NT_MUST_CHECK;
/* Reads the payload of the current record. dst NULL: allocates (mem_array, the caller frees), only after
 * checking the size against --max-mem. Sets rec->t.data. */
int stream_payload(struct stream_reader *r, struct record *rec, void *dst, struct err *e) NT_MUST_CHECK;
/* Some bytes of it, in order, for payloads too large to hold. Returns bytes read (0 = all read) or -1. */
int64_t stream_payload_some(struct stream_reader *r, void *dst, uint64_t n, struct err *e) NT_MUST_CHECK;
const json_t *stream_trailer(const struct stream_reader *r); /* after stream_next gave 0 */
/* Copies the current record unchanged (payload not yet read) to a writer. */
int stream_copy(struct stream_reader *r, struct record *rec, struct stream_writer *w,
                struct err *e) NT_MUST_CHECK;
/* From here on every record that is read is also written to w unchanged, its payload as it is read or
 * skipped; LayerEnd is left to the caller, and records of the kind `except` (or NULL) end here. For stages that
 * must look at what they pass on. w NULL: no more. */
void stream_tee(struct stream_reader *r, struct stream_writer *w, const char *except);
/* For a record kind that the caller does not know: 0 = may be skipped (lower case), -1 and an error = must be
 * understood. */
int stream_unknown(const struct stream_reader *r, const struct record *rec, struct err *e) NT_MUST_CHECK;
/* An error about the current record: "FILE: record N (kind name): cause". Returns -1. */
int stream_err(const struct stream_reader *r, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void stream_close(struct stream_reader *r); /* NULL ok */

/* The current record as text: a line "layer seq kind name dtype shape bytes", with `values` a line "meta
 * JSON" and the numbers, one row a line (payload not yet read; it is read in pieces). */
int stream_print(FILE *f, struct stream_reader *r, struct record *rec, bool values,
                 struct err *e) NT_MUST_CHECK;

/* Identity of a stream: xxh3 of its header and tail hashes as 16 hex digits, as the trailer has it; after the
 * end. */
const char *stream_hash(const struct stream_reader *r);
#endif
