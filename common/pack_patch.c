/* SPDX-License-Identifier: Apache-2.0
 * Copies of checkpoints with other bytes for some tensors: see pack_patch.h. */
#include "common/pack_patch.h"
#include "common/checkpoint_impl.h"
#include "common/mem.h"
#include "common/pack.h"
#include "common/sha256.h"
#include "common/tool.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINK_BYTES (1 << 20) /* smaller files are copied: people edit them */
#define SIDECAR "nt-norms.json"

void patch_add(struct patches *p, const struct checkpoint_tensor *t, uint8_t *bytes)
{
    p->list = mem_grow(p->list, &p->cap, p->n + 1, sizeof *p->list);
    p->list[p->n++] = (struct patch){t, bytes};
}

void patch_clear(struct patches *p)
{
    for (size_t i = 0; i < p->n; i++) mem_free(p->list[i].bytes);
    mem_free(p->list);
    json_decref(p->files);
    *p = (struct patches){0};
}

static int by_place(const void *a, const void *b)
{
    const struct checkpoint_tensor *x = ((const struct patch *)a)->t, *y = ((const struct patch *)b)->t;
    if (x->file != y->file) return x->file - y->file;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static bool has_patches(const struct patches *p, int k)
{
    for (size_t i = 0; i < p->n; i++)
        if (p->list[i].t->file == k) return true;
    return false;
}

/* ---- one file ---- */

/* Calls piece with file k's bytes in order: those of the original between the patches (x NULL), and patches.
 */
typedef int piece_fn(void *ctx, const uint8_t *p, uint64_t n, const struct patch *x, struct err *e);
static int walk(const struct patches *p, int k, piece_fn *piece, void *ctx, struct err *e)
{
    struct mapping m = checkpoint_mapping(p->ck, k);
    uint64_t at = 0;
    for (size_t i = 0; i < p->n; i++) {
        const struct checkpoint_tensor *t = p->list[i].t;
        if (t->file != k) continue;
        if (piece(ctx, m.at + at, t->offset - at, NULL, e) < 0 ||
            piece(ctx, p->list[i].bytes, t->t.nbytes, &p->list[i], e) < 0)
            return -1;
        at = t->offset + t->t.nbytes;
    }
    return piece(ctx, m.at + at, m.size - at, NULL, e);
}

static int write_piece(void *ctx, const uint8_t *p, uint64_t n, const struct patch *x, struct err *e)
{
    (void)x;
    return outfile_write(ctx, p, n, e);
}

/* How many elements of a patch's bytes [at, at + n) are others in the original. */
static uint64_t count_changed(const struct patch *x, const uint8_t *bytes, uint64_t at, uint64_t n)
{
    const uint8_t *old = (const uint8_t *)x->t->t.data + at;
    size_t size = (size_t)dtype_block_bytes(x->t->t.dtype);
    uint64_t count = 0;
    for (uint64_t b = 0; b < n; b += size) count += memcmp(bytes + b, old + b, size) != 0;
    return count;
}

struct check {
    FILE *f;
    const char *path;
    struct sha256 *sha;
    uint64_t at, changed;
};

/* The copy's next n bytes are these; where they are a patch, elements that differ from the original's count.
 */
static int check_piece(void *ctx, const uint8_t *p, uint64_t n, const struct patch *x, struct err *e)
{
    struct check *c = ctx;
    uint8_t buf[65536];
    for (uint64_t i = 0, k; i < n; i += k, c->at += k) {
        k = n - i < sizeof buf ? n - i : sizeof buf;
        if (fread(buf, 1, (size_t)k, c->f) != k || memcmp(buf, p + i, (size_t)k) != 0)
            return err_set(e, NT_EXIT_DATA,
                           "verification failed: %s: bytes from %llu on are not as they should be", c->path,
                           (unsigned long long)c->at);
        sha256_add(c->sha, buf, (size_t)k);
        if (x) c->changed += count_changed(x, buf, i, k);
    }
    return 0;
}

static int check_copy(struct patches *p, int k, const char *path, const char *name, struct err *e)
{
    struct mapping m = checkpoint_mapping(p->ck, k);
    char old[65], new[65];
    struct check c = {.f = fopen(path, "rb"), .path = path, .sha = sha256_start(e)};
    int rc = !c.sha ? -1 : !c.f ? err_set(e, NT_EXIT_IO, "%s: %s", path, strerror(errno)) : 0;
    if (rc == 0) rc = walk(p, k, check_piece, &c, e);
    if (rc == 0 && fgetc(c.f) != EOF)
        rc = err_set(e, NT_EXIT_DATA, "verification failed: %s is longer than it should be", path);
    if (c.f) fclose(c.f);
    sha256_end(c.sha, new);
    if (rc < 0) return -1;
    sha256_of(m.at, m.size, old);
    p->changed += c.changed;
    json_array_append_new(p->files,
                          json_pack("{s:s, s:s, s:s}", "name", name, "source_sha256", old, "sha256", new));
    return 0;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int copy_file(struct patches *p, int k, const char *to, const char *name, struct err *e)
{
    struct outfile *f = outfile_open(to, e);
    int rc = f ? walk(p, k, write_piece, f, e) : -1;
    if (rc == 0) rc = outfile_flush(f, e);
    if (rc == 0 && outfile_tmp(f)) rc = check_copy(p, k, outfile_tmp(f), name, e);
    if (rc == 0) return outfile_commit(f, e);
    outfile_discard(f);
    return -1;
}

/* ---- directories ---- */

/* A file that stays as it is: linked when it is large, so that a checkpoint is not on the disk twice. */
static int keep_file(const char *from, const char *to, struct err *e)
{
    struct stat st;
    if (stat(from, &st) == 0 && st.st_size >= LINK_BYTES &&
        linkat(AT_FDCWD, from, AT_FDCWD, to, AT_SYMLINK_FOLLOW) == 0)
        return 0;
    return pack_copy_file(from, to, e);
}

/* Which file of the checkpoint a path is (it may be a link to it); -1: none. */
static int file_index(const struct checkpoint *c, const char *path)
{
    struct stat a, b;
    if (stat(path, &a) != 0) return -1;
    for (int k = 0; k < c->n_files; k++)
        if (stat(c->files[k], &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino) return k;
    return -1;
}

static int place(struct patches *p, const char *from, const char *dir, const char *name, struct err *e)
{
    char *to = path_join(dir, name);
    int k = file_index(p->ck, from);
    int rc = k >= 0 && has_patches(p, k) ? copy_file(p, k, to, name, e) : keep_file(from, to, e);
    mem_free(to);
    return rc;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names of the plain files of a directory, sorted; a sidecar of an earlier copy is not taken over. */
static char **list_files(const char *from, size_t *n, struct err *e)
{
    char **list = NULL;
    size_t cap = 0;
    struct dirent *x;
    DIR *dir = opendir(from);
    *n = 0;
    if (!dir) err_set(e, NT_EXIT_IO, "%s: %s", from, strerror(errno));
    while (dir && (x = readdir(dir)) != NULL) {
        char *a = path_join(from, x->d_name);
        bool self =
            strcmp(x->d_name, ".") == 0 || strcmp(x->d_name, "..") == 0 || strcmp(x->d_name, SIDECAR) == 0;
        if (!self && path_is_dir(a))
            note("%s: a directory, not copied", a);
        else if (!self) {
            list = mem_grow(list, &cap, *n + 1, sizeof *list);
            list[(*n)++] = mem_strdup(x->d_name);
        }
        mem_free(a);
    }
    if (dir) closedir(dir);
    if (*n) qsort(list, *n, sizeof *list, by_text);
    return list;
}

static int fill_directory(struct patches *p, const char *from, const char *tmp, struct err *e)
{
    size_t n;
    char **list = list_files(from, &n, e);
    int rc = e->code ? -1 : 0;
    for (size_t i = 0; i < n; i++) {
        char *a = path_join(from, list[i]);
        if (rc == 0) rc = place(p, a, tmp, list[i], e);
        mem_free(a);
        mem_free(list[i]);
    }
    mem_free(list);
    return rc;
}

static int write_sidecar(const char *path, const json_t *j, struct err *e)
{
    char *dir = path_dir(path);
    int rc = pack_write_json(dir, base_name(path), j, e);
    mem_free(dir);
    return rc;
}

/* from NULL: the parts of a split file. */
static int copy_directory(struct patches *p, const char *from, const char *to,
                          json_t *(*sidecar)(const struct patches *p, void *ctx), void *ctx, struct err *e)
{
    struct outdir *d = outdir_open(to, e);
    if (!d) return -1;
    int rc = from ? fill_directory(p, from, outdir_tmp(d), e) : 0;
    for (int k = 0; !from && k < p->ck->n_files && rc == 0; k++)
        rc = place(p, p->ck->files[k], outdir_tmp(d), base_name(p->ck->files[k]), e);
    json_t *j = rc == 0 ? sidecar(p, ctx) : NULL;
    if (j) rc = pack_write_json(outdir_tmp(d), SIDECAR, j, e);
    json_decref(j);
    if (rc == 0) return outdir_commit(d, e);
    outdir_discard(d);
    return -1;
}

static int copy_single(struct patches *p, const char *from, const char *to,
                       json_t *(*sidecar)(const struct patches *p, void *ctx), void *ctx, struct err *e)
{
    if (copy_file(p, 0, to, base_name(from), e) < 0) return -1;
    if (!json_array_size(p->files)) { /* a pipe: nothing was read again, nothing can lie beside it */
        for (size_t i = 0; i < p->n; i++)
            p->changed += count_changed(&p->list[i], p->list[i].bytes, 0, p->list[i].t->t.nbytes);
        return 0;
    }
    json_t *j = sidecar(p, ctx);
    char *path = mem_printf("%s." SIDECAR, to);
    int rc = j ? write_sidecar(path, j, e) : 0;
    mem_free(path);
    json_decref(j);
    return rc;
}

int patch_write(struct patches *p, const char *from, const char *to,
                json_t *(*sidecar)(const struct patches *p, void *ctx), void *ctx, struct err *e)
{
    qsort(p->list, p->n, sizeof *p->list, by_place);
    for (size_t i = 1; i < p->n; i++)
        if (p->list[i].t == p->list[i - 1].t)
            return err_set(e, NT_EXIT_DATA, "%s: norm %s is given twice", from, p->list[i].t->name);
    p->changed = 0;
    p->files = json_array();
    if (path_is_dir(from)) return copy_directory(p, from, to, sidecar, ctx, e);
    if (path_ends(from, "config.json") && p->ck->dir)
        return copy_directory(p, p->ck->dir, to, sidecar, ctx, e);
    if (p->ck->n_files != 1) return copy_directory(p, NULL, to, sidecar, ctx, e);
    return copy_single(p, from, to, sidecar, ctx, e);
}
