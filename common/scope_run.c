/* SPDX-License-Identifier: Apache-2.0
 * nt-tweak --scope model from the qweights stream to the new one. Quantized tensors pass as they are unless
 * their scales were trained; norms are written old and new, the final one after the last layer. */
#include "common/scope_train.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/mem.h"
#include "common/tool.h"
#include "common/tweak_stream.h"

int scope_loss(const char *name, struct scope_opts *o)
{
    o->kl = strstr(name, "kl") ? 1 : 0;
    o->ce = strstr(name, "ce") ? 1 : 0;
    return strcmp(name, "kl") && strcmp(name, "ce") && strcmp(name, "kl+ce") ? -1 : 0;
}

json_t *scope_settings(const struct scope_opts *o, const struct tokens *tk)
{
    json_t *t = json_pack("{s:s, s:s, s:s, s:s}", "scope", "model", "loss",
                          o->kl <= 0  ? "ce"
                          : o->ce > 0 ? "kl+ce"
                                      : "kl",
                          "opt", "adamw", "params",
                          o->all      ? "all"
                          : o->scales ? o->qk ? "norms+scales+qk" : "norms+scales"
                          : o->qk     ? "norms+qk"
                                      : "norms");
    json_object_set_new(t, "final_norm", json_boolean(o->final_norm));
    json_object_set_new(t, "lr", isnan(o->lr) ? json_string("auto") : json_real(o->lr));
    if (o->scales) json_object_set_new(t, "scales_step", json_real(o->scales_step));
    if (o->relative) json_object_set_new(t, "norms_step", json_string("relative"));
    json_object_set_new(t, "weight_decay", json_real(o->weight_decay));
    json_object_set_new(t, "clip", json_real(o->clip));
    const struct {
        const char *key;
        int value;
    } whole[] = {{"steps", o->steps},
                 {"batch", o->batch},
                 {"seq", o->seq},
                 {"warmup", o->warmup},
                 {"eval_every", o->eval_every}};
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        json_object_set_new(t, whole[i].key, json_integer(whole[i].value));
    json_object_set_new(t, "seed", json_integer((json_int_t)o->seed));
    if (o->norm_dtype != DT_NONE)
        json_object_set_new(t, "norm_dtype", json_string(dtype_name(o->norm_dtype)));
    if (o->bf16) json_object_set_new(t, "precision", json_string("bf16"));
    if (o->layers[0] > 0 || o->layers[1] < INT64_MAX)
        json_object_set_new(t, "layers",
                            json_pack("[I,I]", (json_int_t)o->layers[0], (json_int_t)o->layers[1]));
    json_object_set_new(t, "tokens", json_string(tk->hash));
    return t;
}

static json_t *make_header(const struct scope_input *in, const struct scope_opts *o, const struct tokens *tk)
{
    json_t *h = json_deep_copy(in->header), *p = json_object_get(h, "params");
    if (!json_is_object(p)) json_object_set_new(h, "params", p = json_object());
    json_object_set_new(p, "tweak", scope_settings(o, tk));
    json_object_del(h, "producer");
    return h;
}

/* ---- writing ---- */

int scope_write_norm(const struct scope *s, struct stream_writer *w, int i, struct err *e)
{
    const float *both[] = {s->in->norms + s->in->at[i], scope_norm(s, i)};
    uint64_t size = s->in->at[i + 1] - s->in->at[i];
    bool quiet =
        !norm_tweaked(i % NORM_COUNT) && i < s->L * NORM_VECTORS; /* of q and k: only what was trained */
    char name[256];
    if (!size || (quiet && s->norm_at[i] == SCOPE_NONE && !s->in->has_norm[i])) return 0;
    int layer = model_norm_part_name(s->m, i, name);
    for (int k = 0; k < 2; k++) {
        struct tensor t = {.dtype = DT_F32, .rank = 1, .shape = {size}, .nbytes = size * sizeof(float)};
        t.data = (void *)both[k];
        json_t *meta = json_pack("{s:s, s:s}", "name", name, "which", k ? "new" : "old");
        if (layer >= 0) json_object_set_new(meta, "layer", json_integer(layer));
        int rc = stream_write(w, "Norm", meta, &t, e);
        json_decref(meta);
        if (rc) return -1;
    }
    return 0;
}

/* The same codes with the trained scales. */
static int write_rescaled(struct scope *s, struct stream_writer *w, int i, struct err *e)
{
    struct qtensor q;
    if (scope_scales(s, i / s->in->per, i % s->in->per, e) ||
        scope_input_view(s->in, i / s->in->per, i % s->in->per, &q, e))
        return -1;
    q.scale = s->scale;
    if (q.minimum) q.minimum = s->minimum;
    return qtensor_write(w, &q, e);
}

/* Index of a linear whose scales were trained, or -1. */
static int trained(const struct scope *s, const struct record *rec)
{
    for (int r = 0; r < s->in->per && rec->layer >= 0 && rec->layer < s->L; r++) {
        int i = (int)rec->layer * s->in->per + r;
        if (s->scale_at[i] != SCOPE_NONE && !strcmp(s->in->t[i].q.name, rec->name)) return i;
    }
    return -1;
}

static int write_record(struct scope *s, struct stream_reader *r, struct record *rec, struct stream_writer *w,
                        bool *skip, struct err *e)
{
    if (!strcmp(rec->kind, "LayerEnd")) {
        for (int i = 0; i < NORM_VECTORS; i++)
            if (scope_write_norm(s, w, (int)rec->layer * NORM_VECTORS + i, e)) return -1;
        return stream_layer_end(w, (int)rec->layer, e);
    }
    if (!strcmp(rec->kind, "Norm") || !strcmp(rec->kind, "tweak") || !strcmp(rec->kind, "target")) return 0;
    if (!strcmp(rec->kind, "QPart") && *skip) return 0;
    *skip = false;
    int i = !strcmp(rec->kind, "QTensor") ? trained(s, rec) : -1;
    if (i < 0) return stream_copy(r, rec, w, e);
    *skip = true;
    return write_rescaled(s, w, i, e);
}

static json_t *make_trailer(const struct scope_train *t, const json_t *in)
{
    json_t *x = tweak_trailer(&t->v, in);
    json_object_set_new(x, "best_step", json_integer(t->best_step));
    json_object_set_new(x, "steps", json_integer(t->step));
    json_object_set_new(x, "lr", json_real(t->lr));
    json_object_set(x, "history", t->history);
    if (t->why[0]) json_object_set_new(x, "stopped", json_string(t->why));
    return x;
}

static int write_result(struct scope_train *t, struct stream_writer *w, struct err *e)
{
    struct scope *s = t->s;
    struct record rec;
    int got = 0, rc = 0;
    bool skip = false;
    struct stream_reader *r = stream_open(s->in->src.path, "qweights", e);
    if (!r) rc = -1;
    while (!rc && (got = stream_next(r, &rec, e)) > 0) rc = write_record(s, r, &rec, w, &skip, e);
    if (got < 0) rc = -1;
    if (!rc && strcmp(stream_hash(r), s->in->hash))
        rc = err_set(e, NT_EXIT_DATA, "%s: changed while it was in use", s->in->src.given);
    for (int i = s->L * NORM_VECTORS; i < s->in->n_norms && !rc; i++)
        if (s->norm_at[i] != SCOPE_NONE || s->in->has_norm[i]) rc = scope_write_norm(s, w, i, e);
    json_t *trailer = rc ? NULL : make_trailer(t, stream_trailer(r));
    if (!rc) {
        stream_note_input(w, r);
        stream_note_provenance(w, t->tk->provenance);
        rc = stream_finish(w, trailer, e);
    } else {
        stream_abort(w, e);
    }
    json_decref(trailer);
    stream_close(r);
    return rc;
}

static int write_all(struct scope_train *t, struct stream_writer *w, struct err *e)
{
    json_t *trailer = make_trailer(t, NULL);
    int rc = scope_all_write(t->s, w, e);
    stream_note_provenance(w, t->tk->provenance);
    if (!rc)
        rc = stream_finish(w, trailer, e);
    else
        stream_abort(w, e);
    json_decref(trailer);
    return rc;
}

/* ---- the job ---- */

/* A pipe's size is not known yet: the float model's linears at a byte a weight are more than it brings. */
static void predict_spool(const struct model_config *c, const char *path)
{
    if (!respool_copies(path)) return;
    tool_predict(0, block_weights(&c->block) * (uint64_t)c->n_layers, tempfile_dir());
}

/* Packed codes are kept in memory unless --max-mem says that they do not fit there; then in a temporary file.
 */
static bool predict(const struct model_config *c, const struct scope_job *job, const struct scope_input *in)
{
    uint64_t bytes = scope_bytes(c, job->o, in) + scope_train_bytes(c, job->o, job->tk);
    bool in_memory = !mem_limit() || bytes + in->packed_bytes <= mem_limit();
    if (in_memory) {
        tool_predict(bytes + in->packed_bytes, 0, NULL);
    } else {
        note("codes are kept in a temporary file: --max-mem leaves no room for them");
        tool_predict(bytes, in->packed_bytes, tempfile_dir());
    }
    return in_memory;
}

static double work(const struct scope_opts *o, const struct tokens *tk, const struct model_config *c)
{
    double R = (double)o->batch * o->seq, hold = (double)tk->n_holdout * tk->T;
    double steps = o->steps + (isnan(o->lr) ? 3 * ((o->steps + 3) / 4) : 0);
    return c->n_layers * (steps * R * (o->kl > 0 ? 5 : 4) + hold * (2 + ceil(steps / o->eval_every)));
}

static void say(const struct scope_train *t, const struct scope_input *in)
{
    const struct tweak_verdict *v = &t->v;
    if (t->why[0]) warn("training ended after step %d: %s; a smaller --lr may be needed", t->step, t->why);
    if (in->tweaked) note("%s: was tweaked already; its valid norms are the old ones here", in->src.given);
    if (v->n)
        note("step %d of %d is the best, lr %g; chosen by the same held-out sequences that the verdict is "
             "about",
             t->best_step, t->step, t->lr);
}

static int open_files(const struct scope_job *job, const struct scope_input *in, struct stream_writer **w,
                      struct outfile **report, struct err *e)
{
    struct outfile *out = outfile_open(job->out, e);
    if (!out) return -1;
    json_t *header = make_header(in, job->o, job->tk);
    *w = stream_create(out, header, e);
    json_decref(header);
    if (!*w) return -1;
    if (!job->report) return 0;
    *report = outfile_open(job->report, e);
    char head[sizeof SCOPE_REPORT_HEAD];
    snprintf(head, sizeof head, SCOPE_REPORT_HEAD, job->o->all ? "ce" : "kl");
    return *report ? outfile_write(*report, head, strlen(head), e) : -1;
}

static int open_input(struct scope_input *in, struct model *m, const struct scope_job *job, struct err *e)
{
    if (job->o->all) {
        if (scope_input_none(in, m, e)) return -1;
        predict(&m->c, job, in);
        return 0;
    }
    predict_spool(&m->c, job->qweights);
    return scope_input_open(in, job->qweights, m, e) || scope_input_read(in, m, predict(&m->c, job, in), e)
               ? -1
               : 0;
}

int scope_run(struct model *m, const struct scope_job *job, struct tweak_verdict *v, struct err *e)
{
    struct scope_input in;
    struct scope_train t = {0};
    struct stream_writer *w = NULL;
    struct scope *s = NULL;
    struct outfile *report = NULL;
    int rc = open_input(&in, m, job, e);
    if (!rc) rc = open_files(job, &in, &w, &report, e);
    if (!rc) rc = (s = scope_open(m, &in, job->o, job->tk->T, e)) ? 0 : -1;
    if (!rc) progress_start("tweak", "rows", work(job->o, job->tk, &m->c));
    if (!rc) rc = scope_train_open(&t, s, job->tk, e);
    t.report = report;
    if (!rc) rc = scope_train(&t, e);
    if (!rc) progress_end();
    if (!rc && report) rc = outfile_commit(report, e);
    if (!rc) rc = job->o->all ? write_all(&t, w, e) : write_result(&t, w, e);
    if (!rc) {
        *v = t.v;
        say(&t, &in);
    }
    scope_train_clear(&t);
    scope_close(s);
    scope_input_clear(&in);
    return rc;
}
