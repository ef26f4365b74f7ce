/* SPDX-License-Identifier: Apache-2.0
 * The tensors of a Hugging Face directory or a GGUF file from the items of a pack: parts joined, transposed or
 * permuted back as the file has them, as values or as codes; norms without what the family adds to them. */
#include "common/mem.h"
#include "common/pack.h"
#include <string.h>

/* A norm's values less the offset; others as they are. */
struct less {
    float offset;
    pack_sink *sink;
    void *ctx;
    float *buf;
    size_t cap;
};

static int put_less(void *ctx, const float *x, size_t n, struct err *e)
{
    struct less *l = ctx;
    l->buf = mem_grow(l->buf, &l->cap, n, sizeof *l->buf);
    for (size_t i = 0; i < n; i++) l->buf[i] = x[i] - l->offset;
    return l->sink(l->ctx, l->buf, n, e);
}

static float hf_offset(const struct pack *p, const struct pack_item *it)
{
    return it->offset ? p->m->c.family->norm_offset : 0;
}

/* GGUF files hold effective gains. */
static int item_values(struct pack *p, const struct pack_whole *w, pack_sink *sink, void *ctx, struct err *e)
{
    const struct pack_item *it = w->part[0];
    struct less l = {.offset = w->gguf ? 0 : hf_offset(p, it), .sink = sink, .ctx = ctx};
    if (l.offset == 0) return pack_values(p, it, sink, ctx, e);
    int rc = pack_values(p, it, put_less, &l, e);
    mem_free(l.buf);
    return rc;
}

/* Where the rows of a linear's weight or bias lie in the file; the rows of the whole tensor. */
static uint64_t layout(const struct pack *p, const struct pack_item *it, bool gguf, struct weight_part *at)
{
    uint64_t rows = model_part_layout(&p->m->c, it->role, gguf, at);
    if (it->rank == 1) at->cols = 1, at->transposed = false;
    return rows;
}

static void add_part(struct pack_whole *w, const struct pack_item *it)
{
    w->part = mem_grow((void *)w->part, &w->cap, (size_t)w->n + 1, sizeof *w->part);
    w->part[w->n++] = it;
}

/* The tensor that an item lies in, or is. */
static struct pack_whole whole_of(const struct pack *p, const struct pack_item *it, const char *name, bool gguf)
{
    struct pack_whole w = {.rank = it->rank, .gguf = gguf, .shape = {it->shape[0], it->shape[1]}};
    uint64_t E = (uint64_t)p->m->c.block.E;
    const struct tensor *t = &it->part.t->t;
    strcpy(w.name, name);
    add_part(&w, it);
    if (it->role >= 0) {
        struct weight_part at;
        uint64_t rows = layout(p, it, gguf, &at);
        w.shape[0] = at.transposed ? at.cols : rows;
        if (it->rank == 2) w.shape[1] = at.transposed ? rows : at.cols;
    } else if (it->heads) {
        w.rank = 2, w.shape[0] = it->shape[0] / E, w.shape[1] = E;
    } else if (p->m->gguf == gguf && t->rank == 2) {
        w.rank = 2, w.shape[0] = t->shape[0], w.shape[1] = t->shape[1];
    }
    return w;
}

struct pack_whole *pack_wholes(const struct pack *p, bool gguf, size_t *count)
{
    struct pack_whole *list = NULL;
    size_t n = 0, cap = 0, E = (size_t)p->m->c.block.E;
    for (size_t i = 0; i < p->n_items; i++) {
        const struct pack_item *it = &p->items[i];
        const char *own = gguf ? it->gguf_name : it->name, *star = strchr(own, '*');
        size_t len = strcspn(own, "#"), at = own[len] ? n : 0;
        char name[256];
        snprintf(name, sizeof name, "%.*s", (int)len, own);
        while (at > 0 && strcmp(list[at - 1].name, name) != 0) at--;
        if (at > 0) { /* the tensor's first part is there */
            add_part(&list[at - 1], it);
            continue;
        }
        for (size_t h = 0; h < (star ? it->shape[0] / E : 1); h++) { /* with *: a tensor for every head */
            if (star) snprintf(name, sizeof name, "%.*s%zu%s", (int)(star - own), own, h, star + 1);
            list = mem_grow(list, &cap, n + 1, sizeof *list);
            list[n] = whole_of(p, it, name, gguf);
            if (star) list[n].from = h * E, list[n].rank = 1, list[n].shape[0] = E;
            n++;
        }
    }
    *count = n;
    return list;
}

void pack_wholes_free(struct pack_whole *list, size_t n)
{
    for (size_t i = 0; i < n; i++) mem_free((void *)list[i].part);
    mem_free(list);
}

/* ---- values ---- */

/* One head of a vector of all. */
struct slice {
    const struct pack_whole *w;
    pack_sink *sink;
    void *ctx;
};

static int put_slice(void *ctx, const float *x, size_t n, struct err *e)
{
    struct slice *s = ctx;
    (void)n; /* a vector is one piece */
    return s->sink(s->ctx, x + s->w->from, (size_t)s->w->shape[0], e);
}

/* Rows of a part on their way into the whole tensor. */
struct place {
    float *whole;
    struct weight_part file;
    uint64_t rows; /* of the whole, before it is turned */
    uint64_t at;   /* the next row of the part */
};

static int put_rows(void *ctx, const float *x, size_t n, struct err *e)
{
    struct place *p = ctx;
    uint64_t cols = p->file.cols;
    (void)e;
    for (size_t i = 0; i < n / cols; i++, p->at++) {
        uint64_t row = model_part_row(&p->file, p->at);
        for (uint64_t c = 0; c < cols; c++)
            p->whole[p->file.transposed ? c * p->rows + row : row * cols + c] = x[i * cols + c];
    }
    return 0;
}

int pack_whole_values(struct pack *p, const struct pack_whole *w, pack_sink *sink, void *ctx, struct err *e)
{
    const struct pack_item *first = w->part[0];
    struct place to = {0};
    struct slice slice = {w, sink, ctx};
    if (!w->gguf && strchr(first->name, '*')) return item_values(p, w, put_slice, &slice, e);
    if (first->role >= 0) to.rows = layout(p, first, w->gguf, &to.file);
    if (w->n == 1 && !to.file.transposed && !to.file.head_dim) return item_values(p, w, sink, ctx, e);
    uint64_t count = w->shape[0] * (w->rank == 2 ? w->shape[1] : 1);
    int rc = 0;
    to.whole = mem_array(count, sizeof *to.whole);
    for (int i = 0; i < w->n && rc == 0; i++) {
        to.rows = layout(p, w->part[i], w->gguf, &to.file), to.at = 0;
        rc = pack_values(p, w->part[i], put_rows, &to, e);
    }
    if (rc == 0) rc = sink(ctx, to.whole, count, e);
    mem_free(to.whole);
    return rc;
}

/* ---- codes ---- */

int pack_whole_coded(const struct pack *p, const struct pack_whole *w)
{
    int coded = 0;
    for (int i = 0; i < w->n; i++) {
        const struct qtensor *h = w->part[i]->q >= 0 ? &p->q[w->part[i]->q].head : NULL;
        coded += h && (h->form != QF_PLAIN || dtype_block(h->plain.dtype) > 1);
    }
    return coded;
}

/* Why b cannot lie in one tensor with a; NULL: it can. */
static const char *different(const struct qtensor *a, const struct qtensor *b)
{
    if (a->form != b->form || strcmp(a->levels, b->levels) != 0) return "has parts of different forms";
    if (a->form == QF_PLAIN) return a->plain.dtype == b->plain.dtype ? NULL : "has parts of different types";
    if (a->bits != b->bits || a->group != b->group || a->n_groups != b->n_groups)
        return "has parts of different bits or groups";
    if (a->n_rows || b->n_rows) return "has parts with groups across rows";
    if (a->sym != b->sym || !a->zero != !b->zero || !a->minimum != !b->minimum || a->divisor != b->divisor)
        return "has parts with and without symmetry";
    if (!a->gidx != !b->gidx || (a->gidx && memcmp(a->gidx, b->gidx, (size_t)a->in * sizeof *a->gidx) != 0))
        return "has parts whose columns have other orders";
    return NULL;
}

/* An empty tensor of `rows` rows like q. */
static void like(struct qtensor *all, const struct qtensor *q, int rows)
{
    size_t out = (size_t)rows, params = out * (size_t)q->n_groups;
    *all = *q;
    all->out = rows, all->info = NULL, all->ridx = NULL;
    if (q->form == QF_PLAIN) {
        all->plain.shape[0] = out, all->plain.nbytes = q->plain.nbytes / (uint64_t)q->out * out;
        all->plain.data = mem_array(all->plain.nbytes, 1);
        return;
    }
    all->codes = mem_array(out, (size_t)q->in);
    all->scale = mem_array(params, sizeof *q->scale);
    if (q->zero) all->zero = mem_array(params, 1);
    if (q->minimum) all->minimum = mem_array(params, sizeof *q->minimum);
    if (q->gidx) {
        all->gidx = mem_array((size_t)q->in, sizeof *q->gidx);
        memcpy(all->gidx, q->gidx, (size_t)q->in * sizeof *q->gidx);
    }
}

static void copy_row(void *to, const void *from, size_t row, size_t i, size_t bytes)
{
    if (to) memcpy((char *)to + row * bytes, (const char *)from + i * bytes, bytes);
}

static void join(struct qtensor *all, const struct qtensor *q, const struct weight_part *at)
{
    size_t groups = (size_t)q->n_groups;
    for (size_t i = 0; i < (size_t)q->out; i++) {
        size_t row = (size_t)model_part_row(at, i);
        if (q->form == QF_PLAIN) {
            copy_row(all->plain.data, q->plain.data, row, i, q->plain.nbytes / (size_t)q->out);
            continue;
        }
        copy_row(all->codes, q->codes, row, i, (size_t)q->in);
        copy_row(all->scale, q->scale, row, i, groups * sizeof *q->scale);
        copy_row(all->zero, q->zero, row, i, groups);
        copy_row(all->minimum, q->minimum, row, i, groups * sizeof *q->minimum);
    }
}

int pack_whole_load(const struct pack *p, const struct pack_whole *w, struct qtensor *all, const char **why,
                    struct err *e)
{
    struct qtensor q;
    struct weight_part at;
    uint64_t rows = w->part[0]->shape[0];
    *why = NULL;
    memset(all, 0, sizeof *all);
    memset(&at, 0, sizeof at);
    for (int i = 0; i < w->n; i++)
        if (w->part[i]->q < 0) return *why = "has parts that are not quantized", 0;
    if (w->part[0]->role >= 0) rows = layout(p, w->part[0], w->gguf, &at);
    if (w->n == 1 && !at.head_dim) return pack_load(p, w->part[0]->q, all, e);
    int rc = 0;
    for (int i = 0; i < w->n && rc == 0 && !*why; i++) {
        rc = pack_load(p, w->part[i]->q, &q, e);
        if (rc < 0) break;
        if (i == 0) like(all, &q, (int)rows);
        *why = different(all, &q);
        layout(p, w->part[i], w->gguf, &at);
        if (!*why) join(all, &q, &at);
        if (q.scale_dtype != all->scale_dtype) all->scale_dtype = DT_F32;
        qtensor_clear(&q);
    }
    if (rc == 0 && !*why) return 0;
    qtensor_clear(all);
    return rc;
}
