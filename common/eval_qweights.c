/* SPDX-License-Identifier: Apache-2.0
 * Reading a qweights stream for evaluation. The first pass checks everything, counts stored bytes and keeps
 * the norms (small); the second delivers quantized tensors when their layer is due, and starts again where
 * layers are not in ascending order. */
#include "common/eval_qweights.h"
#include <ctype.h>
#include <string.h>
#include "common/mem.h"
#include "common/qtensor.h"
#include "common/tempfile.h"

enum which { OLD, NEW, WHICH_COUNT };

struct qweights {
    struct respool src;
    int n_layers;
    bool *seen; /* layers with a LayerEnd */
    double stored_bits, weights;
    int n_norms;
    float **norm[WHICH_COUNT]; /* [n_norms] in the order of model_norm_part, or NULL */
    enum which use;
    bool any_norm;
    struct stream_reader *r; /* second pass */
};

/* ---- first pass ---- */

static int check_tensor(const struct qweights *q, const struct model *m, const struct qtensor *t,
                        struct err *e)
{
    int role = model_find_role(m, t->layer, t->name), out, in;
    if (role < 0)
        return err_set(e, NT_EXIT_DATA, "%s: %s (layer %d) is no linear of a block of %s", q->src.given,
                       t->name, t->layer, m->ck->path);
    role_dims(&m->c.block, role, &out, &in);
    if (t->out != out || t->in != in)
        return err_set(e, NT_EXIT_DATA, "%s: %s is %d x %d, in the model it is %d x %d", q->src.given,
                       t->name, t->out, t->in, out, in);
    return 0;
}

static int take_tensor(struct qweights *q, const struct model *m, struct record *rec, struct err *e)
{
    struct qtensor t = {0};
    int rc = qtensor_read(q->r, rec, &t, e);
    if (!rc) rc = check_tensor(q, m, &t, e);
    bool floats = t.form == QF_PLAIN && dtype_block(t.plain.dtype) == 1;
    if (!rc && !floats) { /* a linear that a plan leaves as it is does not count as quantized */
        q->stored_bits += 8.0 * (double)qtensor_stored_bytes(&t);
        q->weights += (double)t.out * (double)t.in;
    }
    qtensor_clear(&t);
    return rc;
}

/* Where the vector of a Norm record belongs, or NULL; *D: its length. */
static float **norm_place(struct qweights *q, const struct model *m, const struct record *rec, enum which w,
                          size_t *D)
{
    int n = model_find_norm_part(m, rec->layer, rec->name);
    *D = n < 0 ? 0 : (size_t)model_norm_part(m, n)->rows;
    return n < 0 ? NULL : &q->norm[w][n];
}

static int take_norm(struct qweights *q, const struct model *m, struct record *rec, struct err *e)
{
    const char *which = json_string_value(json_object_get(rec->meta, "which"));
    enum which w = which && !strcmp(which, "new") ? NEW : OLD;
    size_t D;
    float **at = norm_place(q, m, rec, w, &D);
    if (!at) return err_set(e, NT_EXIT_DATA, "%s: %s is no norm of %s", q->src.given, rec->name, m->ck->path);
    if (*at)
        return err_set(e, NT_EXIT_DATA, "%s: norm %s (%s) comes twice", q->src.given, rec->name,
                       which ? which : "old");
    if (rec->t.dtype != DT_F32 || rec->t.rank != 1 || rec->t.shape[0] != D)
        return err_set(e, NT_EXIT_DATA, "%s: norm %s is not F32 [%zu]", q->src.given, rec->name, D);
    *at = MEM_NEW(float, D);
    if (stream_payload(q->r, rec, *at, e)) return -1;
    q->any_norm = true;
    size_t bad = f32_first_nonfinite(*at, D);
    return bad == D ? 0
                    : err_set(e, NT_EXIT_DATA, "%s: norm %s: value %zu is not finite", q->src.given,
                              rec->name, bad);
}

static int take_record(struct qweights *q, const struct model *m, struct record *rec, struct err *e)
{
    if (!strcmp(rec->kind, "QTensor")) return take_tensor(q, m, rec, e);
    if (!strcmp(rec->kind, "Norm")) return take_norm(q, m, rec, e);
    if (!strcmp(rec->kind, "LayerEnd")) {
        if (rec->layer < 0 || rec->layer >= q->n_layers)
            return err_set(e, NT_EXIT_DATA, "%s: has a layer %lld, %s has %d layers", q->src.given,
                           (long long)rec->layer, m->ck->path, q->n_layers);
        q->seen[rec->layer] = true;
        return 0;
    }
    if (isupper((unsigned char)rec->kind[0]))
        return err_set(e, NT_EXIT_DATA, "%s: record %s of kind %s is not known here", q->src.given, rec->name,
                       rec->kind);
    return 0;
}

static int choose_norms(struct qweights *q, const char *norms, struct err *e)
{
    const char *valid = json_string_value(json_object_get(stream_trailer(q->r), "norms"));
    bool verdict = !strcmp(norms, "verdict"), has_new = false;
    for (int i = 0; i < q->n_norms; i++) has_new = has_new || q->norm[NEW][i];
    q->use = !strcmp(verdict ? (valid ? valid : "old") : norms, "new") ? NEW : OLD;
    if (q->use == NEW && !has_new) return err_set(e, NT_EXIT_DATA, "%s: has no new norms", q->src.given);
    return 0;
}

static int first_pass(struct qweights *q, struct model *m, const char *norms, struct err *e)
{
    struct record rec;
    int got;
    q->r = stream_open(q->src.path, "qweights", e);
    if (!q->r || model_check_identity(m, stream_header(q->r), q->src.given, e)) return -1;
    while ((got = stream_next(q->r, &rec, e)) > 0)
        if (take_record(q, m, &rec, e)) return -1;
    if (got < 0) return -1;
    for (int l = 0; l < q->n_layers; l++)
        if (!q->seen[l])
            return err_set(e, NT_EXIT_DATA, "%s: layer %d is missing (%s has %d layers)", q->src.given, l,
                           m->ck->path, q->n_layers);
    return choose_norms(q, norms, e);
}

struct qweights *qweights_open(const char *path, struct model *m, const char *norms, struct err *e)
{
    struct qweights *q = MEM_NEW(struct qweights, 1);
    q->n_layers = m->c.n_layers;
    q->seen = MEM_NEW(bool, q->n_layers);
    q->n_norms = q->n_layers * NORM_VECTORS + 2;
    for (int w = 0; w < WHICH_COUNT; w++) q->norm[w] = MEM_NEW(float *, q->n_norms);
    int rc = respool_open(&q->src, path, e);
    if (!rc) rc = first_pass(q, m, norms, e);
    if (rc && q->src.copy) err_prefix(e, "%s", q->src.given);
    stream_close(q->r);
    q->r = NULL;
    if (!rc) return q;
    qweights_close(q);
    return NULL;
}

void qweights_close(struct qweights *q)
{
    if (!q) return;
    stream_close(q->r);
    respool_clear(&q->src);
    for (int w = 0; w < WHICH_COUNT; w++) {
        for (int i = 0; i < q->n_norms; i++) mem_free(q->norm[w][i]);
        mem_free(q->norm[w]);
    }
    mem_free(q->seen);
    mem_free(q);
}

double qweights_bits(const struct qweights *q)
{
    return q->weights > 0 ? q->stored_bits / q->weights : 0;
}
const char *qweights_norms(const struct qweights *q)
{
    return !q->any_norm ? "model" : q->use == NEW ? "new" : "old";
}

/* A stream may give new norms for some layers only; the others keep the old. */
static const float *valid(const struct qweights *q, int i)
{
    return q->use == NEW && q->norm[NEW][i] ? q->norm[NEW][i] : q->norm[OLD][i];
}

const float *qweights_final_gain(const struct qweights *q)
{
    return valid(q, q->n_norms - 2);
}

const float *qweights_final_bias(const struct qweights *q)
{
    return valid(q, q->n_norms - 1);
}

/* ---- second pass ---- */

static int put_tensor(struct qweights *q, struct model *m, struct block *b, struct record *rec, float *buf,
                      struct err *e)
{
    struct qtensor t = {0};
    int rc = qtensor_read(q->r, rec, &t, e);
    if (!rc) {
        qtensor_dequant(&t, buf);
        m->be->put(b->w[model_find_role(m, t.layer, t.name)], buf,
                   (size_t)t.out * (size_t)t.in * sizeof(float));
    }
    qtensor_clear(&t);
    return rc;
}

/* Reads on to the end of the wanted layer; 1 found, 0 the stream ended before. */
static int scan_to(struct qweights *q, struct model *m, struct block *b, int layer, float *buf, struct err *e)
{
    struct record rec;
    int got;
    while ((got = stream_next(q->r, &rec, e)) > 0) {
        if (rec.layer != layer) continue;
        if (!strcmp(rec.kind, "LayerEnd")) return 1;
        if (!strcmp(rec.kind, "QTensor") && put_tensor(q, m, b, &rec, buf, e)) return -1;
    }
    return got;
}

int qweights_apply(struct qweights *q, struct model *m, struct block *b, int layer, struct err *e)
{
    size_t most = 0;
    for (int r = 0; r < block_linears(&m->c.block); r++) {
        int out, in;
        role_dims(&m->c.block, r, &out, &in);
        if ((size_t)out * (size_t)in > most) most = (size_t)out * (size_t)in;
    }
    float *buf = MEM_NEW(float, most);
    int found = 0;
    for (int attempt = 0; attempt < 2 && found == 0; attempt++) {
        if (!q->r && !(q->r = stream_open(q->src.path, "qweights", e)))
            found = -1;
        else
            found = scan_to(q, m, b, layer, buf, e);
        if (found == 0) stream_close(q->r), q->r = NULL;
    }
    mem_free(buf);
    if (found <= 0)
        return found ? -1 : err_set(e, NT_EXIT_DATA, "%s: changed while it was read", q->src.given);
    for (int i = 0; i < NORM_VECTORS; i++) {
        const float *v = valid(q, layer * NORM_VECTORS + i);
        size_t n = (size_t)norm_dim(&b->s, i % NORM_COUNT);
        if (v) m->be->put(block_norm_vector(b, i), v, n * sizeof(float));
    }
    return 0;
}
