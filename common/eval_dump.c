/* SPDX-License-Identifier: Apache-2.0
 * --dump: nll, logits, hidden states and norm gradients of given token ids, as F32 tensors. Gradients run
 * through the whole model with block checkpointing: the input of every block is kept, its inside is computed
 * again. */
#include <stdlib.h>
#include <string.h>
#include "common/eval.h"
#include "common/mem.h"
#include "common/safetensors_write.h"
#include "common/tool.h"

int dump_parse(const char *list, struct dump_request *d, struct err *e)
{
    static const char *const names[] = {"nll", "logits", "hidden", "norm-grads"};
    bool *flag[] = {&d->nll, &d->logits, &d->hidden, &d->norm_grads};
    for (const char *p = list; *p; p += *p == ',') {
        size_t n = strcspn(p, ","), i = 0;
        while (i < 4 && (strlen(names[i]) != n || strncmp(names[i], p, n))) i++;
        if (i == 4)
            return err_set(e, NT_EXIT_USAGE, "--dump: %.*s is none of nll, logits, hidden, norm-grads",
                           (int)n, p);
        *flag[i] = true;
        p += n;
    }
    return 0;
}

/* ---- input ---- */

static int add_sequence(struct score_set *set, const json_t *seq, size_t i, int vocab, const char *path,
                        struct err *e)
{
    int T = (int)json_array_size(seq);
    if (!json_is_array(seq) || T < 2 || T > 1 << 20)
        return err_set(e, NT_EXIT_DATA, "%s: item %zu is no array of at least 2 token ids", path, i);
    int32_t *ids = MEM_NEW(int32_t, T), *target = MEM_NEW(int32_t, T);
    int rc = 0;
    for (int t = 0; t < T && !rc; t++) {
        const json_t *v = json_array_get(seq, (size_t)t);
        json_int_t id = json_integer_value(v);
        if (!json_is_integer(v) || id < 0 || id >= vocab)
            rc = err_set(e, NT_EXIT_DATA, "%s: item %zu, position %d: no token id below %d", path, i, t,
                         vocab);
        ids[t] = (int32_t)id;
    }
    for (int t = 0; t < T; t++) target[t] = t + 1 < T ? ids[t + 1] : -1;
    if (!rc) score_add(set, ids, target, T);
    mem_free(ids), mem_free(target);
    return rc;
}

static int read_ids(struct score_set *set, const char *path, int vocab, struct err *e)
{
    json_error_t je;
    json_t *all = !strcmp(path, "-") ? json_loadf(stdin, 0, &je) : json_load_file(path, 0, &je), *seq;
    size_t i;
    int rc = 0;
    if (!all)
        return err_set(e, json_error_code(&je) == json_error_cannot_open_file ? NT_EXIT_IO : NT_EXIT_DATA,
                       "%s: line %d: %s", path, je.line, je.text);
    if (!json_is_array(all) || !json_array_size(all))
        rc = err_set(e, NT_EXIT_DATA, "%s: no array of arrays of token ids", path);
    json_array_foreach(all, i, seq) if (!rc) rc = add_sequence(set, seq, i, vocab, path, e);
    json_decref(all);
    return rc;
}

/* ---- computing ---- */

struct dump {
    struct score_source *s;
    const struct backend *be;
    const struct dump_request *want;
    struct score_set set;
    int L, D, V, rows; /* rows: of the largest batch */
    bool keep;         /* every boundary, not the last one only */
    dev **x;           /* [L + 1][batch]; without keep all layers share x[0] */
    dev *dx;           /* [batch] gradient of the boundary at hand */
    dev spare;
    struct block *blk;
    struct block_work *work;
    struct head *head;
    size_t stride;
    float *grad; /* [L * NORM_VECTORS + 2][stride], the final norm last */
};

static dev boundary(const struct dump *d)
{
    return d->be->alloc((size_t)d->rows * (size_t)d->D * sizeof(float));
}
static int rows_of(const struct score_batch *b)
{
    return b->B * b->T;
}

static void dump_alloc(struct dump *d)
{
    int T = 1;
    for (int i = 0; i < d->set.n; i++) {
        if (rows_of(&d->set.batch[i]) > d->rows) d->rows = rows_of(&d->set.batch[i]);
        if (d->set.batch[i].T > T) T = d->set.batch[i].T;
    }
    d->x = MEM_NEW(dev *, d->L + 1);
    for (int l = 0; l <= d->L; l++) {
        if (l && !d->keep) {
            d->x[l] = d->x[0];
            continue;
        }
        d->x[l] = MEM_NEW(dev, d->set.n);
        for (int i = 0; i < d->set.n; i++) d->x[l][i] = boundary(d);
    }
    d->dx = MEM_NEW(dev, d->set.n);
    for (int i = 0; i < d->set.n && d->want->norm_grads; i++) d->dx[i] = boundary(d);
    d->spare = boundary(d);
    d->blk = block_alloc(d->s->m, T);
    d->work = block_work_alloc(d->be, &d->s->m->c.block, d->rows, d->want->norm_grads);
    d->stride = (size_t)norm_max_dim(&d->s->m->c.block);
    d->grad = MEM_NEW(float, (size_t)(d->L * NORM_VECTORS + 2) * d->stride);
}

static void dump_free(struct dump *d)
{
    for (int l = 0; d->x && l <= d->L; l++) {
        if (l && !d->keep) break;
        for (int i = 0; i < d->set.n; i++) d->be->release(d->x[l][i]);
        mem_free(d->x[l]);
    }
    for (int i = 0; d->dx && i < d->set.n; i++) d->be->release(d->dx[i]);
    mem_free(d->x), mem_free(d->dx), mem_free(d->grad);
    d->be->release(d->spare);
    block_free(d->s->m, d->blk);
    block_work_free(d->work);
    head_free(d->head);
    score_clear(&d->set);
}

static int forward(struct dump *d, struct err *e)
{
    for (int i = 0; i < d->set.n; i++)
        if (model_embed(d->s->m, d->set.batch[i].ids, d->set.batch[i].B, d->set.batch[i].T, 0, d->x[0][i], e))
            return -1;
    for (int l = 0; l < d->L; l++) {
        if (score_load(d->s, d->blk, l, e)) return -1;
        for (int i = 0; i < d->set.n; i++) {
            const struct score_batch *b = &d->set.batch[i];
            dev y = d->keep ? d->x[l + 1][i] : d->spare;
            block_forward(d->be, d->blk, d->work, b->B, b->T, 0, d->x[l][i], y, NULL, NULL);
            if (!d->keep) d->spare = d->x[0][i], d->x[0][i] = y;
            if (tool_stopping())
                return err_set(e, 128 + err_stop_signal, "stopped by a signal in layer %d", l);
        }
        progress_at(l + 1, "layer %d", l);
    }
    return 0;
}

static void run_head(struct dump *d)
{
    uint64_t count = 0;
    dev dfinal = d->be->alloc(2 * (size_t)d->D * sizeof(float)); /* of gain and bias */
    dev dbias = d->s->m->final_bias.t ? dev_at(dfinal, (size_t)d->D) : DEV_NONE;
    for (int i = 0; i < d->set.n; i++)
        count += (uint64_t)d->set.batch[i].B * (uint64_t)(d->set.batch[i].T - 1);
    for (int i = 0; i < d->set.n; i++) {
        struct score_batch *b = &d->set.batch[i];
        b->nll = MEM_NEW(double, rows_of(b));
        if (d->want->nll) head_nll(d->head, d->x[d->L][i], b->targets, rows_of(b), b->nll, NULL);
        if (d->want->norm_grads)
            head_ce_back(d->head, d->x[d->L][i], b->targets, rows_of(b), 1.0f / (float)count, d->dx[i],
                         dfinal, dbias);
    }
    for (int i = 0; i < 2; i++)
        d->be->get(d->grad + (size_t)(d->L * NORM_VECTORS + i) * d->stride,
                   dev_at(dfinal, (size_t)(i * d->D)), (size_t)d->D * sizeof(float));
    d->be->release(dfinal);
}

static int backward(struct dump *d, struct err *e)
{
    struct block_grads g = {0};
    int rc = 0;
    for (int i = 0; i < NORM_VECTORS; i++)
        if (dev_ok(block_norm_vector(d->blk, i)))
            *grad_norm_vector(&g, i) = d->be->alloc(d->stride * sizeof(float));
    for (int l = d->L - 1; l >= 0 && !rc; l--) {
        rc = score_load(d->s, d->blk, l, e);
        for (int i = 0; i < NORM_VECTORS; i++)
            if (dev_ok(*grad_norm_vector(&g, i))) d->be->fill(*grad_norm_vector(&g, i), 0, d->stride);
        for (int i = 0; i < d->set.n && !rc; i++) {
            const struct score_batch *b = &d->set.batch[i];
            dev dx = d->spare;
            block_forward(d->be, d->blk, d->work, b->B, b->T, 0, d->x[l][i], dx, NULL, NULL);
            block_backward(d->be, d->blk, d->work, b->B, b->T, 0, d->x[l][i], d->dx[i], l ? dx : DEV_NONE, &g,
                           NULL, NULL);
            d->spare = d->dx[i], d->dx[i] = dx;
            if (tool_stopping()) rc = err_set(e, 128 + err_stop_signal, "stopped by a signal in layer %d", l);
        }
        for (int i = 0; i < NORM_VECTORS; i++)
            if (dev_ok(*grad_norm_vector(&g, i)))
                d->be->get(d->grad + (size_t)(l * NORM_VECTORS + i) * d->stride, *grad_norm_vector(&g, i),
                           d->stride * sizeof(float));
        progress_at(d->L + 2 * (d->L - l), "layer %d backward", l);
    }
    for (int i = 0; i < NORM_VECTORS; i++) d->be->release(*grad_norm_vector(&g, i));
    return rc;
}

/* ---- writing ---- */

enum { ITEM_NLL, ITEM_LOGITS, ITEM_HIDDEN, ITEM_GRAD };
struct item {
    int what, index, at; /* at: of a gradient, where in its vector */
    char name[300];
};

static void list_item(struct safetensors_entry *list, struct item *items, size_t *n, int what, int index,
                      const char *name, int rank, const uint64_t *shape)
{
    struct item *it = &items[*n];
    it->what = what, it->index = index;
    snprintf(it->name, sizeof it->name, "%s", name);
    list[*n] = (struct safetensors_entry){.name = it->name, .dtype = DT_F32, .rank = rank, .user = it};
    memcpy(list[*n].shape, shape, (size_t)rank * sizeof *shape);
    (*n)++;
}

/* A norm that the file has by heads. */
static void list_heads(const struct dump *d, struct safetensors_entry *list, struct item *items, size_t *n,
                       int i, const struct checkpoint_tensor *t)
{
    uint64_t E = (uint64_t)d->s->m->c.block.E;
    char name[300];
    for (int h = 0; h < (int)(t->t.shape[0] / E); h++) {
        snprintf(name, sizeof name, "grad.%s.%d.weight", t->name, h);
        list_item(list, items, n, ITEM_GRAD, i, name, 1, &E);
        items[*n - 1].at = h * (int)E;
    }
}

static size_t list_items(const struct dump *d, struct safetensors_entry *list, struct item *items)
{
    uint64_t seqs = 0, T = (uint64_t)d->set.batch[0].T, D = (uint64_t)d->D;
    char name[300];
    size_t n = 0;
    for (int i = 0; i < d->set.n; i++) seqs += (uint64_t)d->set.batch[i].B;
    if (d->want->nll) list_item(list, items, &n, ITEM_NLL, 0, "nll", 1, (uint64_t[]){seqs});
    if (d->want->logits)
        list_item(list, items, &n, ITEM_LOGITS, 0, "logits", 3, (uint64_t[]){seqs, T, (uint64_t)d->V});
    for (int l = 0; d->want->hidden && l <= d->L; l++) {
        snprintf(name, sizeof name, "hidden.%d", l);
        list_item(list, items, &n, ITEM_HIDDEN, l, name, 3, (uint64_t[]){seqs, T, D});
    }
    for (int i = 0; d->want->norm_grads && i < d->L * NORM_VECTORS + 2; i++) {
        const struct weight_part *p = model_norm_part(d->s->m, i);
        if (!p) continue;
        snprintf(name, sizeof name, "grad.%s", p->t->name);
        if (model_is_joined(d->s->m, p->t))
            list_heads(d, list, items, &n, i, p->t);
        else
            list_item(list, items, &n, ITEM_GRAD, i, name, p->t->t.rank, p->t->t.shape);
    }
    return n;
}

static int put_rows(struct dump *d, struct safetensors_writer *w, const struct item *it, int batch,
                    float *buf, struct err *e)
{
    const struct score_batch *b = &d->set.batch[batch];
    if (it->what == ITEM_NLL) {
        for (int s = 0; s < b->B; s++) {
            double sum = 0;
            for (int t = 0; t < b->T; t++) sum += b->nll[s * b->T + t];
            buf[s] = (float)sum;
        }
        return safetensors_put_f32(w, buf, (size_t)b->B, e);
    }
    if (it->what == ITEM_HIDDEN) {
        size_t n = (size_t)rows_of(b) * (size_t)d->D;
        d->be->get(buf, d->x[it->index][batch], n * sizeof(float));
        return safetensors_put_f32(w, buf, n, e);
    }
    for (int r = 0; r < rows_of(b); r += 64) { /* logits, some rows at a time */
        int n = rows_of(b) - r < 64 ? rows_of(b) - r : 64;
        head_logits(d->head, dev_at(d->x[d->L][batch], (size_t)r * (size_t)d->D), n, buf);
        if (safetensors_put_f32(w, buf, (size_t)n * (size_t)d->V, e)) return -1;
    }
    return 0;
}

static size_t entry_count(const struct safetensors_entry *entry)
{
    size_t n = 1;
    for (int i = 0; i < entry->rank; i++) n *= (size_t)entry->shape[i];
    return n;
}

static int write_items(struct dump *d, struct safetensors_writer *w, float *buf, struct err *e)
{
    const struct safetensors_entry *entry;
    while ((entry = safetensors_next(w))) {
        const struct item *it = entry->user;
        int rc = 0;
        if (it->what == ITEM_GRAD)
            rc = safetensors_put_f32(w, d->grad + (size_t)it->index * d->stride + it->at, entry_count(entry),
                                     e);
        for (int i = 0; i < d->set.n && it->what != ITEM_GRAD && !rc; i++) rc = put_rows(d, w, it, i, buf, e);
        if (rc) return -1;
    }
    return 0;
}

static int write_file(struct dump *d, const char *path, struct err *e)
{
    size_t most = (size_t)(d->L * (NORM_VECTORS + 1 + 2 * d->s->m->c.block.H) + 5),
           by_row = (size_t)d->rows * (size_t)d->D, by_logit = 64 * (size_t)d->V;
    struct safetensors_entry *list = MEM_NEW(struct safetensors_entry, most);
    struct item *items = MEM_NEW(struct item, most);
    float *buf = MEM_NEW(float, by_row > by_logit ? by_row : by_logit);
    struct outfile *out = outfile_open(path, e);
    struct safetensors_writer *w =
        out ? safetensors_begin(out, list, list_items(d, list, items), NULL, e) : NULL;
    int rc = w ? write_items(d, w, buf, e) : -1;
    if (rc)
        safetensors_drop(w);
    else
        rc = safetensors_end(w, e);
    if (rc)
        outfile_discard(out);
    else
        rc = outfile_commit(out, e);
    mem_free(list), mem_free(items), mem_free(buf);
    return rc;
}

static int check_lengths(const struct dump *d, const char *path, struct err *e)
{
    for (int i = 1; i < d->set.n && (d->want->logits || d->want->hidden); i++)
        if (d->set.batch[i].T != d->set.batch[0].T)
            return err_set(e, NT_EXIT_DATA,
                           "%s: sequences of %d and %d tokens; logits and hidden need equal lengths", path,
                           d->set.batch[0].T, d->set.batch[i].T);
    return 0;
}

static uint64_t dump_bytes(const struct dump *d)
{
    uint64_t one = (uint64_t)d->set.n * SCORE_ROWS * (uint64_t)d->D * 4;
    return one * (uint64_t)((d->keep ? d->L + 1 : 1) + (d->want->norm_grads ? 1 : 0)) +
           block_bytes(&d->s->m->c) + block_work_bytes(&d->s->m->c.block, SCORE_ROWS, d->want->norm_grads) +
           head_bytes(&d->s->m->c) +
           (d->want->norm_grads ? block_back_bytes(&d->s->m->c) + head_back_bytes(&d->s->m->c) +
                                         head_kept_bytes(&d->s->m->c)
                                   : 0);
}

int dump_run(struct score_source *s, const char *ids_json, const struct dump_request *want, const char *out,
             struct err *e)
{
    struct dump d = {.s = s,
                     .be = s->m->be,
                     .want = want,
                     .L = s->m->c.n_layers,
                     .D = s->m->c.block.D,
                     .V = s->m->c.vocab};
    d.keep = want->hidden || want->norm_grads;
    int rc = read_ids(&d.set, ids_json, d.V, e);
    if (!rc) rc = check_lengths(&d, ids_json, e);
    if (!rc) {
        tool_predict(dump_bytes(&d), 0, NULL);
        progress_start("dump", "layer", d.L * (want->norm_grads ? 3 : 1));
        dump_alloc(&d);
        rc = forward(&d, e);
    }
    if (!rc && (want->nll || want->logits || want->norm_grads)) {
        d.head = head_open(s->m, s->q ? qweights_final_gain(s->q) : NULL, e);
        if (!d.head)
            rc = -1;
        else if (s->q)
            head_put_norm(d.head, NULL, qweights_final_bias(s->q));
        if (!rc) run_head(&d);
    }
    if (!rc && want->norm_grads) rc = backward(&d, e);
    progress_end();
    if (!rc) rc = write_file(&d, out, e);
    dump_free(&d);
    return rc;
}
