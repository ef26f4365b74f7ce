/* SPDX-License-Identifier: Apache-2.0
 * Files appear by rename only: a temporary sibling, fsync, rename. "-" is stdout; an existing FIFO or device
 * is written directly. Every write and close is checked. Open temporaries are removed at exit and on
 * SIGINT/SIGTERM. */
#ifndef NT_OUTFILE_H
#define NT_OUTFILE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/err.h"

struct outfile;

/* NULL and an error on failure; refuses to write binary to a terminal. Names "<stdout>" in errors for "-". */
struct outfile *outfile_open(const char *path, struct err *e) NT_MUST_CHECK;
int outfile_write(struct outfile *f, const void *p, size_t n, struct err *e) NT_MUST_CHECK; /* buffered */
int outfile_flush(struct outfile *f, struct err *e) NT_MUST_CHECK;
uint64_t outfile_pos(const struct outfile *f);
const char *outfile_name(const struct outfile *f);
int outfile_commit(struct outfile *f,
                   struct err *e) NT_MUST_CHECK; /* flush, fsync, rename, free (also on failure) */
void outfile_discard(struct outfile *f);         /* remove the temporary, free; NULL ok */

/* Takes fd, open for writing: path, a FIFO. Writes will wait for room. */
struct outfile *outfile_adopt(int fd, const char *path);
bool outfile_is_temporary(
    const struct outfile *f); /* a regular file that commit will rename; false: pipe or device */
/* Where the bytes are until commit (flush first), to re-read and check them; NULL unless
 * outfile_is_temporary. */
const char *outfile_tmp(const struct outfile *f);
/* For poll(): the descriptor of a pipe or device, -1 for a regular file. */
int outfile_watch_fd(const struct outfile *f);
/* True once stdout's reader went away (EPIPE): the tool ends with 74 and says nothing, the reader has the
 * reason. */
bool outfile_stdout_gone(void);

/* A directory built as a sibling and renamed into place; refused if it exists. */
struct outdir;
struct outdir *outdir_open(const char *path, struct err *e) NT_MUST_CHECK;
const char *outdir_tmp(const struct outdir *d); /* create files in here */
int outdir_commit(struct outdir *d, struct err *e) NT_MUST_CHECK;
void outdir_discard(struct outdir *d);

/* Removes the files that are still open, from a signal handler; at exit that happens by itself, to
 * directories too. */
void outfile_unlink_all(void);

/* Bytes free for an unprivileged user on the file system of path; UINT64_MAX when unknown. */
uint64_t disk_free(const char *path);
#endif
