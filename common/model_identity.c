/* SPDX-License-Identifier: Apache-2.0
 * Which model is this? A hash over what the configuration makes it compute and one over a fixed sample of its
 * values, both free of file format, name and place, so that a GGUF file and the directory it was dequantized
 * to agree. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "common/mem.h"
#include "common/model.h"
#include "common/sha256.h"

/* Text that grows. */
static void more(char **text, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void more(char **text, const char *fmt, ...)
{
    char one[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(one, sizeof one, fmt, ap);
    va_end(ap);
    char *longer = mem_printf("%s%s", *text, one);
    mem_free(*text);
    *text = longer;
}

/* Appends what a block has other than llama's. */
static void add_flags(char **text, const struct model_config *c)
{
    const struct block_shape *s = &c->block;
    const struct {
        const char *name;
        double value, plain;
    } flag[] = {{"norm.attn", s->norm[NORM_ATTN], 1},
                {"norm.mlp", s->norm[NORM_MLP], 1},
                {"norm.attn_out", s->norm[NORM_ATTN_OUT], 0},
                {"norm.mlp_out", s->norm[NORM_MLP_OUT], 0},
                {"norm.q", s->norm[NORM_Q], 0},
                {"norm.k", s->norm[NORM_K], 0},
                {"qk_norm", s->qk_norm, QK_NORM_NONE},
                {"qk_rms", s->qk_rms, 0},
                {"rot_pairs", s->rot_pairs, 0},
                {"softcap", (double)s->softcap, 0},
                {"alibi", s->alibi, 0},
                {"alibi_scale", (double)s->alibi_scale, 0},
                {"gated", s->gated, 1},
                {"act", s->act, ACT_SILU},
                {"parallel", s->parallel, 0},
                {"post_add", s->post_add, 0},
                {"residual_normed", s->residual_normed, 0},
                {"residual", (double)s->residual, 1},
                {"experts", s->experts, 0},
                {"per_token", s->per_token, 0},
                {"expert_F", s->expert_F, 0},
                {"shared_F", s->shared_F, 0},
                {"norm_topk", s->norm_topk, 0},
                {"embed_dim", c->embed_dim, s->D},
                {"embed_scale", (double)c->embed_scale, 1},
                {"logit_scale", (double)c->logit_scale, 1},
                {"logit_softcap", (double)c->logit_softcap, 0}};
    for (size_t i = 0; i < sizeof flag / sizeof *flag; i++)
        if (flag[i].value != flag[i].plain) more(text, " %s%.6e", flag[i].name, flag[i].value);
}

static void add_layers(char **text, const struct model_config *c)
{
    const struct layer_attrs *of = NULL;
    for (int l = 0; l < c->n_layers; l++) {
        const struct layer_attrs *a = &c->layer[l],
                                 usual = {c->block.window, c->block.rot ? 0 : -1, c->block.scale, false};
        const struct layer_attrs *b = of ? of : &usual;
        if (a->window == b->window && a->rope == b->rope && a->scale == b->scale && a->dense == b->dense) continue;
        more(text, " layer%d:%d,%d,%.6e%s", l, a->window, a->rope, (double)a->scale, a->dense ? ",dense" : "");
        of = a;
    }
}

/* The frequencies say all but what long sequences change. */
static void add_rope(char **text, const struct rope *r, int rot)
{
    int lengths = r->type == ROPE_DYNAMIC || r->type == ROPE_LONGROPE ? 2 : 1;
    float *freq = MEM_NEW(float, rot / 2);
    for (int k = 0; k < lengths && rot; k++) {
        rope_frequencies(r, k ? 2 * (r->orig > r->max_pos ? r->orig : r->max_pos) : 1, freq);
        for (int i = 0; i < rot / 2; i++) more(text, " %.3e", (double)freq[i]);
    }
    if (rot && r->attention != 1) more(text, " rope*%.6e", r->attention);
    mem_free(freq);
}

/* Everything that enters the numbers; not the longest position, token ids of BOS and EOS, or the tie (the
 * head's sampled values say it). Rotary scaling enters by the frequencies it gives, rounded: GGUF files may
 * store those alone. */
void model_config_hash(const struct model_config *c, char hex[65])
{
    const struct block_shape *s = &c->block;
    char *text = mem_printf("%s L%d V%d D%d H%d G%d E%d F%d rot%d rms%d eps%.6e scale%.6e window%d bias%d%d",
                            c->arch, c->n_layers, c->vocab, s->D, s->H, s->G, s->E, s->F, s->rot, s->rms,
                            (double)s->eps, (double)s->scale, s->window, c->bias[ROLE_Q], c->bias[ROLE_UP]);
    add_flags(&text, c);
    add_rope(&text, &c->rope[0], s->rot);
    for (int l = 0; l < c->n_layers; l++)
        if (c->layer[l].rope == 1) {
            add_rope(&text, &c->rope[1], s->rot);
            break;
        }
    add_layers(&text, c);
    sha256_of(text, strlen(text), hex);
    mem_free(text);
}

/* All norms, and the first, middle and last row of every matrix, as single-precision values in HF order. */
static void add_rows(struct model *m, XXH3_state_t *h, const struct weight_part *p)
{
    struct err ignored = {0}; /* non-finite values are reported where the tensor is used */
    if (!p->t) return;
    bool vector = p->cols == 1;
    float *buf = MEM_NEW(float, vector ? p->rows : p->cols);
    for (uint64_t i = 0; i < (vector ? 1 : 3); i++) {
        uint64_t row = i * (p->rows - 1) / 2, n = vector ? p->rows : 1;
        (void)!model_read_rows(m, p, row, n, buf, &ignored);
        XXH3_64bits_update(h, buf, n * p->cols * sizeof(float));
    }
    mem_free(buf);
}

static void sample_hash(struct model *m, char hex[17])
{
    XXH3_state_t *h = XXH3_createState();
    XXH3_64bits_reset(h);
    add_rows(m, h, &m->embed), add_rows(m, h, &m->pos_embed);
    add_rows(m, h, &m->embed_gain), add_rows(m, h, &m->embed_bias);
    add_rows(m, h, &m->project_in), add_rows(m, h, &m->project_out);
    for (int l = 0; l < m->c.n_layers; l++) {
        const struct model_layer *t = &m->layers[l];
        for (int r = 0; r < ROLE_COUNT; r++) add_rows(m, h, &t->w[r]), add_rows(m, h, &t->b[r]);
        for (int i = ROLE_COUNT; i < block_linears(&m->c.block); i++) add_rows(m, h, &t->w[i]);
        add_rows(m, h, &t->router), add_rows(m, h, &t->shared_gate);
        for (int n = 0; n < NORM_COUNT; n++) add_rows(m, h, &t->gain[n]), add_rows(m, h, &t->norm_bias[n]);
    }
    add_rows(m, h, &m->final_gain), add_rows(m, h, &m->final_bias);
    add_rows(m, h, &m->head), add_rows(m, h, &m->head_bias);
    snprintf(hex, 17, "%016llx", (unsigned long long)XXH3_64bits_digest(h));
    XXH3_freeState(h);
}

json_t *model_identity(struct model *m)
{
    char config[65] = "", sample[17] = "";
    model_config_hash(&m->c, config);
    sample_hash(m, sample);
    json_t *id = json_pack("{s:s,s:i,s:i,s:i,s:s,s:s}", "arch", m->c.arch, "layers", m->c.n_layers, "hidden",
                           m->c.block.D, "vocab", m->c.vocab, "config_sha256", config, "sample_xxh3", sample);
    const char *name = json_string_value(json_object_get(m->ck->meta, "general.name"));
    if (!name) name = json_string_value(json_object_get(m->hf_config, "_name_or_path"));
    if (name && *name) json_object_set_new(id, "name", json_string(name));
    return id;
}

static const char *text(const json_t *id, const char *key)
{
    const char *s = json_string_value(json_object_get(id, key));
    return s ? s : "?";
}

int model_check_identity(struct model *m, const json_t *header, const char *stream, struct err *e)
{
    static const char *const keys[] = {"arch", "layers", "hidden", "vocab", "config_sha256", "sample_xxh3"};
    const json_t *theirs = json_object_get(header, "model");
    if (!json_is_object(theirs)) return err_set(e, NT_EXIT_DATA, "%s: its header names no model", stream);
    json_t *ours = model_identity(m);
    bool imported = json_is_object(json_object_get(header, "import")); /* quantized from m, or m itself */
    int rc = 0;
    for (size_t i = 0; i < sizeof keys / sizeof *keys && !rc; i++) {
        const json_t *a = json_object_get(theirs, keys[i]), *b = json_object_get(ours, keys[i]);
        if (a ? json_equal(a, b) : imported && !strcmp(keys[i], "sample_xxh3")) continue;
        rc = err_set(
            e, NT_EXIT_DATA,
            "%s was made from another model (%s, %lld layers, hidden %lld, values %s) than %s (%s, %d "
            "layers, hidden %d, values %s): %s differs",
            stream, text(theirs, "arch"), (long long)json_integer_value(json_object_get(theirs, "layers")),
            (long long)json_integer_value(json_object_get(theirs, "hidden")), text(theirs, "sample_xxh3"),
            m->ck->path, m->c.arch, m->c.n_layers, m->c.block.D, text(ours, "sample_xxh3"), keys[i]);
    }
    json_decref(ours);
    return rc;
}
