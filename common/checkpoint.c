/* SPDX-License-Identifier: Apache-2.0
 * Checkpoints: choosing the format, mapping files, the index of names, packed weights, identity. What lies in
 * the bytes is the business of the formats in common/checkpoints/. */
#include "common/checkpoint_impl.h"
#include "common/mem.h"
#include "common/sha256.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define X(name) extern const struct checkpoint_format checkpoint_format_##name;
#include "checkpoints.inc"
#undef X
static const struct checkpoint_format *const formats[] = {
#define X(name) &checkpoint_format_##name,
#include "checkpoints.inc"
#undef X
};
#define N_FORMATS (sizeof formats / sizeof *formats)

#define NAME_MAX_BYTES 4096

/* ---- paths and names ---- */

char *path_join(const char *dir, const char *name) { return mem_printf("%s/%s", dir, name); }

char *path_dir(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash) return mem_strdup(".");
    return slash == path ? mem_strdup("/") : mem_printf("%.*s", (int)(slash - path), path);
}

bool path_exists(const char *path) { return access(path, F_OK) == 0; }

bool path_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool path_ends(const char *path, const char *suffix)
{
    size_t n = strlen(path), m = strlen(suffix);
    return n >= m && strcmp(path + n - m, suffix) == 0;
}

const char *show_name(const char *s, size_t len)
{
    static _Thread_local char ring[4][128];
    static _Thread_local int at;
    char *out = ring[at++ & 3];
    size_t n = len < 120 ? len : 120;
    for (size_t i = 0; i < n; i++) out[i] = (unsigned char)s[i] < 32 || s[i] == 127 ? '?' : s[i];
    memcpy(out + n, len > n ? "..." : "", len > n ? 4 : 1);
    return out;
}

bool utf8_valid(const char *s, size_t len)
{
    const uint8_t *p = (const uint8_t *)s, *end = p + len;
    while (p < end) {
        int n = *p < 0x80 ? 0 : *p < 0xC2 ? -1 : *p < 0xE0 ? 1 : *p < 0xF0 ? 2 : *p < 0xF5 ? 3 : -1;
        if (*p == 0 || n < 0 || end - p <= n) return false;
        uint32_t c = n ? *p & (0x3Fu >> n) : *p;
        for (int i = 1; i <= n; i++) {
            if ((p[i] & 0xC0) != 0x80) return false;
            c = c << 6 | (p[i] & 0x3Fu);
        }
        if ((n == 2 && c < 0x800) || (n == 3 && (c < 0x10000 || c > 0x10FFFF)) || (c >= 0xD800 && c < 0xE000))
            return false;
        p += n + 1;
    }
    return true;
}

json_t *checkpoint_load_json(const char *path, struct err *e)
{
    json_error_t je;
    errno = 0;
    json_t *j = json_load_file(path, JSON_REJECT_DUPLICATES, &je);
    if (!j && errno && je.line < 0) return err_set(e, NT_EXIT_IO, "%s: %s", path, strerror(errno)), NULL;
    if (!j)
        return err_set(e, NT_EXIT_DATA, "%s: line %d: %s", path, je.line,
                       show_name(je.text, strlen(je.text))),
               NULL;
    if (json_is_object(j)) return j;
    json_decref(j);
    return err_set(e, NT_EXIT_DATA, "%s: not a JSON object", path), NULL;
}

/* ---- state: maps and the index ---- */

struct checkpoint_index {
    struct mapping *maps;
    size_t maps_cap, files_cap, tensors_cap;
    int *slot;              /* open addressing, -1 = empty */
    size_t mask;
    int *stored_slot; /* of checkpoint.stored */
    size_t stored_mask;
    struct checkpoint_tensor *weights; /* packed ones that a layout lists */
    size_t n_weights, weights_cap;
    char sha[65];
};

static uint64_t hash_name(const char *s)
{
    uint64_t h = 0xCBF29CE484222325u; /* FNV-1a */
    for (; *s; s++) h = (h ^ (uint8_t)*s) * 0x100000001B3u;
    return h ^ h >> 29;
}

static int build_index(struct checkpoint *c, struct err *e)
{
    struct checkpoint_index *x = c->index;
    size_t n = 16;
    while (n < (size_t)c->n_tensors * 2) n *= 2;
    x->slot = MEM_NEW(int, n);
    x->mask = n - 1;
    for (size_t i = 0; i < n; i++) x->slot[i] = -1;
    for (int i = 0; i < c->n_tensors; i++) {
        const char *name = c->tensors[i].name;
        size_t h = hash_name(name) & x->mask;
        for (; x->slot[h] >= 0; h = (h + 1) & x->mask)
            if (strcmp(c->tensors[x->slot[h]].name, name) == 0)
                return err_set(e, NT_EXIT_DATA, "%s: tensor %s is there twice", c->files[c->tensors[i].file],
                               show_name(name, strlen(name)));
        x->slot[h] = i;
    }
    return 0;
}

static const struct checkpoint_tensor *look_up(const struct checkpoint_tensor *list, const int *slot,
                                               size_t mask, const char *name)
{
    for (size_t h = hash_name(name) & mask; slot[h] >= 0; h = (h + 1) & mask)
        if (strcmp(list[slot[h]].name, name) == 0) return &list[slot[h]];
    return NULL;
}

const struct checkpoint_tensor *checkpoint_find(const struct checkpoint *c, const char *name)
{
    return look_up(c->tensors, c->index->slot, c->index->mask, name);
}

const struct checkpoint_tensor *checkpoint_find_stored(const struct checkpoint *c, const char *name)
{
    return c->stored ? look_up(c->stored, c->index->stored_slot, c->index->stored_mask, name)
                     : checkpoint_find(c, name);
}

static int add_mapping(struct checkpoint *c, const char *path, struct mapping m)
{
    struct checkpoint_index *x = c->index;
    x->maps = mem_grow(x->maps, &x->maps_cap, (size_t)c->n_files + 1, sizeof *x->maps);
    c->files = mem_grow(c->files, &x->files_cap, (size_t)c->n_files + 1, sizeof *c->files);
    x->maps[c->n_files] = m;
    c->files[c->n_files] = mem_strdup(path);
    return c->n_files++;
}

int checkpoint_map(struct checkpoint *c, const char *path, struct err *e)
{
    static const char lfs[] = "version https://git-lfs";
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO by that name must not hang us */
    if (fd < 0) return err_set(e, NT_EXIT_IO, "%s: %s", path, strerror(errno));
    const char *bad = fstat(fd, &st) < 0 ? strerror(errno) : !S_ISREG(st.st_mode) ? "not a regular file"
                    : st.st_size == 0 ? "the file is empty" : NULL;
    if (bad) return close(fd), err_set(e, NT_EXIT_DATA, "%s: %s", path, bad);
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    int why = errno;
    close(fd);
    if (p == MAP_FAILED) return err_set(e, NT_EXIT_IO, "%s: cannot be mapped: %s", path, strerror(why));

    int file = add_mapping(c, path, (struct mapping){.at = p, .size = (uint64_t)st.st_size});
    if ((size_t)st.st_size >= sizeof lfs - 1 && memcmp(p, lfs, sizeof lfs - 1) == 0)
        return err_set(e, NT_EXIT_DATA,
                       "%s: a Git LFS pointer, not the model: run git lfs pull or download the file", path);
    return file;
}

int checkpoint_take_memory(struct checkpoint *c, const char *path, void *at, uint64_t size)
{
    return add_mapping(c, path, (struct mapping){.at = at, .size = size, .memory = true});
}

struct mapping checkpoint_mapping(const struct checkpoint *c, int file) { return c->index->maps[file]; }

int checkpoint_add(struct checkpoint *c, const char *name, size_t len, const struct tensor *t, int file,
                   uint64_t offset, struct err *e)
{
    const char *path = c->files[file];
    struct mapping m = c->index->maps[file];
    if (len > NAME_MAX_BYTES)
        return err_set(e, NT_EXIT_DATA, "%s: tensor %d: a name of %zu bytes", path, c->n_tensors, len);
    if (!utf8_valid(name, len))
        return err_set(e, NT_EXIT_DATA, "%s: tensor %d: the name is not UTF-8", path, c->n_tensors);
    assert(offset <= m.size && t->nbytes <= m.size - offset);
    if (c->n_tensors >= 1 << 24) return err_set(e, NT_EXIT_DATA, "%s: more than %d tensors", path, 1 << 24);
    c->tensors = mem_grow(c->tensors, &c->index->tensors_cap, (size_t)c->n_tensors + 1, sizeof *c->tensors);
    struct checkpoint_tensor *ct = &c->tensors[c->n_tensors++];
    char *copy = mem_array(len + 1, 1);
    memcpy(copy, name, len);
    *ct = (struct checkpoint_tensor){.name = copy, .t = *t, .file = file, .offset = offset};
    ct->t.data = (void *)(uintptr_t)(m.at + offset); /* read-only memory: const is dropped on purpose */
    return 0;
}

/* ---- layouts of quantized weights ---- */

void checkpoint_add_weight(struct checkpoint *c, char *name, const struct tensor *t, struct packed *p)
{
    struct checkpoint_index *x = c->index;
    x->weights = mem_grow(x->weights, &x->weights_cap, x->n_weights + 1, sizeof *x->weights);
    x->weights[x->n_weights++] = (struct checkpoint_tensor){.name = name, .t = *t, .packed = p};
}

/* The list that everyone sees: packed weights instead of their parts. */
static int replace_parts(struct checkpoint *c, struct err *e)
{
    struct checkpoint_index *x = c->index;
    size_t n = 0;
    bool *part = MEM_NEW(bool, (size_t)c->n_tensors);
    for (size_t i = 0; i < x->n_weights; i++)
        for (int k = 0; k < PACKED_PARTS; k++)
            if (x->weights[i].packed->part[k]) part[x->weights[i].packed->part[k] - c->tensors] = true;
    struct checkpoint_tensor *all = MEM_NEW(struct checkpoint_tensor, (size_t)c->n_tensors + x->n_weights);
    for (int i = 0; i < c->n_tensors; i++)
        if (!part[i]) all[n++] = c->tensors[i];
    for (size_t i = 0; i < x->n_weights; i++) {
        all[n] = x->weights[i];
        if (all[n].packed->part[0]) all[n].file = all[n].packed->part[0]->file;
        n++;
    }
    mem_free(part);
    c->stored = c->tensors, c->n_stored = c->n_tensors;
    c->tensors = all, c->n_tensors = (int)n;
    x->stored_slot = x->slot, x->stored_mask = x->mask, x->slot = NULL;
    return build_index(c, e);
}

void checkpoint_methods(char *s, size_t size)
{
    size_t n = 0;
    *s = 0;
    for (size_t i = 0; i < N_FORMATS; i++)
        if (formats[i]->methods && n < size)
            n += (size_t)snprintf(s + n, size - n, "%s%s", n ? ", " : "", formats[i]->methods);
}

/* config.json's quantization_config (inside text_config, too), MLX's "quantization", or a file of its own:
 * GPTQ's quantize_config.json, ModelOpt's hf_quant_config.json. */
static int find_quantization(struct checkpoint *c, struct err *e)
{
    static const char *const keys[] = {"quantization_config", "quantization"},
                             *const files[] = {"quantize_config.json", "hf_quant_config.json"};
    const json_t *in[] = {c->config, json_object_get(c->config, "text_config")};
    for (int k = 0; k < 4 && !c->quantization; k++) {
        const json_t *j = json_object_get(in[k / 2], keys[k % 2]);
        if (json_is_object(j)) c->quantization = json_incref((json_t *)(uintptr_t)j);
    }
    int rc = 0;
    for (int k = 0; k < 2 && c->dir && !c->quantization && !rc; k++) {
        char *path = path_join(c->dir, files[k]);
        if (path_exists(path) && !(c->quantization = checkpoint_load_json(path, e))) rc = -1;
        mem_free(path);
    }
    return rc;
}

static int adopt(struct checkpoint *c, struct err *e)
{
    if (find_quantization(c, e) < 0) return -1;
    for (size_t i = 0; i < N_FORMATS && !c->layout; i++) {
        int rc = formats[i]->adopt ? formats[i]->adopt(c, e) : 0;
        if (rc < 0) return -1;
        if (rc) c->layout = formats[i]->name;
    }
    return c->layout ? replace_parts(c, e) : 0; /* a model refuses what no layout knows */
}

/* ---- open and close ---- */

struct checkpoint *checkpoint_open(const char *path, struct err *e)
{
    struct stat st;
    if (stat(path, &st) < 0) return err_set(e, NT_EXIT_DATA, "%s: %s", path, strerror(errno)), NULL;
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return err_set(e, NT_EXIT_DATA, "%s: no model: neither a file nor a directory", path), NULL;
    struct checkpoint *c = MEM_NEW(struct checkpoint, 1);
    c->index = MEM_NEW(struct checkpoint_index, 1);
    c->path = mem_strdup(path);
    for (size_t i = 0; i < N_FORMATS && !c->impl; i++)
        if (formats[i]->probe && formats[i]->probe(path) == 1) c->impl = formats[i];
    if (!c->impl) {
        err_set(e, NT_EXIT_DATA,
                "%s: no model: neither a Hugging Face directory nor a safetensors, PyTorch or GGUF file",
                path);
        checkpoint_close(c);
        return NULL;
    }
    c->format = c->impl->name;
    if (c->impl->open(c, e) < 0 || build_index(c, e) < 0 || adopt(c, e) < 0) {
        checkpoint_close(c);
        return NULL;
    }
    return c;
}

void checkpoint_close(struct checkpoint *c)
{
    if (!c) return;
    if (c->impl && c->impl->close) c->impl->close(c);
    const struct checkpoint_tensor *stored = c->stored ? c->stored : c->tensors;
    int n_stored = c->stored ? c->n_stored : c->n_tensors;
    for (int i = 0; i < n_stored; i++) mem_free((void *)(uintptr_t)stored[i].name);
    for (size_t i = 0; i < c->index->n_weights; i++) {
        mem_free((void *)(uintptr_t)c->index->weights[i].name);
        mem_free((void *)(uintptr_t)c->index->weights[i].packed);
    }
    for (int i = 0; i < c->n_files; i++) {
        munmap((void *)(uintptr_t)c->index->maps[i].at, (size_t)c->index->maps[i].size);
        mem_free(c->files[i]);
    }
    json_decref(c->config);
    json_decref(c->meta);
    mem_free(c->files);
    json_decref((json_t *)(uintptr_t)c->quantization);
    mem_free(c->tensors);
    mem_free(c->stored);
    mem_free(c->index->weights);
    mem_free(c->index->maps);
    mem_free(c->index->slot);
    mem_free(c->index->stored_slot);
    mem_free(c->index);
    mem_free((void *)(uintptr_t)c->dir);
    mem_free((void *)(uintptr_t)c->path);
    mem_free(c);
}

void checkpoint_release(const struct checkpoint *c, const struct checkpoint_tensor *t)
{
    for (int i = 0; t->packed && i < PACKED_PARTS; i++)
        if (t->packed->part[i]) checkpoint_release(c, t->packed->part[i]);
    if (t->packed) return;
    struct mapping m = c->index->maps[t->file];
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t from = (t->offset + page - 1) / page * page, to = (t->offset + t->t.nbytes) / page * page;
    if (to > from && !m.memory) madvise((void *)(uintptr_t)(m.at + from), (size_t)(to - from), MADV_DONTNEED);
}

/* ---- identity ---- */

static int by_name(const void *a, const void *b)
{
    const struct checkpoint_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static void hash_u64(struct sha256 *h, uint64_t v)
{
    uint8_t b[8];
    for (int i = 0; i < 8; i++) b[i] = (uint8_t)(v >> 8 * i);
    sha256_add(h, b, 8);
}

/* Tensors in the order of their names, so that sharding does not matter: name, NUL, dtype name, NUL, rank,
 * shape, bytes. */
const char *checkpoint_sha256(struct checkpoint *c)
{
    if (c->index->sha[0]) return c->index->sha;
    const struct checkpoint_tensor *stored = c->stored ? c->stored : c->tensors;
    size_t n = (size_t)(c->stored ? c->n_stored : c->n_tensors);
    const struct checkpoint_tensor **order = MEM_NEW(const struct checkpoint_tensor *, n);
    for (size_t i = 0; i < n; i++) order[i] = &stored[i];
    qsort(order, n, sizeof *order, by_name);
    struct err e = {0};
    struct sha256 *h = sha256_start(&e);
    assert(h);
    for (size_t i = 0; i < n; i++) {
        const struct tensor *t = &order[i]->t;
        sha256_add(h, order[i]->name, strlen(order[i]->name) + 1);
        sha256_add(h, dtype_name(t->dtype), strlen(dtype_name(t->dtype)) + 1);
        hash_u64(h, (uint64_t)t->rank);
        for (int k = 0; k < t->rank; k++) hash_u64(h, t->shape[k]);
        if (t->nbytes) sha256_add(h, t->data, (size_t)t->nbytes);
        checkpoint_release(c, order[i]);
    }
    sha256_end(h, c->index->sha);
    assert(c->index->sha[0]);
    mem_free(order);
    return c->index->sha;
}
