/* SPDX-License-Identifier: Apache-2.0
 * The rest of an imported checkpoint: see import_rest.h. One tensor is in memory at a time, and of files that
 * come from elsewhere neither names nor places are trusted. */
#include "common/import_rest.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "common/checkpoint_impl.h"
#include "common/mem.h"
#include "common/outfile.h"
#include "common/pack.h"
#include "common/tool.h"

#define SMALL_FILE (256u << 20) /* of configuration or tokenizer */
#define PIECE (1u << 20)

/* ---- writing ---- */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int write_file(struct stream_writer *w, const char *name, const void *p, uint64_t n, uint64_t size,
                      struct err *e)
{
    struct tensor t = {.dtype = DT_U8, .rank = 1, .shape = {n}, .nbytes = n, .data = (void *)(uintptr_t)p};
    json_t *meta = json_pack("{s:s, s:I}", "name", name, "size", (json_int_t)size);
    int rc =
        meta ? stream_write(w, "file", meta, &t, e) : err_set(e, NT_EXIT_DATA, "a file's name is not UTF-8");
    json_decref(meta);
    return rc;
}

static int copy_small(struct stream_writer *w, const char *path, const char *name, struct err *e)
{
    struct stat st;
    if (stat(path, &st) || !S_ISREG(st.st_mode) || st.st_size < 1 || st.st_size > SMALL_FILE) return 0;
    FILE *f = fopen(path, "rb");
    if (!f) return err_set(e, NT_EXIT_IO, "%s: %s", path, strerror(errno));
    size_t n = (size_t)st.st_size;
    char *buf = mem_array(n, 1);
    int rc = fread(buf, 1, n, f) == n ? write_file(w, name, buf, n, n, e)
                                      : err_set(e, NT_EXIT_IO, "%s: cannot be read", path);
    fclose(f);
    mem_free(buf);
    return rc;
}

static int is_side_file(const struct dirent *x)
{
    static const char *const ends[] = {".json", ".txt", ".model", ".jinja"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (path_ends(x->d_name, ends[i]))
            return x->d_name[0] != '.' && strcmp(x->d_name, "nt-norms.json") != 0;
    return 0;
}

static int write_side_files(const struct checkpoint *c, struct stream_writer *w, struct err *e)
{
    struct dirent **list;
    int n = c->dir ? scandir(c->dir, &list, is_side_file, alphasort) : 0, rc = 0;
    if (n < 0) return err_set(e, NT_EXIT_IO, "%s: %s", c->dir, strerror(errno));
    for (int i = 0; i < n; i++) {
        char *path = path_join(c->dir, list[i]->d_name);
        if (!rc) rc = copy_small(w, path, list[i]->d_name, e);
        mem_free(path);
        free(list[i]);
    }
    if (c->dir) free(list);
    return rc;
}

/* Where a tensor lies. */
struct place {
    int file;
    uint64_t offset;
};

static int by_place(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->file != y->file) return x->file < y->file ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Sorted: the tensors whose codes are in the stream. Scales, zeros and indices are small, and readers look at them to
 * tell one layout from another: those stay in the rest. */
static struct place *list_codes(const struct model *m, int first, int end, size_t *n)
{
    struct place *list = NULL;
    size_t cap = 0;
    *n = 0;
    for (int l = first; l < end; l++)
        for (int i = 0; i < block_linears(&m->c.block); i++) {
            const struct checkpoint_tensor *t = m->layers[l].w[i].t;
            if (!t) continue;
            t = checkpoint_codes_part(t);
            list = mem_grow(list, &cap, *n + 1, sizeof *list);
            list[(*n)++] = (struct place){t->file, t->offset};
        }
    if (*n) qsort(list, *n, sizeof *list, by_place);
    return list;
}

/* What Hugging Face calls it; its own name where it has none there. */
static void hf_name(const struct pack *p, const struct checkpoint_tensor *t, char out[256])
{
    snprintf(out, 256, "%s", t->name);
    for (size_t i = 0; i < p->n_items; i++)
        if (p->items[i].part.t == t) {
            snprintf(out, 256, "%.*s", (int)strcspn(p->items[i].name, "#"), p->items[i].name);
            return;
        }
}

static int write_tensor(const struct pack *p, const struct checkpoint_tensor *t, struct stream_writer *w,
                        struct err *e)
{
    const struct checkpoint *c = p->m->ck;
    char name[256];
    hf_name(p, t, name);
    json_t *meta = json_pack("{s:s, s:s, s:s, s:I}", "name", name, "stored", t->name, "file",
                             base_name(c->files[t->file]), "offset", (json_int_t)t->offset);
    int rc = stream_write(w, "tensor", meta, &t->t, e);
    json_decref(meta);
    checkpoint_release(c, t);
    return rc;
}

int import_rest_write(struct model *m, int first, int end, struct stream_writer *w, struct err *e)
{
    const struct checkpoint *c = m->ck;
    const struct checkpoint_tensor *list = c->stored ? c->stored : c->tensors;
    int n = c->stored ? c->n_stored : c->n_tensors;
    struct pack p = {.m = m};
    if (!strcmp(c->format, "pytorch")) {
        note("%s: of PyTorch files only the linears and norms go into the stream: nt-pack will need -m",
             c->path);
        return 0;
    }
    int rc = pack_bind(&p, e);
    if (!rc) rc = write_side_files(c, w, e);
    for (int k = 0; k < c->n_files && !rc; k++) {
        struct mapping file = checkpoint_mapping(c, k);
        uint64_t head = file.size;
        for (int i = 0; i < n; i++)
            if (list[i].file == k && list[i].offset < head) head = list[i].offset;
        rc = write_file(w, base_name(c->files[k]), file.at, head, file.size, e);
    }
    size_t n_codes;
    struct place *codes = list_codes(m, first, end, &n_codes);
    for (int i = 0; i < n && !rc; i++) {
        struct place at = {list[i].file, list[i].offset};
        bool there = n_codes && bsearch(&at, codes, n_codes, sizeof at, by_place);
        if (list[i].t.nbytes && !there) rc = write_tensor(&p, &list[i], w, e);
    }
    mem_free(codes);
    pack_clear(&p);
    return rc;
}

/* ---- reading ---- */

struct file {
    char name[256];
    uint64_t head, size;
};

struct import_rest {
    struct outdir *dir;
    struct file *files;
    size_t n, cap;
    char *path;
};

static bool plain_name(const char *s)
{
    size_t n = strlen(s);
    return n > 0 && n < 200 && s[0] != '.' &&
           strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+") == n;
}

static struct file *find_file(struct import_rest *r, const char *name)
{
    for (size_t i = 0; i < r->n; i++)
        if (strcmp(r->files[i].name, name) == 0) return &r->files[i];
    return NULL;
}

/* The record's payload at its place in a file. */
static int put(struct import_rest *r, const struct file *f, uint64_t at, bool create, struct stream_reader *s,
               struct err *e)
{
    char *path = path_join(outdir_tmp(r->dir), f->name);
    int fd = open(path, O_WRONLY | O_CLOEXEC | (create ? O_CREAT | O_EXCL : 0), 0600), rc = 0;
    uint8_t *buf = mem_array(PIECE, 1);
    int64_t n = 0;
    if (fd < 0 || (create && ftruncate(fd, (off_t)f->size)))
        rc = err_set(e, NT_EXIT_IO, "%s: %s", path, strerror(errno));
    while (!rc && (n = stream_payload_some(s, buf, PIECE, e)) > 0) {
        if (file_write_at(fd, buf, (size_t)n, at)) rc = err_set(e, NT_EXIT_IO, "%s: %s", path, strerror(errno));
        at += (uint64_t)n;
    }
    if (fd >= 0 && close(fd) && !rc) rc = err_set(e, NT_EXIT_IO, "%s: %s", path, strerror(errno));
    mem_free(buf);
    mem_free(path);
    return rc || n < 0 ? -1 : 0;
}

static int take_file(struct import_rest *r, struct stream_reader *s, struct record *rec, struct err *e)
{
    json_int_t size = json_integer_value(json_object_get(rec->meta, "size"));
    if (!plain_name(rec->name)) return stream_err(s, e, "no plain name of a file");
    if (!rec->has_payload || rec->t.dtype != DT_U8 || size < 1 || size > INT64_MAX / 2 ||
        rec->t.nbytes > (uint64_t)size)
        return stream_err(s, e, "no bytes of a file, or more than it has");
    if (find_file(r, rec->name)) return stream_err(s, e, "a file that is there already");
    r->files = mem_grow(r->files, &r->cap, r->n + 1, sizeof *r->files);
    struct file *f = &r->files[r->n++];
    *f = (struct file){.head = rec->t.nbytes, .size = (uint64_t)size};
    strcpy(f->name, rec->name);
    return put(r, f, 0, true, s, e);
}

static int take_tensor(struct import_rest *r, struct stream_reader *s, struct record *rec, struct err *e)
{
    const char *name = json_string_value(json_object_get(rec->meta, "file"));
    json_int_t at = json_integer_value(json_object_get(rec->meta, "offset"));
    struct file *f = name ? find_file(r, name) : NULL;
    if (!f || !rec->has_payload || at < 0 || (uint64_t)at < f->head || (uint64_t)at > f->size ||
        rec->t.nbytes > f->size - (uint64_t)at)
        return stream_err(s, e, "no place in a file that came before");
    return put(r, f, (uint64_t)at, false, s, e);
}

int import_rest_take(struct import_rest **rest, struct stream_reader *s, struct record *rec, struct err *e)
{
    if (!*rest) {
        struct import_rest *r = *rest = MEM_NEW(struct import_rest, 1);
        char *path = mem_printf("%s/nt-pack-%ld", tempfile_dir(), (long)getpid());
        r->dir = outdir_open(path, e);
        mem_free(path);
    }
    if (!(*rest)->dir) return -1;
    return strcmp(rec->kind, "file") ? take_tensor(*rest, s, rec, e) : take_file(*rest, s, rec, e);
}

/* A directory with its configuration, or (the first part of) a file that needs none. */
const char *import_rest_path(const struct import_rest *r)
{
    struct import_rest *x = (struct import_rest *)(uintptr_t)r;
    bool directory = !r->n;
    for (size_t i = 0; i < r->n; i++) directory |= strcmp(r->files[i].name, "config.json") == 0;
    if (!r->path)
        x->path = directory ? mem_strdup(outdir_tmp(r->dir)) : path_join(outdir_tmp(r->dir), r->files[0].name);
    return r->path;
}

void import_rest_close(struct import_rest *r)
{
    if (!r) return;
    outdir_discard(r->dir);
    mem_free(r->files);
    mem_free(r->path);
    mem_free(r);
}
