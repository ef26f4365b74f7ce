/* SPDX-License-Identifier: Apache-2.0
 * Which tensor of a checkpoint is which weight: names by the family's patterns, with or without the prefix
 * that a model saved without its head lacks; parts of fused tensors; shapes. Buffers that are no weights are
 * ignored, any other tensor that has no place is an error. */
#include <stdlib.h>
#include <string.h>
#include "common/mem.h"
#include "common/model_find.h"

struct finder {
    struct model *m;
    bool *used; /* per checkpoint tensor */
    struct err *e;
};

static const struct checkpoint_tensor *by_name(const struct model *m, const char *name)
{
    const struct checkpoint_tensor *t = checkpoint_find(m->ck, name);
    const char *rest = strchr(name, '.');
    char nested[280];
    if (t || m->gguf || !rest) return t;
    if (m->nested) { /* the text model of a multimodal one; transformers 5 has model. first */
        snprintf(nested, sizeof nested, "language_model.%s", name);
        t = checkpoint_find(m->ck, nested);
        snprintf(nested, sizeof nested, "model.language_model%s", rest);
        return t ? t : checkpoint_find(m->ck, nested);
    }
    if (!strchr(rest + 1, '.')) return NULL;
    return checkpoint_find(m->ck, rest + 1); /* saved without the head: model.x, transformer.x ... are x */
}

static bool fits(const struct tensor *t, const struct weight_part *p, uint64_t rows)
{
    if (p->cols == 1 && tensor_count(t) == rows) return true; /* a vector, or a norm of [heads, E] */
    if (t->rank == 3 && !p->transposed) /* experts one after the other */
        return t->shape[0] * t->shape[1] == rows && t->shape[2] == p->cols && rows != p->rows;
    return t->rank == 2 && t->shape[p->transposed] == rows && t->shape[!p->transposed] == p->cols;
}

static int bad_shape(struct finder *f, const struct checkpoint_tensor *t, const struct weight_part *p,
                     uint64_t rows)
{
    char has[200] = "", want[64];
    for (int i = 0, n = 0; i < t->t.rank && n < 160; i++)
        n += snprintf(has + n, sizeof has - (size_t)n, "%s%llu", i ? ", " : "",
                      (unsigned long long)t->t.shape[i]);
    uint64_t a = p->transposed ? p->cols : rows, b = p->transposed ? rows : p->cols;
    if (p->cols == 1)
        snprintf(want, sizeof want, "%llu", (unsigned long long)a);
    else
        snprintf(want, sizeof want, "%llu, %llu", (unsigned long long)a, (unsigned long long)b);
    return err_set(f->e, NT_EXIT_DATA, "%s: tensor %s: shape [%s], expected [%s]", f->m->ck->path, t->name,
                   has, want);
}

/* Finds the tensor of *p, whose layout is set; `rows` = all rows of the tensor. 0 when it is there, 1 when it
 * is optional and is not, -1 error. */
static int find_rows(struct finder *f, const char *pattern, int layer, const char *suffix, bool optional,
                     struct weight_part *p, uint64_t rows)
{
    struct checkpoint *ck = f->m->ck;
    char name[256];
    family_tensor_name(name, pattern, layer, suffix);
    name[strcspn(name, "#")] = 0;
    const struct checkpoint_tensor *t = by_name(f->m, name);
    if (!t && optional) return 1;
    if (!t) return err_set(f->e, NT_EXIT_DATA, "%s: tensor %s is missing", ck->path, name);
    f->used[t - ck->tensors] = true;
    if (!dtype_is_float(t->t.dtype))
        return err_set(f->e, NT_EXIT_DATA, "%s: tensor %s: type %s is no float type", ck->path, name,
                       dtype_name(t->t.dtype));
    if (t->packed) p->transposed = false; /* codes of Conv1D lie as those of any linear */
    if (!fits(&t->t, p, rows)) return bad_shape(f, t, p, rows);
    bool plain =
        t->t.dtype == DT_F32 || t->t.dtype == DT_F16 || t->t.dtype == DT_BF16 || t->t.dtype == DT_F64;
    if (!plain && (p->transposed || (p->cols == 1 && p->rows != rows)))
        return err_set(f->e, NT_EXIT_DATA, "%s: tensor %s: parts or columns of type %s are not supported",
                       ck->path, name, dtype_name(t->t.dtype));
    p->t = t;
    return 0;
}

/* A tensor that is one weight: [rows, cols], or a vector (cols 1). */
static int find(struct finder *f, const char *pattern, int layer, const char *suffix, bool optional,
                uint64_t rows, uint64_t cols, struct weight_part *p)
{
    *p = (struct weight_part){.rows = rows, .cols = cols, .run = rows, .stride = rows};
    return find_rows(f, pattern, layer, suffix, optional, p, rows);
}

/* Of an expert in a tensor of all of them: GGUF's, and those of transformers 5 that hold gate, then up. */
static uint64_t expert_layout(const struct model_config *c, int linear, const char *pattern, struct weight_part *p)
{
    uint64_t parts = strstr(pattern, "#gate") || strstr(pattern, "#up") ? 2 : 1;
    if (linear_expert(linear) >= c->block.experts || strstr(pattern, "%x")) return p->rows;
    p->row0 = (uint64_t)linear_expert(linear) * parts * p->rows;
    if (parts == 2 && linear_role(linear) == ROLE_UP) p->row0 += p->rows;
    return (uint64_t)c->block.experts * parts * p->rows;
}

uint64_t model_part_layout(const struct model_config *c, int linear, bool gguf, struct weight_part *p)
{
    const struct block_shape *s = &c->block;
    uint64_t E = (uint64_t)s->E, G = (uint64_t)s->G, per = (uint64_t)(s->H / s->G), rows;
    const char *pattern = family_linear_pattern(gguf ? &c->gguf : &c->hf, s, linear);
    enum role r = linear_role(linear);
    int out, in;
    role_dims(s, linear, &out, &in);
    *p = (struct weight_part){
        .rows = (uint64_t)out, .cols = (uint64_t)in, .transposed = c->transposed && !gguf};
    rows = p->run = p->stride = p->rows;
    if (gguf && c->family->gguf_permuted_qk && (r == ROLE_Q || r == ROLE_K)) p->head_dim = s->E;
    if (pattern && linear >= ROLE_COUNT) return expert_layout(c, linear, pattern, p);
    if (!pattern || !strchr(pattern, '#')) return rows;
    if (r > ROLE_V) { /* gate, then up */
        p->row0 = r == ROLE_UP ? p->rows : 0;
        return 2 * p->rows;
    }
    if (c->qkv_groups && !gguf) { /* a group: its heads' q, its k, its v (llama.cpp puts them in order) */
        p->run = r == ROLE_Q ? per * E : E, p->stride = (per + 2) * E;
        p->row0 = r == ROLE_Q ? 0 : r == ROLE_K ? per * E : (per + 1) * E;
    } else {
        p->row0 = r == ROLE_Q ? 0 : r == ROLE_K ? per * G * E : (per + 1) * G * E;
    }
    return (per + 2) * G * E;
}

static int find_role(struct finder *f, int layer, enum role r)
{
    struct model *m = f->m;
    const char *pattern = (m->gguf ? &m->c.gguf : &m->c.hf)->role[r];
    struct weight_part p, b;
    uint64_t rows = model_part_layout(&m->c, r, m->gguf, &p);
    b = p;
    b.cols = 1, b.transposed = false;
    if (find_rows(f, pattern, layer, ".weight", false, &p, rows)) return -1;
    m->layers[layer].w[r] = p;
    if (!m->c.bias[r]) return 0;
    if (find_rows(f, pattern, layer, ".bias", false, &b, rows)) return -1;
    m->layers[layer].b[r] = b;
    return 0;
}

/* As transformers 5 holds experts in memory, and saves them where it is not asked for the original format. */
static const char *const together[3] = {"model.layers.%d.mlp.experts.gate_up_proj#gate",
                                        "model.layers.%d.mlp.experts.gate_up_proj#up",
                                        "model.layers.%d.mlp.experts.down_proj#x"};

static bool is_together(const struct finder *f, int layer)
{
    char name[256];
    family_tensor_name(name, together[2], layer, "");
    name[strcspn(name, "#")] = 0;
    return !f->m->gguf && by_name(f->m, name);
}

/* Weights that choose experts and weigh the shared one. */
static int find_routing(struct finder *f, int layer)
{
    const struct model_config *c = &f->m->c;
    const struct family_names *names = f->m->gguf ? &c->gguf : &c->hf;
    struct model_layer *l = &f->m->layers[layer];
    uint64_t D = (uint64_t)c->block.D;
    const char *router = is_together(f, layer) ? "model.layers.%d.mlp.gate" : names->router;
    if (find(f, router, layer, ".weight", false, (uint64_t)c->block.experts, D, &l->router)) return -1;
    return c->block.shared_F && names->shared_gate &&
                   find(f, names->shared_gate, layer, ".weight", false, D, 1, &l->shared_gate)
               ? -1
               : 0;
}

/* An expert's linear: a tensor of its own, or a part of one of all. */
static int find_expert(struct finder *f, int layer, int linear)
{
    struct model *m = f->m;
    const char *pattern = family_linear_pattern(m->gguf ? &m->c.gguf : &m->c.hf, &m->c.block, linear);
    struct weight_part p;
    char name[256];
    uint64_t rows = model_part_layout(&m->c, linear, m->gguf, &p);
    bool joined = linear_expert(linear) < m->c.block.experts && is_together(f, layer);
    if (joined) {
        pattern = together[linear_role(linear) - ROLE_GATE];
        p.row0 = 0;
        rows = expert_layout(&m->c, linear, pattern, &p);
    }
    family_expert_name(name, pattern, layer, linear_expert(linear), "");
    if (find_rows(f, name, layer, joined ? "" : ".weight", false, &p, rows)) return -1;
    m->layers[layer].w[linear] = p;
    return 0;
}

/* A norm's gain and bias. */
static int find_norm(struct finder *f, const char *pattern, int layer, int dim, bool has_bias,
                     struct weight_part *gain, struct weight_part *bias)
{
    const struct model_config *c = &f->m->c;
    uint64_t d = (uint64_t)dim;
    if (c->norm_constant) return 0;
    if (find(f, pattern, layer, ".weight", false, d, 1, gain)) return -1;
    if (!f->m->gguf) gain->offset = c->family->norm_offset;
    return has_bias && find(f, pattern, layer, ".bias", false, d, 1, bias) ? -1 : 0;
}

/* A norm of each head that has a tensor for each head, ".*" in the pattern: read and joined to one [dim]. */
static int join_heads(struct finder *f, const char *pattern, int layer, enum norm_id n,
                      struct weight_part *gain)
{
    struct model *m = f->m;
    int E = m->c.block.E, dim = norm_dim(&m->c.block, n);
    char one[128], name[256];
    float *values = MEM_NEW(float, dim);
    struct checkpoint_tensor *t = &m->joined[2 * layer + (n == NORM_K)];
    family_tensor_name(name, pattern, layer, "");
    name[strcspn(name, "*") - 1] = 0;
    t->name = mem_strdup(name);
    t->t = (struct tensor){.dtype = DT_F32,
                           .rank = 1,
                           .shape = {(uint64_t)dim},
                           .data = values,
                           .nbytes = (uint64_t)dim * sizeof(float)};
    for (int h = 0; h < dim / E; h++) {
        struct weight_part p;
        snprintf(one, sizeof one, "%.*s%d", (int)strcspn(pattern, "*"), pattern, h);
        if (find(f, one, layer, ".weight", false, (uint64_t)E, 1, &p) ||
            model_read_part(m, &p, values + h * E, f->e))
            return -1;
    }
    *gain = (struct weight_part){
        .t = t, .rows = (uint64_t)dim, .cols = 1, .run = (uint64_t)dim, .stride = (uint64_t)dim};
    return 0;
}

static int find_block_norm(struct finder *f, int layer, enum norm_id n)
{
    const struct model_config *c = &f->m->c;
    struct model_layer *l = &f->m->layers[layer];
    const char *pattern = (f->m->gguf ? &c->gguf : &c->hf)->norm[n];
    if (!c->block.norm[n]) return 0;
    if (strchr(pattern, '*')) return join_heads(f, pattern, layer, n, &l->gain[n]);
    bool has_bias = n == NORM_Q || n == NORM_K ? c->qk_norm_bias : c->norm_bias;
    return find_norm(f, pattern, layer, norm_dim(&c->block, n), has_bias, &l->gain[n], &l->norm_bias[n]);
}

static int find_layer(struct finder *f, int layer)
{
    const struct model_config *c = &f->m->c;
    bool routed = c->block.experts && !c->layer[layer].dense;
    for (int r = 0; r < (routed ? ROLE_GATE : ROLE_COUNT); r++)
        if (block_has_role(&c->block, r) && find_role(f, layer, r)) return -1;
    for (int i = ROLE_COUNT; routed && i < block_linears(&c->block); i++)
        if (block_has_role(&c->block, i) && find_expert(f, layer, i)) return -1;
    if (routed && find_routing(f, layer)) return -1;
    for (int n = 0; n < NORM_COUNT; n++)
        if (find_block_norm(f, layer, n)) return -1;
    return 0;
}

static int find_outer(struct finder *f)
{
    struct model *m = f->m;
    const struct model_config *c = &m->c;
    const struct family_names *names = m->gguf ? &c->gguf : &c->hf;
    uint64_t V = (uint64_t)c->vocab, D = (uint64_t)c->block.D, W = (uint64_t)c->embed_dim;
    if (find(f, names->embed, 0, ".weight", false, V, W, &m->embed)) return -1;
    if (names->pos_embed && find(f, names->pos_embed, 0, ".weight", false,
                                 (uint64_t)(c->max_pos + c->pos_offset), D, &m->pos_embed))
        return -1;
    if (names->embed_norm && (find(f, names->embed_norm, 0, ".weight", false, D, 1, &m->embed_gain) ||
                              find(f, names->embed_norm, 0, ".bias", false, D, 1, &m->embed_bias)))
        return -1;
    if (W != D && (find(f, names->project_in, 0, ".weight", false, D, W, &m->project_in) ||
                   find(f, names->project_out, 0, ".weight", false, W, D, &m->project_out)))
        return -1;
    if (names->final_norm &&
        find_norm(f, names->final_norm, 0, c->block.D, c->norm_bias, &m->final_gain, &m->final_bias))
        return -1;
    int rc = find(f, names->head, 0, ".weight", true, V, W, &m->head);
    if (rc < 0) return -1;
    if (rc || c->tied) /* a config may say untied and have no head */
        m->c.tied = true, m->head = m->embed;
    return c->head_bias && find(f, names->head, 0, ".bias", false, V, 1, &m->head_bias) ? -1 : 0;
}

/* Tensors that are no part of the computation, or were already read as configuration. */
static bool is_harmless(const char *name)
{
    static const char *const ends[] = {".attn.bias",           ".attn.masked_bias",
                                       ".attention.bias",      ".attention.masked_bias",
                                       ".rotary_emb.inv_freq", ".position_ids"};
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (n >= strlen(ends[i]) && !strcmp(name + n - strlen(ends[i]), ends[i])) return true;
    return strstr(name, "rotary_emb.inv_freq") || strstr(name, "rotary_pos_emb.inv_freq") ||
           !strcmp(name, "rope_freqs.weight") || !strncmp(name, "rope_factors_", 13);
}

/* Of a multimodal checkpoint: what sees and hears. */
static bool is_other_modality(const struct model *m, const char *name)
{
    static const char *const starts[] = {"vision_", "multi_modal_projector.", "mm_projector.", "visual.",
                                         "audio_"};
    if (!m->nested) return false;
    if (!strncmp(name, "model.", 6)) name += 6;
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
        if (!strncmp(name, starts[i], strlen(starts[i]))) return true;
    return false;
}

int model_find_tensors(struct model *m, struct err *e)
{
    struct finder f = {.m = m, .used = MEM_NEW(bool, m->ck->n_tensors), .e = e};
    int rc = 0;
    size_t per = (size_t)block_linears(&m->c.block);
    m->layers = MEM_NEW(struct model_layer, m->c.n_layers);
    m->linears = MEM_NEW(struct weight_part, per * (size_t)m->c.n_layers);
    for (int l = 0; l < m->c.n_layers; l++) m->layers[l].w = m->linears + per * (size_t)l;
    m->joined = MEM_NEW(struct checkpoint_tensor, 2 * m->c.n_layers);
    for (int l = 0; l < m->c.n_layers && !rc; l++) rc = find_layer(&f, l);
    if (!rc) rc = find_outer(&f);
    for (int i = 0; i < m->ck->n_tensors && !rc; i++)
        if (!f.used[i] && !is_harmless(m->ck->tensors[i].name) &&
            !is_other_modality(m, m->ck->tensors[i].name))
            rc = err_set(e, NT_EXIT_DATA, "%s: tensor %.200s is no part of a %s model", m->ck->path,
                         m->ck->tensors[i].name, m->c.arch);
    mem_free(f.used);
    return rc;
}
