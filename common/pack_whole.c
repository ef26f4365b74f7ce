/* SPDX-License-Identifier: Apache-2.0
 * The tensors of a Hugging Face directory from the items of a pack: parts joined and transposed back as the
 * family has them, norms without what it adds to them. */
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

float pack_hf_offset(const struct pack *p, const struct pack_item *it)
{
    return it->offset ? p->m->c.family->norm_offset : 0;
}

int pack_hf_values(struct pack *p, const struct pack_item *it, pack_sink *sink, void *ctx, struct err *e)
{
    struct less l = {.offset = pack_hf_offset(p, it), .sink = sink, .ctx = ctx};
    if (l.offset == 0) return pack_values(p, it, sink, ctx, e);
    int rc = pack_values(p, it, put_less, &l, e);
    mem_free(l.buf);
    return rc;
}

/* The tensor that an item lies in, or is. */
static struct pack_whole whole_of(const struct pack *p, const struct pack_item *it, const char *name)
{
    struct pack_whole w = {.part = {it}, .n = 1, .rank = it->rank, .shape = {it->shape[0], it->shape[1]}};
    const struct tensor *t = &it->part.t->t;
    strcpy(w.name, name);
    if (it->role >= 0) {
        struct weight_part hf;
        uint64_t rows = model_part_layout(&p->m->c, (enum role)it->role, false, &hf);
        bool turned = it->rank == 2 && hf.transposed;
        w.shape[0] = turned ? hf.cols : rows;
        if (it->rank == 2) w.shape[1] = turned ? rows : hf.cols;
    } else if (!p->m->gguf && t->rank == 2) {
        w.rank = 2, w.shape[0] = t->shape[0], w.shape[1] = t->shape[1]; /* a norm of [heads, E], too */
    }
    return w;
}

struct pack_whole *pack_wholes(const struct pack *p, size_t *count)
{
    struct pack_whole *list = NULL;
    size_t n = 0, cap = 0, E = (size_t)p->m->c.block.E;
    for (size_t i = 0; i < p->n_items; i++) {
        const struct pack_item *it = &p->items[i];
        const char *star = strchr(it->name, '*');
        size_t len = strcspn(it->name, "#"), at = it->name[len] ? n : 0;
        char name[256];
        snprintf(name, sizeof name, "%.*s", (int)len, it->name);
        while (at > 0 && strcmp(list[at - 1].name, name) != 0) at--;
        if (at > 0) { /* the tensor's first part is there */
            list[at - 1].part[list[at - 1].n++] = it;
            continue;
        }
        for (size_t h = 0; h < (star ? it->shape[0] / E : 1); h++) { /* with *: a tensor for every head */
            if (star) snprintf(name, sizeof name, "%.*s%zu%s", (int)(star - it->name), it->name, h, star + 1);
            list = mem_grow(list, &cap, n + 1, sizeof *list);
            list[n] = whole_of(p, it, name);
            if (star) list[n].from = h * E, list[n].rank = 1, list[n].shape[0] = E;
            n++;
        }
    }
    *count = n;
    return list;
}

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
    struct weight_part hf;
    uint64_t rows; /* of the whole, before it is turned */
    uint64_t at;   /* the next row of the part */
};

static int put_rows(void *ctx, const float *x, size_t n, struct err *e)
{
    struct place *p = ctx;
    (void)e;
    for (size_t i = 0; i < n / p->hf.cols; i++, p->at++) {
        uint64_t row = model_part_row(&p->hf, p->at);
        for (uint64_t c = 0; c < p->hf.cols; c++)
            p->whole[p->hf.transposed ? c * p->rows + row : row * p->hf.cols + c] = x[i * p->hf.cols + c];
    }
    return 0;
}

int pack_whole_values(struct pack *p, const struct pack_whole *w, pack_sink *sink, void *ctx, struct err *e)
{
    const struct pack_item *first = w->part[0];
    struct place to = {0};
    struct slice slice = {w, sink, ctx};
    if (strchr(first->name, '*')) return pack_hf_values(p, first, put_slice, &slice, e);
    if (first->role < 0 || (w->n == 1 && !(first->rank == 2 && p->m->c.transposed)))
        return pack_hf_values(p, first, sink, ctx, e);
    uint64_t count = w->shape[0] * (w->rank == 2 ? w->shape[1] : 1);
    int rc = 0;
    to.whole = mem_array(count, sizeof *to.whole);
    for (int i = 0; i < w->n && rc == 0; i++) {
        to.rows = model_part_layout(&p->m->c, (enum role)w->part[i]->role, false, &to.hf), to.at = 0;
        if (w->rank == 1) to.hf.cols = 1, to.hf.transposed = false;
        rc = pack_values(p, w->part[i], put_rows, &to, e);
    }
    if (rc == 0) rc = sink(ctx, to.whole, count, e);
    mem_free(to.whole);
    return rc;
}
