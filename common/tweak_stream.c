/* SPDX-License-Identifier: Apache-2.0
 * Records in, records out; the numbers are tweak.c's. */
#include "common/tweak_stream.h"
#include <ctype.h>
#include <math.h>
#include <string.h>
#include "common/mem.h"

json_t *tweak_header(const json_t *in, const struct tweak_opts *o, const char *params, const struct tokens *tk,
                     const int64_t layers[2])
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
    json_object_set_new(t, "skip_first", json_integer(o->skip_first));
    if (layers[0] > 0 || layers[1] < INT64_MAX)
        json_object_set_new(t, "layers", json_pack("[I,I]", (json_int_t)layers[0], (json_int_t)layers[1]));
    json_object_set_new(t, "tokens", json_string(tk->hash));
    json_object_set_new(p, "tweak", t);
    json_object_del(h, "producer");
    return h;
}

/* ---- reading ---- */

static enum role find_role(const struct model *m, int layer, const char *name)
{
    char own[256];
    for (int r = 0; r < ROLE_COUNT; r++) {
        model_tensor_name(m, layer, r, own);
        if (!strcmp(own, name)) return r;
    }
    return ROLE_COUNT;
}

static int take_tensor(struct stream_reader *r, struct stream_writer *w, struct record *rec, const struct model *m,
                       int layer, struct qtensor *q, struct err *e)
{
    const char *in = stream_name(r);
    struct qtensor got;
    if (qtensor_read(r, rec, &got, e)) return err_prefix(e, "%s", in);
    enum role role = find_role(m, layer, got.name);
    int out = 0, cols = 0, rc = -1;
    if (role < ROLE_COUNT) role_dims(&m->c.block, role, &out, &cols);
    if (role == ROLE_COUNT || got.layer != layer)
        err_set(e, NT_EXIT_DATA, "%s: %s (layer %d) is no linear of layer %d of %s", in, got.name, got.layer, layer,
                m->ck->path);
    else if (q[role].out)
        err_set(e, NT_EXIT_DATA, "%s: %s comes twice", in, got.name);
    else if (got.out != out || got.in != cols)
        err_set(e, NT_EXIT_DATA, "%s: %s is %d x %d, in the model it is %d x %d", in, got.name, got.out, got.in, out,
                cols);
    else
        rc = qtensor_write(w, &got, e);
    if (rc) {
        qtensor_clear(&got);
        return -1;
    }
    q[role] = got;
    return 0;
}

/* One record that is neither a quantized tensor nor a LayerEnd. */
static int pass_other(struct stream_reader *r, struct stream_writer *w, struct record *rec, struct err *e)
{
    const char *in = stream_name(r);
    if (!strcmp(rec->kind, "Norm"))
        return err_set(e, NT_EXIT_DATA, "%s: its norms are tweaked already (%s); give the stream that nt-quant wrote", in,
                       rec->name);
    if (!strcmp(rec->kind, "QTensor"))
        return err_set(e, NT_EXIT_DATA, "%s: quantized tensor %s after the last layer: only linears of the blocks can be "
                       "quantized here", in, rec->name);
    if (!islower((unsigned char)rec->kind[0]))
        return err_set(e, NT_EXIT_DATA, "%s: record %s of kind %s is not known here", in, rec->name, rec->kind);
    return stream_copy(r, rec, w, e);
}

int tweak_read_layer(struct stream_reader *r, struct stream_writer *w, const struct model *m, int layer,
                     struct qtensor *q, struct err *e)
{
    const char *in = stream_name(r);
    struct record rec;
    int got;
    while ((got = stream_next(r, &rec, e)) > 0) {
        if (!strcmp(rec.kind, "LayerEnd") && rec.layer == layer) return 0;
        if (!strcmp(rec.kind, "LayerEnd") || (!strcmp(rec.kind, "QTensor") && rec.layer > layer))
            return err_set(e, NT_EXIT_DATA, "%s: layer %d comes where layer %d is due: nt-tweak needs every layer, in "
                           "order", in, (int)rec.layer, layer);
        if (!strcmp(rec.kind, "QTensor") ? take_tensor(r, w, &rec, m, layer, q, e) : pass_other(r, w, &rec, e)) return -1;
    }
    if (got == 0)
        err_set(e, NT_EXIT_DATA, "%s: ends before layer %d; %s has %d layers", in, layer, m->ck->path, m->c.n_layers);
    return -1;
}

int tweak_read_rest(struct stream_reader *r, struct stream_writer *w, const struct model *m, struct err *e)
{
    struct record rec;
    int got;
    while ((got = stream_next(r, &rec, e)) > 0) {
        if (!strcmp(rec.kind, "LayerEnd"))
            return err_set(e, NT_EXIT_DATA, "%s: has a layer %d, %s has %d layers", stream_name(r), (int)rec.layer,
                           m->ck->path, m->c.n_layers);
        if (pass_other(r, w, &rec, e)) return -1;
    }
    return got;
}

/* ---- writing ---- */

static int write_norm(struct stream_writer *w, const char *name, int layer, const char *which, const float *v, int D,
                      struct err *e)
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
    json_object_set_new(meta, "train", json_pack("[o,o]", real_or_null(rep->train[0]), real_or_null(rep->train[1])));
    json_object_set_new(meta, "holdout", json_pack("[o,o]", real_or_null(rep->holdout[0]), real_or_null(rep->holdout[1])));
    json_object_set_new(meta, "moved", json_real(rep->moved));
    if (rep->why[0]) json_object_set_new(meta, "dropped", json_string(rep->why));
    return meta;
}

int tweak_write_layer(struct stream_writer *w, const struct tweak *t, const float *old_v, const float *new_v,
                      const struct tweak_report *rep, struct err *e)
{
    char name[256];
    int D = tweak_norm_dim(t);
    for (int i = 0; tweak_norm_at(t, rep->layer, i, name); i++)
        if (write_norm(w, name, rep->layer, "old", old_v + (size_t)i * D, D, e) ||
            write_norm(w, name, rep->layer, "new", new_v + (size_t)i * D, D, e))
            return -1;
    json_t *meta = report_meta(rep);
    int rc = stream_write(w, "tweak", meta, NULL, e);
    json_decref(meta);
    return rc ? rc : stream_layer_end(w, rep->layer, e);
}

json_t *tweak_trailer(const struct tweak_verdict *v)
{
    json_t *t = json_pack("{s:s, s:s, s:b, s:I}", "verdict", v->verdict, "norms", v->norms, "changed", v->changed, "n",
                          (json_int_t)v->n);
    if (!v->n) return t;
    json_object_set_new(t, "kl_old", real_or_null(v->kl_old));
    json_object_set_new(t, "kl_new", real_or_null(v->kl_new));
    json_object_set_new(t, "kl_gain_stderr", real_or_null(v->kl_gain_err));
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
