/* SPDX-License-Identifier: Apache-2.0
 * The two sources of nt-pack as one list of tensors: a qweights stream (spooled) over a model file. */
#include "common/pack.h"
#include "common/import_rest.h"
#include "common/mem.h"
#include "common/tool.h"
#include <string.h>

#define CHUNK_VALUES (1u << 22) /* values of a large matrix held at a time */

#define X(name) extern const struct packer name;
#include "packers.inc"
#undef X
static const struct packer *const packers[] = {
#define X(name) &name,
#include "packers.inc"
#undef X
};
#define N_PACKERS ((int)(sizeof packers / sizeof *packers))

const struct packer *packer_at(int i) { return i >= 0 && i < N_PACKERS ? packers[i] : NULL; }

const struct packer *packer_find(const char *name)
{
    for (int i = 0; i < N_PACKERS; i++)
        if (strcmp(packers[i]->name, name) == 0) return packers[i];
    return NULL;
}

/* ---- spool: the arrays of quantized tensors, codes packed ---- */

struct piece {
    void *p;
    uint64_t n;
};

/* The arrays of q in their order; sizes follow from the head alone. codes: as packed. */
static int pieces(const struct pack_tensor *t, struct qtensor *q, uint8_t *codes, struct piece out[6])
{
    uint64_t params = qtensor_params(q);
    int n = 0;
    if (q->form == QF_PLAIN) {
        out[n++] = (struct piece){q->plain.data, q->plain.nbytes};
        return n;
    }
    out[n++] = (struct piece){codes, qtensor_packed_bytes((uint64_t)q->out * (uint64_t)q->in, q->bits)};
    out[n++] = (struct piece){q->scale, params * 4};
    if (t->zero) out[n++] = (struct piece){q->zero, params};
    if (t->minimum) out[n++] = (struct piece){q->minimum, params * 4};
    if (t->gidx) out[n++] = (struct piece){q->gidx, (uint64_t)q->in * 4};
    if (q->n_rows) out[n++] = (struct piece){q->ridx, (uint64_t)q->out * 4};
    return n;
}

static int spool(struct pack *p, struct qtensor *q, struct err *e)
{
    struct piece x[6];
    uint8_t *codes = NULL;
    uint64_t n = (uint64_t)q->out * (uint64_t)q->in;
    struct pack_tensor t = {
        .head = *q, .zero = q->zero, .minimum = q->minimum, .gidx = q->gidx};
    if (!p->spool && !(p->spool = tempfile_open(e))) return -1;
    t.at = tempfile_size(p->spool);
    if (q->form != QF_PLAIN) {
        codes = mem_array(qtensor_packed_bytes(n, q->bits), 1);
        qtensor_pack(codes, q->codes, n, q->bits);
    }
    int count = pieces(&t, q, codes, x), rc = 0;
    for (int i = 0; i < count && rc == 0; i++) rc = tempfile_append(p->spool, x[i].p, x[i].n, e);
    mem_free(codes);
    if (rc < 0) return -1;
    t.head.codes = t.head.zero = NULL, t.head.scale = t.head.minimum = NULL;
    t.head.gidx = t.head.ridx = NULL, t.head.info = NULL, t.head.plain.data = NULL;
    p->q = mem_grow(p->q, &p->q_cap, p->n_q + 1, sizeof *p->q);
    p->q[p->n_q++] = t;
    return 0;
}

int pack_load(const struct pack *p, int i, struct qtensor *q, struct err *e)
{
    const struct pack_tensor *t = &p->q[i];
    uint64_t n = (uint64_t)t->head.out * (uint64_t)t->head.in, params = qtensor_params(&t->head);
    uint64_t at = t->at;
    uint8_t *codes = NULL;
    struct piece x[6];
    *q = t->head;
    if (q->form == QF_PLAIN) {
        q->plain.data = mem_array(q->plain.nbytes, 1);
    } else {
        codes = mem_array(qtensor_packed_bytes(n, q->bits), 1);
        q->codes = mem_array(n, 1);
        q->scale = mem_array(params, 4);
        if (t->zero) q->zero = mem_array(params, 1);
        if (t->minimum) q->minimum = mem_array(params, 4);
        if (t->gidx) q->gidx = mem_array((size_t)q->in, 4);
        if (q->n_rows) q->ridx = mem_array((size_t)q->out, 4);
    }
    int count = pieces(t, q, codes, x), rc = 0;
    for (int k = 0; k < count && rc == 0; k++) {
        rc = tempfile_read(p->spool, x[k].p, x[k].n, at, e);
        at += x[k].n;
    }
    if (rc == 0 && codes) qtensor_unpack(q->codes, codes, n, q->bits);
    mem_free(codes);
    if (rc < 0) qtensor_clear(q);
    return rc;
}

/* ---- reading the stream ---- */

static struct pack_norm *find_norm(struct pack *p, const char *name)
{
    for (size_t i = 0; i < p->n_norms; i++)
        if (strcmp(p->norms[i].name, name) == 0) return &p->norms[i];
    return NULL;
}

static int read_norm(struct pack *p, struct stream_reader *r, struct record *rec, struct err *e)
{
    const char *which = json_string_value(json_object_get(rec->meta, "which"));
    bool tuned = which && strcmp(which, "new") == 0;
    if (!which || (!tuned && strcmp(which, "old") != 0) || !rec->has_payload || rec->t.dtype != DT_F32 ||
        rec->t.rank != 1 || rec->t.shape[0] == 0 || rec->t.shape[0] > 1 << 24 || !*rec->name ||
        strlen(rec->name) > 255)
        return err_set(e, NT_EXIT_DATA,
                       "%s: record Norm %.200s: not F32 [D] with a name and which = old or new",
                       stream_name(r), rec->name);
    struct pack_norm *n = find_norm(p, rec->name);
    if (!n) {
        p->norms = mem_grow(p->norms, &p->norms_cap, p->n_norms + 1, sizeof *p->norms);
        n = &p->norms[p->n_norms++];
        strcpy(n->name, rec->name);
        n->layer = (int)rec->layer;
        n->dim = (int)rec->t.shape[0];
    }
    if ((uint64_t)n->dim != rec->t.shape[0])
        return err_set(e, NT_EXIT_DATA, "%s: norm %s: %llu values after %d", stream_name(r), n->name,
                       (unsigned long long)rec->t.shape[0], n->dim);
    float **slot = tuned ? &n->tuned : &n->old;
    if (!*slot) *slot = mem_array((size_t)n->dim, sizeof(float));
    if (stream_payload(r, rec, *slot, e) < 0) return -1;
    size_t bad = f32_first_nonfinite(*slot, (size_t)n->dim);
    if (bad == (size_t)n->dim) return 0;
    return err_set(e, NT_EXIT_DATA, "%s: norm %s: value %zu is not finite", stream_name(r), n->name, bad);
}

static int read_tensor(struct pack *p, struct stream_reader *r, struct record *rec, struct err *e)
{
    struct qtensor q = {0};
    if (qtensor_read(r, rec, &q, e) < 0) return -1;
    int rc = 0;
    for (size_t i = 0; i < p->n_q && rc == 0; i++)
        if (strcmp(p->q[i].head.name, q.name) == 0)
            rc = err_set(e, NT_EXIT_DATA, "%s: tensor %s is there twice", stream_name(r), q.name);
    if (rc == 0) rc = spool(p, &q, e);
    qtensor_clear(&q);
    return rc;
}

static int read_records(struct pack *p, struct stream_reader *r, uint8_t *layers, int64_t n_layers,
                        struct err *e)
{
    struct record rec;
    int rc;
    while ((rc = stream_next(r, &rec, e)) == 1) {
        if (strcmp(rec.kind, "QTensor") == 0) rc = read_tensor(p, r, &rec, e);
        else if (strcmp(rec.kind, "Norm") == 0) rc = read_norm(p, r, &rec, e);
        else if (strcmp(rec.kind, "LayerEnd") == 0) {
            rc = rec.layer >= 0 && rec.layer < n_layers
                     ? 0
                     : err_set(e, NT_EXIT_DATA, "%s: layer %lld: the model has %lld", stream_name(r),
                               (long long)rec.layer, (long long)n_layers);
            if (rc == 0) layers[rec.layer] = 1;
        } else if (p->keep_rest && (!strcmp(rec.kind, "file") || !strcmp(rec.kind, "tensor")))
            rc = import_rest_take(&p->rest, r, &rec, e);
        else rc = stream_unknown(r, &rec, e);
        if (rc < 0) return -1;
    }
    return rc;
}

static int choose_norms(struct pack *p, enum pack_which which, struct err *e)
{
    const char *says = json_string_value(json_object_get(p->trailer, "norms"));
    size_t with = 0;
    for (size_t i = 0; i < p->n_norms; i++) with += p->norms[i].tuned != NULL;
    p->tuned = which == PACK_NEW || (which == PACK_VERDICT && says && strcmp(says, "new") == 0);
    if (p->tuned && !with) return err_set(e, NT_EXIT_DATA, "%s: holds no tweaked norms", p->stream);
    for (size_t i = 0; i < p->n_norms; i++)
        if (!p->tuned && !p->norms[i].old)
            return err_set(e, NT_EXIT_DATA, "%s: norm %s: the old values are missing", p->stream,
                           p->norms[i].name);
    return 0;
}

int pack_read(struct pack *p, const char *path, enum pack_which which, int64_t first, int64_t end,
              struct err *e)
{
    struct stream_reader *r = stream_open(path, "qweights", e);
    if (!r) return -1;
    p->stream = mem_strdup(stream_name(r));
    p->header = json_deep_copy(stream_header(r));
    int64_t n_layers =
        p->m ? p->m->c.n_layers
             : json_integer_value(json_object_get(json_object_get(p->header, "model"), "layers"));
    int rc = p->m ? model_check_identity(p->m, p->header, p->stream, e) : 0;
    if (rc == 0 && (n_layers < 1 || n_layers > 1 << 20))
        rc = err_set(e, NT_EXIT_DATA, "%s: its header does not say how many layers the model has", p->stream);
    uint8_t *layers = MEM_NEW(uint8_t, rc == 0 ? (size_t)n_layers : 0);
    if (rc == 0) rc = read_records(p, r, layers, n_layers, e);
    if (rc == 0) {
        p->trailer = json_deep_copy(stream_trailer(r));
        snprintf(p->hash, sizeof p->hash, "%s", stream_hash(r));
    }
    for (int64_t l = first; l < end && l < n_layers && rc == 0; l++)
        if (!layers[l]) rc = err_set(e, NT_EXIT_DATA, "%s: layer %lld is missing", p->stream, (long long)l);
    mem_free(layers);
    stream_close(r);
    return rc < 0 ? -1 : choose_norms(p, which, e);
}

const float *pack_norm_values(const struct pack *p, const struct pack_norm *n)
{
    return p->tuned && n->tuned ? n->tuned : n->old ? n->old : n->tuned;
}

int pack_open_rest(struct pack *p, struct err *e)
{
    if (!p->rest)
        return err_set(e, NT_EXIT_USAGE,
                       "no model: -m MODEL (%s holds linears and norms alone; what nt-quant -q import writes has the "
                       "rest, too)",
                       p->stream);
    p->m = model_open(import_rest_path(p->rest), NULL, e);
    return p->m ? model_check_identity(p->m, p->header, p->stream, e)
                : err_prefix(e, "%s: the checkpoint in it cannot be read", p->stream);
}

void pack_clear(struct pack *p)
{
    import_rest_close(p->rest);
    for (size_t i = 0; i < p->n_norms; i++) mem_free(p->norms[i].old), mem_free(p->norms[i].tuned);
    tempfile_close(p->spool);
    json_decref(p->header);
    json_decref(p->trailer);
    mem_free(p->stream);
    mem_free(p->norms);
    mem_free(p->q);
    mem_free(p->items);
    memset(p, 0, sizeof *p);
}

/* ---- the list of tensors ---- */

static struct pack_item *add_item(struct pack *p, const struct weight_part *part, const char *name,
                                  const char *gguf, int layer, const char *suffix)
{
    static struct pack_item none; /* takes the flags of tensors that are not there */
    if (!part->t) return &none;
    p->items = mem_grow(p->items, &p->items_cap, p->n_items + 1, sizeof *p->items);
    struct pack_item *it = &p->items[p->n_items++];
    *it = (struct pack_item){.part = *part,
                             .role = -1,
                             .q = -1,
                             .layer = strstr(name, "%d") ? layer : -1,
                             .rank = part->cols == 1 ? 1 : 2,
                             .shape = {part->rows, part->cols == 1 ? 0 : part->cols}};
    family_tensor_name(it->name, name, layer, suffix);
    if (gguf) family_tensor_name(it->gguf_name, gguf, layer, suffix);
    return it;
}

static struct pack_item *add_gain(struct pack *p, const struct weight_part *gain, const char *name, const char *gguf,
                                  int layer)
{
    struct pack_item *it = add_item(p, gain, name, gguf, layer, ".weight");
    it->norm = it->offset = true;
    return it;
}

/* The experts of a layer and what chooses them. */
static void list_experts(struct pack *p, int layer)
{
    struct model *m = p->m;
    const struct family_names *f = &m->c.hf, *g = &m->c.gguf;
    const struct model_layer *t = &m->layers[layer];
    add_item(p, &t->router, f->router, g->router, layer, ".weight");
    struct pack_item *gate = add_item(p, &t->shared_gate, f->shared_gate, g->shared_gate, layer, ".weight");
    gate->rank = 2, gate->shape[0] = 1, gate->shape[1] = (uint64_t)m->c.block.D; /* of one output */
    for (int i = ROLE_COUNT; i < block_linears(&m->c.block); i++) {
        const char *gguf = family_linear_pattern(g, &m->c.block, i);
        if (!t->w[i].t) continue;
        struct pack_item *w =
            add_item(p, &t->w[i], family_linear_pattern(f, &m->c.block, i), gguf, layer, ".weight");
        model_tensor_name(m, layer, i, w->name);
        w->linear = true, w->role = i;
    }
}

static void list_items(struct pack *p)
{
    struct model *m = p->m;
    const struct family_names *f = &m->c.hf, *g = &m->c.gguf;
    add_item(p, &m->embed, f->embed, g->embed, 0, ".weight");
    add_item(p, &m->pos_embed, f->pos_embed, g->pos_embed, 0, ".weight");
    add_item(p, &m->embed_gain, f->embed_norm, g->embed_norm, 0, ".weight")->norm = true;
    add_item(p, &m->embed_bias, f->embed_norm, g->embed_norm, 0, ".bias")->norm = true;
    add_item(p, &m->project_in, f->project_in, g->project_in, 0, ".weight");
    for (int l = 0; l < m->c.n_layers; l++) {
        const struct model_layer *t = &m->layers[l];
        for (int r = 0; r < ROLE_COUNT; r++) {
            struct pack_item *w = add_item(p, &t->w[r], f->role[r], g->role[r], l, ".weight");
            w->linear = true, w->role = r;
            w->qk = r == ROLE_Q || r == ROLE_K;
            struct pack_item *b = add_item(p, &t->b[r], f->role[r], g->role[r], l, ".bias");
            b->qk = r == ROLE_Q || r == ROLE_K, b->role = r;
        }
        list_experts(p, l);
        for (int n = 0; n < NORM_COUNT; n++) {
            struct pack_item *gain = add_gain(p, &t->gain[n], f->norm[n], g->norm[n], l);
            gain->heads = !norm_tweaked(n) && m->c.block.qk_norm == QK_NORM_HEADS;
            add_item(p, &t->norm_bias[n], f->norm[n], g->norm[n], l, ".bias")->norm = true;
        }
    }
    add_gain(p, &m->final_gain, f->final_norm, g->final_norm, 0);
    add_item(p, &m->final_bias, f->final_norm, g->final_norm, 0, ".bias")->norm = true;
    add_item(p, &m->project_out, f->project_out, g->project_out, 0, ".weight");
    if (!m->c.tied) add_item(p, &m->head, f->head, g->head, 0, ".weight");
    add_item(p, &m->head_bias, f->head, g->head, 0, ".bias");
}

static struct pack_item *find_item(struct pack *p, const char *name)
{
    for (size_t i = 0; i < p->n_items; i++)
        if (strcmp(p->items[i].name, name) == 0) return &p->items[i];
    return NULL;
}

int pack_bind(struct pack *p, struct err *e)
{
    p->n_items = 0;
    list_items(p);
    for (size_t i = 0; i < p->n_q; i++) {
        struct pack_item *it = find_item(p, p->q[i].head.name);
        if (!it || it->rank != 2 || it->shape[0] != (uint64_t)p->q[i].head.out ||
            it->shape[1] != (uint64_t)p->q[i].head.in)
            return err_set(e, NT_EXIT_DATA, "%s: tensor %s [%d, %d] is no tensor of %s", p->stream,
                           p->q[i].head.name, p->q[i].head.out, p->q[i].head.in, p->m->ck->path);
        it->q = (int)i;
    }
    for (size_t i = 0; i < p->n_norms; i++) {
        struct pack_item *it = find_item(p, p->norms[i].name);
        if (!it || !it->norm || it->shape[0] != (uint64_t)p->norms[i].dim)
            return err_set(e, NT_EXIT_DATA, "%s: norm %s [%d] is no norm of %s", p->stream, p->norms[i].name,
                           p->norms[i].dim, p->m->ck->path);
        it->values = pack_norm_values(p, &p->norms[i]);
    }
    return 0;
}

/* ---- values ---- */

static int file_values(struct model *m, const struct pack_item *it, pack_sink *sink, void *ctx, struct err *e)
{
    uint64_t rows = it->part.rows, cols = it->part.cols;
    uint64_t step = CHUNK_VALUES / cols ? CHUNK_VALUES / cols : 1;
    if (step > rows || it->rank == 1) step = rows;
    float *buf = mem_array(step * cols, sizeof *buf);
    int rc = 0;
    for (uint64_t r = 0; r < rows && rc == 0; r += step) {
        uint64_t n = rows - r < step ? rows - r : step;
        rc = model_read_rows(m, &it->part, r, n, buf, e);
        if (rc == 0) rc = sink(ctx, buf, n * cols, e);
    }
    checkpoint_release(m->ck, it->part.t);
    mem_free(buf);
    return rc;
}

int pack_values(struct pack *p, const struct pack_item *it, pack_sink *sink, void *ctx, struct err *e)
{
    if (err_stopped(e)) return -1;
    if (it->values) return sink(ctx, it->values, (size_t)it->shape[0], e);
    if (it->q < 0) return file_values(p->m, it, sink, ctx, e);
    struct qtensor q;
    if (pack_load(p, it->q, &q, e) < 0) return -1;
    float *w = mem_array((size_t)q.out * (size_t)q.in, sizeof *w);
    qtensor_dequant(&q, w);
    int rc = sink(ctx, w, (size_t)q.out * (size_t)q.in, e);
    mem_free(w);
    qtensor_clear(&q);
    return rc;
}

uint64_t pack_memory(const struct pack *p)
{
    uint64_t most = 0;
    for (size_t i = 0; i < p->n_items; i++) {
        const struct pack_item *it = &p->items[i];
        uint64_t n = it->rank == 2 ? it->shape[0] * it->shape[1] : it->shape[0];
        if (!it->linear && n > CHUNK_VALUES) n = CHUNK_VALUES;
        for (int gguf = 0; gguf < 2 && it->linear; gguf++) { /* joined with the other parts of its tensor */
            struct weight_part at;
            uint64_t rows = model_part_layout(&p->m->c, it->role, gguf, &at);
            if (rows * at.cols > n) n = rows * at.cols;
        }
        if (n > most) most = n;
    }
    return most * (4 + 4 + 4 + 2); /* values, converted, read back; codes */
}

uint64_t pack_disk(const struct pack *p, enum pack_size what)
{
    uint64_t bytes = what == PACK_CODES && p->spool ? tempfile_size(p->spool) : 0;
    uint64_t size = p->dtype == DT_F16 || p->dtype == DT_BF16 ? 2 : 4;
    for (size_t i = 0; i < p->n_items; i++) {
        const struct pack_item *it = &p->items[i];
        uint64_t n = it->rank == 2 ? it->shape[0] * it->shape[1] : it->shape[0];
        if (what == PACK_FLOATS || it->norm) bytes += n * (it->norm ? 4 : size);
        else if (what == PACK_CODES && it->q < 0) bytes += p->m->gguf ? it->part.t->t.nbytes : n * 2;
    }
    return bytes;
}

int pack_round(void *dst, enum dtype t, const float *x, size_t n, const char *name, struct err *e)
{
    float back[256];
    size_t size = (size_t)dtype_block_bytes(t);
    for (size_t i = 0; i < n; i += 256) {
        size_t k = n - i < 256 ? n - i : 256;
        void *to = (char *)dst + i * size;
        dtype_from_f32(to, t, x + i, k);
        dtype_to_f32(back, t, to, k);
        if (f32_first_nonfinite(back, k) < k)
            return err_set(e, NT_EXIT_DATA, "tensor %s: a value is too large for %s", name, dtype_name(t));
    }
    return 0;
}
