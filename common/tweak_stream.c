/* SPDX-License-Identifier: Apache-2.0
 * Records in, records out; the numbers are tweak.c's. */
#include "common/tweak_stream.h"
#include <math.h>
#include <string.h>
#include "common/mem.h"

json_t *tweak_header(const json_t *in, const struct tweak_opts *o, const char *params,
                     const struct tokens *tk, const int64_t layers[2])
{
    json_t *h = json_deep_copy(in), *p = json_object_get(h, "params"), *t = json_object();
    if (!json_is_object(p)) json_object_set_new(h, "params", p = json_object());
    json_object_set_new(t, "loss", json_string(o->loss->name));
    json_object_set_new(t, "opt", json_string(o->closed_form ? "closed-form" : "adam"));
    json_object_set_new(t, "params", json_string(params));
    json_object_set_new(t, "scope", json_string("block"));
    json_object_set_new(t, "target", json_string(o->target_float ? "float" : "local"));
    if (o->closed_form) {
        json_object_set_new(t, "ridge", json_real(o->ridge));
    } else {
        json_object_set_new(t, "lr", json_real(o->lr));
        json_object_set_new(t, "lr_scale", json_real(o->lr_scale));
        json_object_set_new(t, "iters", json_integer(o->iters));
    }
    if (o->relative) json_object_set_new(t, "norms_step", json_string("relative"));
    json_object_set_new(t, "skip_first", json_integer(o->skip_first));
    if (o->norm_dtype != DT_NONE)
        json_object_set_new(t, "norm_dtype", json_string(dtype_name(o->norm_dtype)));
    if (o->bf16) json_object_set_new(t, "precision", json_string("bf16"));
    if (layers[0] > 0 || layers[1] < INT64_MAX)
        json_object_set_new(t, "layers", json_pack("[I,I]", (json_int_t)layers[0], (json_int_t)layers[1]));
    json_object_set_new(t, "tokens", json_string(tk->hash));
    json_object_set_new(p, "tweak", t);
    json_object_del(h, "producer");
    return h;
}

/* ---- reading ---- */

static int take_tensor(struct stream_reader *r, struct record *rec, struct tweak *t, const struct model *m,
                       int layer, struct tweak_input *in, struct err *e)
{
    struct qtensor got;
    if (qtensor_read(r, rec, &got, e)) return -1;
    int role = model_find_role(m, layer, got.name);
    int rows = 0, cols = 0, rc = 0;
    if (role >= 0) role_dims(&m->c.block, role, &rows, &cols);
    if (role < 0 || got.layer != layer)
        rc = stream_err(r, e, "no linear of layer %d of %s", layer, m->ck->path);
    else if (in->has[role])
        rc = stream_err(r, e, "this tensor comes twice");
    else if (got.out != rows || got.in != cols)
        rc = stream_err(r, e, "it is %d x %d, in %s %d x %d", got.out, got.in, m->ck->path, rows, cols);
    else
        tweak_linear(t, in, role, &got);
    qtensor_clear(&got);
    return rc;
}

static int take_norm(struct stream_reader *r, struct record *rec, const struct model *m, int layer,
                     struct tweak_input *in, struct err *e)
{
    const char *which = json_string_value(json_object_get(rec->meta, "which"));
    int i = model_find_norm(m, layer, rec->name);
    size_t stride = (size_t)norm_max_dim(&m->c.block),
           n = i < 0 ? 0 : (size_t)norm_dim(&m->c.block, i % NORM_COUNT);
    if (!which || strcmp(which, "old"))
        return stream_err(r, e, "the norms are tweaked already; give the stream that nt-quant wrote");
    if (i < 0 || rec->t.dtype != DT_F32 || rec->t.rank != 1 || rec->t.shape[0] != n)
        return stream_err(r, e, "no norm of layer %d of %s", layer, m->ck->path);
    if (in->has_norm[i]) return stream_err(r, e, "this norm comes twice");
    if (!in->norms) in->norms = MEM_NEW(float, NORM_VECTORS *stride);
    float *to = in->norms + (size_t)i * stride;
    if (stream_payload(r, rec, to, e)) return -1;
    if (f32_first_nonfinite(to, n) < n) return stream_err(r, e, "a value is not finite");
    in->has_norm[i] = true;
    return 0;
}

/* Sums over every training sequence; those of other sequences, or not needed, are passed over. */
static int take_target(struct stream_reader *r, struct record *rec, const struct tweak *t, int layer,
                       struct tweak_input *in, struct err *e)
{
    uint64_t want = tweak_target_values(t), D = (uint64_t)tweak_model(t)->c.block.D;
    if (!want || rec->layer != layer || rec->t.dtype != DT_F64 || rec->t.rank != 3 || rec->t.shape[2] != D ||
        rec->t.shape[1] != 2 || rec->t.shape[0] * 2 * D != want)
        return 0;
    if (in->target) return stream_err(r, e, "this target comes twice");
    in->target = MEM_NEW(double, want);
    if (stream_payload(r, rec, in->target, e)) return -1;
    return f64_first_nonfinite(in->target, want) < want ? stream_err(r, e, "a value is not finite") : 0;
}

int tweak_read_layer(struct stream_reader *r, struct tweak *t, const struct model *m, int layer,
                     struct tweak_input *in, struct err *e)
{
    const char *name = stream_name(r);
    struct record rec;
    int got, rc = 0;
    while (!rc && (got = stream_next(r, &rec, e)) > 0) {
        bool end = !strcmp(rec.kind, "LayerEnd"), tensor = !strcmp(rec.kind, "QTensor");
        if (end && rec.layer == layer) return 0;
        if (end || (tensor && rec.layer > layer))
            return err_set(e, NT_EXIT_DATA,
                           "%s: layer %d comes where layer %d is due: nt-tweak needs every layer, in order",
                           name, (int)rec.layer, layer);
        if (tensor)
            rc = take_tensor(r, &rec, t, m, layer, in, e);
        else if (!strcmp(rec.kind, "Norm"))
            rc = take_norm(r, &rec, m, layer, in, e);
        else if (!strcmp(rec.kind, "target"))
            rc = take_target(r, &rec, t, layer, in, e);
        else
            rc = stream_unknown(r, &rec, e);
    }
    if (!rc && got == 0)
        err_set(e, NT_EXIT_DATA, "%s: ends before layer %d; %s has %d layers", name, layer, m->ck->path,
                m->c.n_layers);
    return -1;
}

int tweak_read_rest(struct stream_reader *r, const struct model *m, struct err *e)
{
    struct record rec;
    int got;
    while ((got = stream_next(r, &rec, e)) > 0) {
        if (rec.layer >= 0 && rec.layer < m->c.n_layers)
            return err_set(e, NT_EXIT_DATA, "%s: layer %d comes after the layers of this run", stream_name(r),
                           (int)rec.layer);
        if (!strcmp(rec.kind, "LayerEnd"))
            return err_set(e, NT_EXIT_DATA, "%s: has a layer %d, %s has %d layers", stream_name(r),
                           (int)rec.layer, m->ck->path, m->c.n_layers);
        if (stream_unknown(r, &rec, e)) return -1;
    }
    return got;
}

/* ---- writing ---- */

static int write_norm(struct stream_writer *w, const char *name, int layer, const char *which, const float *v,
                      int D, struct err *e)
{
    struct tensor t = {.dtype = DT_F32, .rank = 1, .shape = {(uint64_t)D}, .nbytes = (uint64_t)D * sizeof *v};
    t.data = (void *)v;
    json_t *meta = json_pack("{s:s, s:i, s:s}", "name", name, "layer", layer, "which", which);
    int rc = stream_write(w, "Norm", meta, &t, e);
    json_decref(meta);
    return rc;
}

/* JSON has no NaN: a loss that was not computed is null. */
static json_t *real_or_null(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static json_t *report_meta(const struct tweak_report *rep)
{
    json_t *meta = json_pack("{s:i, s:b}", "layer", rep->layer, "changed", rep->changed);
    if (!rep->tuned) return meta;
    json_object_set_new(meta, "lr", json_real(rep->lr));
    if (rep->ridge > 0) json_object_set_new(meta, "ridge", json_real(rep->ridge));
    json_object_set_new(meta, "train",
                        json_pack("[o,o]", real_or_null(rep->train[0]), real_or_null(rep->train[1])));
    json_object_set_new(meta, "holdout",
                        json_pack("[o,o]", real_or_null(rep->holdout[0]), real_or_null(rep->holdout[1])));
    json_object_set_new(meta, "moved", json_real(rep->moved));
    if (rep->why[0]) json_object_set_new(meta, "dropped", json_string(rep->why));
    return meta;
}

int tweak_write_layer(struct stream_writer *w, const struct tweak *t, const struct tweak_input *in,
                      const float *old_v, const float *new_v, const struct tweak_report *rep, struct err *e)
{
    char name[256];
    for (int i = 0, vector, at, n; tweak_norm_at(t, i, &vector, &at, &n); i++) {
        model_norm_vector_name(tweak_model(t), rep->layer, vector, name);
        if ((!in->has_norm[vector] && write_norm(w, name, rep->layer, "old", old_v + at, n, e)) ||
            write_norm(w, name, rep->layer, "new", new_v + at, n, e))
            return -1;
    }
    json_t *meta = report_meta(rep);
    int rc = stream_write(w, "tweak", meta, NULL, e);
    json_decref(meta);
    return rc ? rc : stream_layer_end(w, rep->layer, e);
}

json_t *tweak_trailer(const struct tweak_verdict *v, const json_t *in)
{
    json_t *t = json_pack("{s:s, s:s, s:b, s:I}", "verdict", v->verdict, "norms", v->norms, "changed",
                          v->changed, "n", (json_int_t)v->n);
    if (json_object_get(in, "bits")) json_object_set(t, "bits", json_object_get(in, "bits"));
    if (!v->n) return t;
    json_object_set_new(t, v->ce ? "ce_old" : "kl_old", real_or_null(v->kl_old));
    json_object_set_new(t, v->ce ? "ce_new" : "kl_new", real_or_null(v->kl_new));
    json_object_set_new(t, v->ce ? "ce_gain_stderr" : "kl_gain_stderr", real_or_null(v->kl_gain_err));
    json_object_set_new(t, "top1_old", json_real(v->top1_old));
    json_object_set_new(t, "top1_new", json_real(v->top1_new));
    return t;
}

int tweak_report_line(struct outfile *f, const struct tweak_report *rep, struct err *e)
{
    char line[256], *at = line;
    double v[] = {rep->train[0], rep->train[1], rep->holdout[0], rep->holdout[1], rep->moved};
    at += snprintf(at, sizeof line, "%d\t%.6g", rep->layer, rep->tuned ? rep->lr : 0);
    for (size_t i = 0; i < sizeof v / sizeof *v; i++)
        at += isnan(v[i]) ? snprintf(at, sizeof line - (size_t)(at - line), "\t")
                          : snprintf(at, sizeof line - (size_t)(at - line), "\t%.6g", v[i]);
    at += snprintf(at, sizeof line - (size_t)(at - line), "\t%d\t%.2f\n", rep->changed, rep->seconds);
    return outfile_write(f, line, (size_t)(at - line), e);
}
