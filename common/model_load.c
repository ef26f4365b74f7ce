/* SPDX-License-Identifier: Apache-2.0
 * Weights of a model on the device: a block's memory that is filled layer by layer, rotary tables, and the
 * input of the first block. */
#include <stdlib.h>
#include <string.h>
#include "common/mem.h"
#include "common/model.h"

/* What block_alloc makes: the block that callers see, and both rotary tables. */
struct loaded {
    struct block b;
    dev rope[2];
};

static size_t rope_floats(const struct model_config *c, int max_pos)
{
    return (size_t)max_pos * (size_t)c->block.rot;
}

static dev rope_table(const struct model *m, int table, int max_pos)
{
    size_t n = rope_floats(&m->c, max_pos);
    float *rows = MEM_NEW(float, n);
    rope_cossin(&m->c.rope[table], max_pos, rows);
    dev t = m->be->alloc(n * sizeof(float));
    m->be->put(t, rows, n * sizeof(float));
    mem_free(rows);
    return t;
}

static int rope_tables(const struct model_config *c)
{
    int n = 0;
    for (int l = 0; l < c->n_layers; l++)
        if (c->layer[l].rope >= n) n = c->layer[l].rope + 1;
    return n;
}

struct block *block_alloc(struct model *m, int max_pos)
{
    struct loaded *all = MEM_NEW(struct loaded, 1);
    struct block *b = &all->b;
    const struct model_layer *l = &m->layers[0]; /* all layers have the same tensors */
    b->s = m->c.block;
    for (int r = 0; r < block_linears(&b->s); r++) {
        int out, in;
        if (!block_has_role(&b->s, r)) continue;
        role_dims(&b->s, r, &out, &in);
        b->w[r] = m->be->alloc((size_t)out * (size_t)in * sizeof(float));
        m->be->hold(b->w[r], (size_t)out * (size_t)in);
        if (r < ROLE_COUNT && l->b[r].t) b->b[r] = m->be->alloc((size_t)out * sizeof(float));
    }
    if (b->s.experts) b->router = m->be->alloc((size_t)b->s.experts * (size_t)b->s.D * sizeof(float));
    if (b->s.shared_F && m->c.hf.shared_gate) b->shared_gate = m->be->alloc((size_t)b->s.D * sizeof(float));
    for (int n = 0; n < NORM_COUNT; n++) {
        if (!b->s.norm[n]) continue;
        b->gain[n] = m->be->alloc((size_t)norm_dim(&b->s, n) * sizeof(float));
        if (l->norm_bias[n].t) b->bias[n] = m->be->alloc((size_t)norm_dim(&b->s, n) * sizeof(float));
    }
    for (int i = 0; i < rope_tables(&m->c); i++) all->rope[i] = rope_table(m, i, max_pos);
    if (b->s.alibi) {
        float *slope = MEM_NEW(float, b->s.H);
        block_alibi_slopes(b->s.H, slope);
        for (int h = 0; h < b->s.H && b->s.alibi_scale > 0; h++) slope[h] *= b->s.alibi_scale;
        b->slopes = m->be->alloc((size_t)b->s.H * sizeof(float));
        m->be->put(b->slopes, slope, (size_t)b->s.H * sizeof(float));
        mem_free(slope);
    }
    block_set_layer(m, b, 0);
    return b;
}

void block_free(struct model *m, struct block *b)
{
    struct loaded *all = (struct loaded *)b; /* b is its first member */
    if (!b) return;
    for (int r = 0; r < block_linears(&m->c.block); r++) m->be->release(b->w[r]);
    for (int r = 0; r < ROLE_COUNT; r++) m->be->release(b->b[r]);
    m->be->release(b->router), m->be->release(b->shared_gate);
    for (int n = 0; n < NORM_COUNT; n++) m->be->release(b->gain[n]), m->be->release(b->bias[n]);
    m->be->release(all->rope[0]), m->be->release(all->rope[1]), m->be->release(b->slopes);
    mem_free(all);
}

void block_set_layer(const struct model *m, struct block *b, int layer)
{
    const struct loaded *all = (const struct loaded *)b;
    const struct layer_attrs *a = &m->c.layer[layer];
    b->s.window = a->window, b->s.scale = a->scale;
    b->s.experts = a->dense ? 0 : m->c.block.experts;
    b->s.shared_F = a->dense ? 0 : m->c.block.shared_F;
    b->s.rot = a->rope < 0 ? 0 : m->c.block.rot;
    b->cossin = a->rope < 0 ? DEV_NONE : all->rope[a->rope];
}

/* Holds staged_rows of any linear, and any bias. */
static size_t staged_floats(const struct block_shape *s)
{
    size_t most = MODEL_STAGE_FLOATS;
    for (int r = 0; r < block_linears(s); r++) {
        int out, in;
        if (!block_has_role(s, r)) continue;
        role_dims(s, r, &out, &in);
        if ((size_t)in > most) most = (size_t)in;
        if ((size_t)out > most) most = (size_t)out;
    }
    return most;
}

/* Rows of a linear that are staged on the host at a time. */
static int staged_rows(int in)
{
    return in < MODEL_STAGE_FLOATS ? MODEL_STAGE_FLOATS / in : 1;
}

static int load_matrix(struct model *m, dev w, const struct weight_part *p, float *buf, struct err *e)
{
    int out = (int)p->rows, in = (int)p->cols;
    int step = staged_rows(in), rc = 0;
    for (int r0 = 0; r0 < out && !rc; r0 += step) {
        int n = out - r0 < step ? out - r0 : step;
        rc = model_read_rows(m, p, (uint64_t)r0, (uint64_t)n, buf, e);
        if (!rc) m->be->put(dev_at(w, (size_t)r0 * (size_t)in), buf, (size_t)n * (size_t)in * sizeof(float));
    }
    checkpoint_release(m->ck, p->t);
    return rc;
}

static int load_vector(struct model *m, dev v, const struct weight_part *p, float *buf, struct err *e)
{
    if (model_read_part(m, p, buf, e)) return -1;
    m->be->put(v, buf, (size_t)p->rows * sizeof(float));
    return 0;
}

int block_load_routing(struct model *m, struct block *b, int layer, struct err *e)
{
    const struct model_layer *l = &m->layers[layer];
    float *buf = l->router.t ? MEM_NEW(float, staged_floats(&m->c.block)) : NULL;
    int rc = l->router.t ? load_matrix(m, b->router, &l->router, buf, e) : 0;
    if (!rc && l->shared_gate.t) rc = load_vector(m, b->shared_gate, &l->shared_gate, buf, e);
    mem_free(buf);
    return rc;
}

int block_load(struct model *m, struct block *b, int layer, struct err *e)
{
    float *buf = MEM_NEW(float, staged_floats(&m->c.block)),
          *bias = MEM_NEW(float, (size_t)norm_max_dim(&m->c.block));
    int rc = -1;
    const struct model_layer *l = &m->layers[layer];
    block_set_layer(m, b, layer);
    for (int r = 0; r < block_linears(&b->s); r++) {
        if (!l->w[r].t) continue;
        if (load_matrix(m, b->w[r], &l->w[r], buf, e)) goto done;
        int has = model_read_bias(m, layer, r, buf, e);
        if (has < 0) goto done;
        if (has) m->be->put(b->b[r], buf, (size_t)l->w[r].rows * sizeof(float));
    }
    if (block_load_routing(m, b, layer, e)) goto done;
    for (int n = 0; n < NORM_COUNT; n++) {
        size_t bytes = (size_t)norm_dim(&b->s, n) * sizeof(float);
        if (!b->s.norm[n]) continue;
        if (model_read_norm(m, layer, n, buf, bias, e)) goto done;
        m->be->put(b->gain[n], buf, bytes);
        if (dev_ok(b->bias[n])) m->be->put(b->bias[n], bias, bytes);
    }
    rc = 0;
done:
    mem_free(buf), mem_free(bias);
    return rc;
}

uint64_t block_back_bytes(const struct model_config *c)
{
    return c->bf16 ? block_weights(&c->block) * sizeof(uint16_t) : 0;
}

/* One block, the staged rows, and the rotary table of 8192 positions or the model's own length if shorter. */
uint64_t block_bytes(const struct model_config *c)
{
    uint64_t floats = staged_floats(&c->block) + (uint64_t)norm_max_dim(&c->block);
    for (int n = 0; n < NORM_COUNT; n++)
        if (c->block.norm[n]) floats += 2 * (uint64_t)norm_dim(&c->block, n);
    floats += block_weights(&c->block);
    floats += ((uint64_t)c->block.experts + (c->block.shared_F > 0)) * (uint64_t)c->block.D;
    for (int r = 0, out, in; r < ROLE_COUNT; r++) { /* biases */
        role_dims(&c->block, r, &out, &in);
        floats += (uint64_t)out;
    }
    floats += (1 + (uint64_t)rope_tables(c)) * rope_floats(c, c->max_pos < 8192 ? c->max_pos : 8192);
    return floats * sizeof(float) + block_back_bytes(c); /* a form for W^T is as large as one for W */
}

/* ---- the input of the first block ---- */

static int check_ids(const struct model_config *c, const struct weight_part *pos, const int32_t *ids, int R,
                     int end, struct err *e)
{
    for (int r = 0; r < R; r++)
        if (ids[r] < 0 || ids[r] >= c->vocab)
            return err_set(e, NT_EXIT_DATA, "token id %d is outside the vocabulary of %d", (int)ids[r],
                           c->vocab);
    if (pos->t && end > c->max_pos)
        return err_set(e, NT_EXIT_DATA, "position %d: the model has learned only %d", end - 1, c->max_pos);
    return 0;
}

/* x[n,D] += the learned positions of rows r0 .. of [B, T]; buf as large. */
static int add_positions(struct model *m, float *buf, int r0, int n, int T, int pos0, dev tmp, dev x,
                         struct err *e)
{
    size_t D = (size_t)m->c.block.D;
    for (int r = 0; r < n; r++) {
        uint64_t row = (uint64_t)(pos0 + (r0 + r) % T + m->c.pos_offset);
        if (model_read_rows(m, &m->pos_embed, row, 1, buf + (size_t)r * D, e)) return -1;
    }
    m->be->put(tmp, buf, (size_t)n * D * sizeof(float));
    m->be->add(x, x, tmp, (size_t)n * D);
    return 0;
}

/* What stands between the embedding table and the first block, on the device: read once, for decoding asks for
 * a token at a time. */
enum { EMBED_ROWS = 256 };
struct embedder {
    dev table;      /* [EMBED_ROWS, W] scaled embedding rows */
    dev in;         /* projection [D, W] */
    dev gain, bias; /* the embedding's norm */
    dev tmp, stat;  /* [EMBED_ROWS, D], [EMBED_ROWS, 2] */
    float *rows;    /* [EMBED_ROWS, the larger of D and W] on the host */
};

static dev put_part(struct model *m, const struct weight_part *p, struct err *e)
{
    size_t n = p->t ? (size_t)(p->rows * p->cols) : 0;
    if (!n || e->code) return DEV_NONE;
    float *buf = MEM_NEW(float, n);
    dev d = m->be->alloc(n * sizeof(float));
    if (!model_read_part(m, p, buf, e)) m->be->put(d, buf, n * sizeof(float));
    mem_free(buf);
    return d;
}

void embedder_free(struct model *m)
{
    struct embedder *w = m->embedder;
    if (!w) return;
    dev parts[] = {w->table, w->in, w->gain, w->bias, w->tmp, w->stat};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) m->be->release(parts[i]);
    mem_free(w->rows), mem_free(w);
    m->embedder = NULL;
}

static int embedder_open(struct model *m, struct err *e)
{
    size_t D = (size_t)m->c.block.D, W = (size_t)m->c.embed_dim;
    bool more = m->pos_embed.t || m->embed_gain.t;
    struct embedder *w = m->embedder = MEM_NEW(struct embedder, 1);
    if (m->project_in.t) w->table = m->be->alloc(EMBED_ROWS * W * sizeof(float));
    if (more) w->tmp = m->be->alloc(EMBED_ROWS * D * sizeof(float));
    if (more) w->stat = m->be->alloc(EMBED_ROWS * 2 * sizeof(float));
    w->rows = MEM_NEW(float, EMBED_ROWS *(D > W ? D : W));
    w->in = put_part(m, &m->project_in, e);
    w->gain = put_part(m, &m->embed_gain, e), w->bias = put_part(m, &m->embed_bias, e);
    if (!e->code) return 0;
    embedder_free(m);
    return -1;
}

static int embed_rows(struct model *m, const int32_t *ids, int r0, int n, int T, int pos0, dev x,
                      struct err *e)
{
    const struct backend *be = m->be;
    const struct embedder *w = m->embedder;
    int D = m->c.block.D, W = m->c.embed_dim;
    dev first = m->project_in.t ? w->table : x;
    for (int r = 0; r < n; r++)
        if (model_read_embed(m, ids[r0 + r], 1, w->rows + (size_t)r * (size_t)W, e)) return -1;
    for (size_t i = 0; i < (size_t)n * (size_t)W && m->c.embed_scale != 1; i++)
        w->rows[i] *= m->c.embed_scale;
    be->put(first, w->rows, (size_t)n * (size_t)W * sizeof(float));
    if (m->project_in.t) be->gemm(false, true, n, D, W, 1, first, W, w->in, W, 0, x, D);
    if (m->pos_embed.t && add_positions(m, w->rows, r0, n, T, pos0, w->tmp, x, e)) return -1;
    if (!m->embed_gain.t) return 0;
    be->norm(false, w->tmp, w->stat, x, w->gain, w->bias, 1, n, D, m->c.block.eps);
    be->copy(x, w->tmp, (size_t)n * (size_t)D * sizeof(float));
    return 0;
}

int model_embed(struct model *m, const int32_t *ids, int B, int T, int pos0, dev x, struct err *e)
{
    size_t D = (size_t)m->c.block.D;
    int R = B * T, rc = check_ids(&m->c, &m->pos_embed, ids, R, pos0 + T, e);
    if (!rc && !m->embedder) rc = embedder_open(m, e);
    for (int r0 = 0; r0 < R && !rc; r0 += EMBED_ROWS)
        rc = embed_rows(m, ids, r0, R - r0 < EMBED_ROWS ? R - r0 : EMBED_ROWS, T, pos0,
                        dev_at(x, (size_t)r0 * D), e);
    return rc;
}
