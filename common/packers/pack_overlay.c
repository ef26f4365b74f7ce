/* SPDX-License-Identifier: Apache-2.0
 * The norms alone, as one small safetensors file: a tweak to exchange without the model. Its metadata says
 * what it was made from (source_sha256) and which weights it fits (weights_sha256). */
#include "common/mem.h"
#include "common/pack.h"
#include "common/safetensors_write.h"
#include <string.h>

static json_t *metadata(struct pack *p, struct err *e)
{
    char weights[65] = "";
    if (pack_weights_sha256(p, weights, e) < 0) return NULL;
    const char *verdict = json_string_value(json_object_get(p->trailer, "verdict"));
    return json_pack("{s:s, s:s, s:s*, s:s, s:s, s:s, s:s}", "format", "pt", "nt_overlay", "1",
                     "source_sha256", p->rest ? NULL : checkpoint_sha256(p->m->ck), "weights_sha256", weights, "qweights_xxh3",
                     p->hash, "norms", p->tuned ? "new" : "old", "verdict", verdict ? verdict : "none");
}

static int write_norms(struct pack *p, struct outfile *f, const json_t *meta, struct err *e)
{
    struct safetensors_entry *list = MEM_NEW(struct safetensors_entry, p->n_norms);
    const struct safetensors_entry *x;
    for (size_t i = 0; i < p->n_norms; i++)
        list[i] = (struct safetensors_entry){.name = p->norms[i].name, .dtype = DT_F32, .rank = 1,
                                             .shape = {(uint64_t)p->norms[i].dim}, .user = &p->norms[i]};
    struct safetensors_writer *w = safetensors_begin(f, list, p->n_norms, meta, e);
    int rc = w ? 0 : -1;
    while (rc == 0 && (x = safetensors_next(w)) != NULL)
        rc = safetensors_put_f32(w, pack_norm_values(p, x->user), (size_t)x->shape[0], e);
    if (rc == 0) rc = safetensors_end(w, e);
    else safetensors_drop(w);
    mem_free(list);
    return rc;
}

static int verify(struct pack *p, const char *path, struct err *e)
{
    struct checkpoint *c = checkpoint_open(path, e);
    int rc = c ? 0 : -1;
    for (size_t i = 0; i < p->n_norms && rc == 0; i++) {
        const struct pack_norm *n = &p->norms[i];
        const struct checkpoint_tensor *t = checkpoint_find(c, n->name);
        if (!t || t->t.nbytes != (uint64_t)n->dim * 4 ||
            memcmp(t->t.data, pack_norm_values(p, n), (size_t)t->t.nbytes) != 0)
            rc = err_set(e, NT_EXIT_DATA, "verification failed: %s: norm %s reads back wrong", path, n->name);
    }
    checkpoint_close(c);
    return rc;
}

static int write_overlay(struct pack *p, struct err *e)
{
    if (!p->n_norms) return err_set(e, NT_EXIT_DATA, "%s: holds no norms", p->stream);
    json_t *meta = metadata(p, e);
    struct outfile *f = meta ? outfile_open(p->out, e) : NULL;
    int rc = f ? write_norms(p, f, meta, e) : -1;
    if (rc == 0) rc = outfile_flush(f, e);
    if (rc == 0 && outfile_tmp(f)) rc = verify(p, outfile_tmp(f), e);
    json_decref(meta);
    if (rc == 0) return outfile_commit(f, e);
    outfile_discard(f);
    return -1;
}

const struct packer pack_overlay = {
    .name = "overlay",
    .summary = "the norms alone, one small safetensors file for --apply",
    .size = PACK_NORMS,
    .write = write_overlay,
};
