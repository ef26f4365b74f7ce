/* SPDX-License-Identifier: Apache-2.0
 * The safetensors writer. The header is padded with spaces to a multiple of 8, as the reference writer does,
 * so that the data of every element type lies aligned in a mapping. */
#include "common/safetensors_write.h"
#include "common/mem.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 4096 /* values converted at a time */

struct safetensors_writer {
    struct outfile *out;
    const struct safetensors_entry *list;
    uint64_t *bytes;
    size_t n, at;
    uint64_t done; /* bytes of list[at] */
};

/* The reference's list of types, from which its order is: larger elements first, then later in this list. */
static int type_rank(enum dtype t)
{
    static const enum dtype list[] = {DT_BOOL, DT_U8,  DT_I8,  DT_F8_E5M2, DT_F8_E4M3, DT_F8_E8M0,
                                      DT_I16,  DT_U16, DT_F16, DT_BF16,    DT_I32,     DT_U32,
                                      DT_F32,  DT_F64, DT_I64, DT_U64};
    int n = sizeof list / sizeof *list, i = 0;
    while (i < n && list[i] != t) i++;
    return i;
}

static int file_order(const void *a, const void *b)
{
    const struct safetensors_entry *x = a, *y = b;
    return x->dtype != y->dtype ? type_rank(y->dtype) - type_rank(x->dtype) : strcmp(x->name, y->name);
}

static json_t *describe(const struct safetensors_entry *x, uint64_t begin, uint64_t end)
{
    json_t *shape = json_array();
    for (int i = 0; i < x->rank; i++) json_array_append_new(shape, json_integer((json_int_t)x->shape[i]));
    return json_pack("{s:s, s:o, s:[I,I]}", "dtype", dtype_name(x->dtype), "shape", shape, "data_offsets",
                     (json_int_t)begin, (json_int_t)end);
}

static char *make_header(struct safetensors_writer *w, const json_t *metadata, struct err *e)
{
    json_t *header = json_object(),
           *meta = metadata ? json_copy((json_t *)(uintptr_t)metadata) : json_object();
    uint64_t pos = 0;
    char *text = NULL;
    json_object_set_new(meta, "format", json_string("pt"));
    json_object_set_new(header, "__metadata__", meta);
    for (size_t i = 0; i < w->n; i++) {
        const struct safetensors_entry *x = &w->list[i];
        if (dtype_block(x->dtype) != 1 || tensor_nbytes(x->dtype, x->rank, x->shape, &w->bytes[i], e) < 0 ||
            __builtin_add_overflow(pos, w->bytes[i], &pos) || pos >> 62) {
            err_set(e, NT_EXIT_DATA, "%s: tensor %s cannot be stored as %s", outfile_name(w->out), x->name,
                    dtype_name(x->dtype));
            goto done;
        }
        json_t *entry = json_object_get(header, x->name) ? NULL : describe(x, pos - w->bytes[i], pos);
        if (!entry || json_object_set_new(header, x->name, entry) < 0) {
            err_set(e, NT_EXIT_DATA, "%s: tensor name %s is there twice or not UTF-8", outfile_name(w->out),
                    x->name);
            goto done;
        }
    }
    text = json_dumps(header, JSON_COMPACT);
done:
    json_decref(header);
    return text;
}

static void skip_empty(struct safetensors_writer *w)
{
    while (w->at < w->n && w->done == w->bytes[w->at]) w->at++, w->done = 0;
}

struct safetensors_writer *safetensors_begin(struct outfile *out, struct safetensors_entry *list, size_t n,
                                             const json_t *metadata, struct err *e)
{
    struct safetensors_writer *w = MEM_NEW(struct safetensors_writer, 1);
    qsort(list, n, sizeof *list, file_order);
    *w = (struct safetensors_writer){.out = out, .list = list, .n = n, .bytes = MEM_NEW(uint64_t, n)};
    char *text = make_header(w, metadata, e);
    if (!text) return safetensors_drop(w), NULL;
    uint64_t len = strlen(text), padded = (len + 7) / 8 * 8;
    uint8_t head[8];
    for (int i = 0; i < 8; i++) head[i] = (uint8_t)(padded >> 8 * i);
    int rc = padded > 100000000
                 ? err_set(e, NT_EXIT_DATA, "%s: the header would be larger than 100 MB", outfile_name(out))
                 : 0;
    if (rc == 0) rc = outfile_write(out, head, 8, e);
    if (rc == 0) rc = outfile_write(out, text, len, e);
    if (rc == 0) rc = outfile_write(out, "        ", padded - len, e);
    free(text);
    if (rc < 0) return safetensors_drop(w), NULL;
    skip_empty(w);
    return w;
}

const struct safetensors_entry *safetensors_next(const struct safetensors_writer *w)
{
    return w->at < w->n ? &w->list[w->at] : NULL;
}

int safetensors_put(struct safetensors_writer *w, const void *p, uint64_t n, struct err *e)
{
    assert(n == 0 || (w->at < w->n && n <= w->bytes[w->at] - w->done));
    if (outfile_write(w->out, p, n, e) < 0) return -1;
    w->done += n;
    skip_empty(w);
    return 0;
}

int safetensors_put_f32(struct safetensors_writer *w, const float *x, size_t n, struct err *e)
{
    enum dtype t = w->list[w->at].dtype;
    uint8_t buf[CHUNK * 4];
    if (t == DT_F32) return safetensors_put(w, x, (uint64_t)n * 4, e);
    for (size_t i = 0; i < n; i += CHUNK) {
        size_t k = n - i < CHUNK ? n - i : CHUNK;
        dtype_from_f32(buf, t, x + i, k);
        if (safetensors_put(w, buf, (uint64_t)k * (uint64_t)dtype_block_bytes(t), e) < 0) return -1;
    }
    return 0;
}

int safetensors_end(struct safetensors_writer *w, struct err *e)
{
    int rc = w->at == w->n ? 0
                           : err_set(e, NT_EXIT_DATA, "%s: tensor %s was not delivered whole",
                                     outfile_name(w->out), w->list[w->at].name);
    safetensors_drop(w);
    return rc;
}

void safetensors_drop(struct safetensors_writer *w)
{
    if (!w) return;
    mem_free(w->bytes);
    mem_free(w);
}
