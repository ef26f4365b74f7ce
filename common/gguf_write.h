/* SPDX-License-Identifier: Apache-2.0
 * Writes a GGUF v3 file: key-values, then all tensors declared, then their bytes in the same order. */
#ifndef NT_GGUF_WRITE_H
#define NT_GGUF_WRITE_H
#include <stdbool.h>
#include "common/gguf.h"
#include "common/outfile.h"
#include "common/tensor.h"

struct gguf_writer;

/* The writer borrows out; the caller commits it. Errors of the calls below stick until gguf_data. */
struct gguf_writer *gguf_create(struct outfile *out);

/* ---- key-values: a key given again replaces the earlier one, in its place ---- */
void gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t v);
void gguf_put_f32(struct gguf_writer *w, const char *key, float v);
void gguf_put_bool(struct gguf_writer *w, const char *key, bool v);
void gguf_put_string(struct gguf_writer *w, const char *key, const char *v);
void gguf_put_strings(struct gguf_writer *w, const char *key, const char *const *v, size_t n);
/* An array of n items of a fixed-size type, raw little-endian. */
void gguf_put_array(struct gguf_writer *w, const char *key, enum gguf_type item, const void *v, size_t n);
/* A key-value of another file, byte by byte. */
void gguf_put_kv(struct gguf_writer *w, const struct gguf_kv *kv);

/* Checkpoint.meta's JSON as a key-value: integers as u32 (i32 in arrays), reals as f32. */
void gguf_put_json(struct gguf_writer *w, const char *key, const json_t *v);

/* ---- tensors ---- shape in HF order (innermost last) */
void gguf_tensor(struct gguf_writer *w, const char *name, enum dtype dtype, int rank, const uint64_t *shape);
/* Writes everything up to the data. */
int gguf_data(struct gguf_writer *w, struct err *e) NT_MUST_CHECK;
/* Bytes of the tensors in the order of their declaration, in pieces of any size that do not cross a tensor's
 * end. */
int gguf_put(struct gguf_writer *w, const void *p, uint64_t n, struct err *e) NT_MUST_CHECK;
/* Checks that every byte came; frees the writer in every case. */
int gguf_end(struct gguf_writer *w, struct err *e) NT_MUST_CHECK;
void gguf_drop(struct gguf_writer *w); /* after an error; NULL ok */
#endif
