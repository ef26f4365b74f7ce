/* SPDX-License-Identifier: Apache-2.0
 * Reading a qweights stream twice: once to check and count, once to keep. */
#include "common/scope_input.h"
#include <string.h>
#include "common/mem.h"

/* ---- first pass ---- */

static bool has_part(const json_t *meta, const char *part)
{
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(meta, "parts"), i,
                       v) if (json_is_string(v) && !strcmp(json_string_value(v), part)) return true;
    return false;
}

/* Sizes as the record's own words have them; the second pass checks those words. */
static void count_tensor(struct scope_input *in, const json_t *meta)
{
    const json_t *dims = json_object_get(meta, "dims");
    json_int_t out = json_integer_value(json_array_get(dims, 0)),
               cols = json_integer_value(json_array_get(dims, 1));
    json_int_t bits = json_integer_value(json_object_get(meta, "bits")),
               group = json_integer_value(json_object_get(meta, "group")),
               rows = json_integer_value(json_object_get(meta, "rows"));
    if (out < 1 || out > INT32_MAX || cols < 1 || cols > INT32_MAX || group < 0 || group > INT32_MAX) return;
    uint64_t n = (uint64_t)out * (uint64_t)cols,
             scales = (uint64_t)(rows > 0 && rows < INT32_MAX ? rows : out) * (uint64_t)qtensor_groups((int)cols, (int)group);
    if (has_part(meta, "data")) {
        in->packed_bytes += 4 * n;
        return;
    }
    in->packed_bytes += n / 8 * (uint64_t)(bits < 1 || bits > 8 ? 8 : bits) + 8;
    in->n_scales += scales;
    if (has_part(meta, "minimum")) in->n_minima += scales;
}

static int check_layers(const struct scope_input *in, const bool *seen, const struct model *m, struct err *e)
{
    for (int l = 0; l < in->n_layers; l++)
        if (!seen[l])
            return err_set(e, NT_EXIT_DATA, "%s: layer %d is missing (%s has %d layers)", in->src.given, l,
                           m->ck->path, in->n_layers);
    return 0;
}

static int survey(struct scope_input *in, struct stream_reader *r, struct model *m, struct err *e)
{
    struct record rec;
    bool *seen = MEM_NEW(bool, (size_t)in->n_layers);
    int got, rc = model_check_identity(m, stream_header(r), in->src.given, e);
    while (!rc && (got = stream_next(r, &rec, e)) != 0) {
        if (got < 0)
            rc = -1;
        else if (!strcmp(rec.kind, "QTensor"))
            count_tensor(in, rec.meta);
        else if (!strcmp(rec.kind, "LayerEnd") && rec.layer >= 0 && rec.layer < in->n_layers)
            seen[rec.layer] = true;
        else if (!strcmp(rec.kind, "LayerEnd"))
            rc = err_set(e, NT_EXIT_DATA, "%s: has a layer %d, %s has %d layers", in->src.given,
                         (int)rec.layer, m->ck->path, in->n_layers);
        else if (strcmp(rec.kind, "QPart") && strcmp(rec.kind, "Norm"))
            rc = stream_unknown(r, &rec, e);
    }
    if (!rc) rc = check_layers(in, seen, m, e);
    mem_free(seen);
    if (rc) return -1;
    const char *valid = json_string_value(json_object_get(stream_trailer(r), "norms"));
    in->use_new = valid && !strcmp(valid, "new");
    memcpy(in->hash, stream_hash(r), sizeof in->hash);
    in->header = json_deep_copy(stream_header(r));
    return 0;
}

int scope_input_open(struct scope_input *in, const char *path, struct model *m, struct err *e)
{
    *in = (struct scope_input){
        .n_layers = m->c.n_layers, .per = block_linears(&m->c.block), .D = m->c.block.D};
    if (respool_open(&in->src, path, e)) return -1;
    struct stream_reader *r = stream_open(in->src.path, "qweights", e);
    int rc = r ? survey(in, r, m, e) : -1;
    stream_close(r);
    if (rc && in->src.copy) err_prefix(e, "%s", in->src.given);
    return rc;
}

/* ---- second pass ---- */

/* Keeps the codes packed, or the bytes of a plain tensor, and frees the rest of them. */
static int keep(struct scope_input *in, struct scope_tensor *t, struct qtensor *q, struct err *e)
{
    bool plain = q->form == QF_PLAIN;
    uint64_t n = (uint64_t)q->out * (uint64_t)q->in;
    t->bytes = plain ? q->plain.nbytes : qtensor_packed_bytes(n, q->bits);
    uint8_t *p = plain ? q->plain.data : MEM_NEW(uint8_t, t->bytes);
    if (!plain) {
        qtensor_pack(p, q->codes, n, q->bits);
        mem_free(q->codes);
    }
    q->codes = NULL;
    q->plain.data = NULL;
    t->q = *q;
    if (!in->codes) {
        t->packed = p;
        return 0;
    }
    t->at = tempfile_size(in->codes);
    int rc = tempfile_append(in->codes, p, t->bytes, e);
    mem_free(p);
    return rc;
}

static int take_tensor(struct scope_input *in, struct stream_reader *r, struct record *rec,
                       const struct model *m, struct err *e)
{
    struct qtensor q = {0};
    if (qtensor_read(r, rec, &q, e)) return -1;
    int role = model_find_role(m, q.layer, q.name), out = 0, cols = 0, rc = 0;
    if (role >= 0) role_dims(&m->c.block, role, &out, &cols);
    if (role < 0)
        rc = err_set(e, NT_EXIT_DATA, "%s: %s (layer %d) is no linear of a block of %s", in->src.given,
                     q.name, q.layer, m->ck->path);
    else if (in->t[q.layer * in->per + role].q.out)
        rc = err_set(e, NT_EXIT_DATA, "%s: %s comes twice", in->src.given, q.name);
    else if (q.out != out || q.in != cols)
        rc = err_set(e, NT_EXIT_DATA, "%s: %s is %d x %d, in %s %d x %d", in->src.given, q.name, q.out, q.in,
                     m->ck->path, out, cols);
    if (!rc) return keep(in, &in->t[q.layer * in->per + role], &q, e);
    qtensor_clear(&q);
    return rc;
}

/* The old value of a norm stands in where a stream has no new one. */
static int take_norm(struct scope_input *in, struct stream_reader *r, struct record *rec, bool *has_new,
                     const struct model *m, struct err *e)
{
    const char *which = json_string_value(json_object_get(rec->meta, "which"));
    int i = model_find_norm_part(m, rec->layer, rec->name);
    size_t D = i < 0 ? 0 : in->at[i + 1] - in->at[i];
    bool is_new = which && !strcmp(which, "new");
    if (!which || i < 0 || !rec->has_payload || rec->t.dtype != DT_F32 || rec->t.rank != 1 ||
        rec->t.shape[0] != D)
        return stream_err(r, e, "no norm of %s", m->ck->path);
    in->tweaked |= is_new; /* the trailer does not tell: a quantizer names its norms, too */
    if (is_new ? !in->use_new : has_new[i]) return 0;
    if (stream_payload(r, rec, in->norms + in->at[i], e)) return -1;
    if (f32_first_nonfinite(in->norms + in->at[i], D) < D) return stream_err(r, e, "a value is not finite");
    in->has_norm[i] = true;
    has_new[i] |= is_new;
    return 0;
}

static int model_norms(struct scope_input *in, struct model *m, struct err *e)
{
    in->n_norms = in->n_layers * NORM_VECTORS + 2;
    in->at = MEM_NEW(size_t, (size_t)in->n_norms + 1);
    for (int i = 0; i < in->n_norms; i++) {
        const struct weight_part *p = model_norm_part(m, i);
        in->at[i + 1] = in->at[i] + (p ? (size_t)p->rows : 0);
    }
    in->norms = MEM_NEW(float, in->at[in->n_norms] + 1);
    in->has_norm = MEM_NEW(bool, (size_t)in->n_norms);
    for (int i = 0; i < in->n_norms; i++)
        if (in->at[i + 1] > in->at[i] && model_read_norm_part(m, i, in->norms + in->at[i], e)) return -1;
    return 0;
}

static void alloc_scratch(struct scope_input *in, const struct model *m)
{
    size_t most = 0;
    for (int r = 0; r < block_linears(&m->c.block); r++) {
        int out, cols;
        role_dims(&m->c.block, r, &out, &cols);
        if ((size_t)out * (size_t)cols > most) most = (size_t)out * (size_t)cols;
    }
    uint64_t bytes = 0;
    for (int i = 0; i < in->n_layers * in->per; i++)
        if (in->t[i].bytes > bytes) bytes = in->t[i].bytes;
    in->scratch[0] = MEM_NEW(uint8_t, most);
    in->scratch[1] = in->codes ? MEM_NEW(uint8_t, bytes) : NULL;
}

int scope_input_read(struct scope_input *in, struct model *m, bool in_memory, struct err *e)
{
    bool *has_new = MEM_NEW(bool, (size_t)in->n_layers *NORM_VECTORS + 2);
    struct record rec;
    int got = 0, rc = 0;
    in->t = MEM_NEW(struct scope_tensor, (size_t)in->n_layers * in->per);
    if (!in_memory && !(in->codes = tempfile_open(e))) rc = -1;
    if (!rc) rc = model_norms(in, m, e);
    struct stream_reader *r = rc ? NULL : stream_open(in->src.path, "qweights", e);
    if (!r) rc = -1;
    while (!rc && (got = stream_next(r, &rec, e)) > 0)
        if (!strcmp(rec.kind, "QTensor"))
            rc = take_tensor(in, r, &rec, m, e);
        else if (!strcmp(rec.kind, "Norm"))
            rc = take_norm(in, r, &rec, has_new, m, e);
    if (got < 0) rc = -1;
    stream_close(r);
    mem_free(has_new);
    if (!rc) alloc_scratch(in, m);
    return rc;
}

int scope_input_none(struct scope_input *in, struct model *m, struct err *e)
{
    *in = (struct scope_input){.src = {.given = m->ck->path}, .n_layers = m->c.n_layers, .per = block_linears(&m->c.block),
                                .D = m->c.block.D};
    in->t = MEM_NEW(struct scope_tensor, (size_t)in->n_layers * in->per);
    in->header =
        json_pack("{s:s, s:o, s:O}", "kind", "qweights", "model", model_identity(m), "config", m->hf_config);
    return model_norms(in, m, e);
}

void scope_input_clear(struct scope_input *in)
{
    for (int i = 0; in->t && i < in->n_layers * in->per; i++) {
        qtensor_clear(&in->t[i].q);
        mem_free(in->t[i].packed);
    }
    mem_free(in->t);
    mem_free(in->at);
    mem_free(in->norms);
    mem_free(in->has_norm);
    mem_free(in->scratch[0]);
    mem_free(in->scratch[1]);
    json_decref(in->header);
    tempfile_close(in->codes);
    respool_clear(&in->src);
    *in = (struct scope_input){0};
}

/* ---- weights ---- */

#define UNPACK_CHUNK 65536 /* codes; eight of them are whole bytes */

static void unpack(uint8_t *dst, const uint8_t *src, uint64_t n, int bits)
{
    int64_t chunks = (int64_t)((n + UNPACK_CHUNK - 1) / UNPACK_CHUNK);
#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < chunks; k++) {
        uint64_t at = (uint64_t)k * UNPACK_CHUNK, m = n - at < UNPACK_CHUNK ? n - at : UNPACK_CHUNK;
        qtensor_unpack(dst + at, src + at / 8 * (uint64_t)bits, m, bits);
    }
}

int scope_input_view(struct scope_input *in, int layer, int r, struct qtensor *view, struct err *e)
{
    const struct scope_tensor *t = &in->t[layer * in->per + r];
    uint8_t *packed = t->packed;
    *view = t->q;
    if (!packed) {
        packed = in->scratch[1];
        if (tempfile_read(in->codes, packed, t->bytes, t->at, e)) return -1;
    }
    if (view->form == QF_PLAIN) {
        view->plain.data = packed;
        return 0;
    }
    unpack(in->scratch[0], packed, (uint64_t)view->out * (uint64_t)view->in, view->bits);
    view->codes = in->scratch[0];
    return 0;
}

int scope_input_weights(struct scope_input *in, int layer, int r, float *scale, float *minimum,
                        float *w, struct err *e)
{
    struct qtensor view;
    if (scope_input_view(in, layer, r, &view, e)) return -1;
    if (scale) view.scale = scale;
    if (minimum) view.minimum = minimum;
    qtensor_dequant(&view, w);
    return 0;
}
