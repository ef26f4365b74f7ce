/* SPDX-License-Identifier: Apache-2.0
 * What an imported checkpoint holds beside the codes of its linears, as records that follow the layers of a
 * qweights stream, so that nt-pack needs no -m. Stages that do not need them pass them on.
 *   file    U8 [n]: the first n bytes of a file; meta: name (without directories), size (of the whole file)
 *   tensor  a tensor as it lies there; meta: name (Hugging Face's), stored (the file's own), file, offset
 * Small files (configuration, tokenizer) are there whole; of a file of tensors, what lies before the first.
 */
#ifndef NT_IMPORT_REST_H
#define NT_IMPORT_REST_H
#include "common/model.h"
#include "common/stream.h"

/* All but the codes of the linears of layers [first, end): their codes are in the stream already. */
int import_rest_write(struct model *m, int first, int end, struct stream_writer *w,
                      struct err *e) NT_MUST_CHECK;

/* The files again, in a temporary directory that is gone at exit; where the codes were are holes. */
struct import_rest;
/* The current record, `file` or `tensor`; *r NULL: the first one. */
int import_rest_take(struct import_rest **r, struct stream_reader *s, struct record *rec,
                     struct err *e) NT_MUST_CHECK;
/* The checkpoint: what model_open takes. */
const char *import_rest_path(const struct import_rest *r);
void import_rest_close(struct import_rest *r); /* NULL ok */
#endif
