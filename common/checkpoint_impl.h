/* SPDX-License-Identifier: Apache-2.0
 * What checkpoint formats share: mapping files, adding tensors, reading small JSON files, safe names in
 * messages. */
#ifndef NT_CHECKPOINT_IMPL_H
#define NT_CHECKPOINT_IMPL_H
#include "common/checkpoint.h"

struct mapping {
    const uint8_t *at;
    uint64_t size;
    bool memory; /* not a file: pages that are let go of would be lost */
};

/* Maps a regular, non-empty file that is no Git LFS pointer, and lists it in c->files. Its index, or -1. */
int checkpoint_map(struct checkpoint *c, const char *path, struct err *e) NT_MUST_CHECK;
/* The same with anonymous memory from mmap, which close unmaps; path is for messages. */
int checkpoint_take_memory(struct checkpoint *c, const char *path, void *at, uint64_t size);
struct mapping checkpoint_mapping(const struct checkpoint *c, int file);

/* Adds a tensor whose bytes [offset, offset + t->nbytes) of `file` the format has checked; sets data. The
 * name is copied. */
int checkpoint_add(struct checkpoint *c, const char *name, size_t len, const struct tensor *t, int file,
                   uint64_t offset, struct err *e) NT_MUST_CHECK;

/* ---- packed weights (checkpoint_packed.c) ---- */

enum { PACKED_PARTS = 20 };

/* What a layout knows of one weight. The codes lie in part 0. `rows` makes tensors of rows r0 .. r0+n-1; `put`
 * writes the codes of one row to where they belong in part 0's bytes, which start as zeros. */
struct packed {
    int out, in, bits, group, groups;
    bool sym;
    int variant; /* the layout's own */
    float factor;
    const struct checkpoint_tensor *part[PACKED_PARTS]; /* those that it consumes; NULL: no such part */
    int (*rows)(const struct checkpoint *c, const struct packed *p, int r0, int n, struct qtensor *q,
                struct err *e);
    void (*put)(const struct packed *p, uint64_t row, const uint8_t *codes, uint8_t *bytes);
};

/* A tensor of the file: base + suffix. NULL: not there. */
const struct checkpoint_tensor *packed_part(const struct checkpoint *c, const char *base, const char *suffix);
/* One that must be there, of one of the types t1, t2, t3 and of shape [a, b] (b 0: a vector). */
const struct checkpoint_tensor *packed_need(const struct checkpoint *c, const char *base, const char *suffix,
                                            const enum dtype types[3], uint64_t a, uint64_t b,
                                            struct err *e) NT_MUST_CHECK;
/* "PATH: weight BASE: why"; -1 */
int packed_bad(const struct checkpoint *c, const char *base, const char *why, struct err *e);
/* What packed_add does in the end: name (allocated) and p become the checkpoint's. */
void checkpoint_add_weight(struct checkpoint *c, char *name, const struct tensor *t, struct packed *p);
/* Lists base.weight in the place of its parts. The sizes must fit in an int and be at least 1. */
int packed_add(struct checkpoint *c, const char *base, const struct packed *p, struct err *e) NT_MUST_CHECK;
/* Calls visit for each tensor whose name ends in suffix, with the name before it. */
typedef int packed_visit(struct checkpoint *c, const char *base, const struct checkpoint_tensor *t,
                         struct err *e);
int packed_each(struct checkpoint *c, const char *suffix, packed_visit *visit, struct err *e) NT_MUST_CHECK;
/* The group size that gives `groups` groups of `in` columns: what the configuration says if that fits, or
 * equal parts; 0: one group; -1: there is none. */
int packed_group(int in, int64_t groups, int64_t said);

/* n codes of `bits` bits from a stream of little-endian 32-bit words that are `stride` words apart. */
void packed_unpack(uint8_t *codes, const void *words, size_t stride, size_t n, int bits);
uint32_t packed_word(const void *words, uint64_t i);
/* And back into one, of zeros, in aligned memory. */
void packed_pack(const uint8_t *codes, void *words, size_t stride, size_t n, int bits);
/* Two codes of four bits to a byte, even ones low. */
void packed_nibbles(uint8_t *codes, const uint8_t *bytes, size_t n);
void packed_put_nibbles(const uint8_t *codes, uint8_t *bytes, size_t n);
/* Code i of such a stream. */
uint32_t packed_code(const void *words, uint64_t i, int bits);
/* The same where the words of a stream lie `stride` apart. */
uint32_t packed_code_apart(const void *words, uint64_t stride, uint64_t i, int bits);
/* Element i of a tensor of a plain float type. */
float packed_float(const struct checkpoint_tensor *t, uint64_t i);
bool packed_method(const struct checkpoint *c, const char *method);

/* Sets dir, and config where there is a config.json. */
int checkpoint_read_config(struct checkpoint *c, struct err *e) NT_MUST_CHECK;
/* Reads every file of an index (NAME.index.json) with `read`, which lists the tensors of one file; the
 * tensors and the index must agree. */
typedef int checkpoint_read_file(struct checkpoint *c, const char *path, struct err *e);
int checkpoint_read_shards(struct checkpoint *c, const char *index, checkpoint_read_file *read,
                           struct err *e) NT_MUST_CHECK;

/* JSON file as an object, duplicates refused. NULL and a sentence on failure. */
json_t *checkpoint_load_json(const char *path, struct err *e) NT_MUST_CHECK;

/* A name from a file, fit for a message: control characters become '?', at most 120 bytes. One of four static
 * buffers per thread. */
const char *show_name(const char *s, size_t len);

/* "dir/name", allocated. */
char *path_join(const char *dir, const char *name);
/* The directory part of a path, "." when there is none; allocated. */
char *path_dir(const char *path);
bool path_exists(const char *path);
bool path_is_dir(const char *path);
bool path_ends(const char *path, const char *suffix);

/* Is s[0..len) valid UTF-8 without NUL? */
bool utf8_valid(const char *s, size_t len);
#endif
