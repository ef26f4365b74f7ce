/* SPDX-License-Identifier: Apache-2.0
 * What the fuzz targets of checkpoint formats share: seeds from files, one input as a memory file that is
 * opened and read. */
#ifndef NT_FUZZ_CHECKPOINT_H
#define NT_FUZZ_CHECKPOINT_H
#include <assert.h>
#include <sys/mman.h>
#include "common/checkpoint.h"
#include "tests/fuzz/fuzz.h"

static bool fuzz_load(const char *path, uint8_t **data, size_t *size)
{
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    fseek(f, 0, SEEK_END);
    *size = (size_t)ftell(f);
    rewind(f);
    *data = malloc(*size);
    bool ok = *data && fread(*data, 1, *size, f) == *size;
    fclose(f);
    return ok;
}

/* Every byte of every tensor is touched, block types are dequantized. */
static void fuzz_touch(const struct checkpoint *c, size_t size)
{
    unsigned sum = 0;
    for (int i = 0; i < c->n_tensors; i++) {
        const struct tensor *t = &c->tensors[i].t;
        /* the files after the first are what a format unpacked */
        bool inside = c->tensors[i].offset + t->nbytes <= size || c->tensors[i].file > 0;
        assert(inside &&
               checkpoint_find(c, c->tensors[i].name) == &c->tensors[i]);
        for (uint64_t k = 0; k < t->nbytes; k++) sum += ((const uint8_t *)t->data)[k];
        if (dtype_block(t->dtype) == 1 || !t->nbytes) continue;
        float y[256];
        dtype_to_f32(y, t->dtype, t->data, (size_t)dtype_block(t->dtype));
    }
    if (sum == 1) putchar('\n'); /* so that the reads are not optimised away */
}

static int fuzz_open(const uint8_t *data, size_t size, const char *suffix)
{
    char path[64], link[96];
    int fd = memfd_create("nt-fuzz", 0);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)getpid(), fd);
    snprintf(link, sizeof link, "/tmp/nt-fuzz-%d%s", (int)getpid(), suffix);
    if (symlink(path, link) < 0) abort();
    struct err e = {0};
    struct checkpoint *c = checkpoint_open(link, &e);
    unlink(link);
    if (c) fuzz_touch(c, size);
    else assert(e.code && e.text[0] && !strchr(e.text, '\n'));
    checkpoint_close(c);
    close(fd);
    return 0;
}
#endif
