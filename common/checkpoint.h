/* SPDX-License-Identifier: Apache-2.0
 * A model file of another tool, mmapped and validated: tensors by the file's own names, configuration as
 * JSON. Formats are slots (common/checkpoints/): each registers one struct checkpoint_format. */
#ifndef NT_CHECKPOINT_H
#define NT_CHECKPOINT_H
#include <jansson.h>
#include "common/err.h"
#include "common/tensor.h"

struct checkpoint_tensor {
    const char *name;    /* as in the file; at most 4096 bytes */
    struct tensor t;     /* data points into the read-only mapping; HF orientation (GGUF's ne reversed) */
    int file;            /* which shard */
    uint64_t offset;     /* of data in that file */
};

struct checkpoint {
    const char *path;    /* as given */
    const char *format;  /* "gguf", "safetensors" */
    int n_files;
    char **files;        /* real paths of the shards */
    int n_tensors;
    struct checkpoint_tensor *tensors; /* in file order */
    json_t *config;      /* config.json as found, or NULL for GGUF */
    json_t *meta;        /* GGUF key-values (common/gguf.h has what JSON cannot say) or safetensors
                            __metadata__; may be NULL */
    const char *dir;     /* directory that holds tokenizer.json and config.json, or NULL */
    /* private */
    const struct checkpoint_format *impl;
    struct checkpoint_index *index;
    void *state;
};

/* MODEL: HF directory, its config.json, a .safetensors file, a .gguf (or the first part of a split one).
 * Everything is checked against hostile input before this returns. NULL and one sentence on failure. */
struct checkpoint *checkpoint_open(const char *path, struct err *e) NT_MUST_CHECK;
void checkpoint_close(struct checkpoint *c);
/* NULL: not there */
const struct checkpoint_tensor *checkpoint_find(const struct checkpoint *c, const char *name);
/* Tells the kernel that the pages of a tensor will not be needed soon (memory for one layer). */
void checkpoint_release(const struct checkpoint *c, const struct checkpoint_tensor *t);
/* sha256 over names, dtypes, shapes and bytes of all tensors (lower-case hex); reads the whole file once. */
const char *checkpoint_sha256(struct checkpoint *c);

struct checkpoint_format {
    const char *name;
    int (*probe)(const char *path); /* 1: mine */
    int (*open)(struct checkpoint *c, struct err *e);
    void (*close)(struct checkpoint *c);
};

/* Writers: common/gguf_write.h, common/safetensors_write.h. What formats share: common/checkpoint_impl.h. */
#endif
