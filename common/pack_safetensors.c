/* SPDX-License-Identifier: Apache-2.0
 * The safetensors files of a Hugging Face directory: one, or shards in the order of the model with an index
 * that says which tensor lies where. */
#include "common/checkpoint_impl.h"
#include "common/mem.h"
#include "common/pack.h"
#include "common/tool.h"
#include <string.h>

int pack_put_floats(void *file, const float *x, size_t n, struct err *e)
{
    struct pack_file *f = file;
    size_t size = (size_t)dtype_block_bytes(f->entry->dtype);
    f->buf = mem_grow(f->buf, &f->cap, n * size, 1);
    if (pack_round(f->buf, f->entry->dtype, x, n, f->entry->name, e) < 0) return -1;
    return safetensors_put(f->w, f->buf, n * size, e);
}

static uint64_t entry_bytes(const struct safetensors_entry *x)
{
    uint64_t n = (uint64_t)dtype_block_bytes(x->dtype);
    for (int i = 0; i < x->rank; i++) n *= x->shape[i];
    return n;
}

/* How many of list[0..n) fit into a file, one at least. */
static size_t fill_shard(const struct safetensors_entry *list, size_t n, uint64_t most)
{
    uint64_t bytes = 0;
    size_t i = 0;
    while (i < n && (i == 0 || !most || bytes + entry_bytes(&list[i]) <= most))
        bytes += entry_bytes(&list[i++]);
    return i;
}

static int write_file(struct pack_file *f, const char *path, struct safetensors_entry *list, size_t n,
                      pack_put *put, size_t *done, struct err *e)
{
    struct outfile *out = outfile_open(path, e);
    if (!out) return -1;
    f->w = safetensors_begin(out, list, n, NULL, e);
    int rc = f->w ? 0 : -1;
    while (rc == 0 && (f->entry = safetensors_next(f->w)) != NULL) {
        rc = put(f, e);
        progress_at((double)++*done, "%s", f->entry->name);
    }
    if (rc == 0)
        rc = safetensors_end(f->w, e);
    else
        safetensors_drop(f->w);
    if (rc == 0) return outfile_commit(out, e);
    outfile_discard(out);
    return -1;
}

static int write_shards(struct pack_file *f, const char *dir, struct safetensors_entry *list, size_t n,
                        uint64_t most, int shards, pack_put *put, struct err *e)
{
    json_t *map = json_object();
    uint64_t total = 0;
    size_t done = 0, at = 0, k;
    int rc = 0;
    for (int s = 1; s <= shards && rc == 0; s++, at += k) {
        char *name = shards == 1 ? mem_strdup("model.safetensors")
                                 : mem_printf("model-%05d-of-%05d.safetensors", s, shards);
        char *path = path_join(dir, name);
        k = fill_shard(list + at, n - at, most);
        for (size_t i = at; i < at + k; i++) {
            json_object_set_new(map, list[i].name, json_string(name));
            total += entry_bytes(&list[i]);
        }
        rc = write_file(f, path, list + at, k, put, &done, e);
        mem_free(path);
        mem_free(name);
    }
    json_t *index =
        json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    if (rc == 0 && shards > 1) rc = pack_write_json(dir, "model.safetensors.index.json", index, e);
    json_decref(index);
    return rc;
}

int pack_write_safetensors(const struct pack *p, const char *dir, struct safetensors_entry *list, size_t n,
                           pack_put *put, void *ctx, struct err *e)
{
    struct pack_file f = {.ctx = ctx};
    int shards = 0;
    for (size_t at = 0; at < n; at += fill_shard(list + at, n - at, p->max_shard)) shards++;
    progress_start("pack", "tensors", (double)n);
    int rc = write_shards(&f, dir, list, n, p->max_shard, shards, put, e);
    progress_end();
    mem_free(f.buf);
    return rc;
}
