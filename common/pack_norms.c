/* SPDX-License-Identifier: Apache-2.0
 * Norms into somebody's finished checkpoint: a copy that is the same byte by byte but for the norms, which
 * keep their own element type and place. Refused where the copy would not be the model that the norms were
 * made for. */
#include "common/checkpoint_impl.h"
#include "common/mem.h"
#include "common/pack.h"
#include "common/pack_patch.h"
#include "common/tool.h"
#include <stdlib.h>
#include <string.h>

struct job {
    struct pack theirs;    /* the checkpoint as a model, where it can be one: theirs.m, else NULL */
    struct checkpoint *ck; /* theirs.m's, or opened alone */
    struct patches patches;
    struct norms_result *r;
    enum dtype round;   /* to what values are rounded before they get their own type; DT_NONE */
    double moved, left; /* |d|^2 of the tweak d; <d, r> with what rounding has left of it */
    json_t *origin;     /* for the sidecar: where the norms come from */
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
    if (strcmp(c->format, "gguf") == 0)
        t = f ? find_gguf(c, f, name) : NULL;
    else
        t = checkpoint_find(c, name);
    if (!t && strcmp(c->format, "gguf") != 0 && strncmp(name, "model.", 6) == 0)
        t = checkpoint_find(c, name + 6);
    if (!t) err_set(e, NT_EXIT_DATA, "%s: norm %s is not in it", c->path, name);
    return t;
}

/* By the model's own table where there is one: it knows every family, and norms stored as 1 + w. */
static const struct checkpoint_tensor *place_of(const struct job *j, const char *name, float *offset,
                                                struct err *e)
{
    *offset = 0;
    for (size_t i = 0; i < j->theirs.n_items; i++) {
        const struct pack_item *it = &j->theirs.items[i];
        if (!it->norm || strcmp(it->name, name) != 0) continue;
        *offset = it->part.offset;
        if (it->part.row0 == 0 && !it->part.head_dim && tensor_count(&it->part.t->t) == it->part.rows)
            return it->part.t;
        err_set(e, NT_EXIT_DATA, "%s: norm %s is not stored as it is: it cannot be patched", j->ck->path,
                name);
        return NULL;
    }
    return find_norm(j->ck, name, e);
}

/* ---- patches ---- */

/* The type of a norm in the file, and whether what was asked for goes with it. */
static int check_type(const struct job *j, const struct checkpoint_tensor *t, uint64_t dim, struct err *e)
{
    enum dtype d = t->t.dtype;
    if (d != DT_F32 && d != DT_F16 && d != DT_BF16)
        return err_set(e, NT_EXIT_DATA,
                       "%s: norm %s is stored as %s: only F32, F16 and BF16 can take new values", j->ck->path,
                       t->name, dtype_name(d));
    if (tensor_count(&t->t) != dim)
        return err_set(e, NT_EXIT_DATA, "%s: norm %s has %llu values, the new one %llu", j->ck->path, t->name,
                       (unsigned long long)tensor_count(&t->t), (unsigned long long)dim);
    if (j->round == DT_NONE || j->round == d || d == DT_F32) return 0;
    return err_set(e, NT_EXIT_DATA,
                   "%s: norm %s is stored as %s, and a copy that differs in nothing but norms keeps it so: "
                   "--norm-dtype can be %s only (--format hf writes other types)",
                   j->ck->path, t->name, dtype_name(d), dtype_name(d));
}

static int add_patch(struct job *j, const char *name, const float *v, uint64_t dim, struct err *e)
{
    float offset;
    const struct checkpoint_tensor *t = place_of(j, name, &offset, e);
    if (!t || check_type(j, t, dim, e) < 0) return -1;
    enum dtype d = t->t.dtype;
    size_t n = (size_t)dim;
    float *x = mem_array(n, sizeof *x), *old = mem_array(n, sizeof *old), *now = mem_array(n, sizeof *now);
    uint8_t *bytes = mem_array(t->t.nbytes, 1);
    for (size_t i = 0; i < n; i++) x[i] = v[i] - offset;
    int rc = j->round == DT_NONE ? 0 : pack_round(bytes, j->round, x, n, name, e);
    if (rc == 0 && j->round != DT_NONE) dtype_to_f32(x, j->round, bytes, n);
    if (rc == 0) rc = pack_round(bytes, d, x, n, name, e);
    dtype_to_f32(old, d, t->t.data, n);
    dtype_to_f32(now, d, bytes, n);
    for (size_t i = 0; i < n; i++) {
        double wish = (double)v[i] - offset - old[i];
        j->moved += wish * wish;
        j->left += wish * ((double)now[i] - old[i]);
        j->r->moved += wish != 0;
    }
    j->r->tensors++;
    j->r->elements += dim;
    j->r->dtype = j->round == DT_NONE ? d : j->round;
    patch_add(&j->patches, t, bytes);
    mem_free(x);
    mem_free(old);
    mem_free(now);
    return rc;
}

/* A tweak d that is stored as r: <d, r> / <d, d> is 1 where nothing was lost, about 1 where rounding went up
 * and down evenly, and 0 where every element fell back to what it was. Below a tenth, what is written would
 * not be the tweak whose effect was measured. */
static int check_erased(struct job *j, struct err *e)
{
    j->r->kept = j->moved > 0 ? j->left / j->moved : 1;
    if (j->r->kept >= NORMS_KEPT_LEAST) return 0;
    return err_set(
        e, NT_EXIT_DATA,
        "%s: rounding to %s erases the tweak: %.1f %% of it are left (at least %.0f %% must be): "
        "nt-tweak --norm-dtype %s fits norms of that type, a larger --lr moves them further, and F32 "
        "norms (GGUF, --format hf --norm-dtype f32) keep everything",
        j->ck->path, dtype_name(j->r->dtype), 100 * j->r->kept, 100 * NORMS_KEPT_LEAST,
        j->r->dtype == DT_F16 ? "f16" : "bf16");
}

/* What lies beside the copy. */
static json_t *sidecar(const struct patches *p, void *ctx)
{
    const struct job *j = ctx;
    const struct norms_result *r = j->r;
    const char *name = strrchr(j->ck->path, '/');
    json_t *source = json_pack("{s:s, s:s, s:O}", "name", name && name[1] ? name + 1 : j->ck->path, "sha256",
                               checkpoint_sha256(j->ck), "files", p->files);
    return json_pack("{s:s, s:s, s:o, s:O, s:{s:I, s:I, s:I, s:f, s:f, s:s}}", "tool", "nt-pack", "version",
                     NT_VERSION, "source", source, "from", j->origin, "norms", "tensors",
                     (json_int_t)r->tensors, "elements", (json_int_t)r->elements, "changed",
                     (json_int_t)p->changed, "fraction", (double)p->changed / (double)r->elements, "kept",
                     r->kept, "dtype", dtype_name(r->dtype));
}

static int write_copy(struct job *j, bool tweaked, const char *from, const char *to, struct err *e)
{
    if (tweaked && check_erased(j, e) < 0) return -1;
    if (!tweaked) j->r->kept = 1;
    j->patches.ck = j->ck;
    int rc = patch_write(&j->patches, from, to, sidecar, j, e);
    j->r->changed = j->patches.changed;
    return rc;
}

/* As a model where it is one of a known kind: its file is then read by the model's rules. */
static int open_job(struct job *j, const char *from, struct err *e)
{
    struct err why = {0};
    j->theirs.m = model_open(from, NULL, &why);
    if (j->theirs.m && pack_bind(&j->theirs, &why) < 0) j->theirs.n_items = 0;
    j->ck = j->theirs.m ? j->theirs.m->ck : checkpoint_open(from, e);
    return j->ck ? 0 : -1;
}

static void close_job(struct job *j)
{
    struct model *m = j->theirs.m;
    patch_clear(&j->patches);
    json_decref(j->origin);
    if (!m) checkpoint_close(j->ck);
    pack_clear(&j->theirs);
    model_close(m);
}

/* ---- is it the same model? ---- */

static int not_the_streams(const char *ckpt, const char *stream, const char *name, struct err *e)
{
    return err_set(e, NT_EXIT_DATA, "%s: tensor %s: its weights are not those of %s", ckpt, name, stream);
}

static int check_plain(struct pack *p, struct job *j, const char *path, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; i < p->n_q && rc == 0; i++) {
        struct pack_item it = {.q = (int)i};
        const struct pack *t = &j->theirs;
        size_t k = 0;
        while (k < t->n_items && strcmp(t->items[k].name, p->q[i].head.name) != 0) k++;
        bool fits = k < t->n_items && t->items[k].rank == 2 &&
                    t->items[k].shape[0] == (uint64_t)p->q[i].head.out &&
                    t->items[k].shape[1] == (uint64_t)p->q[i].head.in;
        if (!fits || pack_same_values(p, &it, t->m, &t->items[k], e) < 0) {
            struct err why = *e;
            e->code = 0;
            rc = not_the_streams(path, p->stream, p->q[i].head.name, e);
            if (why.code) note("%s", why.text);
        }
    }
    return rc;
}

static int check_weights(struct pack *p, struct job *j, const char *path, struct err *e)
{
    if (j->theirs.n_items) return check_plain(p, j, path, e);
    struct model *m = model_open(path, NULL, e); /* once more, for the reason */
    model_close(m);
    return m ? err_set(e, NT_EXIT_DATA, "%s: its tensors cannot be compared", path) : -1;
}

/* The trailer's own keys say nothing that the sidecar's reader wants. */
static json_t *origin_of(const struct pack *p)
{
    static const char *const drop[] = {"records", "bytes", "xxh3", "inputs", "history", "status", "index"};
    json_t *t = json_copy(p->trailer);
    for (size_t i = 0; i < sizeof drop / sizeof *drop; i++) json_object_del(t, drop[i]);
    return json_pack("{s:s, s:s, s:o}", "qweights_xxh3", p->hash, "norms", p->tuned ? "new" : "old",
                     "trailer", t);
}

int pack_norms_into(struct pack *p, const char *from, const char *to, struct norms_result *r, struct err *e)
{
    struct job j = {.r = r, .round = p->norm_dtype};
    *r = (struct norms_result){0};
    int rc = open_job(&j, from, e);
    if (rc == 0) rc = check_weights(p, &j, from, e);
    if (rc == 0 && !p->n_norms) rc = err_set(e, NT_EXIT_DATA, "%s: holds no norms", p->stream);
    for (size_t i = 0; i < p->n_norms && rc == 0; i++)
        rc = add_patch(&j, p->norms[i].name, pack_norm_values(p, &p->norms[i]), (uint64_t)p->norms[i].dim, e);
    if (rc == 0) {
        j.origin = origin_of(p);
        rc = write_copy(&j, p->tuned, from, to, e);
    }
    close_job(&j);
    return rc;
}

/* ---- overlays ---- */

static int weights_of(struct job *j, const char *path, char hex[65], struct err *e)
{
    if (j->theirs.n_items) return pack_weights_sha256(&j->theirs, hex, e);
    struct model *m = model_open(path, NULL, e); /* for the reason */
    model_close(m);
    return m ? err_set(e, NT_EXIT_DATA, "%s: its tensors are not those of a model", path) : -1;
}

static int check_overlay(const struct checkpoint *o, struct job *j, const char *from, bool unchecked,
                         struct err *e)
{
    const char *version = json_string_value(json_object_get(o->meta, "nt_overlay"));
    const char *want = json_string_value(json_object_get(o->meta, "weights_sha256"));
    char have[65] = "";
    if (!version || strcmp(version, "1") != 0 || !want)
        return err_set(e, NT_EXIT_DATA, "%s: no overlay of norms made by nt-pack", o->path);
    if (unchecked) return 0;
    if (weights_of(j, from, have, e) < 0)
        return err_prefix(e, "its weights cannot be compared (--unchecked applies all the same)");
    return strcmp(want, have) == 0
               ? 0
               : err_set(e, NT_EXIT_DATA, "%s: its weights are not those that %s was made for", from,
                         o->path);
}

static json_t *overlay_origin(const struct checkpoint *o)
{
    return json_pack("{s:s, s:O}", "overlay_sha256", checkpoint_sha256((struct checkpoint *)(uintptr_t)o),
                     "overlay", o->meta);
}

int pack_apply(const char *overlay, const char *from, const char *to, bool unchecked, enum dtype norm_dtype,
               struct norms_result *r, struct err *e)
{
    struct job j = {.r = r, .round = norm_dtype};
    struct checkpoint *o = checkpoint_open(overlay, e);
    *r = (struct norms_result){0};
    int rc = o ? open_job(&j, from, e) : -1;
    if (rc == 0) rc = check_overlay(o, &j, from, unchecked, e);
    for (int i = 0; rc == 0 && i < o->n_tensors; i++) {
        const struct checkpoint_tensor *t = &o->tensors[i];
        if (t->t.dtype != DT_F32 || t->t.rank != 1)
            rc = err_set(e, NT_EXIT_DATA, "%s: tensor %s is not F32 [D]", overlay, t->name);
        else if (f32_first_nonfinite(t->t.data, (size_t)t->t.shape[0]) < t->t.shape[0])
            rc = err_set(e, NT_EXIT_DATA, "%s: tensor %s: a value is not finite", overlay, t->name);
        else
            rc = add_patch(&j, t->name, t->t.data, t->t.shape[0], e);
    }
    if (rc == 0) {
        const char *which = json_string_value(json_object_get(o->meta, "norms"));
        j.origin = overlay_origin(o);
        rc = write_copy(&j, which && strcmp(which, "new") == 0, from, to, e);
    }
    close_job(&j);
    checkpoint_close(o);
    return rc;
}
