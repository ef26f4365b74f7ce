/* SPDX-License-Identifier: Apache-2.0
 * Norms into somebody's finished checkpoint: a copy that is the same byte by byte but for the norms, which
 * keep their own element type and place. Refused where the copy would not be the model that the norms were
 * made for. */
#include "common/checkpoint_impl.h"
#include "common/gptq_file.h"
#include "common/mem.h"
#include "common/pack.h"
#include "common/sha256.h"
#include "common/tool.h"
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* New bytes for one tensor of the checkpoint. */
struct patch {
    const struct checkpoint_tensor *t;
    uint8_t *bytes;              /* owned */
};

struct job {
    struct checkpoint *ck;
    struct patch *list;
    size_t n, cap;
    struct norms_result *r;
};

/* ---- finding the norm of an HF name in a checkpoint of any format ---- */

static bool match(const char *pattern, const char *name, const char *suffix, int *layer)
{
    const char *at = strstr(pattern, "%d");
    char *end = NULL;
    if (!at)
        return strncmp(name, pattern, strlen(pattern)) == 0 && strcmp(name + strlen(pattern), suffix) == 0;
    if (strncmp(name, pattern, (size_t)(at - pattern)) != 0) return false;
    *layer = (int)strtol(name + (at - pattern), &end, 10);
    size_t n = strlen(at + 2);
    return strncmp(end, at + 2, n) == 0 && strcmp(end + n, suffix) == 0;
}

static const struct checkpoint_tensor *find_gguf(const struct checkpoint *c, const struct family *f,
                                                 const char *name)
{
    static const char *const suffixes[] = {".weight", ".bias"};
    const struct checkpoint_tensor *t = NULL;
    for (int s = 0; s < 2 && !t; s++)
        for (int n = 0; n <= NORM_COUNT && !t; n++) {
            const char *hf = n < NORM_COUNT ? f->hf.norm[n] : f->hf.final_norm,
                       *theirs = n < NORM_COUNT ? f->gguf.norm[n] : f->gguf.final_norm;
            int layer = 0;
            if (!hf || !theirs) continue;
            if (!hf || !theirs || !match(hf, name, suffixes[s], &layer)) continue;
            const char *at = strstr(theirs, "%d");
            char *g = at ? mem_printf("%.*s%d%s%s", (int)(at - theirs), theirs, layer, at + 2, suffixes[s])
                         : mem_printf("%s%s", theirs, suffixes[s]);
            t = checkpoint_find(c, g);
            mem_free(g);
        }
    return t;
}

static const struct checkpoint_tensor *find_norm(const struct checkpoint *c, const char *name, struct err *e)
{
    const char *arch = json_string_value(json_object_get(c->meta, "general.architecture"));
    const struct family *f = arch ? family_by_gguf_arch(arch) : NULL;
    const struct checkpoint_tensor *t;
    if (strcmp(c->format, "pytorch") == 0) /* its checksums would not fit any more */
        return err_set(e, NT_EXIT_DATA,
                       "%s: PyTorch files are not patched: convert them to safetensors (nt-pack --format hf)",
                       c->path),
               NULL;
    if (strcmp(c->format, "gguf") == 0) t = f ? find_gguf(c, f, name) : NULL;
    else t = checkpoint_find(c, name);
    if (!t && strcmp(c->format, "gguf") != 0 && strncmp(name, "model.", 6) == 0)
        t = checkpoint_find(c, name + 6);
    if (!t) err_set(e, NT_EXIT_DATA, "%s: norm %s is not in it", c->path, name);
    return t;
}

/* ---- patches ---- */

static int add_patch(struct job *j, const char *name, const float *v, uint64_t dim, struct err *e)
{
    const struct checkpoint_tensor *t = find_norm(j->ck, name, e);
    if (!t) return -1;
    enum dtype d = t->t.dtype;
    if (d != DT_F32 && d != DT_F16 && d != DT_BF16)
        return err_set(e, NT_EXIT_DATA,
                       "%s: norm %s is stored as %s: only F32, F16 and BF16 can take new values", j->ck->path,
                       t->name, dtype_name(d));
    if (t->t.rank != 1 || t->t.shape[0] != dim)
        return err_set(e, NT_EXIT_DATA, "%s: norm %s has %llu values, the new one %llu", j->ck->path, t->name,
                       (unsigned long long)(t->t.rank ? t->t.shape[0] : 1), (unsigned long long)dim);
    struct patch x = {t, mem_array(t->t.nbytes, 1)};
    j->list = mem_grow(j->list, &j->cap, j->n + 1, sizeof *j->list);
    j->list[j->n++] = x;
    if (pack_round(x.bytes, d, v, (size_t)dim, name, e) < 0) return -1;
    size_t size = (size_t)dtype_block_bytes(d);
    for (uint64_t i = 0; i < dim; i++)
        j->r->changed += memcmp(x.bytes + i * size, (const uint8_t *)t->t.data + i * size, size) != 0;
    j->r->tensors++;
    j->r->elements += dim;
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const struct checkpoint_tensor *x = ((const struct patch *)a)->t, *y = ((const struct patch *)b)->t;
    if (x->file != y->file) return x->file - y->file;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Writes file `k` of the checkpoint with its patches. */
static int write_patched(const struct job *j, int k, struct outfile *f, struct err *e)
{
    struct mapping m = checkpoint_mapping(j->ck, k);
    uint64_t at = 0;
    for (size_t i = 0; i < j->n; i++) {
        const struct checkpoint_tensor *t = j->list[i].t;
        if (t->file != k) continue;
        if (outfile_write(f, m.at + at, t->offset - at, e) < 0 ||
            outfile_write(f, j->list[i].bytes, t->t.nbytes, e) < 0)
            return -1;
        at = t->offset + t->t.nbytes;
    }
    return outfile_write(f, m.at + at, m.size - at, e);
}

/* Reads the copy again: the patches where they belong, everything else as it was. */
static int check_patched(const struct job *j, int k, const char *path, struct err *e)
{
    FILE *f = fopen(path, "rb");
    if (!f) return err_set(e, NT_EXIT_IO, "%s: %s", path, strerror(errno));
    struct mapping m = checkpoint_mapping(j->ck, k);
    uint8_t buf[65536];
    uint64_t at = 0;
    size_t i = 0, n;
    int same = 1;
    while (i < j->n && j->list[i].t->file < k) i++;
    while (same && (n = fread(buf, 1, sizeof buf, f)) > 0) {
        for (size_t b = 0; b < n && same; b++, at++) {
            while (i < j->n && j->list[i].t->file == k && at >= j->list[i].t->offset + j->list[i].t->t.nbytes)
                i++;
            bool in = i < j->n && j->list[i].t->file == k && at >= j->list[i].t->offset;
            same = at < m.size && buf[b] == (in ? j->list[i].bytes[at - j->list[i].t->offset] : m.at[at]);
        }
    }
    if (ferror(f)) same = 0;
    fclose(f);
    return same && at == m.size
               ? 0
               : err_set(e, NT_EXIT_DATA, "verification failed: %s: byte %llu is not as it should be", path,
                         (unsigned long long)at);
}

static int copy_one(const struct job *j, int k, const char *to, struct err *e)
{
    struct outfile *f = outfile_open(to, e);
    int rc = f ? write_patched(j, k, f, e) : -1;
    if (rc == 0) rc = outfile_flush(f, e);
    if (rc == 0 && outfile_tmp(f)) rc = check_patched(j, k, outfile_tmp(f), e);
    if (rc == 0) return outfile_commit(f, e);
    outfile_discard(f);
    return -1;
}

static int copy_directory(const struct job *j, const char *from, const char *to, struct err *e)
{
    struct outdir *d = outdir_open(to, e);
    DIR *dir = d ? opendir(from) : NULL;
    int rc = dir ? 0 : err_set(e, NT_EXIT_IO, "%s: %s", from, strerror(errno));
    struct dirent *x;
    while (rc == 0 && (x = readdir(dir)) != NULL) {
        char *a = path_join(from, x->d_name), *b = path_join(outdir_tmp(d), x->d_name);
        int k = 0;
        while (k < j->ck->n_files && strcmp(strrchr(j->ck->files[k], '/') + 1, x->d_name) != 0) k++;
        if (strcmp(x->d_name, ".") == 0 || strcmp(x->d_name, "..") == 0) rc = 0;
        else if (path_is_dir(a)) note("%s: a directory, not copied", a);
        else rc = k < j->ck->n_files ? copy_one(j, k, b, e) : pack_copy_file(a, b, e);
        mem_free(a);
        mem_free(b);
    }
    if (dir) closedir(dir);
    if (rc == 0) return outdir_commit(d, e);
    if (d) outdir_discard(d);
    return -1;
}

static int write_copy(struct job *j, const char *from, const char *to, struct err *e)
{
    qsort(j->list, j->n, sizeof *j->list, by_place);
    for (size_t i = 1; i < j->n; i++)
        if (j->list[i].t == j->list[i - 1].t)
            return err_set(e, NT_EXIT_DATA, "%s: norm %s is given twice", from, j->list[i].t->name);
    if (path_is_dir(from)) return copy_directory(j, from, to, e);
    if (j->ck->n_files != 1)
        return err_set(e, NT_EXIT_DATA, "%s: a split file: give its directory, or merge the parts first",
                       from);
    return copy_one(j, 0, to, e);
}

static void clear_job(struct job *j)
{
    for (size_t i = 0; i < j->n; i++) mem_free(j->list[i].bytes);
    mem_free(j->list);
    checkpoint_close(j->ck);
}

/* ---- is it the same model? ---- */

struct values {
    const float *got;
    size_t at;
    bool same;
};

static int compare(void *ctx, const float *x, size_t n, struct err *e)
{
    struct values *v = ctx;
    (void)e;
    for (size_t i = 0; i < n; i++) v->same &= v->got[v->at + i] == x[i];
    v->at += n;
    return 0;
}

static int not_the_streams(const char *ckpt, const char *stream, const char *name, struct err *e)
{
    return err_set(e, NT_EXIT_DATA, "%s: tensor %s: its weights are not those of %s", ckpt, name, stream);
}

static int check_gptq(struct pack *p, struct checkpoint *c, int bits, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; i < p->n_q && rc == 0; i++) {
        const struct qtensor *q = &p->q[i].head;
        struct pack_item it = {.q = (int)i};
        char *base = mem_printf("%.*s", (int)(strlen(q->name) - strlen(".weight")), q->name);
        float *w = mem_array((size_t)q->out * (size_t)q->in, sizeof *w);
        struct values v = {.got = w, .same = true};
        if (q->form != QF_PLAIN) rc = gptq_read_linear(c, base, bits, q->out, q->in, w, e);
        if (rc == 0 && q->form != QF_PLAIN) rc = pack_values(p, &it, compare, &v, e);
        if (rc == 0 && !v.same) rc = not_the_streams(c->path, p->stream, q->name, e);
        mem_free(w);
        mem_free(base);
    }
    return rc;
}

static int check_plain(struct pack *p, const char *path, struct err *e)
{
    struct pack theirs = {.m = model_open(path, NULL, e)};
    int rc = theirs.m ? pack_bind(&theirs, e) : -1;
    for (size_t i = 0; i < p->n_q && rc == 0; i++) {
        struct pack_item it = {.q = (int)i};
        size_t k = 0;
        while (k < theirs.n_items && strcmp(theirs.items[k].name, p->q[i].head.name) != 0) k++;
        bool fits = k < theirs.n_items && theirs.items[k].rank == 2 &&
                    theirs.items[k].shape[0] == (uint64_t)p->q[i].head.out &&
                    theirs.items[k].shape[1] == (uint64_t)p->q[i].head.in;
        if (!fits || pack_same_values(p, &it, theirs.m, &theirs.items[k], e) < 0) {
            struct err why = *e;
            e->code = 0;
            rc = not_the_streams(path, p->stream, p->q[i].head.name, e);
            if (why.code) note("%s", why.text);
        }
    }
    model_close(theirs.m);
    pack_clear(&theirs);
    return rc;
}

static int check_weights(struct pack *p, struct checkpoint *c, struct err *e)
{
    const json_t *q = json_object_get(c->config, "quantization_config");
    const char *method = json_string_value(json_object_get(q, "quant_method"));
    int bits = gptq_checkpoint_bits(c, e);
    if (bits < 0) return -1;
    if (bits) return check_gptq(p, c, bits, e);
    if (method)
        return err_set(e, NT_EXIT_DATA,
                       "%s: weights of quant_method %.40s cannot be compared with those of %s", c->path,
                       method, p->stream);
    return check_plain(p, c->path, e);
}

int pack_norms_into(struct pack *p, const char *from, const char *to, struct norms_result *r, struct err *e)
{
    struct job j = {.ck = checkpoint_open(from, e), .r = r};
    int rc = j.ck ? check_weights(p, j.ck, e) : -1;
    *r = (struct norms_result){0};
    if (rc == 0 && !p->n_norms) rc = err_set(e, NT_EXIT_DATA, "%s: holds no norms", p->stream);
    for (size_t i = 0; i < p->n_norms && rc == 0; i++)
        rc = add_patch(&j, p->norms[i].name, pack_norm_values(p, &p->norms[i]), (uint64_t)p->norms[i].dim, e);
    if (rc == 0) rc = write_copy(&j, from, to, e);
    clear_job(&j);
    return rc;
}

/* ---- overlays ---- */

static void hash_floats(struct sha256 *h, float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] += 0.0f; /* as pack_weights_sha256 has it */
    sha256_add(h, x, n * sizeof *x);
}

/* The weights' hash of a GPTQ directory: its linears in the order of pack_weights_sha256. */
static int gptq_sha256(const struct checkpoint *c, int bits, char hex[65], struct err *e)
{
    struct model_config cfg = {0};
    json_t *plain = json_copy(c->config); /* without the key that says it is packed */
    json_object_del(plain, "quantization_config");
    int rc = model_config_read(&cfg, plain, e);
    json_decref(plain);
    if (rc < 0) return -1;
    struct sha256 *h = sha256_start(e);
    rc = h ? 0 : -1;
    for (int k = 0; k < cfg.n_layers * ROLE_COUNT && rc == 0; k++) {
        if (!block_has_role(&cfg.block, (enum role)(k % ROLE_COUNT))) continue;
        const char *pattern = cfg.hf.role[k % ROLE_COUNT], *at = strstr(pattern, "%d");
        char *base = mem_printf("%.*s%d%s", (int)(at - pattern), pattern, k / ROLE_COUNT, at + 2),
             *name = mem_printf("%s.weight", base);
        const struct checkpoint_tensor *t = checkpoint_find(c, name);
        int out, in;
        role_dims(&cfg.block, (enum role)(k % ROLE_COUNT), &out, &in);
        size_t count = (size_t)out * (size_t)in;
        float *w = mem_array(count, sizeof *w);
        if (!t) rc = gptq_read_linear(c, base, bits, out, in, w, e);
        else if (!dtype_is_float(t->t.dtype) || tensor_count(&t->t) != count)
            rc = err_set(e, NT_EXIT_DATA, "%s: tensor %s has another shape than config.json says", c->path,
                         name);
        else dtype_to_f32(w, t->t.dtype, t->t.data, count);
        if (rc == 0) hash_floats(h, w, count);
        mem_free(w);
        mem_free(base);
        mem_free(name);
    }
    model_config_clear(&cfg);
    sha256_end(h, hex);
    return rc;
}

static int weights_of(const struct checkpoint *c, const char *path, char hex[65], struct err *e)
{
    int bits = gptq_checkpoint_bits(c, e);
    if (bits < 0) return -1;
    if (bits) return gptq_sha256(c, bits, hex, e);
    struct pack p = {.m = model_open(path, NULL, e)};
    int rc = p.m ? pack_bind(&p, e) : -1;
    if (rc == 0) rc = pack_weights_sha256(&p, hex, e);
    model_close(p.m);
    pack_clear(&p);
    return rc;
}

static int check_overlay(const struct checkpoint *o, const struct checkpoint *c, const char *from,
                         bool unchecked, struct err *e)
{
    const char *version = json_string_value(json_object_get(o->meta, "nt_overlay"));
    const char *want = json_string_value(json_object_get(o->meta, "weights_sha256"));
    char have[65] = "";
    if (!version || strcmp(version, "1") != 0 || !want)
        return err_set(e, NT_EXIT_DATA, "%s: no overlay of norms made by nt-pack", o->path);
    if (unchecked) return 0;
    if (weights_of(c, from, have, e) < 0)
        return err_prefix(e, "its weights cannot be compared (--unchecked applies all the same)");
    return strcmp(want, have) == 0 ? 0
         : err_set(e, NT_EXIT_DATA, "%s: its weights are not those that %s was made for", from, o->path);
}

int pack_apply(const char *overlay, const char *from, const char *to, bool unchecked, struct norms_result *r,
               struct err *e)
{
    struct checkpoint *o = checkpoint_open(overlay, e);
    struct job j = {.ck = o ? checkpoint_open(from, e) : NULL, .r = r};
    int rc = j.ck ? check_overlay(o, j.ck, from, unchecked, e) : -1;
    *r = (struct norms_result){0};
    for (int i = 0; rc == 0 && i < o->n_tensors; i++) {
        const struct checkpoint_tensor *t = &o->tensors[i];
        if (t->t.dtype != DT_F32 || t->t.rank != 1)
            rc = err_set(e, NT_EXIT_DATA, "%s: tensor %s is not F32 [D]", overlay, t->name);
        else if (f32_first_nonfinite(t->t.data, (size_t)t->t.shape[0]) < t->t.shape[0])
            rc = err_set(e, NT_EXIT_DATA, "%s: tensor %s: a value is not finite", overlay, t->name);
        else rc = add_patch(&j, t->name, t->t.data, t->t.shape[0], e);
    }
    if (rc == 0) rc = write_copy(&j, from, to, e);
    clear_job(&j);
    checkpoint_close(o);
    return rc;
}
