/* SPDX-License-Identifier: Apache-2.0
 * A model file as named weights by layer: opening and checking, reading to the host in HF orientation and row
 * order, and loading a block to the device. Configuration is in model_config.c and model_gguf.c, identity in
 * model_identity.c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/mem.h"
#include "common/model.h"

/* "model.layers.%d.self_attn.q_proj" -> the name with the layer and a suffix. No other % is in a pattern. */
void family_tensor_name(char out[256], const char *pattern, int layer, const char *suffix)
{
    const char *at = strstr(pattern, "%d");
    if (at)
        snprintf(out, 256, "%.*s%d%s%s", (int)(at - pattern), pattern, layer, at + 2, suffix);
    else
        snprintf(out, 256, "%s%s", pattern, suffix);
}

void model_tensor_name(const struct model *m, int layer, enum role r, char out[256])
{
    family_tensor_name(out, m->c.family->role[r], layer, ".weight");
}

void model_norm_name(const struct model *m, int layer, enum norm_id n, char out[256])
{
    family_tensor_name(out, m->c.family->norm[n], layer, ".weight");
}

void model_norm_vector_name(const struct model *m, int layer, int i, char out[256])
{
    family_tensor_name(out, m->c.family->norm[i % NORM_COUNT], layer, i < NORM_COUNT ? ".weight" : ".bias");
}

void model_final_norm_name(const struct model *m, char out[256])
{
    family_tensor_name(out, m->c.family->final_norm, 0, ".weight");
}

int model_find_role(const struct model *m, int64_t layer, const char *name)
{
    char own[256];
    for (int r = 0; r < ROLE_COUNT && layer >= 0 && layer < m->c.n_layers; r++) {
        if (!block_has_role(&m->c.block, r)) continue;
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
        if (!(i < NORM_COUNT ? l->gain[i] : l->norm_bias[i - NORM_COUNT])) continue;
        model_norm_vector_name(m, (int)layer, i, own);
        if (!strcmp(own, name)) return i;
    }
    return -1;
}

bool model_is_final_norm(const struct model *m, const char *name)
{
    char own[256];
    model_final_norm_name(m, own);
    return !strcmp(own, name);
}

bool model_norm_has_bias(const struct model *m)
{
    return !m->c.family->rms;
}

/* ---- opening ---- */

/* What open_tensor needs to know beside the name. */
struct finder {
    struct model *m;
    bool *used; /* per checkpoint tensor */
    struct err *e;
};

/* The tensor of a pattern with a checked shape; cols 0 = a vector. NULL with an error, or without one if
 * optional. */
static const struct checkpoint_tensor *find(struct finder *f, const char *pattern, int layer,
                                            const char *suffix, bool optional, uint64_t rows, uint64_t cols)
{
    struct checkpoint *ck = f->m->ck;
    char name[256];
    family_tensor_name(name, pattern, layer, suffix);
    const struct checkpoint_tensor *t = checkpoint_find(ck, name);
    if (!t && !f->m->gguf && !strncmp(name, "model.", 6))
        t = checkpoint_find(ck, name + 6); /* saved without the head */
    if (!t) {
        if (!optional) err_set(f->e, NT_EXIT_DATA, "%s: tensor %s is missing", ck->path, name);
        return NULL;
    }
    f->used[t - ck->tensors] = true;
    if (!dtype_is_float(t->t.dtype)) {
        err_set(f->e, NT_EXIT_DATA, "%s: tensor %s: type %s is no float type", ck->path, name,
                dtype_name(t->t.dtype));
        return NULL;
    }
    if (t->t.rank == (cols ? 2 : 1) && t->t.shape[0] == rows && (!cols || t->t.shape[1] == cols)) return t;
    char has[200] = "";
    for (int i = 0, n = 0; i < t->t.rank && n < 160; i++)
        n += snprintf(has + n, sizeof has - (size_t)n, "%s%llu", i ? ", " : "",
                      (unsigned long long)t->t.shape[i]);
    if (cols)
        err_set(f->e, NT_EXIT_DATA, "%s: tensor %s: shape [%s], expected [%llu, %llu]", ck->path, name, has,
                (unsigned long long)rows, (unsigned long long)cols);
    else
        err_set(f->e, NT_EXIT_DATA, "%s: tensor %s: shape [%s], expected [%llu]", ck->path, name, has,
                (unsigned long long)rows);
    return NULL;
}

static int find_layer(struct finder *f, int layer)
{
    struct model *m = f->m;
    const struct family *fam = m->c.family;
    struct model_layer *l = &m->layers[layer];
    for (int r = 0; r < ROLE_COUNT; r++) {
        if (!block_has_role(&m->c.block, r)) continue;
        const char *pattern = m->gguf ? fam->gguf_role[r] : fam->role[r];
        bool bias = r <= ROLE_O ? m->c.attn_bias && (r != ROLE_O || !fam->attn_bias) : m->c.mlp_bias;
        int out, in;
        role_dims(&m->c.block, r, &out, &in);
        l->w[r] = find(f, pattern, layer, ".weight", false, (uint64_t)out, (uint64_t)in);
        if (!l->w[r]) return -1;
        if (bias && !(l->b[r] = find(f, pattern, layer, ".bias", false, (uint64_t)out, 0))) return -1;
    }
    for (int n = 0; n < NORM_COUNT; n++) {
        const char *pattern = m->gguf ? fam->gguf_norm[n] : fam->norm[n];
        uint64_t dim = (uint64_t)norm_dim(&m->c.block, n);
        if (!dim) continue;
        l->gain[n] = find(f, pattern, layer, ".weight", false, dim, 0);
        if (!l->gain[n]) return -1;
        if (!fam->rms &&
            !(l->norm_bias[n] = find(f, pattern, layer, ".bias", false, dim, 0)))
            return -1;
    }
    return 0;
}

/* Tensors that are no part of the computation, or were already read as configuration. */
static bool is_harmless(const char *name)
{
    return strstr(name, "rotary_emb.inv_freq") || !strcmp(name, "rope_freqs.weight");
}

static int find_all(struct finder *f)
{
    struct model *m = f->m;
    const struct family *fam = m->c.family;
    uint64_t V = (uint64_t)m->c.vocab, D = (uint64_t)m->c.block.D;
    m->layers = MEM_NEW(struct model_layer, m->c.n_layers);
    m->embed = find(f, m->gguf ? fam->gguf_embed : fam->embed, 0, ".weight", false, V, D);
    if (!m->embed) return -1;
    for (int l = 0; l < m->c.n_layers; l++)
        if (find_layer(f, l)) return -1;
    m->final_gain = find(f, m->gguf ? fam->gguf_final_norm : fam->final_norm, 0, ".weight", false, D, 0);
    if (!m->final_gain) return -1;
    if (!fam->rms &&
        !(m->final_bias = find(f, m->gguf ? fam->gguf_final_norm : fam->final_norm, 0, ".bias", false, D, 0)))
        return -1;
    m->head = find(f, m->gguf ? fam->gguf_head : fam->head, 0, ".weight", true, V, D);
    if (f->e->code) return -1;
    if (m->c.tied || !m->head)
        m->c.tied = true, m->head = m->embed; /* a config may say untied and have no head */
    for (int i = 0; i < m->ck->n_tensors; i++)
        if (!f->used[i] && !is_harmless(m->ck->tensors[i].name))
            return err_set(f->e, NT_EXIT_DATA, "%s: tensor %.200s is no part of a %s model", m->ck->path,
                           m->ck->tensors[i].name, m->c.arch);
    return 0;
}

struct model *model_open(const char *path, const struct backend *be, struct err *e)
{
    struct model *m = MEM_NEW(struct model, 1);
    struct finder f = {.m = m, .e = e};
    int rc = -1;
    m->be = be;
    m->ck = checkpoint_open(path, e);
    if (!m->ck) goto done;
    m->gguf = !strcmp(m->ck->format, "gguf");
    if (m->gguf)
        m->hf_config = model_config_from_gguf(m->ck, e);
    else if (m->ck->config)
        m->hf_config = json_incref(m->ck->config);
    else
        err_set(e, NT_EXIT_DATA, "no config.json beside it");
    if (!m->hf_config || model_config_read(&m->c, m->hf_config, e)) {
        err_prefix(e, "%s", path);
        goto done;
    }
    m->c.bf16 = be && be->bf16;
    f.used = MEM_NEW(bool, m->ck->n_tensors);
    rc = find_all(&f);
done:
    mem_free(f.used);
    if (!rc) return m;
    model_close(m);
    return NULL;
}

void model_close(struct model *m)
{
    if (!m) return;
    if (m->ck) checkpoint_close(m->ck);
    json_decref(m->hf_config);
    mem_free(m->layers);
    mem_free(m);
}

/* ---- weights on the host ---- */

/* Row r of a file's q or k matrix in HF order: llama.cpp stores the pair (i, i + E/2) of a head side by side.
 */
static uint64_t file_row(uint64_t row, int E)
{
    uint64_t head = row / (uint64_t)E, at = row % (uint64_t)E, half = (uint64_t)E / 2;
    return head * (uint64_t)E + (at < half ? 2 * at : 2 * (at - half) + 1);
}

static int check_finite(const struct model *m, const struct checkpoint_tensor *t, const float *x, size_t n,
                        size_t first, struct err *e)
{
    size_t bad = f32_first_nonfinite(x, n);
    if (bad == n) return 0;
    return err_set(e, NT_EXIT_DATA, "%s: tensor %s: value %zu is not finite", m->ck->path, t->name,
                   first + bad);
}

int model_read_rows(struct model *m, const struct checkpoint_tensor *t, int head_dim, uint64_t r0, uint64_t n,
                    float *dst, struct err *e)
{
    uint64_t cols = t->t.rank == 2 ? t->t.shape[1] : t->t.shape[0], rows = t->t.rank == 2 ? t->t.shape[0] : 1;
    if (t->t.rank == 1 && head_dim) cols = 1, rows = t->t.shape[0]; /* a bias of permuted rows */
    size_t bytes = t->t.nbytes / rows;
#pragma omp parallel for schedule(static) if (n * cols > 1u << 16)
    for (uint64_t r = 0; r < n; r++) {
        uint64_t row = head_dim ? file_row(r0 + r, head_dim) : r0 + r;
        dtype_to_f32(dst + r * cols, t->t.dtype, (const char *)t->t.data + row * bytes, cols);
    }
    return check_finite(m, t, dst, n * cols, r0 * cols, e);
}

static int read_whole(struct model *m, const struct checkpoint_tensor *t, int head_dim, float *dst,
                      struct err *e)
{
    uint64_t rows = t->t.rank == 2 || head_dim ? t->t.shape[0] : 1;
    int rc = model_read_rows(m, t, head_dim, 0, rows, dst, e);
    checkpoint_release(m->ck, t);
    return rc;
}

int model_permuted_head(const struct model *m, enum role r)
{
    return m->gguf && m->c.family->gguf_permuted_qk && (r == ROLE_Q || r == ROLE_K) ? m->c.block.E : 0;
}

int model_read_linear(struct model *m, int layer, enum role r, float *dst, struct err *e)
{
    return read_whole(m, m->layers[layer].w[r], model_permuted_head(m, r), dst, e);
}

int model_read_bias(struct model *m, int layer, enum role r, float *dst, struct err *e)
{
    const struct checkpoint_tensor *t = m->layers[layer].b[r];
    if (!t) return 0;
    return read_whole(m, t, model_permuted_head(m, r), dst, e) ? -1 : 1;
}

int model_read_norm(struct model *m, int layer, enum norm_id n, float *gain, float *bias, struct err *e)
{
    const struct model_layer *l = &m->layers[layer];
    if (read_whole(m, l->gain[n], 0, gain, e)) return -1;
    return bias && l->norm_bias[n] ? read_whole(m, l->norm_bias[n], 0, bias, e) : 0;
}

int model_read_final_norm(struct model *m, float *gain, float *bias, struct err *e)
{
    if (read_whole(m, m->final_gain, 0, gain, e)) return -1;
    return bias && m->final_bias ? read_whole(m, m->final_bias, 0, bias, e) : 0;
}

int model_read_embed(struct model *m, int r0, int n, float *dst, struct err *e)
{
    return model_read_rows(m, m->embed, 0, (uint64_t)r0, (uint64_t)n, dst, e);
}

int model_read_head(struct model *m, int r0, int n, float *dst, struct err *e)
{
    return model_read_rows(m, m->head, 0, (uint64_t)r0, (uint64_t)n, dst, e);
}

/* ---- weights on the device ---- */

static size_t rope_floats(const struct model_config *c, int max_pos)
{
    return (size_t)max_pos * (size_t)c->block.rot;
}

static dev rope_table(const struct model *m, int max_pos)
{
    int half = m->c.block.rot / 2;
    float *freq = MEM_NEW(float, half), *row = MEM_NEW(float, rope_floats(&m->c, max_pos));
    model_rope_frequencies(&m->c, freq);
    for (int p = 0; p < max_pos; p++)
        for (int i = 0; i < half; i++) {
            float angle = (float)p * freq[i]; /* rounded to single, as the reference code has it */
            row[(size_t)p * 2 * (size_t)half + (size_t)i] = (float)cos((double)angle);
            row[((size_t)p * 2 + 1) * (size_t)half + (size_t)i] = (float)sin((double)angle);
        }
    dev t = m->be->alloc(rope_floats(&m->c, max_pos) * sizeof(float));
    m->be->put(t, row, rope_floats(&m->c, max_pos) * sizeof(float));
    mem_free(freq), mem_free(row);
    return t;
}

struct block *block_alloc(struct model *m, int max_pos)
{
    struct block *b = MEM_NEW(struct block, 1);
    const struct model_layer *l = &m->layers[0]; /* all layers have the same tensors */
    b->s = m->c.block;
    for (int r = 0; r < ROLE_COUNT; r++) {
        int out, in;
        if (!block_has_role(&b->s, r)) continue;
        role_dims(&b->s, r, &out, &in);
        b->w[r] = m->be->alloc((size_t)out * (size_t)in * sizeof(float));
        m->be->hold(b->w[r], (size_t)out * (size_t)in);
        if (l->b[r]) b->b[r] = m->be->alloc((size_t)out * sizeof(float));
    }
    for (int n = 0; n < NORM_COUNT; n++) {
        size_t dim = (size_t)norm_dim(&b->s, n);
        if (dim) b->gain[n] = m->be->alloc(dim * sizeof(float));
        if (l->norm_bias[n]) b->bias[n] = m->be->alloc(dim * sizeof(float));
    }
    if (b->s.rot) b->cossin = rope_table(m, max_pos);
    return b;
}

void block_free(struct model *m, struct block *b)
{
    if (!b) return;
    for (int r = 0; r < ROLE_COUNT; r++) m->be->release(b->w[r]), m->be->release(b->b[r]);
    for (int n = 0; n < NORM_COUNT; n++) m->be->release(b->gain[n]), m->be->release(b->bias[n]);
    m->be->release(b->cossin);
    mem_free(b);
}

/* Holds staged_rows of any linear, and any bias. */
static size_t staged_floats(const struct block_shape *s)
{
    size_t most = MODEL_STAGE_FLOATS;
    for (int r = 0; r < ROLE_COUNT; r++) {
        int out, in;
        role_dims(s, r, &out, &in);
        if ((size_t)in > most) most = (size_t)in;
        if ((size_t)out > most) most = (size_t)out;
    }
    return most;
}

/* Rows of a linear that are staged on the host at a time. */
static int staged_rows(int in)
{
    return in < MODEL_STAGE_FLOATS ? MODEL_STAGE_FLOATS / in : 1;
}

static int load_linear(struct model *m, dev w, int layer, enum role r, int out, int in, float *buf,
                       struct err *e)
{
    const struct checkpoint_tensor *t = m->layers[layer].w[r];
    int step = staged_rows(in), rc = 0;
    for (int r0 = 0; r0 < out && !rc; r0 += step) {
        int n = out - r0 < step ? out - r0 : step;
        rc = model_read_rows(m, t, model_permuted_head(m, r), (uint64_t)r0, (uint64_t)n, buf, e);
        if (!rc) m->be->put(dev_at(w, (size_t)r0 * (size_t)in), buf, (size_t)n * (size_t)in * sizeof(float));
    }
    checkpoint_release(m->ck, t);
    return rc;
}

int block_load(struct model *m, struct block *b, int layer, struct err *e)
{
    float *buf = MEM_NEW(float, staged_floats(&b->s)), *bias = MEM_NEW(float, norm_max_dim(&b->s));
    int rc = -1;
    for (int r = 0; r < ROLE_COUNT; r++) {
        int out, in, has;
        if (!block_has_role(&b->s, r)) continue;
        role_dims(&b->s, r, &out, &in);
        if (load_linear(m, b->w[r], layer, r, out, in, buf, e)) goto done;
        has = model_read_bias(m, layer, r, buf, e);
        if (has < 0) goto done;
        if (has) m->be->put(b->b[r], buf, (size_t)out * sizeof(float));
    }
    for (int n = 0; n < NORM_COUNT; n++) {
        size_t bytes = (size_t)norm_dim(&b->s, n) * sizeof(float);
        if (!bytes) continue;
        if (model_read_norm(m, layer, n, buf, bias, e)) goto done;
        m->be->put(b->gain[n], buf, bytes);
        if (dev_ok(b->bias[n])) m->be->put(b->bias[n], bias, bytes);
    }
    rc = 0;
done:
    mem_free(buf), mem_free(bias);
    return rc;
}

uint64_t block_back_bytes(const struct model_config *c)
{
    uint64_t weights = 0;
    for (int r = 0; r < ROLE_COUNT; r++) {
        int out, in;
        role_dims(&c->block, r, &out, &in);
        weights += (uint64_t)out * (uint64_t)in;
    }
    return c->bf16 ? weights * sizeof(uint16_t) : 0;
}

/* One block, the staged rows, and the rotary table of 8192 positions or the model's own length if shorter. */
uint64_t block_bytes(const struct model_config *c)
{
    uint64_t floats = staged_floats(&c->block) + (uint64_t)norm_max_dim(&c->block);
    for (int n = 0; n < NORM_COUNT; n++) floats += 2 * (uint64_t)norm_dim(&c->block, n);
    for (int r = 0; r < ROLE_COUNT; r++) {
        int out, in;
        role_dims(&c->block, r, &out, &in);
        floats += (uint64_t)out * (uint64_t)in + (uint64_t)out;
    }
    floats += 2 * rope_floats(c, c->max_pos < 8192 ? c->max_pos : 8192);
    return floats * sizeof(float) + block_back_bytes(c); /* a form for W^T is as large as one for W */
}

int model_embed(struct model *m, const int32_t *ids, int R, dev x, struct err *e)
{
    enum { CHUNK = 256 };
    size_t D = (size_t)m->c.block.D;
    float *buf = MEM_NEW(float, CHUNK *D);
    int rc = 0;
    for (int r0 = 0; r0 < R && !rc; r0 += CHUNK) {
        int n = R - r0 < CHUNK ? R - r0 : CHUNK;
        for (int r = 0; r < n && !rc; r++) {
            int32_t id = ids[r0 + r];
            if (id < 0 || id >= m->c.vocab)
                rc = err_set(e, NT_EXIT_DATA, "token id %d is outside the vocabulary of %d", (int)id,
                             m->c.vocab);
            else
                rc = model_read_embed(m, id, 1, buf + (size_t)r * D, e);
        }
        if (!rc) m->be->put(dev_at(x, (size_t)r0 * D), buf, (size_t)n * D * sizeof(float));
    }
    mem_free(buf);
    return rc;
}
