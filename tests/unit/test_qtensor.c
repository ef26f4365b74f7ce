/* SPDX-License-Identifier: Apache-2.0
 * Packing against bit-by-bit loops, sizes as stored, dequantization, the records in a stream and damaged
 * ones. */
#include "common/qtensor.h"
#include <unistd.h>
#include "common/mem.h"
#include "common/rng.h"
#include "tests/check.h"

static void test_pack(void)
{
    for (int bits = 1; bits <= 8; bits++) {
        int good = 1;
        for (uint64_t n = 1; n < 70; n += n < 20 ? 1 : 7) {
            uint8_t codes[70], packed[80], back[70];
            uint64_t bytes = qtensor_packed_bytes(n, bits);
            memset(packed, 0xee, sizeof packed);
            for (uint64_t i = 0; i < n; i++)
                codes[i] = (uint8_t)(rng_u32(7, (uint64_t)bits, i) & ((1u << bits) - 1));
            qtensor_pack(packed, codes, n, bits);
            good &= bytes == (n * (uint64_t)bits + 7) / 8 && packed[bytes] == 0xee;
            for (uint64_t k = 0; k < 8 * bytes; k++) {
                int want = k / (uint64_t)bits < n ? codes[k / (uint64_t)bits] >> (k % (uint64_t)bits) & 1 : 0;
                good &= (packed[k / 8] >> (k % 8) & 1) == want;
            }
            qtensor_unpack(back, packed, n, bits);
            good &= !memcmp(codes, back, n);
        }
        CHECK(good, "packing of %d bits, dense and little-endian", bits);
    }
}

static void test_sizes(void)
{
    struct qtensor q = {0};
    qtensor_init_uniform(&q, 4, 256, 2, 64, true, DT_F16);
    CHECK(qtensor_bits(&q) == 2.25, "W2 g64 symmetric is 2.25 bits a weight");
    qtensor_init_uniform(&q, 8, 256, 3, 128, false, DT_F16);
    CHECK(qtensor_bits(&q) == 3 + 16.0 / 128 + 3.0 / 128, "W3 g128 asymmetric is 3 + 19/128 bits");
    qtensor_init_uniform(&q, 8, 256, 4, 0, true, DT_F32);
    CHECK(qtensor_bits(&q) == 4 + 32.0 / 256 && q.n_groups == 1, "one group per row");
    q.gidx = MEM_NEW(int32_t, 256);
    CHECK(qtensor_stored_bytes(&q) == 8 * 128 + 8 * 4 + 256 * 4, "a group index counts");
    q.n_rows = 2, q.ridx = MEM_NEW(int32_t, 8);
    CHECK(qtensor_stored_bytes(&q) == 8 * 128 + 2 * 4 + 256 * 4 + 8 * 4, "shared scales count once");
    qtensor_clear(&q);
    CHECK(qtensor_groups(576, 128) == 5 && qtensor_groups(512, 128) == 4 && qtensor_groups(5, 128) == 1 &&
              qtensor_groups(5, 0) == 1,
          "groups of a row, the last one short");
}

static void test_dequant(void)
{
    enum { OUT = 19, IN = 37, GROUP = 10 };
    struct qtensor q = {.layer = -1};
    float w[OUT * IN];
    for (int kind = 0; kind < 5; kind++) {
        int good = 1;
        qtensor_init_uniform(&q, OUT, IN, 3, GROUP, kind == 0, DT_F32);
        for (int i = 0; i < OUT * IN; i++) q.codes[i] = (uint8_t)(rng_u32(1, 2, (uint64_t)i) & 7);
        for (int i = 0; i < OUT * q.n_groups; i++) {
            q.scale[i] = 0.25f * (float)(1 + i % 5);
            if (q.zero) q.zero[i] = (uint8_t)(i % 8);
        }
        if (kind == 2) {
            mem_free(q.zero);
            q.zero = NULL;
            q.minimum = MEM_NEW(float, OUT *q.n_groups);
            for (int i = 0; i < OUT * q.n_groups; i++) q.minimum[i] = -0.5f * (float)i;
        }
        if (kind == 3) {
            q.gidx = MEM_NEW(int32_t, IN);
            for (int i = 0; i < IN; i++) q.gidx[i] = (IN - 1 - i) / GROUP;
        }
        if (kind == 4) {
            q.n_rows = 7, q.ridx = MEM_NEW(int32_t, OUT);
            for (int o = 0; o < OUT; o++) q.ridx[o] = o * 3 % 7;
        }
        qtensor_dequant(&q, w);
        for (int o = 0; o < OUT; o++)
            for (int i = 0; i < IN; i++) {
                int g = (kind == 4 ? o * 3 % 7 : o) * q.n_groups + (q.gidx ? q.gidx[i] : i / GROUP),
                    c = q.codes[o * IN + i];
                float want = kind == 2 ? q.scale[g] * (float)c + q.minimum[g]
                                       : q.scale[g] * (float)(c - (q.zero ? q.zero[g] : 4));
                good &= w[o * IN + i] == want;
            }
        static const char *const what[] = {"symmetric", "integer zeros", "float minima", "group index",
                                           "rows that share scales"};
        CHECK(good, "dequantization: %s", what[kind]);
        float rows[(OUT - 2) * IN];
        qtensor_dequant_rows(&q, 1, OUT - 2, rows);
        CHECK(!memcmp(rows, w + IN, sizeof rows), "and of the rows between the first and the last");
    }
    qtensor_clear(&q);
}

static void test_plain(void)
{
    struct qtensor q = {.layer = -1};
    float a[6] = {1, -2, 0.5f, 3, 0, -1}, b[6] = {1, 0.0999755859375f, 2, 3, 4, 5},
          c[6] = {0.1f, 1, 2, 3, 4, 5}, back[6];
    qtensor_init_plain(&q, 2, 3, a);
    CHECK(q.plain.dtype == DT_BF16 && qtensor_bits(&q) == 16, "plain values that BF16 holds");
    qtensor_init_plain(&q, 2, 3, b);
    qtensor_dequant(&q, back);
    CHECK(q.plain.dtype == DT_F16 && !memcmp(b, back, sizeof b), "plain values that F16 holds");
    qtensor_init_plain(&q, 2, 3, c);
    qtensor_dequant(&q, back);
    CHECK(q.plain.dtype == DT_F32 && !memcmp(c, back, sizeof c), "plain values that need F32");
    qtensor_clear(&q);
}

/* ---- in a stream ---- */

static char path[] = "/tmp/nt-test-qtensor-XXXXXX";

static struct stream_writer *create(void)
{
    struct err e = {0};
    json_t *header = json_pack("{s:s}", "kind", "qweights");
    struct outfile *f = outfile_open(path, &e);
    struct stream_writer *w = f ? stream_create(f, header, &e) : NULL;
    json_decref(header);
    if (!w) printf("# %s\n", e.text);
    return w;
}

static void fill(struct qtensor *q, int out, int in, int bits, int group, int kind, enum dtype scale)
{
    strcpy(q->name, "model.layers.3.mlp.up_proj.weight");
    strcpy(q->role, "up");
    q->layer = 3;
    qtensor_init_uniform(q, out, in, bits, group, kind == 0, scale);
    for (int i = 0; i < out * in; i++)
        q->codes[i] = (uint8_t)(rng_u32(8, 1, (uint64_t)i) & ((1u << bits) - 1));
    for (int i = 0; i < out * q->n_groups; i++) {
        q->scale[i] = -0.5f + 0.125f * (float)(i % 16);
        if (q->zero) q->zero[i] = (uint8_t)(rng_u32(8, 2, (uint64_t)i) & ((1u << bits) - 1));
    }
    if (kind == 2) {
        mem_free(q->zero);
        q->zero = NULL;
        q->minimum = MEM_NEW(float, out * q->n_groups);
        for (int i = 0; i < out * q->n_groups; i++) q->minimum[i] = (float)-i;
    }
    if (kind == 3) {
        q->gidx = MEM_NEW(int32_t, in);
        for (int i = 0; i < in; i++) q->gidx[i] = i % q->n_groups;
    }
    if (kind == 4) {
        q->n_rows = out / 2, q->ridx = MEM_NEW(int32_t, out);
        for (int o = 0; o < out; o++) q->ridx[o] = (o + 1) % q->n_rows;
    }
    json_decref(q->info);
    q->info = json_pack("{s:s}", "method", "test");
}

static int same_bytes(const void *a, const void *b, size_t n)
{
    return !a == !b && (!a || !memcmp(a, b, n));
}

static int same(const struct qtensor *a, const struct qtensor *b)
{
    size_t n = (size_t)a->out * a->in, g = (size_t)(a->n_rows ? a->n_rows : a->out) * a->n_groups;
    return !strcmp(a->name, b->name) && !strcmp(a->role, b->role) && a->layer == b->layer &&
           a->form == b->form && a->out == b->out && a->in == b->in && a->bits == b->bits &&
           a->group == b->group && a->sym == b->sym && a->n_groups == b->n_groups &&
           a->scale_dtype == b->scale_dtype && json_equal(a->info, b->info) &&
           same_bytes(a->codes, b->codes, n) && same_bytes(a->scale, b->scale, 4 * g) &&
           same_bytes(a->zero, b->zero, g) && same_bytes(a->minimum, b->minimum, 4 * g) &&
           same_bytes(a->gidx, b->gidx, 4 * (size_t)a->in) && a->n_rows == b->n_rows &&
           same_bytes(a->ridx, b->ridx, 4 * (size_t)a->out) &&
           qtensor_stored_bytes(a) == qtensor_stored_bytes(b);
}

static void test_stream(void)
{
    static const struct {
        int out, in, bits, group, kind;
        enum dtype scale;
    } shape[] = {{4, 64, 4, 32, 0, DT_F16},
                 {7, 75, 3, 20, 1, DT_F32},
                 {5, 33, 5, 0, 2, DT_BF16},
                 {3, 50, 8, 16, 3, DT_F16},
                 {333, 4097, 3, 128, 1, DT_F16}, /* read in several pieces */
                 {12, 40, 3, 1, 4, DT_F32},
                 {1, 1, 2, 128, 1, DT_F16}};
    enum { N = sizeof shape / sizeof shape[0] };
    struct qtensor q[N + 1] = {{.layer = 0}}, got;
    struct err e = {0};
    struct record rec;
    struct stream_writer *w = create();
    float plain[6] = {1, 2, 3, 4, 5, 6.5f};
    int ok = w != NULL;

    for (int i = 0; ok && i < N; i++) {
        fill(&q[i], shape[i].out, shape[i].in, shape[i].bits, shape[i].group, shape[i].kind, shape[i].scale);
        ok = !qtensor_write(w, &q[i], &e);
    }
    strcpy(q[N].name, "head");
    q[N].layer = -1;
    qtensor_init_plain(&q[N], 2, 3, plain);
    ok = ok && !qtensor_write(w, &q[N], &e) && !stream_finish(w, NULL, &e);
    CHECK(ok, "tensors of all kinds are written%s%s", e.code ? ": " : "", e.text);

    struct stream_reader *r = stream_open(path, "qweights", &e);
    for (int i = 0; i <= N; i++) {
        ok = r && stream_next(r, &rec, &e) == 1 && !strcmp(rec.kind, "QTensor") &&
             !qtensor_read(r, &rec, &got, &e);
        if (i < N)
            CHECK(ok && same(&q[i], &got), "tensor %d comes back as it was%s%s", i, e.code ? ": " : "",
                  e.text);
        else
            CHECK(ok && got.form == QF_PLAIN && got.layer == -1 &&
                      !memcmp(got.plain.data, q[i].plain.data, 12),
                  "plain too");
        if (ok) qtensor_clear(&got);
    }
    CHECK(r && stream_next(r, &rec, &e) == 0, "and nothing is left");
    stream_close(r);
    for (int i = 0; i <= N; i++) qtensor_clear(&q[i]);
}

/* ---- damaged records ---- */

struct damage {
    const char *what, *key, *value /* JSON of the key in the QTensor's meta */, *why;
};

static int part(struct stream_writer *w, const char *name, const char *what, enum dtype dt, int rank,
                uint64_t a, uint64_t b, const void *data, struct err *e)
{
    json_t *meta = json_pack("{s:s, s:s}", "name", name, "part", what);
    struct tensor t = {.dtype = dt, .rank = rank, .shape = {a, b}, .data = (void *)(uintptr_t)data};
    int rc = tensor_nbytes(dt, rank, t.shape, &t.nbytes, e) || stream_write(w, "QPart", meta, &t, e);
    json_decref(meta);
    return rc;
}

/* A [2, 8] tensor, 4 bits, groups of 4, with one thing wrong; returns what reading it said. */
static int read_damaged(const struct damage *d, float scale, int codes, const char *second, struct err *e)
{
    static const uint8_t bytes[16];
    float scales[4] = {scale, 1, 1, 1};
    struct record rec;
    struct qtensor q;
    struct stream_writer *w = create();
    json_t *meta = json_pack("{s:s, s:i, s:s, s:[i,i], s:s, s:i, s:i, s:b, s:[s,s,s]}", "name", "t", "layer",
                             0, "role", "q", "dims", 2, 8, "form", "uniform", "bits", 4, "group", 4, "sym", 0,
                             "parts", "codes", "scale", "zero");
    if (d->key) {
        if (d->value)
            json_object_set_new(meta, d->key, json_loads(d->value, JSON_DECODE_ANY, NULL));
        else
            json_object_del(meta, d->key);
    }
    int ok = w && !stream_write(w, "QTensor", meta, NULL, e) &&
             !part(w, "t", "codes", DT_U8, 1, (uint64_t)codes, 0, bytes, e) &&
             !part(w, "t", second, DT_F32, 2, 2, 2, scales, e) &&
             !part(w, "t", "zero", DT_U8, 1, 2, 0, bytes, e) && !stream_finish(w, NULL, e);
    json_decref(meta);
    struct stream_reader *r = ok ? stream_open(path, "qweights", e) : NULL;
    ok = r && stream_next(r, &rec, e) == 1 && !qtensor_read(r, &rec, &q, e);
    if (ok) qtensor_clear(&q);
    stream_close(r);
    return ok ? 0 : -1;
}

static void test_damage(void)
{
    static const struct damage d[] = {
        {"no name", "name", NULL, "no name"},
        {"layer -7", "layer", "-7", "no number"},
        {"a layer that is text", "layer", "\"1\"", "no number"},
        {"no dims", "dims", NULL, "dims"},
        {"three dimensions", "dims", "[2,2,4]", "dims"},
        {"a negative dimension", "dims", "[2,-8]", "dims"},
        {"a dimension over 2^31", "dims", "[2,8589934600]", "dims"},
        {"other dims", "dims", "[2,9]", "part codes"},
        {"an unknown form", "form", "\"trellis\"", "trellis"},
        {"0 bits", "bits", "0", "1..8"},
        {"9 bits", "bits", "9", "1..8"},
        {"5 bits", "bits", "5", "part codes"},
        {"no group", "group", NULL, "group is not"},
        {"another group", "group", "8", "part scale"},
        {"no sym", "sym", NULL, "sym"},
        {"zeros of a symmetric tensor", "sym", "true", "do not fit"},
        {"no parts", "parts", "[]", "needs either"},
        {"no zeros", "parts", "[\"codes\",\"scale\"]", "needs either"},
        {"a part twice", "parts", "[\"codes\",\"codes\",\"scale\"]", "repeated"},
        {"an unknown part", "parts", "[\"codes\",\"scale\",\"x\"]", "unknown"},
        {"parts out of order", "parts", "[\"codes\",\"zero\",\"scale\"]", "misplaced"},
        {"a part that never comes", "parts", "[\"codes\",\"scale\",\"zero\",\"gidx\"]",
         "gidx of t is missing"},
        {"0 rows of scales", "rows", "0", "1..2^24"},
        {"more of them than are there", "rows", "3", "do not fit"},
        {"fewer rows without their index", "rows", "1", "do not fit"},
        {"an index without fewer rows", "parts", "[\"codes\",\"scale\",\"zero\",\"ridx\"]", "do not fit"},
        {"a role over 15 bytes", "role", "\"0123456789abcdef\"", "role"},
        {"a plain form with codes", "form", "\"plain\"", "do not fit"}};
    struct damage none = {"", NULL, NULL, NULL};
    struct err e = {0};
    CHECK(!read_damaged(&none, 1, 8, "scale", &e), "the undamaged tensor is read %s", e.text);
    for (size_t i = 0; i < sizeof d / sizeof d[0]; i++) {
        memset(&e, 0, sizeof e);
        int rc = read_damaged(&d[i], 1, 8, "scale", &e);
        CHECK(rc == -1 && e.code == NT_EXIT_DATA && strstr(e.text, path) && strstr(e.text, d[i].why),
              "%s: %s", d[i].what, e.text);
    }
    memset(&e, 0, sizeof e);
    int rc = read_damaged(&none, INFINITY, 8, "scale", &e);
    CHECK(rc == -1 && e.code == NT_EXIT_DATA && strstr(e.text, "finite"), "an infinite scale: %s", e.text);
    memset(&e, 0, sizeof e);
    rc = read_damaged(&none, 1, 7, "scale", &e);
    CHECK(rc == -1 && e.code == NT_EXIT_DATA && strstr(e.text, "codes"), "codes of the wrong size: %s",
          e.text);
    memset(&e, 0, sizeof e);
    rc = read_damaged(&none, 1, 8, "minimum", &e);
    CHECK(rc == -1 && e.code == NT_EXIT_DATA && strstr(e.text, "missing"), "another part in its place: %s",
          e.text);
}

int main(void)
{
    int fd = mkstemp(path);
    if (fd >= 0) close(fd);
    test_pack();
    test_sizes();
    test_dequant();
    test_plain();
    test_stream();
    test_damage();
    unlink(path);
    return check_done();
}
