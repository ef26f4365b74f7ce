/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/checkpoint_fixture.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/mem.h"

void *file_load(const char *file, size_t *n)
{
    FILE *f = fopen(file, "rb");
    if (!f) return *n = 0, NULL;
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    void *p = mem_array(*n, 1);
    if (fread(p, 1, *n, f) != *n) *n = 0;
    fclose(f);
    return p;
}

void file_store(const char *file, const void *p, size_t n)
{
    FILE *f = fopen(file, "wb");
    if (!f || fwrite(p, 1, n, f) != n || fclose(f)) exit(99);
}

bool values_equal(const struct checkpoint *c, const char *name, int k, enum dtype dtype, int rank,
                  const uint64_t *shape, uint64_t repeat)
{
    const struct checkpoint_tensor *t = checkpoint_find(c, name);
    if (!t || t->t.dtype != dtype || t->t.rank != rank) return false;
    for (int i = 0; i < rank; i++)
        if (t->t.shape[i] != shape[i]) return false;
    size_t n = (size_t)tensor_count(&t->t);
    float *y = MEM_NEW(float, n);
    dtype_to_f32(y, dtype, t->t.data, n);
    bool same = true;
    for (size_t i = 0; i < n; i++)
        same &= y[i] == (float)((37 * (int64_t)(i / repeat) + 11 * k) % 64 - 32) / 8;
    mem_free(y);
    return same;
}

bool refuses(const char *file, const char *want, struct err *e)
{
    struct checkpoint *c = checkpoint_open(file, e);
    if (c) snprintf(e->text, sizeof e->text, "opened");
    bool good = !c && e->code == NT_EXIT_DATA && strstr(e->text, want) && strstr(e->text, file) == e->text &&
                !strchr(e->text, '\n');
    checkpoint_close(c);
    return good;
}

struct cuts cut_everywhere(const char *from, const char *to, size_t dense, size_t padding)
{
    struct cuts cuts = {0};
    size_t n;
    char *p = file_load(from, &n);
    n -= n < padding ? n : padding;
    for (size_t k = 0; k < n; k += k < dense || k + 100 > n ? 1 : 37) {
        struct err e = {0};
        file_store(to, p, k);
        struct checkpoint *c = checkpoint_open(to, &e);
        cuts.tried++;
        cuts.opened += c != NULL;
        cuts.silent += !c && (e.code != NT_EXIT_DATA || !strstr(e.text, to));
        checkpoint_close(c);
    }
    unlink(to);
    mem_free(p);
    return cuts;
}
