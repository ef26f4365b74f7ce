/* SPDX-License-Identifier: Apache-2.0
 * Temporary files without a name: in TMPDIR (or /tmp), gone with the process. And input that is read more
 * than once: a file where it lies, a pipe from a copy. */
#ifndef NT_TEMPFILE_H
#define NT_TEMPFILE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/err.h"

struct tempfile;

/* n bytes at `at` of any file, all of them. -1: errno says why. */
int file_write_at(int fd, const void *p, size_t n, uint64_t at);

const char *tempfile_dir(void); /* where they lie: for predictions of disk */
/* NULL and an error on failure. Not inherited by other programs. */
struct tempfile *tempfile_open(struct err *e) NT_MUST_CHECK;
void tempfile_close(struct tempfile *t);          /* NULL ok */
uint64_t tempfile_size(const struct tempfile *t); /* where the next bytes will lie */
int tempfile_append(struct tempfile *t, const void *p, size_t n, struct err *e) NT_MUST_CHECK;
int tempfile_read(const struct tempfile *t, void *p, size_t n, uint64_t at, struct err *e) NT_MUST_CHECK;
/* All of it (not empty) as read-only memory, which outlives the file; the caller unmaps it. NULL and an error
 * on failure. */
void *tempfile_map(const struct tempfile *t, struct err *e) NT_MUST_CHECK;

struct respool {
    const char *given;     /* for messages; borrowed: the path asked for, or "<stdin>" */
    char *path;            /* what to open, as often as needed; owned */
    struct tempfile *copy; /* of a pipe or device; NULL: a regular file */
};
/* Whether respool_open will copy it: standard input ("-"), or what is no regular file. */
bool respool_copies(const char *path);
/* path "-" is stdin. Clear it on failure, too. */
int respool_open(struct respool *s, const char *path, struct err *e) NT_MUST_CHECK;
void respool_clear(struct respool *s);
#endif
