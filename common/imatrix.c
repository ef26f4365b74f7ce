/* SPDX-License-Identifier: Apache-2.0
 * The importance matrix of llama.cpp as a GGUF file: keys general.type and imatrix.*, two F32 tensors per
 * linear, in the order of their names. Values are float64 until they are written. */
#include "common/imatrix.h"

#include <stdlib.h>
#include <string.h>

#include "common/gguf_write.h"
#include "common/mem.h"
#include "common/outfile.h"

struct entry {
    char *name;
    double *sum2;    /* [n, dim] */
    uint64_t *count; /* [n] */
    int n, dim;      /* n: experts in one tensor, else 1 */
};

struct imatrix {
    struct outfile *out;
    char *dataset;
    uint32_t chunk_count, chunk_size;
    struct entry *entries;
    size_t n, cap;
};

struct imatrix *imatrix_open(const char *path, const char *dataset, uint32_t chunk_count, uint32_t chunk_size,
                             struct err *e)
{
    struct outfile *out = outfile_open(path, e);
    if (!out) return NULL;
    struct imatrix *im = MEM_NEW(struct imatrix, 1);
    *im = (struct imatrix){
        .out = out, .dataset = mem_strdup(dataset), .chunk_count = chunk_count, .chunk_size = chunk_size};
    return im;
}

void imatrix_discard(struct imatrix *im)
{
    if (!im) return;
    outfile_discard(im->out);
    for (size_t i = 0; i < im->n; i++) {
        mem_free(im->entries[i].name);
        mem_free(im->entries[i].sum2);
        mem_free(im->entries[i].count);
    }
    mem_free(im->entries);
    mem_free(im->dataset);
    mem_free(im);
}

static struct entry *new_entry(struct imatrix *im, const char *name, int dim)
{
    im->entries = mem_grow(im->entries, &im->cap, im->n + 1, sizeof *im->entries);
    struct entry *n = &im->entries[im->n++];
    *n = (struct entry){.name = mem_strdup(name), .dim = dim};
    return n;
}

void imatrix_add(struct imatrix *im, const char *name, int expert, const double *sum2, int dim, uint64_t count)
{
    struct entry *n = NULL;
    for (size_t i = im->n; i-- > 0 && expert > 0 && !n;)
        if (!strcmp(im->entries[i].name, name)) n = &im->entries[i];
    if (!n) n = new_entry(im, name, dim);
    double *sums = MEM_NEW(double, (size_t)(expert + 1) * (size_t)dim);
    uint64_t *counts = MEM_NEW(uint64_t, expert + 1);
    if (n->n) {
        memcpy(sums, n->sum2, (size_t)n->n * (size_t)dim * sizeof(double));
        memcpy(counts, n->count, (size_t)n->n * sizeof *counts);
    }
    memcpy(sums + (size_t)expert * (size_t)dim, sum2, (size_t)dim * sizeof(double));
    counts[expert] = count;
    mem_free(n->sum2), mem_free(n->count);
    n->sum2 = sums, n->count = counts, n->n = expert + 1;
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const struct entry *const *)a)->name, (*(const struct entry *const *)b)->name);
}

static const struct entry **sorted(const struct imatrix *im)
{
    const struct entry **s = MEM_NEW(const struct entry *, im->n);
    for (size_t i = 0; i < im->n; i++) s[i] = &im->entries[i];
    qsort(s, im->n, sizeof *s, by_name);
    return s;
}

static void declare(struct gguf_writer *g, const struct imatrix *im, const struct entry *const *s)
{
    const char *datasets[] = {im->dataset};
    gguf_put_string(g, "general.type", "imatrix");
    gguf_put_strings(g, "imatrix.datasets", datasets, 1);
    gguf_put_u32(g, "imatrix.chunk_count", im->chunk_count);
    gguf_put_u32(g, "imatrix.chunk_size", im->chunk_size);
    for (size_t i = 0; i < im->n; i++) {
        char *sums = mem_printf("%s.in_sum2", s[i]->name), *counts = mem_printf("%s.counts", s[i]->name);
        gguf_tensor(g, sums, DT_F32, 2, (const uint64_t[]){(uint64_t)s[i]->n, (uint64_t)s[i]->dim});
        gguf_tensor(g, counts, DT_F32, 2, (const uint64_t[]){(uint64_t)s[i]->n, 1});
        mem_free(sums);
        mem_free(counts);
    }
}

static int put_entry(struct gguf_writer *g, const struct entry *n, struct err *e)
{
    size_t d = (size_t)n->dim * (size_t)n->n;
    float *f = MEM_NEW(float, d), *count = MEM_NEW(float, n->n);
    for (int i = 0; i < n->n; i++) count[i] = (float)n->count[i];
    for (size_t i = 0; i < d; i++) f[i] = (float)n->sum2[i];
    size_t bad = f32_first_nonfinite(f, d);
    int rc = bad < d ? err_set(e, NT_EXIT_DATA, "%s: the sum of squares of channel %zu is not finite",
                               n->name, bad % (size_t)n->dim)
                     : gguf_put(g, f, d * sizeof(float), e);
    if (rc == 0) rc = gguf_put(g, count, (size_t)n->n * sizeof *count, e);
    mem_free(f), mem_free(count);
    return rc < 0 ? -1 : 0;
}

int imatrix_finish(struct imatrix *im, struct err *e)
{
    const struct entry **s = sorted(im);
    struct gguf_writer *g = gguf_create(im->out);
    declare(g, im, s);
    int rc = gguf_data(g, e);
    for (size_t i = 0; i < im->n && rc == 0; i++) rc = put_entry(g, s[i], e);
    if (rc == 0)
        rc = gguf_end(g, e);
    else
        gguf_drop(g);
    mem_free(s);
    if (rc == 0) {
        rc = outfile_commit(im->out, e);
        im->out = NULL;
    }
    imatrix_discard(im);
    return rc;
}
