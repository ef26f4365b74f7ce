/* SPDX-License-Identifier: Apache-2.0
 * Checkpoints of a model-scope run, an NTS stream of kind "tweakstate": one record State without payload
 * {step, best_step, lr, history}, then Values {name} F32 [n] for values, Adam's moments and the best values,
 * and F64 [4, sequences] of the held-out sequences. The header holds all that the run depends on, and a
 * checkpoint of another run is refused. */
#include "common/scope_train.h"
#include <math.h>
#include <string.h>
#include <unistd.h>
#include "common/mem.h"

static json_t *state_header(const struct scope_train *t)
{
    const struct scope *s = t->s;
    json_t *h = json_pack("{s:s, s:s, s:s, s:I, s:b}", "kind", "tweakstate", "qweights", s->in->hash,
                          "tokens", t->tk->hash, "values", (json_int_t)s->n, "bf16", s->be->bf16);
    json_object_set_new(h, "params", json_pack("{s:o}", "tweak", scope_settings(s->o, t->tk)));
    json_object_set_new(h, "model", model_identity(s->m));
    return h;
}

/* ---- writing ---- */

static int write_values(struct stream_writer *w, const char *name, enum dtype type, uint64_t rows, uint64_t n,
                        const void *v, struct err *e)
{
    struct tensor x = {.dtype = type, .rank = rows > 1 ? 2 : 1, .shape = {rows > 1 ? rows : n, n}};
    x.nbytes = rows * n * (uint64_t)dtype_block_bytes(type);
    x.data = (void *)v;
    json_t *meta = json_pack("{s:s}", "name", name);
    int rc = stream_write(w, "Values", meta, &x, e);
    json_decref(meta);
    return rc;
}

static int write_records(const struct scope_train *t, struct stream_writer *w, struct err *e)
{
    const struct scope *s = t->s;
    const dev moments[] = {s->am, s->av};
    json_t *meta = json_pack("{s:i, s:i, s:f, s:O}", "step", t->step, "best_step", t->best_step, "lr", t->lr,
                             "history", t->history);
    int rc = stream_write(w, "State", meta, NULL, e);
    json_decref(meta);
    float *host = MEM_NEW(float, s->n);
    s->be->get(host, s->p, s->n * sizeof *host); /* not s->value, see scope_apply */
    if (!rc) rc = write_values(w, "value", DT_F32, 1, s->n, host, e);
    for (int i = 0; i < 2 && !rc; i++) {
        s->be->get(host, moments[i], s->n * sizeof *host);
        rc = write_values(w, i ? "v" : "m", DT_F32, 1, s->n, host, e);
    }
    if (!rc) rc = write_values(w, "best", DT_F32, 1, s->n, t->best, e);
    if (!rc && t->n_hold) rc = write_values(w, "holdout", DT_F64, 4, (uint64_t)t->n_hold, t->kl_old, e);
    mem_free(host);
    return rc;
}

int scope_state_write(const struct scope_train *t, struct err *e)
{
    struct outfile *f = outfile_open(t->s->o->checkpoint, e);
    json_t *h = f ? state_header(t) : NULL;
    struct stream_writer *w = f ? stream_create(f, h, e) : NULL;
    json_decref(h);
    if (!w) return -1;
    if (!write_records(t, w, e)) return stream_finish(w, NULL, e);
    stream_abort(w, e);
    return -1;
}

/* ---- reading ---- */

/* Names the first setting that differs. */
static int check_same(const struct scope_train *t, const json_t *have, struct err *e)
{
    json_t *want = state_header(t), *v;
    const char *key, *differs = NULL;
    json_object_foreach(want, key, v) if (!differs && !json_equal(v, json_object_get(have, key))) differs =
        key;
    const json_t *a = json_object_get(json_object_get(want, "params"), "tweak");
    const json_t *b = json_object_get(json_object_get(have, "params"), "tweak");
    if (differs && !strcmp(differs, "params")) {
        json_object_foreach((json_t *)a, key, v) if (!json_equal(v, json_object_get(b, key))) differs = key;
        json_object_foreach((json_t *)b, key, v) if (!json_object_get(a, key)) differs = key;
    }
    int rc =
        differs
            ? err_set(
                  e, NT_EXIT_DATA,
                  "%s: is of another run (%.40s differs); remove it to start afresh, or name another file",
                  t->s->o->checkpoint, differs)
            : 0;
    json_decref(want);
    return rc;
}

static int take_state(struct scope_train *t, const json_t *meta)
{
    json_t *history = json_object_get(meta, "history");
    t->step = (int)json_integer_value(json_object_get(meta, "step"));
    t->best_step = (int)json_integer_value(json_object_get(meta, "best_step"));
    t->lr = json_number_value(json_object_get(meta, "lr"));
    if (!json_is_array(history) || t->step < 1 || t->step > t->s->o->steps || t->best_step < 0 ||
        t->best_step > t->step)
        return -1;
    json_decref(t->history);
    t->history = json_deep_copy(history);
    return 0;
}

/* Which of the vectors a record is: its place, or -1. */
static int find_values(const struct scope_train *t, const struct record *rec)
{
    static const char *const names[] = {"value", "m", "v", "best", "holdout"};
    uint64_t bytes = t->s->n * sizeof(float), hold = 4 * (uint64_t)t->n_hold * sizeof(double);
    for (int i = 0; i < 5; i++)
        if (!strcmp(rec->name, names[i]) && rec->has_payload && rec->t.nbytes == (i < 4 ? bytes : hold) &&
            rec->t.dtype == (i < 4 ? DT_F32 : DT_F64))
            return i;
    return -1;
}

static int take_values(struct scope_train *t, struct stream_reader *r, struct record *rec, int *seen,
                       struct err *e)
{
    int i = find_values(t, rec);
    if (i < 0 || *seen & 1 << i) return stream_err(r, e, "not what a checkpoint holds");
    *seen |= 1 << i;
    if (i >= 3) return stream_payload(r, rec, i == 3 ? (void *)t->best : t->kl_old, e);
    float *host = MEM_NEW(float, t->s->n);
    int rc = stream_payload(r, rec, host, e);
    if (!rc && i) t->s->be->put(i == 1 ? t->s->am : t->s->av, host, t->s->n * sizeof *host);
    if (!rc && i == 0) {
        float *value = MEM_NEW(float, t->s->n);
        memcpy(value, host, t->s->n * sizeof *host);
        scope_apply(t->s, value);
        scope_put(t->s, value);
        t->s->be->put(t->s->p, host, t->s->n * sizeof *host);
        mem_free(value);
    }
    mem_free(host);
    return rc;
}

int scope_state_read(struct scope_train *t, struct err *e)
{
    const char *path = t->s->o->checkpoint;
    struct record rec;
    int got = 0, rc, seen = 0, want = t->n_hold ? 31 : 15;
    bool state = false;
    if (access(path, F_OK)) return 0;
    struct stream_reader *r = stream_open(path, "tweakstate", e);
    if (!r) return -1;
    rc = check_same(t, stream_header(r), e);
    while (!rc && (got = stream_next(r, &rec, e)) > 0)
        if (!strcmp(rec.kind, "State")) {
            rc = take_state(t, rec.meta) ? stream_err(r, e, "not what a checkpoint holds") : 0;
            state = true;
        } else {
            rc = strcmp(rec.kind, "Values") ? stream_unknown(r, &rec, e) : take_values(t, r, &rec, &seen, e);
        }
    if (got < 0) rc = -1;
    if (!rc && (!state || seen != want))
        rc = err_set(e, NT_EXIT_DATA, "%s: a part of the checkpoint is missing", path);
    stream_close(r);
    return rc ? -1 : 1;
}
