/* SPDX-License-Identifier: Apache-2.0
 * Writes a safetensors file: all tensors are declared first, then their bytes are delivered in the order of
 * the file. Order (as the reference writer has it): element size descending, then name. Nothing large is
 * held. */
#ifndef NT_SAFETENSORS_WRITE_H
#define NT_SAFETENSORS_WRITE_H
#include <jansson.h>
#include "common/outfile.h"
#include "common/tensor.h"

struct safetensors_entry {
    const char *name;
    enum dtype dtype;
    int rank;
    uint64_t shape[TENSOR_MAX_RANK];
    void *user; /* the caller's */
};

struct safetensors_writer;

/* Sorts list[n] in place into file order and writes the header. metadata: object of strings, may be NULL;
 * {"format": "pt"} is added to it. list and out are borrowed until safetensors_end; the caller commits out.
 */
struct safetensors_writer *safetensors_begin(struct outfile *out, struct safetensors_entry *list, size_t n,
                                             const json_t *metadata, struct err *e) NT_MUST_CHECK;
/* The entry whose bytes come next, or NULL when all are there. Entries without bytes are passed over. */
const struct safetensors_entry *safetensors_next(const struct safetensors_writer *w);
/* Some bytes of the current entry, never beyond its end. */
int safetensors_put(struct safetensors_writer *w, const void *p, uint64_t n, struct err *e) NT_MUST_CHECK;
/* n values converted to the entry's float type. */
int safetensors_put_f32(struct safetensors_writer *w, const float *x, size_t n, struct err *e) NT_MUST_CHECK;
/* Checks that everything was delivered; frees the writer in every case. */
int safetensors_end(struct safetensors_writer *w, struct err *e) NT_MUST_CHECK;
void safetensors_drop(struct safetensors_writer *w); /* after an error; NULL ok */
#endif
