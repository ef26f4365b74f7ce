/* SPDX-License-Identifier: Apache-2.0
 * From a qweights stream and a model file to checkpoints of other tools. A stream is read whole first (its
 * trailer says which norms are valid): codes go to an unlinked spool file, packed, so that memory stays at
 * one tensor. An output format is one file in common/packers/ that exports `const struct packer NAME`. */
#ifndef NT_PACK_H
#define NT_PACK_H
#include "common/model.h"
#include "common/qtensor.h"
#include "common/safetensors_write.h"
#include "common/tempfile.h"

struct pack_norm {
    char name[256];          /* HF tensor name */
    int layer, dim;
    float *old, *tuned;      /* owned; NULL = not in the stream */
};

/* A quantized tensor of the stream: its head; the arrays lie in the spool. */
struct pack_tensor {
    struct qtensor head;     /* array pointers are NULL */
    bool zero, minimum, gidx;/* which of them there are */
    uint64_t at;
};

/* One tensor of the model by its HF name, and where its values come from: the stream (q or norm), else the
 * file (t). */
struct pack_item {
    char name[256], gguf_name[256];
    struct weight_part part;
    int role;                /* number of a linear, of its weight or bias; -1: none */
    bool linear, norm;       /* of a block; any norm */
    bool offset;             /* a norm of which HF files hold gain - the family's norm_offset */
    bool qk;                 /* q or k: rows that GGUF files of some families permute */
    bool heads;              /* a norm of every head by itself: [heads, E] in files that hold them in one tensor */
    int layer;               /* -1 outside the blocks */
    int q;                   /* index into pack.q, -1 = none */
    const float *values;     /* norm from the stream, or NULL */
    int rank;
    uint64_t shape[2];
};

enum pack_which { PACK_VERDICT, PACK_OLD, PACK_NEW };

struct import_rest;

struct pack {
    const struct packer *packer; /* the output's format; NULL: no --format */
    struct model *m;         /* -m; borrowed; NULL where not needed */
    bool keep_rest;          /* without -m: pack_read collects the rest of an imported checkpoint for pack_open_rest */
    struct import_rest *rest;/* what it collected; NULL: -m has been given, or the stream has no such records */
    const char *out, *like;  /* like: template of the GGUF packer */
    bool loose;              /* gguf: codes that fit no block type become floats instead of a refusal */
    enum dtype dtype, norm_dtype; /* DT_NONE = the packer's default */
    uint64_t max_shard;      /* bytes of tensors in a safetensors file of a directory; 0: no limit */
    /* from the stream */
    char *stream;            /* its name, for messages */
    json_t *header, *trailer;
    char hash[17];           /* stream_hash */
    struct pack_tensor *q;
    size_t n_q, q_cap;
    struct tempfile *spool;  /* NULL: no tensors yet */
    struct pack_norm *norms;
    size_t n_norms, norms_cap;
    bool tuned;              /* the new norms are the valid ones */
    struct pack_item *items;
    size_t n_items, items_cap;
};

struct codes_format;
enum pack_size { PACK_NORMS, PACK_CODES, PACK_FLOATS };

struct packer {
    const char *name;
    const char *summary;     /* one line for --format list */
    bool directory;          /* writes a directory: no pipe */
    enum pack_size size;     /* what fills the output, for the prediction */
    int (*write)(struct pack *p, struct err *e); /* writes p->out whole, re-reads and compares */
    const struct codes_format *codes; /* what codes_write needs to know (pack_codes.h), else NULL */
};
const struct packer *packer_find(const char *name); /* NULL: unknown */
const struct packer *packer_at(int i);              /* NULL after the last; sorted by name */

/* Reads the whole stream: layers [first, end) must be there, each once. p->m may be NULL. */
int pack_read(struct pack *p, const char *path, enum pack_which which, int64_t first, int64_t end,
              struct err *e) NT_MUST_CHECK;
/* Tensor i of the stream with its arrays; the caller clears it. */
int pack_load(const struct pack *p, int i, struct qtensor *q, struct err *e) NT_MUST_CHECK;
/* The valid values of norm i. */
const float *pack_norm_values(const struct pack *p, const struct pack_norm *n);
/* After pack_read with keep_rest: makes p->m of what the stream of an import holds; the caller closes it, after
 * pack_clear. */
int pack_open_rest(struct pack *p, struct err *e) NT_MUST_CHECK;
void pack_clear(struct pack *p);

/* Lists the tensors of p->m and binds them to the stream's, each of which must find its place. */
int pack_bind(struct pack *p, struct err *e) NT_MUST_CHECK;
/* Memory that the largest tensor needs while it is written, in bytes. */
uint64_t pack_memory(const struct pack *p);
/* About how large the output will be. */
uint64_t pack_disk(const struct pack *p, enum pack_size what);
/* Calls sink with the values of an item, HF row order, in pieces of whole rows (vectors: one piece). */
typedef int pack_sink(void *ctx, const float *x, size_t n, struct err *e);
int pack_values(struct pack *p, const struct pack_item *it, pack_sink *sink, void *ctx,
                struct err *e) NT_MUST_CHECK;

/* ---- the tensors of a file (pack_whole.c) ---- */

/* A tensor of the family's files, Hugging Face or GGUF: an item, several that are parts of one tensor ("NAME#q"
 * ..., experts), or one head of a norm ("NAME.*"). */
struct pack_whole {
    const struct pack_item **part; /* [n] */
    size_t cap;
    int n, rank;
    bool gguf;
    char name[256];
    uint64_t shape[2];
    uint64_t from; /* of a head: its first value */
};
struct pack_whole *pack_wholes(const struct pack *p, bool gguf, size_t *n);
void pack_wholes_free(struct pack_whole *list, size_t n);
/* All values of it; those of several parts, transposed or permuted ones are in memory at once. */
int pack_whole_values(struct pack *p, const struct pack_whole *w, pack_sink *sink, void *ctx,
                      struct err *e) NT_MUST_CHECK;
/* How many of its parts are codes (or blocks) of the stream. */
int pack_whole_coded(const struct pack *p, const struct pack_whole *w);
/* The codes of all its parts as one tensor [out, in], never transposed, rows in the order of the file; the caller
 * clears it. *why: what keeps them from being one ("has ..."), then q is empty; NULL: nothing. */
int pack_whole_load(const struct pack *p, const struct pack_whole *w, struct qtensor *q, const char **why,
                    struct err *e) NT_MUST_CHECK;

/* Opens the checkpoint that was written and compares every value with what should be there, as rounded to the
 * element type it is stored in. Returns 0 or an error that names the first difference. */
int pack_verify(struct pack *p, const char *path, struct err *e) NT_MUST_CHECK;

/* Compares the values of one item with those of another model's, rounded to the element type that one is
 * stored in. */
int pack_same_values(struct pack *p, const struct pack_item *ours, struct model *m,
                     const struct pack_item *theirs, struct err *e) NT_MUST_CHECK;

/* How many norm elements differ from the old ones, and how many still do after rounding to dtype. */
struct pack_change { uint64_t tensors, elements, changed, kept; };
struct pack_change pack_norm_change(const struct pack *p, enum dtype dtype);

/* sha256 over the dequantized linears of the blocks (lower-case hex): what an overlay was made for. */
int pack_weights_sha256(struct pack *p, char hex[65], struct err *e) NT_MUST_CHECK;

/* ---- norms into a finished checkpoint (pack_norms.c) ---- */

/* moved: elements that the tweak moved; changed: those of the copy, as read again, that differ from the
 * original's; kept: how much of the tweak rounding has left, 1 = all (see pack_norms.c); dtype: what was
 * rounded to. */
struct norms_result {
    uint64_t tensors, elements, moved, changed;
    double kept;
    enum dtype dtype;
};
#define NORMS_KEPT_LEAST 0.1 /* less of a tweak than this is refused */
/* A byte-identical copy of checkpoint `from` at `to` but for its norms, in their own element types; refused
 * when the checkpoint's dequantized weights are not the stream's, or when rounding would erase the tweak.
 * p->norm_dtype: values are rounded to that type first. */
int pack_norms_into(struct pack *p, const char *from, const char *to, struct norms_result *r,
                    struct err *e) NT_MUST_CHECK;
/* The same with the norms of an overlay file. unchecked: apply even where the weights cannot be compared. */
int pack_apply(const char *overlay, const char *from, const char *to, bool unchecked, enum dtype norm_dtype,
               struct norms_result *r, struct err *e) NT_MUST_CHECK;

/* ---- any stream as text (pack_text.c) ---- */
int pack_text(const char *path, FILE *f, struct err *e) NT_MUST_CHECK;

/* ---- safetensors files of a directory (pack_safetensors.c) ---- */

/* One that is being written: `put` delivers all bytes of `entry` to w. */
struct pack_file {
    struct safetensors_writer *w;
    const struct safetensors_entry *entry;
    void *ctx;               /* the packer's */
    void *buf;
    size_t cap;
};
typedef int pack_put(struct pack_file *f, struct err *e);
/* Writes list[n] (in the order of the model; sorted within files) into dir. */
int pack_write_safetensors(const struct pack *p, const char *dir, struct safetensors_entry *list, size_t n,
                           pack_put *put, void *ctx, struct err *e) NT_MUST_CHECK;
/* A pack_sink whose ctx is a struct pack_file: the values in the entry's float type. */
int pack_put_floats(void *file, const float *x, size_t n, struct err *e) NT_MUST_CHECK;

/* ---- small helpers for packers ---- */
/* Values of a plain float type; an overflow to infinity is an error that names the tensor. */
int pack_round(void *dst, enum dtype t, const float *x, size_t n, const char *name,
               struct err *e) NT_MUST_CHECK;
int pack_copy_file(const char *from, const char *to, struct err *e) NT_MUST_CHECK;
/* Copies the tokenizer's and other small files of the model's directory. */
int pack_copy_side_files(const struct pack *p, const char *dir, struct err *e) NT_MUST_CHECK;
/* The model's config.json with extra keys (borrowed, may be NULL) and the element type set. */
int pack_write_config(const struct pack *p, const char *dir, enum dtype dtype, const json_t *extra,
                      struct err *e) NT_MUST_CHECK;
int pack_write_json(const char *dir, const char *name, const json_t *j, struct err *e) NT_MUST_CHECK;
#endif
