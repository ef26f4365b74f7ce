/* SPDX-License-Identifier: Apache-2.0
 * prefill MODEL [-j THREADS] [-T TOKENS] [-r REPEATS] [-p f32|bf16]: one prompt through the whole model, all
 * weights resident, the head on its last token alone: what llama-bench's pp test runs. Prints the mean
 * seconds of the runs after one to warm up, and the largest resident set in MiB. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include "common/mem.h"
#include "common/model.h"
#include "common/tool.h"

static struct model *m;
static struct block **layers;
static struct block_work *work;
static struct head *head;
static int T = 512;

static void load(const char *path, const struct backend *be)
{
    struct err e = {0};
    m = model_open(path, be, &e);
    if (!m) die(&e);
    layers = MEM_NEW(struct block *, m->c.n_layers);
    for (int l = 0; l < m->c.n_layers; l++) {
        layers[l] = block_alloc(m, T);
        if (block_load(m, layers[l], l, &e)) die(&e);
    }
    work = block_work_alloc(be, &m->c.block, T, false);
    head = head_open(m, NULL, &e);
    if (!head) die(&e);
}

static void prompt(const int32_t *ids, dev x, dev y, float *logits)
{
    struct err e = {0};
    if (model_embed(m, ids, 1, T, 0, x, &e)) die(&e);
    for (int l = 0; l < m->c.n_layers; l++) {
        dev out = y;
        block_forward(m->be, layers[l], work, 1, T, 0, x, y, NULL, NULL);
        y = x, x = out;
    }
    head_logits(head, dev_at(x, (size_t)(T - 1) * (size_t)m->c.block.D), 1, logits);
}

int main(int argc, char **argv)
{
    int threads = 0, repeats = 5;
    bool bf16 = false;
    double start = 0;
    struct rusage u;
    backend_early(argv);
    for (int i = 2; i + 1 < argc; i += 2) {
        int n = atoi(argv[i + 1]);
        if (!strcmp(argv[i], "-j")) threads = n;
        if (!strcmp(argv[i], "-T")) T = n;
        if (!strcmp(argv[i], "-r")) repeats = n;
        if (!strcmp(argv[i], "-p")) bf16 = argv[i + 1][0] == 'b';
    }
    if (argc < 2 || T < 1 || repeats < 1) return 2;
    struct backend *be = backend_open("cpu", threads, bf16);
    load(argv[1], be);
    size_t bytes = (size_t)T * (size_t)m->c.block.D * sizeof(float);
    dev x = be->alloc(bytes), y = be->alloc(bytes);
    int32_t *ids = MEM_NEW(int32_t, T);
    float *logits = MEM_NEW(float, m->c.vocab);
    for (int i = 0; i < T; i++) ids[i] = (int32_t)((i * 7919L + 13) % m->c.vocab);
    for (int r = -1; r < repeats; r++) {
        if (r == 0) start = now_seconds();
        prompt(ids, x, y, logits);
    }
    start = now_seconds() - start;
    getrusage(RUSAGE_SELF, &u);
    printf("%.6f %.0f\n", start / repeats, (double)u.ru_maxrss / 1024);
    for (int l = 0; l < m->c.n_layers; l++) block_free(m, layers[l]);
    mem_free(layers), mem_free(ids), mem_free(logits);
    block_work_free(work), head_free(head), be->release(x), be->release(y);
    model_close(m), backend_close(be);
    return 0;
}
