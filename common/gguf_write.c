/* SPDX-License-Identifier: Apache-2.0
 * The GGUF writer. Offsets are running sums of padded sizes, as llama.cpp's loader demands. */
#include "common/gguf_write.h"
#include "common/ggml_types.h"
#include "common/mem.h"
#include <assert.h>
#include <string.h>

struct kv {
    char *key;
    uint8_t *raw;
    uint64_t n;
};

struct decl {
    char *name;
    struct tensor t;
};

struct gguf_writer {
    struct outfile *out;
    struct kv *kv;
    size_t n_kv, kv_cap;
    struct decl *t;
    size_t n_t, t_cap, at;
    uint64_t align, done;  /* done: bytes of t[at] */
    struct err err;
};

struct gguf_writer *gguf_create(struct outfile *out)
{
    struct gguf_writer *w = MEM_NEW(struct gguf_writer, 1);
    w->out = out;
    w->align = GGUF_ALIGNMENT;
    return w;
}

static void add_kv(struct gguf_writer *w, const char *key, const void *raw, uint64_t n)
{
    size_t i = 0;
    while (i < w->n_kv && strcmp(w->kv[i].key, key) != 0) i++;
    if (i == w->n_kv) {
        w->kv = mem_grow(w->kv, &w->kv_cap, w->n_kv + 1, sizeof *w->kv);
        w->kv[w->n_kv++].key = mem_strdup(key);
    }
    mem_free(w->kv[i].raw);
    w->kv[i].raw = mem_array(n, 1);
    w->kv[i].n = n;
    memcpy(w->kv[i].raw, raw, n);
}

/* key, type, then `n` bytes of value. */
static void put_value(struct gguf_writer *w, const char *key, uint32_t type, const void *value, uint64_t n)
{
    uint64_t len = strlen(key);
    uint8_t *raw = mem_array(12 + len + n, 1);
    memcpy(raw, &len, 8);
    memcpy(raw + 8, key, len);
    memcpy(raw + 8 + len, &type, 4);
    memcpy(raw + 12 + len, value, n);
    add_kv(w, key, raw, 12 + len + n);
    mem_free(raw);
}

void gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t v)
{
    if (strcmp(key, "general.alignment") == 0 && v && !(v & (v - 1))) w->align = v;
    put_value(w, key, GGUF_U32, &v, 4);
}

void gguf_put_f32(struct gguf_writer *w, const char *key, float v) { put_value(w, key, GGUF_F32, &v, 4); }

void gguf_put_bool(struct gguf_writer *w, const char *key, bool v)
{
    uint8_t b = v;
    put_value(w, key, GGUF_BOOL, &b, 1);
}

static uint64_t put_text(uint8_t *p, const char *s)
{
    uint64_t n = strlen(s);
    memcpy(p, &n, 8);
    memcpy(p + 8, s, n);
    return 8 + n;
}

void gguf_put_string(struct gguf_writer *w, const char *key, const char *v)
{
    uint8_t *p = mem_array(8 + strlen(v), 1);
    put_value(w, key, GGUF_STRING, p, put_text(p, v));
    mem_free(p);
}

static void put_array(struct gguf_writer *w, const char *key, uint32_t type, const void *p, uint64_t bytes,
                      uint64_t n)
{
    uint8_t *a = mem_array(12 + bytes, 1);
    memcpy(a, &type, 4);
    memcpy(a + 4, &n, 8);
    memcpy(a + 12, p, bytes);
    put_value(w, key, GGUF_ARRAY, a, 12 + bytes);
    mem_free(a);
}

void gguf_put_strings(struct gguf_writer *w, const char *key, const char *const *v, size_t n)
{
    size_t total = 0, at = 0;
    for (size_t i = 0; i < n; i++) total += 8 + strlen(v[i]);
    uint8_t *p = mem_array(total, 1);
    for (size_t i = 0; i < n; i++) at += put_text(p + at, v[i]);
    put_array(w, key, GGUF_STRING, p, total, n);
    mem_free(p);
}

void gguf_put_array(struct gguf_writer *w, const char *key, enum gguf_type item, const void *v, size_t n)
{
    static const uint8_t size[GGUF_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    assert(size[item]);
    put_array(w, key, item, v, (uint64_t)n * size[item], n);
}

void gguf_put_kv(struct gguf_writer *w, const struct gguf_kv *kv)
{
    uint32_t v;
    if (strcmp(kv->key, "general.alignment") == 0 && kv->type == GGUF_U32) {
        memcpy(&v, kv->value, 4);
        w->align = v; /* a power of two: the reader has checked it */
    }
    add_kv(w, kv->key, kv->raw, kv->n_raw);
}

void gguf_tensor(struct gguf_writer *w, const char *name, enum dtype dtype, int rank, const uint64_t *shape)
{
    struct decl d = {.t = {.dtype = dtype, .rank = rank}};
    const char *out = outfile_name(w->out);
    if (strlen(name) > GGUF_NAME_MAX || rank < 0 || rank > 4 || ggml_type_id(dtype) < 0) {
        err_set(&w->err, NT_EXIT_DATA, "%s: tensor %s (%s, %d dimensions) cannot be stored in GGUF", out,
                name, dtype_name(dtype), rank);
        return;
    }
    for (int i = 0; i < rank; i++) d.t.shape[i] = shape[i];
    if (tensor_nbytes(dtype, rank, shape, &d.t.nbytes, &w->err) < 0) {
        err_prefix(&w->err, "%s: tensor %s", out, name);
        return;
    }
    for (size_t i = 0; i < w->n_t; i++)
        if (strcmp(w->t[i].name, name) == 0)
            err_set(&w->err, NT_EXIT_DATA, "%s: tensor %s is there twice", out, name);
    d.name = mem_strdup(name);
    w->t = mem_grow(w->t, &w->t_cap, w->n_t + 1, sizeof *w->t);
    w->t[w->n_t++] = d;
}

static uint64_t padding(const struct gguf_writer *w, uint64_t pos)
{
    return (w->align - pos % w->align) % w->align;
}

static int pad(struct gguf_writer *w, uint64_t n, struct err *e)
{
    static const uint8_t zero[256];
    for (; n; n -= n < sizeof zero ? n : sizeof zero)
        if (outfile_write(w->out, zero, n < sizeof zero ? n : sizeof zero, e) < 0) return -1;
    return 0;
}

static int write_info(struct gguf_writer *w, const struct decl *d, uint64_t offset, struct err *e)
{
    uint8_t b[8 + GGUF_NAME_MAX + 4 + 4 * 8 + 4 + 8];
    uint32_t rank = (uint32_t)d->t.rank, type = (uint32_t)ggml_type_id(d->t.dtype);
    uint64_t n = put_text(b, d->name);
    memcpy(b + n, &rank, 4), n += 4;
    for (int k = d->t.rank - 1; k >= 0; k--) memcpy(b + n, &d->t.shape[k], 8), n += 8;
    memcpy(b + n, &type, 4), n += 4;
    memcpy(b + n, &offset, 8), n += 8;
    return outfile_write(w->out, b, n, e);
}

static int next_tensor(struct gguf_writer *w, struct err *e)
{
    while (w->at < w->n_t && w->done == w->t[w->at].t.nbytes) {
        if (pad(w, padding(w, w->done), e) < 0) return -1;
        w->at++;
        w->done = 0;
    }
    return 0;
}

int gguf_data(struct gguf_writer *w, struct err *e)
{
    uint32_t version = 3;
    uint64_t n_t = w->n_t, n_kv = w->n_kv, offset = 0, start = outfile_pos(w->out);
    if (w->err.code) return err_set(e, w->err.code, "%s", w->err.text);
    if (outfile_write(w->out, "GGUF", 4, e) < 0 || outfile_write(w->out, &version, 4, e) < 0 ||
        outfile_write(w->out, &n_t, 8, e) < 0 || outfile_write(w->out, &n_kv, 8, e) < 0) return -1;
    for (size_t i = 0; i < w->n_kv; i++)
        if (outfile_write(w->out, w->kv[i].raw, w->kv[i].n, e) < 0) return -1;
    for (size_t i = 0; i < w->n_t; i++) {
        if (write_info(w, &w->t[i], offset, e) < 0) return -1;
        offset += w->t[i].t.nbytes + padding(w, w->t[i].t.nbytes);
    }
    if (pad(w, padding(w, outfile_pos(w->out) - start), e) < 0) return -1;
    return next_tensor(w, e);
}

int gguf_put(struct gguf_writer *w, const void *p, uint64_t n, struct err *e)
{
    assert(n == 0 || (w->at < w->n_t && n <= w->t[w->at].t.nbytes - w->done));
    if (outfile_write(w->out, p, n, e) < 0) return -1;
    w->done += n;
    return next_tensor(w, e);
}

int gguf_end(struct gguf_writer *w, struct err *e)
{
    int rc = w->at == w->n_t ? 0
                             : err_set(e, NT_EXIT_DATA, "%s: tensor %s was not delivered whole",
                                       outfile_name(w->out), w->t[w->at].name);
    gguf_drop(w);
    return rc;
}

void gguf_drop(struct gguf_writer *w)
{
    if (!w) return;
    for (size_t i = 0; i < w->n_kv; i++) mem_free(w->kv[i].key), mem_free(w->kv[i].raw);
    for (size_t i = 0; i < w->n_t; i++) mem_free(w->t[i].name);
    mem_free(w->kv);
    mem_free(w->t);
    mem_free(w);
}

static void put_json_array(struct gguf_writer *w, const char *key, const json_t *v)
{
    size_t n = json_array_size(v);
    const json_t *first = json_array_get(v, 0);
    const char **text = MEM_NEW(const char *, n);
    uint32_t *number = MEM_NEW(uint32_t, n);
    for (size_t i = 0; i < n; i++) {
        const json_t *x = json_array_get(v, i);
        float f = (float)json_number_value(x);
        text[i] = json_is_string(x) ? json_string_value(x) : "";
        if (json_is_real(first))
            memcpy(&number[i], &f, 4);
        else
            number[i] = (uint32_t)json_integer_value(x);
    }
    if (json_is_string(first))
        gguf_put_strings(w, key, text, n);
    else
        gguf_put_array(w, key, json_is_real(first) ? GGUF_F32 : GGUF_I32, number, n);
    mem_free(text);
    mem_free(number);
}

void gguf_put_json(struct gguf_writer *w, const char *key, const json_t *v)
{
    if (json_is_string(v)) gguf_put_string(w, key, json_string_value(v));
    if (json_is_boolean(v)) gguf_put_bool(w, key, json_is_true(v));
    if (json_is_integer(v)) gguf_put_u32(w, key, (uint32_t)json_integer_value(v));
    if (json_is_real(v)) gguf_put_f32(w, key, (float)json_real_value(v));
    if (json_is_array(v) && json_array_size(v)) put_json_array(w, key, v);
}
