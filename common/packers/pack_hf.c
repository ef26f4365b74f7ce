/* SPDX-License-Identifier: Apache-2.0
 * A Hugging Face directory with float values: what any program reads, at full size. */
#include "common/mem.h"
#include "common/pack.h"

static int put(struct pack_file *f, struct err *e)
{
    return pack_values(f->ctx, f->entry->user, pack_put_floats, f, e);
}

static int write_tensors(struct pack *p, const char *dir, struct err *e)
{
    struct safetensors_entry *list = MEM_NEW(struct safetensors_entry, p->n_items);
    for (size_t i = 0; i < p->n_items; i++) {
        struct pack_item *it = &p->items[i];
        list[i] = (struct safetensors_entry){.name = it->name,
                                             .dtype = it->norm ? p->norm_dtype : p->dtype,
                                             .rank = it->rank,
                                             .shape = {it->shape[0], it->shape[1]},
                                             .user = it};
    }
    int rc = pack_write_safetensors(p, dir, list, p->n_items, put, p, e);
    mem_free(list);
    return rc;
}

static int write_hf(struct pack *p, struct err *e)
{
    if (p->dtype == DT_NONE) p->dtype = DT_F32;
    if (p->norm_dtype == DT_NONE) p->norm_dtype = p->dtype;
    struct outdir *d = outdir_open(p->out, e);
    if (!d) return -1;
    int rc = write_tensors(p, outdir_tmp(d), e);
    if (rc == 0) rc = pack_write_config(p, outdir_tmp(d), p->dtype, NULL, e);
    if (rc == 0) rc = pack_copy_side_files(p, outdir_tmp(d), e);
    if (rc == 0) rc = pack_verify(p, outdir_tmp(d), e);
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
