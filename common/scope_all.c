/* SPDX-License-Identifier: Apache-2.0
 * --params all: the parts of model scope that training a whole float model adds. The matrices lie in the
 * vector of values after the norms and are run from there; there is no quantized stream to read and no
 * teacher. The input is the model itself, which may be a config.json with random weights
 * (checkpoints/init.c). */
#include "common/scope_train.h"
#include <string.h>
#include "common/mem.h"

/* ---- places: by layer the linears, then (with experts) what chooses them and the shared one's gate; then the
 * embedding, then the head unless it is the same ---- */

static int per_layer(const struct scope *s)
{
    return s->in->per + (s->m->c.block.experts ? 2 : 0);
}

static int embed_index(const struct scope *s)
{
    return s->L * per_layer(s);
}

/* Where matrix i of a layer lies in the file; t NULL: the layer has none. */
static const struct weight_part *layer_part(const struct scope *s, int layer, int i)
{
    const struct model_layer *l = &s->m->layers[layer];
    return i < s->in->per ? &l->w[i] : i == s->in->per ? &l->router : &l->shared_gate;
}

/* Its name in the stream, and its shape: a gate, which is read as a vector, is a matrix of one row. */
static void layer_matrix(const struct scope *s, int layer, int i, struct qtensor *q)
{
    const struct family_names *f = &s->m->c.hf;
    q->layer = layer, q->out = 1, q->in = s->D;
    if (i < s->in->per) {
        role_dims(&s->m->c.block, i, &q->out, &q->in);
        model_tensor_name(s->m, layer, i, q->name);
        strcpy(q->role, role_name(i));
    } else {
        if (i == s->in->per) q->out = s->m->c.block.experts;
        family_tensor_name(q->name, i == s->in->per ? f->router : f->shared_gate, layer, ".weight");
    }
}

/* Matrix i of all: name, layer, role, shape. */
static void describe(const struct scope *s, int i, struct qtensor *q)
{
    const struct family_names *f = &s->m->c.hf;
    *q = (struct qtensor){.layer = -1, .out = s->m->c.vocab, .in = s->D};
    if (i < embed_index(s))
        layer_matrix(s, i / per_layer(s), i % per_layer(s), q);
    else
        snprintf(q->name, sizeof q->name, "%s.weight", i == embed_index(s) ? f->embed : f->head);
}

static size_t matrix_size(const struct scope *s, int i)
{
    struct qtensor q;
    describe(s, i, &q);
    return (size_t)q.out * (size_t)q.in;
}

static bool has_matrix(const struct scope *s, int i)
{
    if (i < embed_index(s)) return layer_part(s, i / per_layer(s), i % per_layer(s))->t != NULL;
    return i == embed_index(s) || !s->m->c.tied;
}

uint64_t scope_all_values(const struct model_config *c)
{
    uint64_t n = (uint64_t)c->vocab * (uint64_t)c->block.D * (c->tied ? 1 : 2);
    for (int l = 0; l < c->n_layers; l++) {
        struct block_shape s = c->block;
        if (c->layer[l].dense) s.experts = s.shared_F = 0;
        if (s.experts) s.F = 0;
        n += block_weights(&s) + (uint64_t)s.experts * (uint64_t)s.D;
        if (s.shared_F && c->hf.shared_gate) n += (uint64_t)s.D;
    }
    return n;
}

size_t scope_all_place(struct scope *s, size_t n)
{
    int count = embed_index(s) + 2;
    s->matrix_at = MEM_NEW(size_t, (size_t)count);
    for (int i = 0; i < count; i++) {
        bool has = has_matrix(s, i);
        s->matrix_at[i] = has ? n : SCOPE_NONE;
        n += has ? matrix_size(s, i) : 0;
    }
    return n;
}

static int read_matrix(struct scope *s, int i, float *w, struct err *e)
{
    int layer = i / per_layer(s), vocab = s->m->c.vocab;
    if (i < embed_index(s)) return model_read_part(s->m, layer_part(s, layer, i % per_layer(s)), w, e);
    return i == embed_index(s) ? model_read_embed(s->m, 0, vocab, w, e) : model_read_head(s->m, 0, vocab, w, e);
}

static size_t head_at(const struct scope *s)
{
    size_t own = s->matrix_at[embed_index(s) + 1];
    return own == SCOPE_NONE ? s->matrix_at[embed_index(s)] : own;
}

int scope_all_open(struct scope *s, struct err *e)
{
    s->first = MEM_NEW(float, s->n - s->n_norms);
    s->ids = s->be->alloc((size_t)s->R * sizeof(int32_t));
    for (int i = 0; i < embed_index(s) + 2; i++)
        if (s->matrix_at[i] != SCOPE_NONE && read_matrix(s, i, s->first + (s->matrix_at[i] - s->n_norms), e))
            return -1;
    head_train(s->student, dev_at(s->p, head_at(s)), dev_at(s->g, head_at(s)));
    return 0;
}

/* ---- forward and backward ---- */

/* Matrix i of a layer in one of the vectors of values, or none. */
static dev layer_at(const struct scope *s, dev values, int layer, int i)
{
    size_t at = s->matrix_at[layer * per_layer(s) + i];
    return at == SCOPE_NONE ? DEV_NONE : dev_at(values, at);
}

void scope_all_load(struct scope *s, int layer)
{
    for (int i = 0; i < per_layer(s); i++) {
        dev from = layer_at(s, s->p, layer, i),
            to = i < s->in->per ? s->blk->w[i] : i == s->in->per ? s->blk->router : s->blk->shared_gate;
        if (dev_ok(from)) s->be->copy(to, from, matrix_size(s, layer * per_layer(s) + i) * sizeof(float));
    }
}

void scope_all_grads(const struct scope *s, int layer, struct block_grads *g)
{
    for (int i = 0; i < s->in->per; i++) g->w[i] = layer_at(s, s->g, layer, i);
    if (!s->m->c.block.experts) return;
    g->router = layer_at(s, s->g, layer, s->in->per), g->shared_gate = layer_at(s, s->g, layer, s->in->per + 1);
}

void scope_all_embed(struct scope *s, const int32_t *ids, dev x)
{
    s->be->put(s->ids, ids, (size_t)s->R * sizeof *ids);
    s->be->embed(x, dev_at(s->p, s->matrix_at[embed_index(s)]), s->ids, s->R, s->D);
}

void scope_all_embed_back(struct scope *s, dev dx)
{
    s->be->embed_back(dev_at(s->g, s->matrix_at[embed_index(s)]), dx, s->ids, s->R, s->D);
}

/* ---- held-out sequences: cross-entropy and how often the likeliest token is the next one ---- */

static void embed_held_out(struct scope_train *t, struct boundary *b)
{
    struct scope *s = t->s;
    size_t T = (size_t)t->tk->T, D = (size_t)s->D;
    const float *table = s->value + s->matrix_at[embed_index(s)];
    boundary_alloc(b, t->n_hold, t->tk->T, s->D, t->tk->n - t->n_hold, 0);
    for (size_t i = 0; i < (size_t)t->n_hold * T; i++) {
        size_t id = (size_t)t->tk->ids[(size_t)b->first * T + i];
        memcpy(b->x + i * D, table + id * D, D * sizeof(float));
    }
}

static void score(struct scope_train *t, const struct boundary *b, int i, double *nll, int32_t *best,
                  double *ce, double *top1)
{
    struct scope *s = t->s;
    int R = t->tk->T - 1;
    const int32_t *target = t->tk->ids + (size_t)(b->first + i) * (size_t)t->tk->T + 1;
    s->be->put(t->pass.y, boundary_view(b, i), (size_t)R * (size_t)s->D * sizeof(float));
    head_nll(s->student, t->pass.y, target, R, nll, best);
    *ce = *top1 = 0;
    for (int r = 0; r < R; r++) *ce += nll[r] / R, *top1 += (double)(best[r] == target[r]) / R;
}

int scope_all_evaluate(struct scope_train *t, double *ce, double *top1, boundary_visit *visit, struct err *e)
{
    struct scope *s = t->s;
    struct boundary b;
    int rc = 0;
    double *nll = MEM_NEW(double, (size_t)t->tk->T);
    int32_t *best = MEM_NEW(int32_t, (size_t)t->tk->T);
    embed_held_out(t, &b);
    for (int l = 0; l < s->L && !rc; l++)
        rc = scope_load(s, l, e) || boundary_run(&t->pass, s->blk, &b, &b, NULL, visit, t, e) ? -1 : 0;
    for (int i = 0; i < t->n_hold && !rc; i++) {
        score(t, &b, i, nll, best, &ce[i], &top1[i]);
        rc = err_stopped(e);
    }
    boundary_clear(&b);
    mem_free(nll);
    mem_free(best);
    return rc;
}

/* ---- the result: every matrix as a plain tensor, norms old and new ---- */

static int write_matrix(const struct scope *s, struct stream_writer *w, int i, struct err *e)
{
    struct qtensor q;
    if (s->matrix_at[i] == SCOPE_NONE) return 0;
    describe(s, i, &q);
    qtensor_init_plain(&q, q.out, q.in, s->value + s->matrix_at[i]);
    int rc = qtensor_write(w, &q, e);
    qtensor_clear(&q);
    return rc;
}

int scope_all_write(const struct scope *s, struct stream_writer *w, struct err *e)
{
    int rc = write_matrix(s, w, embed_index(s), e);
    for (int l = 0; l < s->L && !rc; l++) {
        for (int i = 0; i < per_layer(s) && !rc; i++) rc = write_matrix(s, w, l * per_layer(s) + i, e);
        for (int i = 0; i < NORM_VECTORS && !rc; i++) rc = scope_write_norm(s, w, l * NORM_VECTORS + i, e);
        if (!rc) rc = stream_layer_end(w, l, e);
    }
    for (int i = s->L * NORM_VECTORS; i < s->in->n_norms && !rc; i++) rc = scope_write_norm(s, w, i, e);
    return rc ? rc : write_matrix(s, w, embed_index(s) + 1, e);
}

/* What --params all cannot train. */
int scope_all_check(const struct model *m, struct err *e)
{
    if (model_linear_has_bias(m))
        return err_set(e, NT_EXIT_USAGE,
                       "--params all: training the biases of linears (%s has them) is not available",
                       m->ck->path);
    if (m->pos_embed.t || m->embed_gain.t || m->project_in.t || m->project_out.t || m->head_bias.t ||
        m->c.embed_scale != 1)
        return err_set(
            e, NT_EXIT_USAGE,
            "--params all: %s has more than rows of an embedding before its blocks and a matrix after "
            "them, which is not available",
            m->ck->path);
    return 0;
}
