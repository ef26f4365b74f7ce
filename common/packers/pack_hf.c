/* SPDX-License-Identifier: Apache-2.0
 * A Hugging Face directory with float values: what any program reads, at full size. */
#include "common/checkpoint_impl.h"
#include "common/mem.h"
#include "common/pack.h"
#include "common/safetensors_write.h"
#include "common/tool.h"
#include <string.h>

struct out {
    struct safetensors_writer *w;
    const struct safetensors_entry *entry;
    void *buf;
    size_t cap;
};

static int put_values(void *ctx, const float *x, size_t n, struct err *e)
{
    struct out *o = ctx;
    size_t size = (size_t)dtype_block_bytes(o->entry->dtype);
    o->buf = mem_grow(o->buf, &o->cap, n * size, 1);
    if (pack_round(o->buf, o->entry->dtype, x, n, o->entry->name, e) < 0) return -1;
    return safetensors_put(o->w, o->buf, n * size, e);
}

static int write_tensors(struct pack *p, const char *path, struct err *e)
{
    struct safetensors_entry *list = MEM_NEW(struct safetensors_entry, p->n_items);
    json_t *meta = json_pack("{s:s}", "format", "pt");
    struct outfile *f = outfile_open(path, e);
    struct out o = {0};
    int rc = f ? 0 : -1;
    for (size_t i = 0; i < p->n_items; i++) {
        struct pack_item *it = &p->items[i];
        list[i] = (struct safetensors_entry){.name = it->name,
                                             .dtype = it->norm ? p->norm_dtype : p->dtype,
                                             .rank = it->rank,
                                             .shape = {it->shape[0], it->shape[1]},
                                             .user = it};
    }
    if (rc == 0) o.w = safetensors_begin(f, list, p->n_items, meta, e);
    if (!o.w) rc = -1;
    progress_start("pack", "tensors", (double)p->n_items);
    for (size_t i = 0; rc == 0 && (o.entry = safetensors_next(o.w)) != NULL; i++) {
        rc = pack_values(p, o.entry->user, put_values, &o, e);
        progress_at((double)i + 1, "%s", o.entry->name);
    }
    progress_end();
    if (rc == 0) rc = safetensors_end(o.w, e);
    else safetensors_drop(o.w);
    if (rc == 0) rc = outfile_commit(f, e);
    else outfile_discard(f);
    json_decref(meta);
    mem_free(list);
    mem_free(o.buf);
    return rc;
}

static int write_hf(struct pack *p, struct err *e)
{
    if (p->dtype == DT_NONE) p->dtype = DT_F32;
    if (p->norm_dtype == DT_NONE) p->norm_dtype = p->dtype;
    struct outdir *d = outdir_open(p->out, e);
    if (!d) return -1;
    char *file = path_join(outdir_tmp(d), "model.safetensors");
    int rc = write_tensors(p, file, e);
    if (rc == 0) rc = pack_write_config(p, outdir_tmp(d), p->dtype, NULL, e);
    if (rc == 0) rc = pack_copy_side_files(p, outdir_tmp(d), e);
    if (rc == 0) rc = pack_verify(p, outdir_tmp(d), e);
    mem_free(file);
    if (rc == 0) return outdir_commit(d, e);
    outdir_discard(d);
    return -1;
}

const struct packer pack_hf = {
    .name = "hf",
    .summary = "Hugging Face directory, float values (--dtype) in safetensors",
    .directory = true,
    .size = PACK_FLOATS,
    .write = write_hf,
};
