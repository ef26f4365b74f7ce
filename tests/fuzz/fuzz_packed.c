/* SPDX-License-Identifier: Apache-2.0
 * Quantized weights in safetensors files: config.json up to the first NUL, the rest is the file. Opening ends
 * with a sentence, or every packed weight gives its rows. */
#include <assert.h>
#include <sys/stat.h>
#include "common/checkpoint.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/packed_seed.h"

bool fuzz_seed(int i, uint8_t **data, size_t *size)
{
    if (i >= N_SEEDS) return false;
    uint8_t *f = seed_file(seeds[i].part, size);
    size_t n = strlen(seeds[i].config) + 1;
    *data = malloc(*size + n);
    memcpy(*data, seeds[i].config, n);
    memcpy(*data + n, f, *size);
    *size += n;
    free(f);
    return true;
}

static void store(const char *path, const void *p, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(p, 1, n, f) != n || fclose(f)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char dir[64], config[96], model[96];
    struct err e = {0};
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t n = nul ? (size_t)(nul - data) : size;
    snprintf(dir, sizeof dir, "/tmp/nt-fuzz-packed-%d", (int)getpid());
    snprintf(config, sizeof config, "%s/config.json", dir);
    snprintf(model, sizeof model, "%s/model.safetensors", dir);
    mkdir(dir, 0700);
    store(config, data, n);
    store(model, data + n + (nul != NULL), size - n - (nul != NULL));
    struct checkpoint *c = checkpoint_open(dir, &e);
    assert(c || (e.code && e.text[0] && !strchr(e.text, '\n')));
    for (int i = 0; c && i < c->n_tensors; i++) {
        const struct checkpoint_tensor *t = &c->tensors[i];
        float row[1 << 16];
        if (!t->packed || t->t.shape[1] > 1 << 16) continue;
        if (checkpoint_rows(c, t, t->t.shape[0] - 1, 1, row, &e)) assert(e.code);
    }
    checkpoint_close(c);
    unlink(config), unlink(model), rmdir(dir);
    return 0;
}
