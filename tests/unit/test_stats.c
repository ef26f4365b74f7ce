/* SPDX-License-Identifier: Apache-2.0
 * Statistics records: what is written comes back, and what does not fit is refused with its name. */
#include "common/stats.h"

#include <unistd.h>

#include "common/mem.h"
#include "tests/check.h"

static char path[] = "/tmp/nt-test-stats-XXXXXX";

/* ---- the list of wanted statistics ---- */

static int parses(const char *list, unsigned mask, int rows, const char *text)
{
    struct stats_want w;
    struct err e = {0};
    char out[96];
    if (stats_want_parse(list, &w, &e) < 0) return 0;
    stats_want_text(&w, out);
    return w.mask == mask && w.rows == rows && !strcmp(out, text);
}

static int refused(const char *list, const char *word)
{
    struct stats_want w;
    struct err e = {0};
    return stats_want_parse(list, &w, &e) < 0 && e.code == NT_EXIT_USAGE && strstr(e.text, word);
}

static void test_want(void)
{
    CHECK(parses("hessian", STATS_HESSIAN, 0, "hessian"), "one statistic");
    CHECK(parses("targets,rows:7,hessian", STATS_HESSIAN | STATS_ROWS | STATS_TARGETS, 7,
                 "hessian,rows:7,targets"),
          "any order becomes the canonical one");
    CHECK(parses("absmax,sums", STATS_SUMS | STATS_ABSMAX, 0, "sums,absmax"), "sums and absmax");
    CHECK(refused("hessian,mean", "'mean'"), "unknown word is named");
    CHECK(refused("", "no statistic"), "empty list");
    CHECK(refused("sums,", "''"), "empty word");
    CHECK(refused("sums,absmax,sums", "twice"), "repeated word");
    CHECK(refused("rows", "'rows'") && refused("rows:", "'rows:'"), "rows without a number");
    CHECK(refused("rows:0", "1 to") && refused("rows:-3", "1 to") && refused("rows:5x", "1 to"),
          "bad number of rows");
    CHECK(refused("hessians", "'hessians'"), "a longer word is no match");
}

/* ---- round trip ---- */

static double value(int i)
{
    return (double)((i * 2654435761u) >> 8) / (1 << 20) - 7.5;
}

static void fill_site(struct site_stats *s, enum site site, int dim, int rows)
{
    size_t d = (size_t)dim;
    *s = (struct site_stats){.site = site, .dim = dim, .count = 1000, .n_rows = rows};
    s->hessian = MEM_NEW(float, d *d);
    s->sums = MEM_NEW(double, STATS_SUMS_ROWS *d);
    s->absmax = MEM_NEW(float, d);
    s->rows = MEM_NEW(float, (size_t)rows *d);
    for (int i = 0; i < dim; i++) /* only the lower triangle: the upper one may be anything */
        for (int j = 0; j < dim; j++) s->hessian[i * dim + j] = j <= i ? (float)value(i * dim + j) : NAN;
    for (int i = 0; i < STATS_SUMS_ROWS * dim; i++) s->sums[i] = value(i + 7) / 3;
    for (int i = 0; i < dim; i++) s->absmax[i] = (float)fabs(value(i + 3));
    for (int i = 0; i < rows * dim; i++) s->rows[i] = (float)value(i + 11);
}

static struct stream_writer *create(void)
{
    struct err e = {0};
    json_t *h = json_pack("{s:s}", "kind", "stats");
    struct outfile *f = outfile_open(path, &e);
    struct stream_writer *w = f ? stream_create(f, h, &e) : NULL;
    json_decref(h);
    if (!w) printf("# %s\n", e.text);
    return w;
}

static int same_hessian(const float *h, const float *lower, int d)
{
    for (int i = 0; i < d; i++)
        for (int j = 0; j <= i; j++)
            if (h[i * d + j] != lower[i * d + j] || h[j * d + i] != lower[i * d + j]) return 0;
    return 1;
}

static void test_round_trip(void)
{
    struct err e = {0};
    struct site_stats in[2], st[SITE_COUNT];
    json_t *linears = json_pack("[s,s]", "a.weight", "b.weight");
    double target[3 * 2 * 4] = {1, 2, 3};
    fill_site(&in[0], SITE_QKV, 37, 5);
    fill_site(&in[1], SITE_DOWN, 64, 2);
    struct stream_writer *w = create();
    int rc = 0;
    for (int l = 4; l < 6 && rc == 0; l++) {
        rc = stats_write_site(w, l, &in[0], linears, &e) < 0 ||
             stats_write_site(w, l, &in[1], linears, &e) < 0 ||
             stats_write_target(w, l, target, 3, 4, 30, &e) < 0 || stream_layer_end(w, l, &e) < 0;
    }
    CHECK(rc == 0 && stream_finish(w, NULL, &e) == 0, "two layers are written %s", e.text);
    json_decref(linears);

    struct stream_reader *r = stream_open(path, "stats", &e);
    for (int l = 4; l < 6 && r; l++) {
        int layer = -1;
        rc = stats_read_layer(r, &layer, st, SITE_COUNT, NULL, &e);
        CHECK(rc == 1 && layer == l, "layer %d is read %s", l, e.text);
        CHECK(st[SITE_QKV].dim == 37 && st[SITE_DOWN].dim == 64 && !st[SITE_O].dim && !st[SITE_MLP].dim,
              "its sites");
        for (int i = 0; i < 2 && rc == 1; i++) {
            const struct site_stats *a = &in[i], *b = &st[a->site];
            size_t d = (size_t)a->dim;
            CHECK(b->site == a->site && b->count == 1000 && same_hessian(b->hessian, a->hessian, a->dim),
                  "X'X, mirrored");
            CHECK(!memcmp(b->sums, a->sums, STATS_SUMS_ROWS * d * sizeof(double)) &&
                      !memcmp(b->absmax, a->absmax, d * sizeof(float)),
                  "sums and absmax");
            CHECK(b->n_rows == a->n_rows && !memcmp(b->rows, a->rows, (size_t)a->n_rows * d * sizeof(float)),
                  "rows");
        }
        for (int i = 0; i < SITE_COUNT; i++) site_stats_clear(&st[i]);
    }
    int layer = -1;
    CHECK(r && stats_read_layer(r, &layer, st, SITE_COUNT, NULL, &e) == 0, "then the stream ends");
    stream_close(r);
    for (int i = 0; i < 2; i++) site_stats_clear(&in[i]);
}

/* ---- refusals ---- */

/* Writes one record with the given meta and payload, optionally a LayerEnd, and reads it back. */
static int reads(const char *kind, json_t *meta, enum dtype dt, int rank, uint64_t n0, uint64_t n1,
                 float fill, int end, const char *why)
{
    struct err e = {0};
    struct site_stats st[SITE_COUNT];
    struct tensor t = {.dtype = dt, .rank = rank, .shape = {n0, n1}};
    int layer = -1;
    struct stream_writer *w = create();
    if (!w || tensor_nbytes(dt, rank, t.shape, &t.nbytes, &e) < 0) return 0;
    t.data = mem_array(t.nbytes, 1);
    for (size_t i = 0; i < t.nbytes / 4; i++) ((float *)t.data)[i] = fill;
    int rc = stream_write(w, kind, meta, &t, &e);
    if (rc == 0 && end) rc = stream_layer_end(w, 2, &e);
    if (rc == 0) rc = stream_finish(w, NULL, &e);
    mem_free(t.data);
    json_decref(meta);
    struct stream_reader *r = rc == 0 ? stream_open(path, "stats", &e) : NULL;
    rc = r ? stats_read_layer(r, &layer, st, SITE_COUNT, NULL, &e) : -1;
    stream_close(r);
    int empty = 1;
    for (int i = 0; i < SITE_COUNT; i++) {
        if (rc == 1) site_stats_clear(&st[i]);
        empty = empty && !st[i].dim && !st[i].hessian;
    }
    if (!why) return rc == 1;
    if (rc != -1 || e.code != NT_EXIT_DATA || !strstr(e.text, why)) printf("# rc %d: %s\n", rc, e.text);
    return rc == -1 && e.code == NT_EXIT_DATA && strstr(e.text, why) && empty;
}

static json_t *meta(const char *site, int dim, int count)
{
    return json_pack("{s:s, s:i, s:s, s:i, s:i}", "name", "layers.2.x", "layer", 2, "site", site, "dim", dim,
                     "count", count);
}

static void test_refusals(void)
{
    CHECK(reads("hessian", meta("qkv", 4, 9), DT_F32, 1, 10, 0, 1, 1, NULL), "a good Hessian");
    CHECK(reads("hessian", meta("qkv", 4, 9), DT_F32, 1, 11, 0, 1, 1, "dim(dim+1)/2"),
          "a triangle of another size");
    CHECK(reads("hessian", meta("qkv", 4, 9), DT_F32, 2, 4, 4, 1, 1, "dim(dim+1)/2"), "a square Hessian");
    CHECK(reads("hessian", meta("qkv", 4, 9), DT_F32, 1, 10, 0, NAN, 1, "not finite"), "NaN in a Hessian");
    CHECK(reads("absmax", meta("o", 4, 9), DT_F32, 1, 4, 0, INFINITY, 1, "not finite"), "infinity in absmax");
    CHECK(reads("absmax", meta("o", 4, 9), DT_F32, 1, 5, 0, 1, 1, "F32 [dim]"), "absmax of another length");
    CHECK(reads("sums", meta("o", 4, 9), DT_F64, 2, 3, 4, 1, 1, "F64 [5, dim]"), "three sums");
    CHECK(reads("sums", meta("o", 4, 9), DT_F32, 2, 5, 4, 1, 1, "F64 [5, dim]"), "sums in single precision");
    CHECK(reads("rows", meta("o", 4, 9), DT_F32, 2, 10, 4, 1, 1, "count"), "more sample rows than rows");
    CHECK(reads("absmax", meta("elbow", 4, 9), DT_F32, 1, 4, 0, 1, 1, "site"), "unknown site");
    CHECK(reads("absmax", meta("o", 0, 9), DT_F32, 1, 4, 0, 1, 1, "dim"), "dim 0");
    CHECK(reads("absmax", meta("o", 1 << 30, 9), DT_F32, 1, 4, 0, 1, 1, "dim"), "absurd dim");
    CHECK(reads("absmax", meta("o", 4, 0), DT_F32, 1, 4, 0, 1, 1, "count"), "count 0");
    CHECK(reads("absmax", meta("o", 4, 9), DT_F32, 1, 4, 0, 1, 0, "within layer 2"), "no LayerEnd");
    CHECK(reads("future", meta("o", 4, 9), DT_F32, 1, 4, 0, 1, 1, NULL),
          "unknown lower-case kind is passed over");
    CHECK(reads("Future", meta("o", 4, 9), DT_F32, 1, 4, 0, 1, 1, "must know"),
          "unknown upper-case kind");
    json_t *m = meta("o", 4, 9);
    json_object_del(m, "layer");
    CHECK(reads("absmax", m, DT_F32, 1, 4, 0, 1, 1, "layer"), "record of no layer");
    m = meta("o", 4, 9);
    json_object_set_new(m, "layer", json_integer(1));
    CHECK(reads("absmax", m, DT_F32, 1, 4, 0, 1, 1, "not closed"), "LayerEnd of another layer");
}

/* Writing refuses what is not finite and says where. */
static void test_write_nonfinite(void)
{
    struct err e = {0};
    struct site_stats s;
    struct stream_writer *w = create();
    fill_site(&s, SITE_DOWN, 8, 2);
    s.hessian[5 * 8 + 3] = INFINITY;
    int rc = stats_write_site(w, 17, &s, NULL, &e);
    CHECK(rc == -1 && e.code == NT_EXIT_DATA && strstr(e.text, "layer 17") && strstr(e.text, "down") &&
              strstr(e.text, "[5, 3]"),
          "infinite X'X is named: %s", e.text);
    stream_abort(w, &e);
    site_stats_clear(&s);

    struct err e2 = {0};
    double target[2 * 2 * 2] = {0, 0, NAN};
    w = create();
    CHECK(stats_write_target(w, 3, target, 2, 2, 8, &e2) == -1 && strstr(e2.text, "layer 3") &&
              strstr(e2.text, "element 2"),
          "NaN target is named: %s", e2.text);
    stream_abort(w, &e2);
}

int main(void)
{
    int fd = mkstemp(path);
    if (fd < 0) return 1;
    close(fd);
    test_want();
    test_round_trip();
    test_refusals();
    test_write_nonfinite();
    unlink(path);
    return check_done();
}
