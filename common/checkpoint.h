/* SPDX-License-Identifier: Apache-2.0
 * A model file of another tool, mmapped and validated: tensors by the file's own names, configuration as
 * JSON. Formats are slots (common/checkpoints/): each registers one struct checkpoint_format. */
#ifndef NT_CHECKPOINT_H
#define NT_CHECKPOINT_H
#include <jansson.h>
#include "common/err.h"
#include "common/tensor.h"

struct packed;  /* how a weight is made of several tensors: common/checkpoint_impl.h */
struct qtensor; /* common/qtensor.h */

struct checkpoint_tensor {
    const char *name;    /* as in the file; at most 4096 bytes */
    struct tensor t;     /* data points into the read-only mapping; HF orientation (GGUF's ne reversed) */
    int file;            /* which shard */
    uint64_t offset;     /* of data in that file */
    /* Not NULL: a weight that a quantized checkpoint stores as several tensors (codes, scales ...). Its name
     * is the float model's, type and shape are F32 [out, in], nbytes those of its parts; there is no data:
     * checkpoint_rows and checkpoint_codes read it. */
    const struct packed *packed;
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
    const char *layout;  /* of its packed weights: "gptq", "awq" ...; NULL: there are none */
    const json_t *quantization; /* what config.json or quantize_config.json says of them */
    /* private */
    int n_stored;
    struct checkpoint_tensor *stored; /* NULL: tensors, else what lies in the files */
    const struct checkpoint_format *impl;
    struct checkpoint_index *index;
    void *state;
};

/* MODEL: HF directory, its config.json, a .safetensors file, a .gguf (or the first part of a split one).
 * Everything is checked against hostile input before this returns. NULL and one sentence on failure. */
struct checkpoint *checkpoint_open(const char *path, struct err *e) NT_MUST_CHECK;
void checkpoint_close(struct checkpoint *c);
/* The values of quant_method whose weights are read, "awq, auto-round ...", in s[size]. */
void checkpoint_methods(char *s, size_t size);
/* NULL: not there */
const struct checkpoint_tensor *checkpoint_find(const struct checkpoint *c, const char *name);
/* The same among the tensors that lie in the files, parts of packed weights included. */
const struct checkpoint_tensor *checkpoint_find_stored(const struct checkpoint *c, const char *name);
/* Tells the kernel that the pages of a tensor will not be needed soon (memory for one layer). */
void checkpoint_release(const struct checkpoint *c, const struct checkpoint_tensor *t);
/* Rows r0 .. r0+n-1 of a matrix, packed or not, in F32. */
int checkpoint_rows(const struct checkpoint *c, const struct checkpoint_tensor *t, uint64_t r0, uint64_t n,
                    float *dst, struct err *e) NT_MUST_CHECK;
/* Rows of a packed weight as they are coded: q becomes a tensor of n rows; its name, layer and role stay. */
int checkpoint_codes(const struct checkpoint *c, const struct checkpoint_tensor *t, int r0, int n,
                     struct qtensor *q, struct err *e) NT_MUST_CHECK;
/* Where those codes lie: the part that has them, or t itself where it is not packed. */
const struct checkpoint_tensor *checkpoint_codes_part(const struct checkpoint_tensor *t);
/* The codes of one row of a packed weight into the bytes of that part: the way back from checkpoint_codes. bytes are
 * those of the whole part, aligned, and zeros where this row's codes go. */
void checkpoint_put_codes(const struct checkpoint_tensor *t, uint64_t row, const uint8_t *codes, uint8_t *bytes);
/* sha256 over names, dtypes, shapes and bytes of all tensors as they lie (lower-case hex); reads the whole
 * file once. */
const char *checkpoint_sha256(struct checkpoint *c);

/* A file format (probe, open), or a layout of quantized weights inside another format's files (adopt). */
struct checkpoint_format {
    const char *name;
    int (*probe)(const char *path); /* 1: mine */
    int (*open)(struct checkpoint *c, struct err *e);
    void (*close)(struct checkpoint *c);
    const char *methods; /* values of quant_method that adopt knows, "a, b": for messages */
    /* 1: mine, and its tensors were replaced by packed weights; 0: not mine. c->quantization may be NULL. */
    int (*adopt)(struct checkpoint *c, struct err *e);
};

/* Writers: common/gguf_write.h, common/safetensors_write.h. What formats share: common/checkpoint_impl.h. */
#endif
