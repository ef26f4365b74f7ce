/* SPDX-License-Identifier: Apache-2.0
 * One pass: one layer's weights, one boundary, one layer's statistics. What the numbers mean and
 * how they are written is stats.c's, moving activations boundary.c's. */
#include "common/collect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/acts.h"
#include "common/mem.h"
#include "common/rng.h"
#include "common/tool.h"

#define ROWS_STREAM 0x726f7773u /* "rows": the random stream that chooses sample rows */
#define MOMENT_ROWS 6           /* of be->channel_stats: five sums, then max |x| */

struct collect {
    const struct collect_opts *o;
    struct model *m;
    const struct backend *be;
    struct boundary b;
    struct boundary_pass pass;
    struct block *blk;
    int n_sites;
    dev hessian[SITES_MAX], moments[SITES_MAX], target_moments;
    float *rows[SITES_MAX];    /* none of experts, which do not see every token */
    uint64_t count[SITES_MAX]; /* rows of the layer at hand */
    uint64_t *pick;        /* sample rows of this shard, indices into its rows */
    int n_pick, next_pick; /* next_pick: the first one at or after row0 */
    double *target;
    uint64_t row0; /* first row of the group that is in the block */
    double done;   /* tokens, each layer its share, for the progress line */
    int start;     /* first layer that is run */
    struct stream_reader *acts;
};

/* ---- shards and sample rows ---- */

int collect_shard_parse(const char *text, struct collect_opts *o, struct err *e)
{
    char *end;
    long i = strtol(text, &end, 10), n = 0;
    if (end != text && *end == '/') n = strtol(end + 1, &end, 10);
    if (*end || n < 1 || n > 1 << 20 || i < 0 || i >= n)
        return err_set(e, NT_EXIT_USAGE, "--shard '%.40s' is not I/N with 0 <= I < N", text);
    o->shard = (int)i;
    o->n_shards = (int)n;
    return 0;
}

int collect_range(const struct tokens *t, const struct collect_opts *o, int *first, int *n, struct err *e)
{
    int64_t train = t->n - t->n_holdout;
    *first = (int)(train * o->shard / o->n_shards);
    *n = (int)(train * (o->shard + 1) / o->n_shards) - *first;
    if (train < 1) return err_set(e, NT_EXIT_DATA, "the tokens stream has no training sequence");
    if (*n < 1)
        return err_set(e, NT_EXIT_USAGE, "shard %d/%d of %d training sequences is empty", o->shard,
                       o->n_shards, (int)train);
    return 0;
}

/* Selection sampling: row i is taken with probability (still wanted) / (still to come). */
uint64_t *collect_choose_rows(uint64_t total, int n, uint64_t seed, int *chosen)
{
    uint64_t want = (uint64_t)n < total ? (uint64_t)n : total, have = 0;
    uint64_t *rows = MEM_NEW(uint64_t, want);
    for (uint64_t i = 0; have < want; i++)
        if (rng_below(seed, ROWS_STREAM, i, total - i) < want - have) rows[have++] = i;
    *chosen = (int)have;
    return rows;
}

/* ---- header and prediction ---- */

json_t *collect_header(struct model *m, const struct tokens *t, const struct collect_opts *o)
{
    char want[96];
    stats_want_text(&o->want, want);
    json_t *params =
        json_pack("{s:s, s:s, s:[i,i], s:i}", "want", want, "stream", o->acts ? "quantized" : "float",
                  "layers", o->layers[0], o->layers[1], "group", boundary_group(&m->c.block, t->T));
    if (m->be->bf16) json_object_set_new(params, "precision", json_string("bf16"));
    if (o->n_shards > 1) json_object_set_new(params, "shard", json_pack("[i,i]", o->shard, o->n_shards));
    return json_pack("{s:s, s:o, s:I, s:o, s:s, s:s}", "kind", "stats", "params", params, "seed",
                     (json_int_t)o->seed, "model", model_identity(m), "tokens", t->hash, "order",
                     "ascending");
}

void collect_predict(const struct model *m, const struct tokens *t, const struct collect_opts *o, int n,
                     uint64_t *mem_bytes, uint64_t *disk_bytes)
{
    const struct block_shape *s = &m->c.block;
    uint64_t all = 0, disk = 4096, D = (uint64_t)s->D;
    for (int i = 0; i < block_sites(s); i++) {
        if (!site_dim(s, i)) continue;
        all += stats_site_bytes(&o->want, site_dim(s, i));
        disk += stats_site_disk(&o->want, site_dim(s, i));
    }
    uint64_t target = o->want.mask & STATS_TARGETS ? (uint64_t)n * 2 * D * sizeof(double) : 0;
    *mem_bytes = TOOL_BASE_BYTES + block_bytes(&m->c) + boundary_bytes(n, t->T, s->D) +
                 boundary_pass_bytes(&m->c, t->T, false) + all + target +
                 (uint64_t)t->n * (uint64_t)t->T * sizeof(int32_t);
    *disk_bytes = (disk + target) * (uint64_t)(o->layers[1] - o->layers[0]);
}

/* ---- accumulating ---- */

static bool wants(const struct collect *c, unsigned bits)
{
    return (c->o->want.mask & bits) != 0;
}

static void take_rows(struct collect *c, int site, dev x, int R, int dim)
{
    size_t d = (size_t)dim;
    for (int i = c->next_pick; i < c->n_pick && c->pick[i] < c->row0 + (uint64_t)R; i++) {
        c->be->get(c->rows[site] + (size_t)i * d, dev_at(x, (size_t)(c->pick[i] - c->row0) * d),
                   d * sizeof(float));
    }
}

static void collect_tap(void *ctx, int site, dev x, int R, int dim)
{
    struct collect *c = ctx;
    c->count[site] += (uint64_t)R;
    if (dev_ok(c->hessian[site])) c->be->gram(R, dim, x, c->hessian[site]);
    if (dev_ok(c->moments[site])) c->be->channel_stats(c->moments[site], x, R, dim);
    if (c->rows[site]) take_rows(c, site, x, R, dim);
}

/* Sums of x and x^2 of every sequence of the group's block output. */
static void take_targets(struct collect *c, int s0, int B, dev y)
{
    size_t D = (size_t)c->b.D, T = (size_t)c->b.T;
    double *moments = MEM_NEW(double, MOMENT_ROWS *D);
    for (int s = 0; s < B; s++) {
        double *t = c->target + (size_t)(s0 + s) * 2 * D;
        c->be->fill(c->target_moments, 0, 2 * MOMENT_ROWS * D);
        c->be->channel_stats(c->target_moments, dev_at(y, (size_t)s * T * D), (int)T, (int)D);
        c->be->get(moments, c->target_moments, MOMENT_ROWS * D * sizeof(double));
        memcpy(t, moments, D * sizeof(double));
        memcpy(t + D, moments + 2 * D, D * sizeof(double));
    }
    mem_free(moments);
}

static int collect_visit(void *ctx, int s0, int B, dev x, dev y, struct err *e)
{
    struct collect *c = ctx;
    (void)x, (void)e;
    if (c->target && c->b.layer >= c->o->layers[0]) take_targets(c, s0, B, y);
    c->row0 += (uint64_t)B * (uint64_t)c->b.T;
    while (c->next_pick < c->n_pick && c->pick[c->next_pick] < c->row0) c->next_pick++;
    c->done += (double)B * c->b.T / (c->o->layers[1] - c->start);
    progress_at(c->done, "layer %d", c->b.layer);
    return 0;
}

/* ---- one layer ---- */

static void layer_reset(struct collect *c)
{
    const struct block_shape *s = &c->m->c.block;
    for (int i = 0; i < c->n_sites; i++) {
        size_t d = (size_t)site_dim(s, i);
        c->count[i] = 0;
        if (dev_ok(c->hessian[i])) c->be->fill(c->hessian[i], 0, d * d);
        if (dev_ok(c->moments[i])) c->be->fill(c->moments[i], 0, 2 * MOMENT_ROWS * d); /* f64 zeros */
    }
}

/* The site's statistics on the host, without X'X; the sample rows are lent, not copied. */
static void site_fetch(const struct collect *c, int site, struct site_stats *s)
{
    size_t d = (size_t)site_dim(&c->m->c.block, site);
    *s = (struct site_stats){.site = site, .dim = (int)d, .count = c->count[site]};
    if (dev_ok(c->moments[site])) {
        double *m = MEM_NEW(double, MOMENT_ROWS *d);
        c->be->get(m, c->moments[site], MOMENT_ROWS * d * sizeof(double));
        s->sums = m;
        s->absmax = MEM_NEW(float, d);
        for (size_t i = 0; i < d; i++) s->absmax[i] = (float)m[STATS_SUMS_ROWS * d + i];
    }
    s->rows = c->rows[site];
    s->n_rows = c->n_pick;
}

static json_t *site_linears(const struct model *m, int layer, int site)
{
    char name[256];
    json_t *a = json_array();
    for (int r = 0; r < block_linears(&m->c.block); r++) {
        if (linear_site(r) != site || !model_has_linear(m, layer, r)) continue;
        model_tensor_name(m, layer, r, name);
        json_array_append_new(a, json_string(name));
    }
    return a;
}

static void add_to_imatrix(const struct collect *c, int layer, struct imatrix *im, const struct site_stats *s)
{
    const struct block_shape *b = &c->m->c.block;
    for (int r = 0; r < block_linears(b); r++) {
        const char *pattern = family_linear_pattern(&c->m->c.gguf, b, r);
        int expert = linear_expert(r);
        if (linear_site(r) != s->site || !model_has_linear(c->m, layer, r) || !pattern) continue;
        char name[256];
        family_tensor_name(name, pattern, layer, ".weight");
        name[strcspn(name, "#")] = 0; /* all parts of a tensor have the same input */
        if (expert < 0 || expert >= b->experts) expert = 0;
        imatrix_add(im, name, expert, s->sums + 2 * (size_t)s->dim, s->dim, s->count);
    }
}

/* Some linear of the layer reads it. */
static bool site_used(const struct collect *c, int layer, int site)
{
    for (int r = 0; r < block_linears(&c->m->c.block); r++)
        if (linear_site(r) == site && model_has_linear(c->m, layer, r)) return true;
    return false;
}

/* X'X leaves the device a few rows at a time: a copy of it would be the largest thing here. */
struct hessian_source {
    const struct backend *be;
    dev h;
    size_t d;
};

static void get_rows(void *ctx, int i, int n, float *dst)
{
    const struct hessian_source *s = ctx;
    s->be->get(dst, dev_at(s->h, (size_t)i * s->d), (size_t)n * s->d * sizeof(float));
}

static int site_write(const struct collect *c, int layer, const struct site_stats *s, struct stream_writer *w,
                      struct err *e)
{
    struct hessian_source h = {c->be, c->hessian[s->site], (size_t)s->dim};
    struct site_stats out = *s; /* what was collected for the imatrix alone stays out of the stream */
    if (!wants(c, STATS_SUMS)) out.sums = NULL;
    if (!wants(c, STATS_ABSMAX)) out.absmax = NULL;
    json_t *linears = site_linears(c->m, layer, s->site);
    int rc = dev_ok(h.h) ? stats_write_hessian(w, layer, &out, linears, get_rows, &h, e) : 0;
    if (rc == 0) rc = stats_write_site(w, layer, &out, linears, e);
    json_decref(linears);
    return rc;
}

static int layer_write(struct collect *c, int layer, struct stream_writer *w, struct imatrix *im,
                       struct err *e)
{
    int rc = 0;
    for (int i = 0; i < c->n_sites && rc == 0; i++) {
        struct site_stats s;
        if (!site_used(c, layer, i)) continue;
        site_fetch(c, i, &s);
        if (im) add_to_imatrix(c, layer, im, &s);
        rc = site_write(c, layer, &s, w, e);
        s.rows = NULL;
        site_stats_clear(&s);
    }
    if (rc == 0 && c->target)
        rc = stats_write_target(w, layer, c->target, c->b.n, c->b.D, (uint64_t)c->b.n * (uint64_t)c->b.T, e);
    return rc < 0 ? -1 : stream_layer_end(w, layer, e);
}

/* The layer's input as the layers before it leave it once they are quantized and tweaked. */
static int layer_receive(struct collect *c, int layer, const struct tokens *t, struct err *e)
{
    if (!c->acts) c->acts = acts_open(c->o->acts, c->o->watch_fd, c->m, t->hash, e);
    return c->acts ? acts_read(c->acts, &(struct acts_path){"q", &c->b}, 1, layer, e) : -1;
}

static int layer_run(struct collect *c, int layer, struct stream_writer *w, struct imatrix *im, struct err *e)
{
    bool emit = layer >= c->o->layers[0];
    struct boundary *next = c->o->acts ? NULL : &c->b;
    if (block_load(c->m, c->blk, layer, e) < 0) return -1;
    c->row0 = 0;
    c->next_pick = 0;
    layer_reset(c);
    if (boundary_run(&c->pass, c->blk, &c->b, next, emit ? collect_tap : NULL, collect_visit, c, e) < 0)
        return -1;
    return emit ? layer_write(c, layer, w, im, e) : 0;
}

/* ---- the whole ---- */

static void collect_init(struct collect *c, bool imatrix, const struct tokens *t, int first, int n)
{
    const struct block_shape *s = &c->m->c.block;
    if (wants(c, STATS_ROWS)) { /* chosen among the rows of all shards, this one keeps its own */
        c->pick = collect_choose_rows((uint64_t)(t->n - t->n_holdout) * (uint64_t)t->T, c->o->want.rows,
                                      c->o->seed, &c->n_pick);
        uint64_t lo = (uint64_t)first * (uint64_t)t->T, hi = lo + (uint64_t)n * (uint64_t)t->T;
        int kept = 0;
        for (int i = 0; i < c->n_pick; i++)
            if (c->pick[i] >= lo && c->pick[i] < hi) c->pick[kept++] = c->pick[i] - lo;
        c->n_pick = kept;
    }
    for (int i = 0; i < c->n_sites; i++) {
        size_t d = (size_t)site_dim(s, i);
        if (!d) continue;
        if (wants(c, STATS_HESSIAN)) c->hessian[i] = c->be->alloc(d * d * sizeof(float));
        if (wants(c, STATS_SUMS | STATS_ABSMAX) || imatrix)
            c->moments[i] = c->be->alloc(MOMENT_ROWS * d * sizeof(double));
        if (c->n_pick && i < SITE_COUNT) c->rows[i] = MEM_NEW(float, (size_t)c->n_pick *d);
    }
    if (wants(c, STATS_TARGETS)) {
        c->target = MEM_NEW(double, (size_t)n * 2 * (size_t)s->D);
        c->target_moments = c->be->alloc(MOMENT_ROWS * (size_t)s->D * sizeof(double));
    }
    boundary_pass_init(&c->pass, c->m, t->T, false);
}

static void collect_clear(struct collect *c)
{
    for (int i = 0; i < c->n_sites; i++) {
        c->be->release(c->hessian[i]);
        c->be->release(c->moments[i]);
        mem_free(c->rows[i]);
    }
    c->be->release(c->target_moments);
    mem_free(c->target);
    mem_free(c->pick);
    boundary_pass_clear(&c->pass);
    boundary_clear(&c->b);
    if (c->blk) block_free(c->m, c->blk);
}

/* After the last layer was written: the program at the other end need not wait for it. */
static int receive_end(struct collect *c, struct stream_writer *w, struct err *e)
{
    if (!c->acts) return 0;
    int rc = acts_read_rest(c->acts, e);
    if (rc == 0) stream_note_input(w, c->acts);
    return rc;
}

int collect_run(struct model *m, const struct tokens *t, const struct collect_opts *o,
                struct stream_writer *w, struct imatrix *im, struct err *e)
{
    struct collect c = {.o = o, .m = m, .be = m->be, .start = o->acts ? o->layers[0] : 0};
    int first, n, rc = 0;
    c.n_sites = block_sites(&m->c.block);
    if (collect_range(t, o, &first, &n, e) < 0) return -1;
    collect_init(&c, im != NULL, t, first, n);
    c.blk = block_alloc(m, t->T);
    if (c.start > 0)
        boundary_alloc(&c.b, n, t->T, m->c.block.D, first, n);
    else
        rc = boundary_from_tokens(&c.b, m, t, first, n, e);
    progress_start("collect", "tok", (double)n * t->T);
    for (int l = c.start; l < o->layers[1] && rc == 0; l++) {
        if (o->acts && l > 0) rc = layer_receive(&c, l, t, e);
        if (rc == 0) rc = layer_run(&c, l, w, im, e);
    }
    if (rc == 0) rc = receive_end(&c, w, e);
    progress_end();
    stream_close(c.acts);
    collect_clear(&c);
    return rc;
}
