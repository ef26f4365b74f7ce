/* SPDX-License-Identifier: Apache-2.0
 * Pickles of PyTorch state dicts, and nothing else: a stack machine that knows the opcodes and the few
 * globals that torch.save writes for dictionaries of tensors. It calls nothing; any other global is refused
 * by name. */
#ifndef NT_PICKLE_H
#define NT_PICKLE_H
#include "common/err.h"
#include "common/tensor.h"

enum pickle_kind {
    PICKLE_NONE,
    PICKLE_BOOL,
    PICKLE_INT,
    PICKLE_LONG, /* more than 64 bits: s, len = its little-endian bytes */
    PICKLE_REAL,
    PICKLE_TEXT,
    PICKLE_TUPLE,
    PICKLE_LIST,
    PICKLE_DICT,   /* item: key, value, key, value ... */
    PICKLE_GLOBAL, /* i: private */
    PICKLE_STORAGE,
    PICKLE_TENSOR
};

struct pickle_tensor;

struct pickle_value {
    enum pickle_kind kind;
    uint32_t n, cap; /* of item; n: bytes of s */
    union {
        int64_t i;
        double f;
        const char *s; /* into the pickle */
        struct pickle_value **item;
        struct pickle_tensor *tensor;
        struct pickle_storage *storage;
    };
};

struct pickle_storage {
    const char *key;
    uint32_t key_len;
    enum dtype dtype; /* DT_NONE: untyped bytes */
    uint64_t count;   /* elements (bytes when untyped) */
};

struct pickle_tensor {
    struct pickle_storage storage;
    enum dtype dtype;
    uint64_t offset; /* elements into the storage */
    int rank;
    uint64_t shape[TENSOR_MAX_RANK], stride[TENSOR_MAX_RANK]; /* in elements */
};

struct pickle;
/* One pickle from the start of p[0..n); *used (may be NULL) receives its length. Messages begin with `file`.
 * The values point into p and belong to the pickle. NULL and one sentence on failure. */
struct pickle *pickle_read(const char *file, const uint8_t *p, size_t n, size_t *used,
                           struct err *e) NT_MUST_CHECK;
const struct pickle_value *pickle_top(const struct pickle *k);
/* Calls visit for the storages of all persistent ids, in the order of the pickle; stops at an error. */
typedef int pickle_visit(void *ctx, const struct pickle_storage *s, struct err *e);
int pickle_each_storage(const struct pickle *k, pickle_visit *visit, void *ctx, struct err *e) NT_MUST_CHECK;
void pickle_free(struct pickle *k); /* NULL ok */
#endif
