/* SPDX-License-Identifier: Apache-2.0
 * Statistics of linear inputs in a stats stream: writing, reading and checking their records. Collecting them
 * is collect.c's work, using them the quantizers'. */
#include "common/stats.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

/* Wider inputs than this are taken for damage: X'X alone would be 256 GiB. */
#define MAX_DIM (1 << 18)
#define MAX_ROWS (1 << 24)
#define COPY_FLOATS (1 << 18)
#define RECORD_OVERHEAD 640 /* head, meta, tail and padding of one record, roughly */

static const struct {
    const char *name, *merge;
    unsigned bit;
} stat_kinds[] = {
    {"hessian", "sum", STATS_HESSIAN}, {"sums", "sum", STATS_SUMS},          {"absmax", "max", STATS_ABSMAX},
    {"rows", "concat", STATS_ROWS},    {"targets", "concat", STATS_TARGETS},
};
#define N_KINDS ((int)(sizeof stat_kinds / sizeof stat_kinds[0]))

void site_stats_clear(struct site_stats *s)
{
    mem_free(s->hessian);
    mem_free(s->sums);
    mem_free(s->absmax);
    mem_free(s->rows);
    memset(s, 0, sizeof *s);
}

/* ---- what is wanted ---- */

static int want_word(const char *word, size_t len, struct stats_want *w, struct err *e)
{
    for (int i = 0; i < N_KINDS; i++) {
        size_t n = strlen(stat_kinds[i].name);
        bool counted = stat_kinds[i].bit == STATS_ROWS;
        if (len < n || memcmp(word, stat_kinds[i].name, n) != 0) continue;
        if (counted ? len < n + 2 || word[n] != ':' : len != n) continue;
        if (w->mask & stat_kinds[i].bit)
            return err_set(e, NT_EXIT_USAGE, "statistic '%s' is asked for twice", stat_kinds[i].name);
        if (counted) {
            char *end;
            long v = strtol(word + n + 1, &end, 10);
            if (end != word + len || v < 1 || v > MAX_ROWS || word[n + 1] == '+')
                return err_set(e, NT_EXIT_USAGE, "'%.*s' is no number of rows from 1 to 16777216", (int)len,
                               word);
            w->rows = (int)v;
        }
        w->mask |= stat_kinds[i].bit;
        return 0;
    }
    return err_set(e, NT_EXIT_USAGE,
                   "unknown statistic '%.*s'; known are hessian, sums, absmax, rows:N, targets",
                   (int)(len > 64 ? 64 : len), word);
}

int stats_want_parse(const char *list, struct stats_want *w, struct err *e)
{
    memset(w, 0, sizeof *w);
    if (!*list) return err_set(e, NT_EXIT_USAGE, "no statistic is asked for");
    for (const char *p = list;; p++) {
        size_t n = strcspn(p, ",");
        if (want_word(p, n, w, e) < 0) return -1;
        p += n;
        if (!*p) return 0;
    }
}

void stats_want_text(const struct stats_want *w, char out[96])
{
    size_t n = 0;
    out[0] = 0;
    for (int i = 0; i < N_KINDS; i++) {
        if (!(w->mask & stat_kinds[i].bit)) continue;
        n += (size_t)snprintf(out + n, 96 - n, "%s%s", n ? "," : "", stat_kinds[i].name);
        if (stat_kinds[i].bit == STATS_ROWS) n += (size_t)snprintf(out + n, 96 - n, ":%d", w->rows);
    }
}

uint64_t stats_site_bytes(const struct stats_want *w, int dim)
{
    uint64_t d = (uint64_t)dim, n = 0;
    if (w->mask & STATS_HESSIAN) n += 4 * d * d;
    if (w->mask & (STATS_SUMS | STATS_ABSMAX)) n += 8 * (STATS_SUMS_ROWS + 1) * d;
    if (w->mask & STATS_ABSMAX) n += 4 * d;
    if (w->mask & STATS_ROWS) n += 4 * d * (uint64_t)w->rows;
    return n;
}

uint64_t stats_site_disk(const struct stats_want *w, int dim)
{
    uint64_t d = (uint64_t)dim, n = 0;
    if (w->mask & STATS_HESSIAN) n += 4 * (d * (d + 1) / 2) + RECORD_OVERHEAD;
    if (w->mask & STATS_SUMS) n += 8 * STATS_SUMS_ROWS * d + RECORD_OVERHEAD;
    if (w->mask & STATS_ABSMAX) n += 4 * d + RECORD_OVERHEAD;
    if (w->mask & STATS_ROWS) n += 4 * d * (uint64_t)w->rows + RECORD_OVERHEAD;
    return n;
}

/* ---- writing ---- */

static json_t *site_meta(int layer, const struct site_stats *s, const json_t *linears, const char *stat)
{
    const struct site_name n = site_name(s->site);
    const char *site = n.text, *merge = "";
    for (int i = 0; i < N_KINDS; i++)
        if (!strcmp(stat_kinds[i].name, stat)) merge = stat_kinds[i].merge;
    char *name = mem_printf("layers.%d.%s.%s", layer, site, stat);
    json_t *m = json_pack("{s:s, s:i, s:s, s:O*, s:i, s:s, s:I}", "name", name, "layer", layer, "site", site,
                          "linears", linears, "dim", s->dim, "merge", merge, "count", (json_int_t)s->count);
    mem_free(name);
    return m;
}

static int nonfinite(int layer, const struct site_stats *s, const char *stat, size_t row, size_t col,
                     struct err *e)
{
    return err_set(e, NT_EXIT_DATA, "layer %d, input of %s: %s is not finite at [%zu, %zu]", layer,
                   site_name(s->site).text, stat, row, col);
}

/* The first elements of rows i0 .. i0+n-1, up to the diagonal. */
static int put_triangle_rows(struct stream_writer *w, int layer, const struct site_stats *s, const float *x,
                             size_t i0, size_t n, struct err *e)
{
    size_t d = (size_t)s->dim;
    for (size_t i = i0; i < i0 + n; i++, x += d) {
        size_t bad = f32_first_nonfinite(x, i + 1);
        if (bad <= i) return nonfinite(layer, s, "X'X", i, bad, e);
        if (stream_write_put(w, x, (i + 1) * sizeof(float), e)) return -1;
    }
    return 0;
}

int stats_write_hessian(struct stream_writer *w, int layer, const struct site_stats *s, const json_t *linears,
                        stats_rows *rows, void *ctx, struct err *e)
{
    size_t d = (size_t)s->dim, step = d < COPY_FLOATS ? COPY_FLOATS / d : 1;
    uint64_t shape[1] = {d * (d + 1) / 2};
    json_t *meta = site_meta(layer, s, linears, "hessian");
    float *buf = MEM_NEW(float, step *d);
    int rc = stream_write_begin(w, "hessian", meta, DT_F32, 1, shape, e);
    json_decref(meta);
    for (size_t i = 0; i < d && rc == 0; i += step) {
        size_t n = d - i < step ? d - i : step;
        rows(ctx, (int)i, (int)n, buf);
        rc = put_triangle_rows(w, layer, s, buf, i, n, e);
    }
    mem_free(buf);
    return rc;
}

static void own_rows(void *ctx, int i, int n, float *dst)
{
    const struct site_stats *s = ctx;
    size_t d = (size_t)s->dim;
    memcpy(dst, s->hessian + (size_t)i * d, (size_t)n * d * sizeof(float));
}

static int write_matrix(struct stream_writer *w, int layer, const struct site_stats *s, const json_t *linears,
                        const char *stat, enum dtype dt, const void *data, int rank, int rows, struct err *e)
{
    uint64_t d = (uint64_t)s->dim, n = d * (uint64_t)rows;
    size_t bad = dt == DT_F64 ? f64_first_nonfinite(data, n) : f32_first_nonfinite(data, n);
    if (bad < n) return nonfinite(layer, s, stat, bad / d, bad % d, e);
    struct tensor t = {
        .dtype = dt, .rank = rank, .shape = {(uint64_t)rows, d}, .data = (void *)(uintptr_t)data};
    if (rank == 1) t.shape[0] = d, t.shape[1] = 0;
    if (tensor_nbytes(dt, rank, t.shape, &t.nbytes, e) < 0) return -1;
    json_t *meta = site_meta(layer, s, linears, stat);
    int rc = stream_write(w, stat, meta, &t, e);
    json_decref(meta);
    return rc;
}

int stats_write_site(struct stream_writer *w, int layer, const struct site_stats *s, const json_t *linears,
                     struct err *e)
{
    if (s->hessian && stats_write_hessian(w, layer, s, linears, own_rows, (void *)(uintptr_t)s, e) < 0)
        return -1;
    if (s->sums && write_matrix(w, layer, s, linears, "sums", DT_F64, s->sums, 2, STATS_SUMS_ROWS, e) < 0)
        return -1;
    if (s->absmax && write_matrix(w, layer, s, linears, "absmax", DT_F32, s->absmax, 1, 1, e) < 0) return -1;
    if (s->rows && s->n_rows > 0 &&
        write_matrix(w, layer, s, linears, "rows", DT_F32, s->rows, 2, s->n_rows, e) < 0)
        return -1;
    return 0;
}

int stats_write_target(struct stream_writer *w, int layer, const double *target, int n, int D, uint64_t count,
                       struct err *e)
{
    struct tensor t = {.dtype = DT_F64,
                       .rank = 3,
                       .shape = {(uint64_t)n, 2, (uint64_t)D},
                       .data = (void *)(uintptr_t)target};
    if (tensor_nbytes(t.dtype, t.rank, t.shape, &t.nbytes, e) < 0) return -1;
    size_t bad = f64_first_nonfinite(target, t.nbytes / sizeof(double));
    if (bad < t.nbytes / sizeof(double))
        return err_set(e, NT_EXIT_DATA, "layer %d: the target is not finite at element %zu", layer, bad);
    char *name = mem_printf("layers.%d.target", layer);
    json_t *meta = json_pack("{s:s, s:i, s:s, s:I}", "name", name, "layer", layer, "merge", "concat", "count",
                             (json_int_t)count);
    mem_free(name);
    int rc = stream_write(w, "target", meta, &t, e);
    json_decref(meta);
    return rc;
}

/* ---- reading ---- */

static int read_site(struct stream_reader *r, const struct record *rec, struct site_stats *st, int n_sites,
                     struct site_stats **out, struct err *e)
{
    const char *site = json_string_value(json_object_get(rec->meta, "site"));
    json_int_t dim = json_integer_value(json_object_get(rec->meta, "dim"));
    json_int_t count = json_integer_value(json_object_get(rec->meta, "count"));
    int t = 0;
    while (site && t < n_sites && strcmp(site, site_name(t).text) != 0) t++;
    if (!site || t == n_sites) return stream_err(r, e, "its site is missing or unknown");
    if (dim < 1 || dim > MAX_DIM) return stream_err(r, e, "its dim is missing or absurd");
    if (count < (t < SITE_COUNT)) return stream_err(r, e, "its count of rows is missing or not positive");
    struct site_stats *s = &st[t];
    if (!s->dim) {
        s->site = t;
        s->dim = (int)dim;
        s->count = (uint64_t)count;
    }
    if (s->dim != dim) return stream_err(r, e, "its dim differs from that of the site's other records");
    if (s->count != (uint64_t)count)
        return stream_err(r, e, "its count differs from that of the site's other records");
    *out = s;
    return 0;
}

/* The triangle arrives row by row into the front of the square; rows then move to their places from the last
 * one on (a row's place never lies before its packed position), and the upper part is mirrored. */
static void unpack_triangle(float *h, size_t d)
{
    for (size_t i = d; i-- > 0;) memmove(h + i * d, h + i * (i + 1) / 2, (i + 1) * sizeof(float));
    for (size_t i = 0; i < d; i++)
        for (size_t j = 0; j < i; j++) h[j * d + i] = h[i * d + j];
}

static int read_hessian(struct stream_reader *r, struct record *rec, struct site_stats *s, struct err *e)
{
    size_t d = (size_t)s->dim, n = d * (d + 1) / 2, have = 0, cap = 0,
           piece = STREAM_SEGMENT_MAX / sizeof(float);
    if (s->hessian) return stream_err(r, e, "there is a second one for this site");
    if (rec->t.dtype != DT_F32 || rec->t.rank != 1 || rec->t.shape[0] != n)
        return stream_err(r, e, "it is not F32 [dim(dim+1)/2]");
    if (mem_limit() && d * d * sizeof(float) > mem_limit())
        return err_set(e, NT_EXIT_REFUSED,
                       "%s: record '%.80s' needs %zu bytes of memory, more than --max-mem", stream_name(r),
                       rec->name, d * d * sizeof(float));
    /* memory follows the bytes that arrive, so that a forged size alone allocates nothing */
    while (have < n) {
        size_t want = n - have < piece ? n - have : piece;
        s->hessian = mem_grow(s->hessian, &cap, have + want, sizeof(float));
        int64_t got = stream_payload_some(r, s->hessian + have, want * sizeof(float), e);
        if (got < 0) return -1;
        if (got == 0 || got % (int64_t)sizeof(float)) return stream_err(r, e, "its payload is short");
        have += (size_t)got / sizeof(float);
    }
    size_t bad = f32_first_nonfinite(s->hessian, n);
    if (bad < n) return stream_err(r, e, "it holds a value that is not finite");
    s->hessian = mem_grow(s->hessian, &cap, d * d, sizeof(float));
    unpack_triangle(s->hessian, d);
    return 0;
}

static int read_sums(struct stream_reader *r, struct record *rec, struct site_stats *s, struct err *e)
{
    size_t d = (size_t)s->dim;
    if (s->sums) return stream_err(r, e, "there is a second one for this site");
    if (rec->t.dtype != DT_F64 || rec->t.rank != 2 || rec->t.shape[0] != STATS_SUMS_ROWS ||
        rec->t.shape[1] != d)
        return stream_err(r, e, "it is not F64 [5, dim]");
    if (stream_payload(r, rec, NULL, e) < 0) return -1;
    s->sums = rec->t.data;
    if (f64_first_nonfinite(s->sums, STATS_SUMS_ROWS * d) < STATS_SUMS_ROWS * d)
        return stream_err(r, e, "it holds a value that is not finite");
    return 0;
}

static int read_f32(struct stream_reader *r, struct record *rec, struct site_stats *s, float **dst, int rank,
                    struct err *e)
{
    if (*dst) return stream_err(r, e, "there is a second one for this site");
    if (rec->t.dtype != DT_F32 || rec->t.rank != rank || rec->t.shape[rank - 1] != (uint64_t)s->dim ||
        (rank == 2 && (rec->t.shape[0] < 1 || rec->t.shape[0] > s->count || rec->t.shape[0] > MAX_ROWS)))
        return stream_err(r, e, rank == 1 ? "it is not F32 [dim]" : "it is not F32 [1 to count, dim]");
    if (stream_payload(r, rec, NULL, e) < 0) return -1;
    *dst = rec->t.data;
    if (rank == 2) s->n_rows = (int)rec->t.shape[0];
    size_t n = rec->t.nbytes / sizeof(float);
    if (f32_first_nonfinite(*dst, n) < n) return stream_err(r, e, "it holds a value that is not finite");
    return 0;
}

static int read_record(struct stream_reader *r, struct record *rec, struct site_stats *st, int n_sites,
                       struct err *e)
{
    struct site_stats *s = NULL;
    int bit = 0;
    for (int i = 0; i < N_KINDS; i++)
        if (!strcmp(rec->kind, stat_kinds[i].name)) bit = (int)stat_kinds[i].bit;
    if (!bit || bit == STATS_TARGETS) return stream_unknown(r, rec, e); /* targets lie in "target" records */
    if (!rec->has_payload) return stream_err(r, e, "it has no payload");
    if (read_site(r, rec, st, n_sites, &s, e) < 0) return -1;
    switch (bit) {
    case STATS_HESSIAN:
        return read_hessian(r, rec, s, e);
    case STATS_SUMS:
        return read_sums(r, rec, s, e);
    case STATS_ABSMAX:
        return read_f32(r, rec, s, &s->absmax, 1, e);
    default:
        return read_f32(r, rec, s, &s->rows, 2, e);
    }
}

/* Targets of one layer, until all of the layer is read. */
struct kept {
    struct tensor *t;
    json_t **meta;
    size_t n, t_cap, meta_cap;
};

static int keep_target(struct stream_reader *r, struct record *rec, struct kept *k, struct err *e)
{
    if (stream_payload(r, rec, NULL, e)) return -1;
    k->t = mem_grow(k->t, &k->t_cap, k->n + 1, sizeof *k->t);
    k->meta = mem_grow(k->meta, &k->meta_cap, k->n + 1, sizeof(json_t *));
    k->t[k->n] = rec->t;
    k->meta[k->n++] = json_incref(rec->meta);
    return 0;
}

static int write_kept(const struct kept *k, struct stream_writer *w, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; i < k->n && !rc; i++) rc = stream_write(w, "target", k->meta[i], &k->t[i], e);
    return rc;
}

static void clear_kept(struct kept *k)
{
    for (size_t i = 0; i < k->n; i++) mem_free(k->t[i].data), json_decref(k->meta[i]);
    mem_free(k->t), mem_free(k->meta);
}

static int read_layer(struct stream_reader *r, int *layer, struct site_stats *st, int n_sites,
                      const struct stats_targets *to, struct kept *k, struct err *e)
{
    struct record rec;
    int64_t here = -1;
    for (;;) {
        int rc = stream_next(r, &rec, e);
        if (rc < 0) return -1;
        if (rc == 0 && here >= 0)
            return err_set(e, NT_EXIT_DATA, "%s: the stream ends within layer %lld", stream_name(r),
                           (long long)here);
        if (rc == 0) return 0;
        if (rec.layer < 0 || rec.layer > INT32_MAX) return stream_err(r, e, "it names no layer");
        if (here >= 0 && rec.layer != here) return stream_err(r, e, "the layer before it is not closed");
        here = rec.layer;
        if (!strcmp(rec.kind, "LayerEnd")) {
            *layer = (int)here;
            return k->n && write_kept(k, to->w, e) ? -1 : 1;
        }
        bool pass = to && !strcmp(rec.kind, "target") && here >= to->first && here < to->end && rec.has_payload;
        if ((pass ? keep_target(r, &rec, k, e) : read_record(r, &rec, st, n_sites, e)) < 0) return -1;
    }
}

int stats_read_layer(struct stream_reader *r, int *layer, struct site_stats *st, int n_sites,
                     const struct stats_targets *targets, struct err *e)
{
    struct kept k = {0};
    memset(st, 0, (size_t)n_sites * sizeof *st);
    int rc = read_layer(r, layer, st, n_sites, targets, &k, e);
    clear_kept(&k);
    if (rc < 0)
        for (int t = 0; t < n_sites; t++) site_stats_clear(&st[t]);
    return rc;
}
