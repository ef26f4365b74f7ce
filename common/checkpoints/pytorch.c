/* SPDX-License-Identifier: Apache-2.0
 * What torch.save writes of state dicts: pytorch_model.bin, sharded or not. Today a zip archive whose
 * storages lie uncompressed and are used where they lie in the mapped file; the form before PyTorch 1.6
 * (pickles, then raw storages) is read as well. What cannot be used in place (compressed, big-endian,
 * strided) goes to an unlinked temporary file. common/pickle.c interprets the pickle and runs nothing. */
#include <archive.h>
#include <archive_entry.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "common/checkpoint_impl.h"
#include "common/mem.h"
#include "common/pickle.h"
#include "common/tempfile.h"

#define PICKLE_MAX (64u << 20)
#define PIECE (1u << 20)

/* The bytes of a storage: in the file, or at an offset of the first temporary file. */
struct storage {
    const char *key;
    size_t len;
    const uint8_t *at;
    uint64_t size, offset;
    int file; /* -1: the temporary one, which is not mapped yet */
};

struct reader {
    struct checkpoint *c;
    const char *path;
    struct mapping m;
    int file;
    struct storage *list;
    size_t n, cap;
    char **names; /* that keys of list point into; owned */
    size_t n_names, names_cap;
    uint8_t *pickle; /* data.pkl; owned */
    size_t pickle_size;
    char *prefix; /* "NAME/" of the entry NAME/data.pkl */
    bool big;
    struct tempfile *unpacked, *made;
    uint64_t room; /* bytes that may still be unpacked or made */
    struct err *e;
};

static int bad(struct reader *r, const char *name, size_t len, const char *why)
{
    return err_set(r->e, NT_EXIT_DATA, "%s: %s: %s", r->path, show_name(name, len), why);
}

/* ---- temporary files, mapped when they are complete ---- */

static int spool(struct reader *r, struct tempfile **t, const void *p, size_t n)
{
    if (n > r->room)
        return err_set(r->e, NT_EXIT_DATA, "%s: unpacks to far more than its own size: refused", r->path);
    r->room -= n;
    if (!*t && !(*t = tempfile_open(r->e))) return -1;
    return tempfile_append(*t, p, n, r->e);
}

/* Its index in c->files, or -1. */
static int map_spool(struct reader *r, const struct tempfile *t)
{
    void *at = tempfile_map(t, r->e);
    return at ? checkpoint_take_memory(r->c, r->path, at, tempfile_size(t)) : -1;
}

/* ---- zip ---- */

static int zip_error(struct reader *r, struct archive *a)
{
    const char *why = archive_error_string(a);
    return err_set(r->e, NT_EXIT_DATA, "%s: truncated or damaged zip archive: %s", r->path,
                   why ? show_name(why, strlen(why)) : "unreadable");
}

static bool inside(const struct reader *r, const uint8_t *p, size_t n)
{
    return p >= r->m.at && p <= r->m.at + r->m.size && n <= (size_t)(r->m.at + r->m.size - p);
}

/* The bytes of the current entry. Where they lie as they are, libarchive hands out pointers into the
 * mapping. */
static int read_storage(struct reader *r, struct archive *a, struct storage *s)
{
    const void *block;
    size_t n;
    la_int64_t offset;
    int k;
    s->file = r->file;
    while ((k = archive_read_data_block(a, &block, &n, &offset)) == ARCHIVE_OK) {
        const uint8_t *p = block;
        if (!n) continue;
        if ((uint64_t)offset != s->size) return bad(r, s->key, s->len, "a zip entry with holes");
        bool here = s->file == r->file && inside(r, p, n) && (!s->size || s->at + s->size == p);
        if (here && !s->size) s->at = p;
        if (!here && s->file == r->file) { /* compressed: what was seen so far goes along */
            s->file = -1;
            s->offset = r->unpacked ? tempfile_size(r->unpacked) : 0;
            if (s->size && spool(r, &r->unpacked, s->at, (size_t)s->size) < 0) return -1;
        }
        if (!here && spool(r, &r->unpacked, p, n) < 0) return -1;
        s->size += n;
    }
    if (k != ARCHIVE_EOF) return zip_error(r, a);
    if (!s->size) s->at = r->m.at;
    if (s->file == r->file) s->offset = (uint64_t)(s->at - r->m.at);
    return 0;
}

/* A small entry as allocated bytes. */
static int read_small(struct reader *r, struct archive *a, const char *name, uint8_t **out, size_t *size)
{
    size_t cap = 0, n = 0;
    la_ssize_t k;
    uint8_t *p = mem_grow(NULL, &cap, 4096, 1);
    while ((k = archive_read_data(a, p + n, cap - n)) > 0) {
        n += (size_t)k;
        if (n > PICKLE_MAX) {
            mem_free(p);
            return bad(r, name, strlen(name), "unpacks to more than 64 MiB");
        }
        if (n == cap) p = mem_grow(p, &cap, n + 1, 1);
    }
    *out = p, *size = n;
    return k < 0 ? zip_error(r, a) : 0;
}

static int read_entry(struct reader *r, struct archive *a, const char *name)
{
    size_t len = strlen(name);
    const char *at = strstr(name, "/data/");
    if (path_ends(name, "/data.pkl")) {
        if (r->pickle) return bad(r, name, len, "a second data.pkl");
        r->prefix = mem_printf("%.*s", (int)(len - strlen("data.pkl")), name);
        return read_small(r, a, name, &r->pickle, &r->pickle_size);
    }
    if (path_ends(name, "/byteorder")) {
        uint8_t *text = NULL;
        size_t n = 0;
        int rc = read_small(r, a, name, &text, &n);
        r->big = rc == 0 && n >= 3 && memcmp(text, "big", 3) == 0;
        mem_free(text);
        return rc;
    }
    if (!at) return 0; /* version, data_serialization ... */
    r->names = mem_grow(r->names, &r->names_cap, r->n_names + 1, sizeof *r->names);
    r->names[r->n_names++] = mem_strdup(name);
    r->list = mem_grow(r->list, &r->cap, r->n + 1, sizeof *r->list);
    struct storage *s = &r->list[r->n++];
    s->key = r->names[r->n_names - 1], s->len = len;
    return read_storage(r, a, s);
}

static int read_entries(struct reader *r, struct archive *a)
{
    struct archive_entry *entry;
    int k;
    archive_read_support_format_zip_seekable(a);
    archive_read_set_option(a, "zip", "ignorecrc32", "1"); /* or every byte would be read now */
    if (archive_read_open_memory(a, r->m.at, (size_t)r->m.size) != ARCHIVE_OK) return zip_error(r, a);
    while ((k = archive_read_next_header(a, &entry)) == ARCHIVE_OK || k == ARCHIVE_WARN) {
        const char *name = archive_entry_pathname(entry);
        if (!name) return err_set(r->e, NT_EXIT_DATA, "%s: a zip entry without a name", r->path);
        if (archive_entry_filetype(entry) == AE_IFREG && read_entry(r, a, name) < 0) return -1;
    }
    return k == ARCHIVE_EOF ? 0 : zip_error(r, a);
}

static int by_key(const void *a, const void *b)
{
    const struct storage *x = a, *y = b;
    int k = memcmp(x->key, y->key, x->len < y->len ? x->len : y->len);
    return k ? k : x->len < y->len ? -1 : x->len > y->len;
}

/* Keys without PREFIX/data/, sorted; the unpacked ones get their place. */
static int index_storages(struct reader *r)
{
    int file = r->unpacked ? map_spool(r, r->unpacked) : 0;
    size_t skip = r->prefix ? strlen(r->prefix) + strlen("data/") : 0, n = 0;
    if (file < 0) return -1;
    for (size_t i = 0; i < r->n; i++) {
        struct storage s = r->list[i];
        if (r->prefix && (strncmp(s.key, r->prefix, strlen(r->prefix)) != 0 ||
                          strncmp(s.key + strlen(r->prefix), "data/", 5) != 0))
            continue;
        s.key += skip, s.len -= skip;
        if (s.file < 0) s.file = file, s.at = checkpoint_mapping(r->c, file).at + s.offset;
        r->list[n++] = s;
    }
    r->n = n;
    qsort(r->list, n, sizeof *r->list, by_key);
    for (size_t i = 1; i < n; i++)
        if (by_key(&r->list[i - 1], &r->list[i]) == 0)
            return bad(r, r->list[i].key, r->list[i].len, "a storage that is there twice");
    return 0;
}

/* ---- tensors ---- */

static int too_short(struct reader *r, const char *name, size_t len)
{
    return err_set(r->e, NT_EXIT_DATA, "%s: tensor %s: reaches beyond its storage", r->path,
                   show_name(name, len));
}

/* Does the tensor lie inside its storage, and is it contiguous there? */
static int check_place(struct reader *r, const char *name, size_t len, const struct pickle_tensor *t,
                       const struct storage *s, const struct tensor *as, bool *contiguous)
{
    uint64_t size = (uint64_t)dtype_block_bytes(t->dtype), last = t->offset, want = 1, step;
    *contiguous = true;
    for (int i = t->rank - 1; i >= 0; i--) {
        if (t->shape[i] > 1 && t->stride[i] != want) *contiguous = false;
        if (t->shape[i] > 1 && (__builtin_mul_overflow(t->shape[i] - 1, t->stride[i], &step) ||
                                __builtin_add_overflow(last, step, &last)))
            return too_short(r, name, len);
        want *= t->shape[i];
    }
    if (last >= s->size / size && (as->nbytes || t->offset > s->size / size)) return too_short(r, name, len);
    return 0;
}

static void swap_bytes(uint8_t *p, size_t n, size_t size)
{
    for (size_t i = 0; i < n; i++, p += size)
        for (size_t k = 0; k < size / 2; k++) {
            uint8_t b = p[k];
            p[k] = p[size - 1 - k], p[size - 1 - k] = b;
        }
}

/* Element by element in C order into the second temporary file. */
static int gather(struct reader *r, const struct pickle_tensor *t, const struct storage *s)
{
    size_t size = (size_t)dtype_block_bytes(t->dtype), fill = 0;
    uint64_t count = 1, at[TENSOR_MAX_RANK] = {0}, element = t->offset;
    uint8_t *buf = mem_array(PIECE, 1);
    int rc = 0;
    for (int i = 0; i < t->rank; i++) count *= t->shape[i];
    for (uint64_t k = 0; k < count && rc == 0; k++) {
        memcpy(buf + fill, s->at + element * size, size);
        fill += size;
        if (fill == PIECE || k + 1 == count) {
            if (r->big) swap_bytes(buf, fill / size, size);
            rc = spool(r, &r->made, buf, fill);
            fill = 0;
        }
        for (int i = t->rank - 1; i >= 0; i--) {
            element += t->stride[i];
            if (++at[i] < t->shape[i]) break;
            element -= t->shape[i] * t->stride[i];
            at[i] = 0;
        }
    }
    mem_free(buf);
    return rc;
}

struct pending {
    const char *name;
    size_t len;
    struct tensor t;
    uint64_t offset;
};

struct pendings {
    struct pending *list;
    size_t n, cap;
};

static int add_tensor(struct reader *r, const char *name, size_t len, const struct pickle_tensor *t,
                      struct pendings *later)
{
    struct storage key = {.key = t->storage.key, .len = t->storage.key_len};
    const struct storage *s = r->n ? bsearch(&key, r->list, r->n, sizeof key, by_key) : NULL;
    struct tensor as = {.dtype = t->dtype, .rank = t->rank};
    bool contiguous;
    memcpy(as.shape, t->shape, sizeof as.shape);
    if (tensor_nbytes(as.dtype, as.rank, as.shape, &as.nbytes, r->e) < 0)
        return err_prefix(r->e, "%s: tensor %s", r->path, show_name(name, len));
    if (!s)
        return err_set(r->e, NT_EXIT_DATA, "%s: tensor %s: its storage %s is missing", r->path,
                       show_name(name, len), show_name(key.key, key.len));
    if (check_place(r, name, len, t, s, &as, &contiguous) < 0) return -1;
    uint64_t size = (uint64_t)dtype_block_bytes(t->dtype);
    if (!as.nbytes) return checkpoint_add(r->c, name, len, &as, r->file, 0, r->e);
    if (contiguous && (!r->big || size == 1))
        return checkpoint_add(r->c, name, len, &as, s->file, s->offset + t->offset * size, r->e);
    later->list = mem_grow(later->list, &later->cap, later->n + 1, sizeof *later->list);
    later->list[later->n++] = (struct pending){name, len, as, r->made ? tempfile_size(r->made) : 0};
    return gather(r, t, s);
}

static int add_later(struct reader *r, const struct pendings *later)
{
    int file = later->n ? map_spool(r, r->made) : 0, rc = file < 0 ? -1 : 0;
    for (size_t i = 0; i < later->n && rc == 0; i++) {
        const struct pending *x = &later->list[i];
        rc = checkpoint_add(r->c, x->name, x->len, &x->t, file, x->offset, r->e);
    }
    return rc;
}

/* Whatever is no tensor (counters, names) is left out. */
static int add_tensors(struct reader *r, const struct pickle_value *top)
{
    struct pendings later = {0};
    int rc = 0, before = r->c->n_tensors;
    if (top->kind != PICKLE_DICT)
        return err_set(r->e, NT_EXIT_DATA, "%s: no state dict: its pickle is no dictionary", r->path);
    for (uint32_t i = 0; i + 1 < top->n && rc == 0; i += 2) {
        const struct pickle_value *key = top->item[i], *v = top->item[i + 1];
        if (key->kind == PICKLE_TEXT && v->kind == PICKLE_TENSOR)
            rc = add_tensor(r, key->s, key->n, v->tensor, &later);
    }
    if (rc == 0) rc = add_later(r, &later);
    mem_free(later.list);
    if (rc == 0 && r->c->n_tensors == before)
        return err_set(r->e, NT_EXIT_DATA, "%s: no state dict: there is no tensor in its dictionary",
                       r->path);
    return rc;
}

static int read_zip(struct reader *r)
{
    struct archive *a = archive_read_new();
    int rc = a ? read_entries(r, a) : err_set(r->e, NT_EXIT_DEVICE, "out of memory");
    if (a) archive_read_free(a);
    if (rc == 0 && !r->pickle)
        rc =
            err_set(r->e, NT_EXIT_DATA, "%s: a zip archive, but no PyTorch file: no data.pkl in it", r->path);
    if (rc < 0 || index_storages(r) < 0) return -1;
    struct pickle *k = pickle_read(r->path, r->pickle, r->pickle_size, NULL, r->e);
    rc = k ? add_tensors(r, pickle_top(k)) : -1;
    pickle_free(k);
    return rc;
}

/* ---- before PyTorch 1.6: pickles of a magic number, a version, sys_info, the state dict, the keys of the
 * storages; then each storage as its number of elements and its bytes ---- */

static const uint8_t legacy_magic[] = {0x8a, 10,   0x6c, 0xfc, 0x9c, 0x46, 0xf9,
                                       0x20, 0x6a, 0xa8, 0x50, 0x19, '.'};

/* The pickle names the element type of a storage, which says how long it is. */
static int take_dtype(void *ctx, const struct pickle_storage *s, struct err *e)
{
    struct reader *r = ctx;
    (void)e;
    struct storage key = {.key = s->key, .len = s->key_len},
                   *found = r->n ? bsearch(&key, r->list, r->n, sizeof key, by_key) : NULL;
    if (found) found->size = (uint64_t)(s->dtype == DT_NONE ? 1 : dtype_block_bytes(s->dtype));
    return 0;
}

static int list_keys(struct reader *r, const struct pickle_value *keys)
{
    if (keys->kind != PICKLE_LIST)
        return err_set(r->e, NT_EXIT_DATA, "%s: no list of storages after the state dict", r->path);
    r->list = MEM_NEW(struct storage, keys->n);
    for (uint32_t i = 0; i < keys->n; i++) {
        const struct pickle_value *k = keys->item[i];
        if (k->kind != PICKLE_TEXT)
            return err_set(r->e, NT_EXIT_DATA, "%s: a storage without a name", r->path);
        r->list[r->n++] = (struct storage){.key = k->s, .len = k->n, .file = r->file};
    }
    return index_storages(r);
}

/* Storages follow in the order of the list of keys. */
static int place_storages(struct reader *r, const struct pickle_value *keys, size_t at)
{
    for (uint32_t i = 0; i < keys->n; i++) {
        struct storage key = {.key = keys->item[i]->s, .len = keys->item[i]->n};
        struct storage *s = bsearch(&key, r->list, r->n, sizeof key, by_key);
        uint64_t n = 0, bytes;
        if (!s->size) return bad(r, key.key, key.len, "a storage that no tensor uses");
        if (r->m.size - at < 8) return bad(r, key.key, key.len, "truncated");
        for (int b = 0; b < 8; b++) n |= (uint64_t)r->m.at[at + (size_t)(r->big ? 7 - b : b)] << 8 * b;
        at += 8;
        if (__builtin_mul_overflow(n, s->size, &bytes) || bytes > r->m.size - at)
            return bad(r, key.key, key.len, "truncated");
        s->at = r->m.at + at, s->offset = at, s->size = bytes;
        at += bytes;
    }
    return 0;
}

static bool is_big(const struct pickle_value *info)
{
    for (uint32_t i = 0; info->kind == PICKLE_DICT && i + 1 < info->n; i += 2) {
        const struct pickle_value *k = info->item[i], *v = info->item[i + 1];
        bool named = k->kind == PICKLE_TEXT && k->n == 13 && !memcmp(k->s, "little_endian", 13);
        if (named && v->kind == PICKLE_BOOL) return !v->i;
    }
    return false;
}

static int read_legacy(struct reader *r)
{
    struct pickle *k[5] = {NULL};
    size_t at = 0, used = 0;
    int rc = 0;
    for (int i = 0; i < 5 && rc == 0; i++) {
        size_t left = (size_t)r->m.size - at;
        k[i] = pickle_read(r->path, r->m.at + at, left < PICKLE_MAX ? left : PICKLE_MAX, &used, r->e);
        if (!k[i]) rc = -1;
        at += used;
    }
    if (rc == 0) r->big = is_big(pickle_top(k[2]));
    if (rc == 0) rc = list_keys(r, pickle_top(k[4]));
    if (rc == 0) rc = pickle_each_storage(k[3], take_dtype, r, r->e);
    if (rc == 0) rc = place_storages(r, pickle_top(k[4]), at);
    if (rc == 0) rc = add_tensors(r, pickle_top(k[3]));
    for (int i = 0; i < 5; i++) pickle_free(k[i]);
    return rc;
}

/* ---- files and directories ---- */

static int is_legacy(const uint8_t *p, size_t n)
{
    return n > 2 + sizeof legacy_magic && p[0] == 0x80 &&
           memcmp(p + 2, legacy_magic, sizeof legacy_magic) == 0;
}

static int read_file(struct checkpoint *c, const char *path, struct err *e)
{
    struct reader r = {.c = c, .path = path, .e = e};
    int rc = -1;
    r.file = checkpoint_map(c, path, e);
    if (r.file < 0) return -1;
    r.m = checkpoint_mapping(c, r.file);
    r.room = 4 * r.m.size + (64u << 20);
    if (is_legacy(r.m.at, (size_t)r.m.size))
        rc = read_legacy(&r);
    else if (r.m.size > 4 && memcmp(r.m.at, "PK\3\4", 4) == 0)
        rc = read_zip(&r);
    else
        err_set(e, NT_EXIT_DATA, "%s: neither a zip archive nor pickles: not written by torch.save", path);
    for (size_t i = 0; i < r.n_names; i++) mem_free(r.names[i]);
    mem_free(r.names), mem_free(r.list), mem_free(r.pickle), mem_free(r.prefix);
    tempfile_close(r.unpacked), tempfile_close(r.made);
    return rc;
}

static char *in_directory(const char *path, const char *name)
{
    char *dir = path_is_dir(path) ? mem_strdup(path) : path_dir(path), *full = path_join(dir, name);
    mem_free(dir);
    return full;
}

static bool has(const char *path, const char *name)
{
    char *full = in_directory(path, name);
    bool is = path_exists(full);
    mem_free(full);
    return is;
}

static int pytorch_open(struct checkpoint *c, struct err *e)
{
    bool file = !path_is_dir(c->path) && !path_ends(c->path, ".json");
    if (checkpoint_read_config(c, e) < 0) return -1;
    if (file) return read_file(c, c->path, e);
    if (path_ends(c->path, ".index.json")) return checkpoint_read_shards(c, c->path, read_file, e);
    bool one = has(c->path, "pytorch_model.bin");
    char *at = in_directory(c->path, one ? "pytorch_model.bin" : "pytorch_model.bin.index.json");
    int rc = one ? read_file(c, at, e) : checkpoint_read_shards(c, at, read_file, e);
    mem_free(at);
    return rc;
}

/* Directories only where there is no safetensors file. */
static int pytorch_probe(const char *path)
{
    if (path_is_dir(path) || path_ends(path, "config.json"))
        return !has(path, "model.safetensors") && !has(path, "model.safetensors.index.json") &&
               (has(path, "pytorch_model.bin") || has(path, "pytorch_model.bin.index.json"));
    if (path_ends(path, ".bin.index.json") || path_ends(path, ".bin")) return 1;
    uint8_t head[32] = {0};
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(head, 1, sizeof head, f) : 0;
    if (f) fclose(f);
    return (n > 4 && memcmp(head, "PK\3\4", 4) == 0) || is_legacy(head, n);
}

const struct checkpoint_format checkpoint_format_pytorch = {
    .name = "pytorch", .probe = pytorch_probe, .open = pytorch_open};
