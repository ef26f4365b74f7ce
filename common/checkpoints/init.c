/* SPDX-License-Identifier: Apache-2.0
 * A model without weights: a config.json that asks for random ones by the key "nt_init_seed", with no
 * safetensors beside it. This is where training from scratch starts. Matrices are uniform with standard
 * deviation initializer_range (default 0.02), divided by sqrt(2 layers) for the two that write into the
 * residual stream; norms are one, biases zero. A value is a function of seed, tensor name and index, made
 * without libm, so that it is the same everywhere. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "common/checkpoint_impl.h"
#include "common/mem.h"
#include "common/model.h"
#include "common/rng.h"

#define SEED_KEY "nt_init_seed"

struct init {
    struct checkpoint *c;
    float *at; /* NULL: only sizes are wanted */
    uint64_t bytes, seed;
    double range;
    int file;
};

static uint64_t name_stream(const char *s)
{
    uint64_t h = 0xCBF29CE484222325u; /* FNV-1a */
    for (; *s; s++) h = (h ^ (uint8_t)*s) * 0x100000001B3u;
    return h;
}

static void fill_uniform(float *w, size_t n, uint64_t seed, uint64_t stream, double bound)
{
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i += 4) {
        uint32_t r[4];
        rng_block(seed, stream, i / 4, r);
        for (size_t k = 0; k < 4 && i + k < n; k++)
            w[i + k] = (float)(((r[k] >> 8) + 0.5) * 0x1p-23 - 1) * (float)bound;
    }
}

/* One tensor; cols 0: a vector of `value`, else random with standard deviation `value`. */
static int add(struct init *x, const char *pattern, int layer, int expert, const char *suffix, int rows, int cols,
               double value, struct err *e)
{
    char name[256];
    struct tensor t = {
        .dtype = DT_F32, .rank = cols ? 2 : 1, .shape = {(uint64_t)rows, (uint64_t)(cols ? cols : 0)}};
    size_t n = (size_t)rows * (size_t)(cols ? cols : 1);
    uint64_t offset = x->bytes;
    t.nbytes = n * sizeof(float);
    x->bytes += (t.nbytes + 63) / 64 * 64;
    if (!x->at) return 0;
    family_expert_name(name, pattern, layer, expert, suffix);
    float *w = x->at + offset / sizeof(float);
    for (size_t i = 0; i < n && !cols; i++) w[i] = (float)value;
    if (cols) fill_uniform(w, n, x->seed, name_stream(name), value * sqrt(3));
    return checkpoint_add(x->c, name, strlen(name), &t, x->file, offset, e);
}

static int add_linear(struct init *x, const struct model_config *c, int l, int i, struct err *e)
{
    enum role r = linear_role(i);
    const char *pattern = family_linear_pattern(&c->hf, &c->block, i);
    bool writes = r == ROLE_O || r == ROLE_DOWN;
    int out, in, expert = linear_expert(i);
    role_dims(&c->block, i, &out, &in);
    if (add(x, pattern, l, expert, ".weight", out, in, x->range / (writes ? sqrt(2.0 * c->n_layers) : 1), e)) return -1;
    return expert < 0 && c->bias[r] ? add(x, pattern, l, -1, ".bias", out, 0, 0, e) : 0;
}

static int add_layer(struct init *x, const struct model_config *c, int l, struct err *e)
{
    const struct family_names *f = &c->hf;
    struct block_shape here = c->block, *s = &here;
    if (c->layer[l].dense) s->experts = s->shared_F = 0;
    for (int i = 0; i < block_linears(s); i++)
        if (block_runs(s, i) && add_linear(x, c, l, i, e)) return -1;
    if (s->experts && add(x, f->router, l, -1, ".weight", s->experts, s->D, x->range, e)) return -1;
    if (s->shared_F && f->shared_gate && add(x, f->shared_gate, l, -1, ".weight", 1, s->D, x->range, e))
        return -1;
    for (int n = 0; n < NORM_COUNT; n++) {
        int dim = norm_dim(s, n);
        if (dim && (add(x, f->norm[n], l, -1, ".weight", dim, 0, 1, e) ||
                    (c->norm_bias && add(x, f->norm[n], l, -1, ".bias", dim, 0, 0, e))))
            return -1;
    }
    return 0;
}

static int add_all(struct init *x, const struct model_config *c, struct err *e)
{
    const struct family_names *f = &c->hf;
    int D = c->block.D;
    x->bytes = 0;
    if (add(x, f->embed, 0, -1, ".weight", c->vocab, D, x->range, e)) return -1;
    for (int l = 0; l < c->n_layers; l++)
        if (add_layer(x, c, l, e)) return -1;
    if (add(x, f->final_norm, 0, -1, ".weight", D, 0, 1, e) ||
        (c->norm_bias && add(x, f->final_norm, 0, -1, ".bias", D, 0, 0, e)))
        return -1;
    return c->tied ? 0 : add(x, f->head, 0, -1, ".weight", c->vocab, D, x->range, e);
}

static char *config_path(const char *path)
{
    return path_is_dir(path) ? path_join(path, "config.json") : mem_strdup(path);
}

static int init_open(struct checkpoint *c, struct err *e)
{
    struct init x = {.c = c, .range = 0.02};
    struct model_config config = {0};
    char *path = config_path(c->path);
    c->dir = path_is_dir(c->path) ? mem_strdup(c->path) : path_dir(c->path);
    c->config = checkpoint_load_json(path, e);
    const json_t *seed = json_object_get(c->config, SEED_KEY),
                 *range = json_object_get(c->config, "initializer_range");
    int rc = c->config ? model_config_read(&config, c->config, e) : -1;
    if (!rc && (!json_is_integer(seed) || json_integer_value(seed) < 0))
        rc = err_set(e, NT_EXIT_DATA, "config key " SEED_KEY " is no whole number from 0 on");
    if (!rc && range && !(json_number_value(range) > 0 && json_number_value(range) < 10))
        rc = err_set(e, NT_EXIT_DATA, "config key initializer_range is not between 0 and 10");
    if (!rc) {
        x.seed = (uint64_t)json_integer_value(seed);
        if (range) x.range = json_number_value(range);
        rc = add_all(&x, &config, e); /* sizes */
    }
    if (!rc) {
        x.at = mmap(NULL, x.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (x.at == MAP_FAILED)
            rc = err_set(e, NT_EXIT_DEVICE, "no memory for %llu bytes of random weights: %s",
                         (unsigned long long)x.bytes, strerror(errno));
    }
    if (!rc) {
        x.file = checkpoint_take_memory(c, path, x.at, x.bytes);
        rc = add_all(&x, &config, e);
    }
    model_config_clear(&config);
    if (rc) err_prefix(e, "%s", path);
    mem_free(path);
    return rc;
}

/* A config.json (or its directory) that names a seed, and no weights beside it. */
static int init_probe(const char *path)
{
    static const char *const weights[] = {"model.safetensors", "model.safetensors.index.json",
                                          "pytorch_model.bin", "pytorch_model.bin.index.json"};
    if (!path_is_dir(path) && !path_ends(path, "config.json")) return 0;
    char *config = config_path(path), *dir = path_dir(config);
    json_t *j = json_load_file(config, 0, NULL);
    int mine = json_object_get(j, SEED_KEY) != NULL;
    for (size_t i = 0; i < sizeof weights / sizeof *weights && mine; i++) {
        char *file = path_join(dir, weights[i]);
        mine = !path_exists(file);
        mem_free(file);
    }
    json_decref(j);
    mem_free(config);
    mem_free(dir);
    return mine;
}

const struct checkpoint_format checkpoint_format_init = {
    .name = "init", .probe = init_probe, .open = init_open};
