/* SPDX-License-Identifier: Apache-2.0
 * A model file as named weights by layer: opening, names, and reading to the host in HF orientation and row
 * order. Which tensor is what: model_find.c; to the device: model_load.c; configuration: model_config.c and
 * model_gguf.c; identity: model_identity.c. */
#include <stdlib.h>
#include <string.h>
#include "common/mem.h"
#include "common/model.h"
#include "common/model_find.h"

/* "model.layers.%d.self_attn.q_proj" -> the name with the layer and a suffix; "...c_attn#q" -> "...c_attn",
 * the suffix, "#q". No other % is in a pattern. */
void family_tensor_name(char out[256], const char *pattern, int layer, const char *suffix)
{
    const char *at = strstr(pattern, "%d"), *part = strchr(pattern, '#');
    int end = part ? (int)(part - pattern) : (int)strlen(pattern);
    if (at)
        snprintf(out, 256, "%.*s%d%.*s%s%s", (int)(at - pattern), pattern, layer,
                 end - (int)(at + 2 - pattern), at + 2, suffix, part ? part : "");
    else
        snprintf(out, 256, "%.*s%s%s", end, pattern, suffix, part ? part : "");
}

void family_expert_name(char out[256], const char *pattern, int layer, int expert, const char *suffix)
{
    char one[256];
    const char *at = strstr(pattern, "%x");
    if (at)
        snprintf(one, sizeof one, "%.*s%d%s", (int)(at - pattern), pattern, expert, at + 2);
    else
        snprintf(one, sizeof one, "%s", pattern);
    family_tensor_name(out, one, layer, suffix);
}

const char *family_linear_pattern(const struct family_names *n, const struct block_shape *s, int linear)
{
    int expert = linear_expert(linear);
    if (expert < 0) return n->role[linear];
    return (expert < s->experts ? n->expert : n->shared)[linear_role(linear) - ROLE_GATE];
}

void model_tensor_name(const struct model *m, int layer, int linear, char out[256])
{
    const char *pattern = family_linear_pattern(&m->c.hf, &m->c.block, linear);
    family_expert_name(out, pattern, layer, linear_expert(linear), ".weight");
}

void model_norm_name(const struct model *m, int layer, enum norm_id n, char out[256])
{
    family_tensor_name(out, m->c.hf.norm[n], layer, ".weight");
}

void model_norm_vector_name(const struct model *m, int layer, int i, char out[256])
{
    family_tensor_name(out, m->c.hf.norm[i % NORM_COUNT], layer, i < NORM_COUNT ? ".weight" : ".bias");
}

void model_final_norm_name(const struct model *m, char out[256])
{
    out[0] = 0;
    if (m->c.hf.final_norm) family_tensor_name(out, m->c.hf.final_norm, 0, ".weight");
}

int model_find_role(const struct model *m, int64_t layer, const char *name)
{
    char own[256];
    for (int r = 0; layer >= 0 && layer < m->c.n_layers && r < block_linears(&m->c.block); r++) {
        if (!model_has_linear(m, (int)layer, r)) continue;
        model_tensor_name(m, (int)layer, r, own);
        if (!strcmp(own, name)) return r;
    }
    return -1;
}

int model_find_norm(const struct model *m, int64_t layer, const char *name)
{
    char own[256];
    for (int i = 0; i < NORM_VECTORS && layer >= 0 && layer < m->c.n_layers; i++) {
        const struct model_layer *l = &m->layers[layer];
        if (i < NORM_COUNT ? !m->c.block.norm[i] : !l->norm_bias[i - NORM_COUNT].t) continue;
        model_norm_vector_name(m, (int)layer, i, own);
        if (!strcmp(own, name)) return i;
    }
    return -1;
}

const struct weight_part *model_norm_part(const struct model *m, int i)
{
    int n = i % NORM_VECTORS, final = i - m->c.n_layers * NORM_VECTORS;
    const struct weight_part *p = final == 0       ? &m->final_gain
                                  : final == 1     ? &m->final_bias
                                  : n < NORM_COUNT ? &m->layers[i / NORM_VECTORS].gain[n]
                                                   : &m->layers[i / NORM_VECTORS].norm_bias[n - NORM_COUNT];
    return p->t ? p : NULL;
}

int model_norm_part_name(const struct model *m, int i, char out[256])
{
    int final = i - m->c.n_layers * NORM_VECTORS;
    if (final >= 0)
        family_tensor_name(out, m->c.hf.final_norm ? m->c.hf.final_norm : "", 0, final ? ".bias" : ".weight");
    else
        model_norm_vector_name(m, i / NORM_VECTORS, i % NORM_VECTORS, out);
    return final >= 0 ? -1 : i / NORM_VECTORS;
}

int model_find_norm_part(const struct model *m, int64_t layer, const char *name)
{
    int last = m->c.n_layers * NORM_VECTORS, i = model_find_norm(m, layer, name);
    char own[256];
    if (i >= 0) return (int)layer * NORM_VECTORS + i;
    for (int k = last; k < last + 2; k++) {
        model_norm_part_name(m, k, own);
        if (model_norm_part(m, k) && !strcmp(own, name)) return k;
    }
    return -1;
}

int model_read_norm_part(struct model *m, int i, float *dst, struct err *e)
{
    return model_read_part(m, model_norm_part(m, i), dst, e);
}

void model_trained_norms(const struct model *m, bool qk, bool trained[NORM_VECTORS])
{
    for (int i = 0; i < NORM_VECTORS; i++)
        trained[i] = model_norm_part(m, i) && (qk || norm_tweaked(i % NORM_COUNT)); /* layers are alike */
}

bool model_is_final_norm(const struct model *m, const char *name)
{
    char own[256];
    model_final_norm_name(m, own);
    return *own && !strcmp(own, name);
}

bool model_norm_has_bias(const struct model *m)
{
    return m->c.norm_bias;
}

/* config.json; of a quantized checkpoint without what says so: to everyone else its weights are floats. */
static json_t *float_config(struct model *m)
{
    json_t *c = model_config_text(m->ck->config);
    m->nested = c != m->ck->config;
    if (!m->ck->layout) return c;
    json_t *copy = json_copy(c);
    json_object_del(copy, "quantization_config"), json_object_del(copy, "quantization");
    json_decref(c);
    return copy;
}

struct model *model_open(const char *path, const struct backend *be, struct err *e)
{
    struct model *m = MEM_NEW(struct model, 1);
    int rc = -1;
    m->be = be;
    m->ck = checkpoint_open(path, e);
    if (!m->ck) goto done;
    m->gguf = !strcmp(m->ck->format, "gguf");
    if (m->gguf)
        m->hf_config = model_config_from_gguf(m->ck, e);
    else if (m->ck->config)
        m->hf_config = float_config(m);
    else
        err_set(e, NT_EXIT_DATA, "no config.json beside it");
    if (!m->hf_config || model_config_read(&m->c, m->hf_config, e)) {
        err_prefix(e, "%s", path);
        goto done;
    }
    m->c.bf16 = be && be->bf16;
    rc = model_find_tensors(m, e);
done:
    if (!rc) return m;
    model_close(m);
    return NULL;
}

void model_close(struct model *m)
{
    if (!m) return;
    embedder_free(m);
    if (m->ck) checkpoint_close(m->ck);
    json_decref(m->hf_config);
    model_config_clear(&m->c);
    for (int i = 0; m->joined && i < 2 * m->c.n_layers; i++)
        mem_free((void *)(uintptr_t)m->joined[i].name), mem_free((void *)(uintptr_t)m->joined[i].t.data);
    mem_free(m->joined);
    mem_free(m->layers), mem_free(m->linears);
    mem_free(m);
}

bool model_is_joined(const struct model *m, const struct checkpoint_tensor *t)
{
    return t >= m->joined && t < m->joined + 2 * m->c.n_layers;
}

/* ---- weights on the host ---- */

/* Row r of a file's q or k matrix in HF order: llama.cpp stores the pair (i, i + E/2) of a head side by side.
 */
static uint64_t permuted_row(uint64_t row, int E)
{
    uint64_t head = row / (uint64_t)E, at = row % (uint64_t)E, half = (uint64_t)E / 2;
    return head * (uint64_t)E + (at < half ? 2 * at : 2 * (at - half) + 1);
}

uint64_t model_part_row(const struct weight_part *p, uint64_t i)
{
    if (p->head_dim) i = permuted_row(i, p->head_dim);
    return p->row0 + i / p->run * p->stride + i % p->run;
}

/* How many rows from r on lie one after the other in the file: at most n. */
static uint64_t rows_together(const struct weight_part *p, uint64_t r, uint64_t n)
{
    uint64_t left = p->head_dim ? 1 : p->run - r % p->run;
    return left < n ? left : n;
}

static void read_plain(const struct weight_part *p, uint64_t r0, uint64_t n, float *dst)
{
    bool whole = p->cols == 1 && p->run == p->rows && n == p->rows && !p->head_dim;
    const struct tensor *t = &p->t->t;
    if (whole && tensor_count(t) == n) { /* a vector may be of blocks */
        dtype_to_f32(dst, t->dtype, t->data, n);
        return;
    }
    size_t bytes = t->nbytes / (tensor_count(t) / p->cols);
    if (p->cols == 1) { /* parts of vectors: few and short */
        for (uint64_t r = 0, k; r < n; r += k) {
            k = rows_together(p, r0 + r, n - r);
            dtype_to_f32(dst + r, t->dtype, (const char *)t->data + model_part_row(p, r0 + r) * bytes, k);
        }
        return;
    }
#pragma omp parallel for schedule(static) if (n * p->cols > 1u << 16)
    for (uint64_t r = 0; r < n; r++)
        dtype_to_f32(dst + r * p->cols, t->dtype, (const char *)t->data + model_part_row(p, r0 + r) * bytes,
                     p->cols);
}

/* Columns of a tensor [cols, more] as rows. Only plain element types (model_find.c sees to it). */
static void read_transposed(const struct weight_part *p, uint64_t r0, uint64_t n, float *dst)
{
    enum { CHUNK = 256 };
    const struct tensor *t = &p->t->t;
    size_t size = (size_t)dtype_block_bytes(t->dtype);
#pragma omp parallel for schedule(static) if (n * p->cols > 1u << 16)
    for (uint64_t c = 0; c < p->cols; c++) {
        const char *line = (const char *)t->data + c * t->shape[1] * size;
        float some[CHUNK];
        for (uint64_t r = 0, k; r < n; r += k) {
            k = rows_together(p, r0 + r, n - r < CHUNK ? n - r : CHUNK);
            dtype_to_f32(some, t->dtype, line + model_part_row(p, r0 + r) * size, k);
            for (uint64_t i = 0; i < k; i++) dst[(r + i) * p->cols + c] = some[i];
        }
    }
}

/* Rows of a packed weight, as many at a time as lie together. */
static int read_packed(const struct model *m, const struct weight_part *p, uint64_t r0, uint64_t n, float *dst,
                       struct err *e)
{
    int rc = 0;
    for (uint64_t r = 0, k; r < n && !rc; r += k) {
        k = rows_together(p, r0 + r, n - r);
        rc = checkpoint_rows(m->ck, p->t, model_part_row(p, r0 + r), k, dst + r * p->cols, e);
    }
    return rc;
}

int model_read_rows(struct model *m, const struct weight_part *p, uint64_t r0, uint64_t n, float *dst,
                    struct err *e)
{
    uint64_t count = n * p->cols;
    if (p->t->packed) {
        if (read_packed(m, p, r0, n, dst, e)) return -1;
    } else if (p->transposed)
        read_transposed(p, r0, n, dst);
    else
        read_plain(p, r0, n, dst);
    size_t bad = f32_first_nonfinite(dst, count);
    if (bad < count)
        return err_set(e, NT_EXIT_DATA, "%s: tensor %s: value %llu is not finite", m->ck->path, p->t->name,
                       (unsigned long long)(r0 * p->cols + bad));
    for (uint64_t i = 0; i < count && p->offset != 0; i++) dst[i] += p->offset;
    return 0;
}

int model_read_part(struct model *m, const struct weight_part *p, float *dst, struct err *e)
{
    int rc = model_read_rows(m, p, 0, p->rows, dst, e);
    checkpoint_release(m->ck, p->t);
    return rc;
}

int model_read_linear(struct model *m, int layer, int linear, float *dst, struct err *e)
{
    return model_read_part(m, &m->layers[layer].w[linear], dst, e);
}

int model_read_bias(struct model *m, int layer, int linear, float *dst, struct err *e)
{
    const struct weight_part *p = linear < ROLE_COUNT ? &m->layers[layer].b[linear] : NULL;
    if (!p || !p->t) return 0; /* no family's experts have any */
    return model_read_part(m, p, dst, e) ? -1 : 1;
}

bool model_linear_has_bias(const struct model *m)
{
    for (int r = 0; r < ROLE_COUNT; r++)
        if (m->layers[0].b[r].t) return true; /* all layers have the same tensors */
    return false;
}

/* A norm without a tensor has gain 1 and bias 0. */
static int read_norm(struct model *m, const struct weight_part *gain, const struct weight_part *bias, int dim,
                     float *g, float *b, struct err *e)
{
    for (int i = 0; i < dim; i++) {
        g[i] = 1;
        if (b) b[i] = 0;
    }
    if (gain->t && model_read_part(m, gain, g, e)) return -1;
    return b && bias->t ? model_read_part(m, bias, b, e) : 0;
}

int model_read_norm(struct model *m, int layer, enum norm_id n, float *gain, float *bias, struct err *e)
{
    const struct model_layer *l = &m->layers[layer];
    return read_norm(m, &l->gain[n], &l->norm_bias[n], norm_dim(&m->c.block, n), gain, bias, e);
}

int model_read_final_norm(struct model *m, float *gain, float *bias, struct err *e)
{
    return read_norm(m, &m->final_gain, &m->final_bias, m->c.block.D, gain, bias, e);
}

int model_read_embed(struct model *m, int r0, int n, float *dst, struct err *e)
{
    return model_read_rows(m, &m->embed, (uint64_t)r0, (uint64_t)n, dst, e);
}

int model_read_head(struct model *m, int r0, int n, float *dst, struct err *e)
{
    return model_read_rows(m, &m->head, (uint64_t)r0, (uint64_t)n, dst, e);
}
