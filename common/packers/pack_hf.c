/* SPDX-License-Identifier: Apache-2.0
 * A Hugging Face directory with float values: what any program reads, at full size. */
#include "common/mem.h"
#include "common/pack.h"

static int put(struct pack_file *f, struct err *e)
{
    return pack_whole_values(f->ctx, f->entry->user, pack_put_floats, f, e);
}

static int write_tensors(struct pack *p, const char *dir, struct err *e)
{
    size_t n;
    struct pack_whole *wholes = pack_wholes(p, false, &n);
    struct safetensors_entry *list = MEM_NEW(struct safetensors_entry, n);
    for (size_t i = 0; i < n; i++) {
        struct pack_whole *w = &wholes[i];
        list[i] = (struct safetensors_entry){.name = w->name,
                                             .dtype = w->part[0]->norm ? p->norm_dtype : p->dtype,
                                             .rank = w->rank,
                                             .shape = {w->shape[0], w->shape[1]},
                                             .user = w};
    }
    int rc = pack_write_safetensors(p, dir, list, n, put, p, e);
    mem_free(list), pack_wholes_free(wholes, n);
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
