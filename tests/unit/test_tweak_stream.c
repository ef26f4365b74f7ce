/* SPDX-License-Identifier: Apache-2.0
 * What nt-tweak refuses in a qweights stream, record by record, and that a tee passes everything on, read or
 * not. */
#include "tests/check.h"
#include <unistd.h>
#include "common/mem.h"
#include "common/tweak_stream.h"

static char in_path[] = "/tmp/nt-tweak-in-XXXXXX", out_path[] = "/tmp/nt-tweak-out-XXXXXX";
static struct model *m;
static struct tweak *t;

static struct stream_writer *create(const char *path)
{
    struct err e = {0};
    struct outfile *f = outfile_open(path, &e);
    json_t *h = json_pack("{s:s}", "kind", "qweights");
    struct stream_writer *w = f ? stream_create(f, h, &e) : NULL;
    json_decref(h);
    return w;
}

static void put_tensor(struct stream_writer *w, const char *name, int layer, int out, int in)
{
    struct err e = {0};
    struct qtensor q = {.layer = layer};
    snprintf(q.name, sizeof q.name, "%s", name);
    qtensor_init_uniform(&q, out, in, 4, 16, false, DT_F16);
    if (qtensor_write(w, &q, &e)) CHECK(0, "writing a tensor: %s", e.text);
    qtensor_clear(&q);
}

static void put_vector(struct stream_writer *w, const char *kind, const char *name, const char *which, int D,
                       float value)
{
    struct err e = {0};
    float v[4096];
    for (int i = 0; i < D; i++) v[i] = value;
    struct tensor x = {
        .dtype = DT_F32, .rank = 1, .shape = {(uint64_t)D}, .nbytes = (uint64_t)D * sizeof *v, .data = v};
    json_t *meta = json_pack("{s:s, s:i, s:s}", "name", name, "layer", 0, "which", which);
    if (stream_write(w, kind, meta, &x, &e)) CHECK(0, "writing a vector: %s", e.text);
    json_decref(meta);
}

static void finish(struct stream_writer *w, int layer)
{
    struct err e = {0};
    if (layer >= 0 && stream_layer_end(w, layer, &e)) CHECK(0, "layer end: %s", e.text);
    if (stream_finish(w, NULL, &e)) CHECK(0, "finish: %s", e.text);
}

#define QNAME "model.layers.0.self_attn.q_proj.weight"
#define NNAME "model.layers.0.input_layernorm.weight"

static void good(struct stream_writer *w)
{
    put_tensor(w, QNAME, 0, 32, 32);
}
static void twice(struct stream_writer *w)
{
    good(w), good(w);
}
static void dims(struct stream_writer *w)
{
    put_tensor(w, QNAME, 0, 16, 32);
}
static void stranger(struct stream_writer *w)
{
    put_tensor(w, "model.embed_tokens.weight", 0, 96, 32);
}
static void other_layer(struct stream_writer *w)
{
    put_tensor(w, QNAME, 1, 32, 32);
}
static void unknown(struct stream_writer *w)
{
    put_vector(w, "Rotation", "r", "old", 32, 1);
}
static void new_norm(struct stream_writer *w)
{
    put_vector(w, "Norm", NNAME, "new", 32, 1);
}
static void long_norm(struct stream_writer *w)
{
    put_vector(w, "Norm", NNAME, "old", 33, 1);
}
static void nan_norm(struct stream_writer *w)
{
    put_vector(w, "Norm", NNAME, "old", 32, NAN);
}
static void strange_norm(struct stream_writer *w)
{
    put_vector(w, "Norm", "model.norm.weight", "old", 32, 1);
}
static void two_norms(struct stream_writer *w)
{
    put_vector(w, "Norm", NNAME, "old", 32, 1);
    put_vector(w, "Norm", NNAME, "old", 32, 1);
}

/* Reads layer 0 of a stream that `make` filled. */
static int read_one(void (*make)(struct stream_writer *), int layer, struct err *e)
{
    struct stream_writer *w = create(in_path);
    make(w);
    finish(w, layer);
    struct stream_reader *r = stream_open(in_path, "qweights", e);
    struct tweak_input in = {0};
    int rc = r ? tweak_read_layer(r, t, m, 0, &in, e) : -1;
    tweak_input_clear(&in);
    stream_close(r);
    return rc;
}

static void refused(void (*make)(struct stream_writer *), int layer, const char *word)
{
    struct err e = {0};
    int rc = read_one(make, layer, &e);
    CHECK(rc == -1 && e.code == NT_EXIT_DATA && strstr(e.text, word) && strstr(e.text, in_path),
          "refused: %s", e.text);
}

/* Bytes of a file; NULL when it cannot be read. */
static char *slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *p = MEM_NEW(char, 1 << 20);
    *n = f ? fread(p, 1, 1 << 20, f) : 0;
    if (f) fclose(f);
    return p;
}

static void test_tee(void)
{
    struct err e = {0};
    struct stream_writer *w = create(in_path);
    struct record rec;
    good(w);
    put_vector(w, "hint", "lower case, payload never read", "", 4096, 2);
    put_vector(w, "Norm", NNAME, "old", 32, 1);
    finish(w, 0);
    struct stream_reader *r = stream_open(in_path, "qweights", &e);
    struct stream_writer *o = create(out_path);
    struct tweak_input in = {0};
    stream_tee(r, o, NULL);
    CHECK(tweak_read_layer(r, t, m, 0, &in, &e) == 0 && in.has[ROLE_Q] && !in.has[ROLE_K] &&
              in.has_norm[NORM_ATTN],
          "a layer is read through the tee %s", e.text);
    CHECK(stream_layer_end(o, 0, &e) == 0 && stream_next(r, &rec, &e) == 0, "to its end %s", e.text);
    finish(o, -1);
    size_t a, b;
    char *x = slurp(in_path, &a), *y = slurp(out_path, &b);
    CHECK(a > 16384 && a == b && !memcmp(x, y, a), "and %zu bytes passed unchanged", b);
    mem_free(x);
    mem_free(y);
    tweak_input_clear(&in);
    stream_close(r);
}

int main(void)
{
    struct err e = {0};
    int32_t ids[24] = {0};
    struct tokens tk = {.n = 2, .T = 12, .n_holdout = 1, .ids = ids};
    struct tweak_opts o = {.loss = loss_find("author")};
    struct backend *be = backend_open("cpu", 1, false);
    close(mkstemp(in_path));
    close(mkstemp(out_path));
    m = model_open("tests/data/collect/tiny", be, &e);
    t = m ? tweak_open(m, &tk, &o, &e) : NULL;
    CHECK(t != NULL, "the tiny model opens %s", e.text);
    CHECK(read_one(good, 0, &e) == 0, "one linear of seven is a valid layer %s", e.text);
    refused(twice, 0, "comes twice");
    refused(dims, 0, "16 x 32");
    refused(stranger, 0, "no linear of layer 0");
    refused(other_layer, 1, "layer 0 is due");
    refused(good, 1, "layer 0 is due");
    refused(good, -1, "ends before layer 0");
    refused(unknown, 0, "Rotation");
    refused(new_norm, 0, "tweaked already");
    refused(long_norm, 0, "no norm of layer 0");
    refused(strange_norm, 0, "no norm of layer 0");
    refused(nan_norm, 0, "not finite");
    refused(two_norms, 0, "comes twice");
    test_tee();
    unlink(in_path);
    unlink(out_path);
    tweak_close(t);
    model_close(m);
    backend_close(be);
    return check_done();
}
