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
