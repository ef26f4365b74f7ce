/* SPDX-License-Identifier: Apache-2.0
 * safetensors files and the Hugging Face directories that hold them, single or sharded. The checks are those
 * of the format's reference reader: a header of at most 100 MB, no duplicate key, no hole and no overlap
 * between tensors. */
#include "common/checkpoint_impl.h"
#include "common/mem.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_MAX 100000000u

struct entry {
    const char *name;
    struct tensor t;
    uint64_t begin, end;
};

static int bad(struct err *e, const char *path, const char *name, const char *why)
{
    return err_set(e, NT_EXIT_DATA, "%s: tensor %s: %s", path, show_name(name, strlen(name)), why);
}

static int read_u64(const json_t *j, uint64_t *v)
{
    if (!json_is_integer(j) || json_integer_value(j) < 0) return -1;
    *v = (uint64_t)json_integer_value(j);
    return 0;
}

static int read_entry(struct entry *x, const char *name, const json_t *j, const char *path, struct err *e)
{
    const json_t *dtype = json_object_get(j, "dtype"), *shape = json_object_get(j, "shape"),
                 *at = json_object_get(j, "data_offsets");
    memset(x, 0, sizeof *x);
    x->name = name;
    if (!json_is_string(dtype) || !json_is_array(shape) || !json_is_array(at) || json_array_size(at) != 2 ||
        json_object_size(j) != 3)
        return bad(e, path, name, "not exactly dtype, shape and data_offsets");
    x->t.dtype = dtype_parse(json_string_value(dtype));
    if (x->t.dtype == DT_NONE || dtype_block(x->t.dtype) != 1)
        return err_set(e, NT_EXIT_DATA, "%s: tensor %s: element type %s is not supported", path,
                       show_name(name, strlen(name)),
                       show_name(json_string_value(dtype), json_string_length(dtype)));
    if (json_array_size(shape) > TENSOR_MAX_RANK) return bad(e, path, name, "more than 8 dimensions");
    x->t.rank = (int)json_array_size(shape);
    for (int i = 0; i < x->t.rank; i++)
        if (read_u64(json_array_get(shape, (size_t)i), &x->t.shape[i]) < 0)
            return bad(e, path, name, "a bad dimension");
    if (read_u64(json_array_get(at, 0), &x->begin) < 0 || read_u64(json_array_get(at, 1), &x->end) < 0 ||
        x->begin > x->end)
        return bad(e, path, name, "bad data_offsets");
    if (tensor_nbytes(x->t.dtype, x->t.rank, x->t.shape, &x->t.nbytes, e) < 0)
        return err_prefix(e, "%s: tensor %s", path, show_name(name, strlen(name)));
    return x->end - x->begin == x->t.nbytes ? 0 : bad(e, path, name, "data_offsets do not fit its shape");
}

static int by_place(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end) return x->end < y->end ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Every tensor begins where the one before ended, the last ends with the file. */
static int place(struct checkpoint *c, int file, struct entry *list, size_t n, uint64_t data, uint64_t size,
                 struct err *e)
{
    const char *path = c->files[file];
    uint64_t at = 0;
    qsort(list, n, sizeof *list, by_place);
    for (size_t i = 0; i < n; i++) {
        if (list[i].begin != at) return bad(e, path, list[i].name, "a hole or an overlap before its data");
        at = list[i].end;
        if (at > size - data)
            return err_set(e, NT_EXIT_DATA, "%s: truncated: tensor %s needs bytes to %llu, the file has %llu",
                           path, show_name(list[i].name, strlen(list[i].name)),
                           (unsigned long long)(data + at), (unsigned long long)size);
        if (checkpoint_add(c, list[i].name, strlen(list[i].name), &list[i].t, file, data + list[i].begin, e) <
            0)
            return -1;
    }
    if (at != size - data)
        return err_set(e, NT_EXIT_DATA, "%s: %llu bytes after the last tensor", path,
                       (unsigned long long)(size - data - at));
    return 0;
}

static int read_metadata(struct checkpoint *c, const json_t *m, const char *path, struct err *e)
{
    const char *key;
    json_t *v;
    if (!json_is_object(m)) return err_set(e, NT_EXIT_DATA, "%s: __metadata__ is no object", path);
    json_object_foreach((json_t *)(uintptr_t)m, key, v) {
        if (!json_is_string(v)) return err_set(e, NT_EXIT_DATA, "%s: __metadata__.%s is no string", path,
                                               show_name(key, strlen(key)));
    }
    if (!c->meta) c->meta = json_deep_copy(m);
    return 0;
}

static int read_header(struct checkpoint *c, int file, json_t *header, uint64_t data, uint64_t size,
                       struct err *e)
{
    const char *path = c->files[file], *key;
    struct entry *list = MEM_NEW(struct entry, json_object_size(header));
    json_t *v;
    size_t n = 0;
    int rc = 0;
    json_object_foreach(header, key, v) {
        rc = strcmp(key, "__metadata__") == 0 ? read_metadata(c, v, path, e)
                                              : read_entry(&list[n++], key, v, path, e);
        if (rc < 0) break;
    }
    if (rc == 0) rc = place(c, file, list, n, data, size, e);
    mem_free(list);
    return rc;
}

static int read_file(struct checkpoint *c, const char *path, struct err *e)
{
    int file = checkpoint_map(c, path, e);
    if (file < 0) return -1;
    struct mapping m = checkpoint_mapping(c, file);
    uint64_t n = 0;
    if (m.size < 10)
        return err_set(e, NT_EXIT_DATA, "%s: truncated: %llu bytes", path, (unsigned long long)m.size);
    for (int i = 0; i < 8; i++) n |= (uint64_t)m.at[i] << 8 * i;
    if (n > HEADER_MAX || m.at[8] != '{')
        return err_set(e, NT_EXIT_DATA, "%s: not a safetensors file: no header", path);
    if (n > m.size - 8)
        return err_set(e, NT_EXIT_DATA, "%s: truncated: the header needs %llu bytes, the file has %llu", path,
                       (unsigned long long)n, (unsigned long long)m.size);
    json_error_t je;
    json_t *header = json_loadb((const char *)m.at + 8, (size_t)n, JSON_REJECT_DUPLICATES, &je);
    if (!json_is_object(header)) {
        json_decref(header);
        return err_set(e, NT_EXIT_DATA, "%s: header: %s", path,
                       header ? "not an object" : show_name(je.text, strlen(je.text)));
    }
    int rc = read_header(c, file, header, 8 + n, m.size, e);
    json_decref(header);
    return rc;
}

/* ---- directories ---- */

static int read_directory(struct checkpoint *c, struct err *e)
{
    char *one = path_join(c->dir, "model.safetensors"),
         *index = path_join(c->dir, "model.safetensors.index.json");
    int rc;
    if (path_exists(one)) rc = read_file(c, one, e);
    else if (path_exists(index)) rc = checkpoint_read_shards(c, index, read_file, e);
    else
        rc = err_set(e, NT_EXIT_DATA,
                     "%s: no weights in it: neither model.safetensors nor pytorch_model.bin, nor an index of "
                     "either",
                     c->dir);
    mem_free(one);
    mem_free(index);
    return rc;
}

static int safetensors_open(struct checkpoint *c, struct err *e)
{
    if (checkpoint_read_config(c, e) < 0) return -1;
    if (path_ends(c->path, ".index.json")) return checkpoint_read_shards(c, c->path, read_file, e);
    if (path_is_dir(c->path) || path_ends(c->path, ".json")) return read_directory(c, e);
    return read_file(c, c->path, e);
}

static int safetensors_probe(const char *path)
{
    unsigned char head[9];
    if (path_is_dir(path) || path_ends(path, ".safetensors") || path_ends(path, ".safetensors.index.json") ||
        path_ends(path, "config.json"))
        return 1;
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(head, 1, 9, f) : 0;
    if (f) fclose(f);
    return n == 9 && head[8] == '{' && !head[4] && !head[5] && !head[6] && !head[7];
}

const struct checkpoint_format checkpoint_format_safetensors = {
    .name = "safetensors", .probe = safetensors_probe, .open = safetensors_open};
