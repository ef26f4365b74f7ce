/* SPDX-License-Identifier: Apache-2.0
 * Decoding with a key/value cache, many sequences at a time so that the products are matrix products. All
 * sequences of a batch are at the same position: they start with one token and grow to T, greedily at first,
 * then by sampling. Sequence i draws from random stream i, so it does not depend on what else is decoded;
 * only the rounding of the matrix products may know the size of the batch. */
#include "common/calib.h"
#include <stdio.h>
#include <string.h>
#include "common/calib_lang.h"
#include "common/mem.h"
#include "common/rng.h"
#include "common/sample.h"
#include "common/tokens.h"
#include "common/tool.h"

#define START_DRAWS ((uint64_t)1 << 32) /* counters of the first token, beyond those of any position */
#define MAX_DRAWS 200000

static bool is_text(const struct calib_opts *o)
{
    return !strcmp(o->scheme, "text");
}
static bool is_qat(const struct calib_opts *o)
{
    return !strcmp(o->scheme, "llm-qat");
}
/* Where a sequence begins: after BOS, where there is one. */
static int lead(const struct calib_opts *o)
{
    return o->bos >= 0;
}

int calib_check(const struct model *m, const struct tokenizer *t, struct calib_opts *o, struct err *e)
{
    if (o->T > m->c.max_pos)
        return err_set(e, NT_EXIT_DATA, "-T %d: the model has %d positions", o->T, m->c.max_pos);
    if (tokenizer_size(t) > m->c.vocab)
        return err_set(e, NT_EXIT_DATA,
                       "the tokenizer has %d tokens, the model %d: they do not belong together",
                       tokenizer_size(t), m->c.vocab);
    if (o->n < 2 && o->holdout > 0)
        return err_set(e, NT_EXIT_USAGE, "-n 1 leaves nothing to hold out; say --holdout 0");
    if (tokenizer_first(t, &o->bos, e)) return -1;
    if (o->T < 2 + lead(o))
        return err_set(e, NT_EXIT_USAGE, "-T %d: nothing follows BOS and the first token", o->T);
    return 0;
}

json_t *calib_header(struct model *m, const struct calib_opts *o)
{
    json_t *p = json_pack("{s:s, s:i, s:i, s:i, s:f}", "scheme", o->scheme, "T", o->T, "n", o->n, "vocab",
                          m->c.vocab, "holdout", o->holdout);
    if (lead(o)) json_object_set_new(p, "bos", json_integer(o->bos));
    if (is_text(o)) {
        json_object_set_new(p, "join", json_string("\n\n"));
    } else {
        json_object_set_new(p, "batch", json_integer(o->batch));
        json_object_set_new(p, "greedy", is_qat(o) ? json_pack("[i,i,i]", 3, 4, 5) : json_integer(5));
        json_object_set_new(p, "top_k", json_integer(o->top_k));
        json_object_set_new(p, "temperature", json_real(o->temperature));
        json_object_set_new(p, "eos", json_string("suppressed"));
        json_object_set_new(p, "precision", json_string(m->be->bf16 ? "bf16" : "f32"));
        if (!is_qat(o)) json_object_set_new(p, "languages", json_string(o->languages));
    }
    return json_pack("{s:s, s:o, s:I, s:o}", "kind", "tokens", "params", p, "seed", (json_int_t)o->seed,
                     "model", model_identity(m));
}

/* One sequence; extra (borrowed, may be NULL) is added to its meta. */
static int put_sequence(struct stream_writer *w, const struct calib_opts *o, int seq, const int32_t *ids,
                        json_t *extra, struct err *e)
{
    bool held = seq >= o->n - tokens_holdout_count(o->n, o->holdout);
    json_t *meta = json_pack("{s:i, s:s}", "seq", seq, "split", held ? "holdout" : "train");
    if (extra) json_object_update(meta, extra);
    struct tensor t = {.dtype = DT_I32,
                       .rank = 1,
                       .shape = {(uint64_t)o->T},
                       .nbytes = (uint64_t)o->T * 4,
                       .data = (void *)(uintptr_t)ids};
    int r = stream_write(w, "Tokens", meta, &t, e);
    json_decref(meta);
    return r;
}

int calib_text(const struct tokenizer *t, const struct calib_opts *o, struct stream_writer *w, struct err *e)
{
    int32_t *ids;
    int r = calib_read_text(t, o, w, &ids, e);
    if (r) return r;
    int32_t *window = MEM_NEW(int32_t, o->T);
    int first = lead(o), n = o->T - first;
    window[0] = o->bos;
    for (int i = 0; i < o->n && !r; i++) {
        memcpy(window + first, ids + (size_t)i * (size_t)n, (size_t)n * sizeof *ids);
        r = put_sequence(w, o, i, window, NULL, e);
    }
    mem_free(ids), mem_free(window);
    return r;
}

/* ---- generation ---- */

struct generator {
    struct model *m;
    const struct backend *be;
    const struct tokenizer *t;
    const struct calib_opts *o;
    struct lang *lang; /* norm-tweaking only */
    int B, L, V;
    struct block **blocks;
    dev *kc, *vc; /* [B, T, G*E] of each layer */
    struct block_work *work;
    struct head *head;
    dev x, y;      /* [B, D] */
    float *logits; /* [B, V] */
    struct sampler sampler;
    bool *banned;  /* ends of a generation, ids without a token */
    int32_t *ids;  /* [B, T] */
    json_t **meta; /* [B] */
};

static size_t cache_floats(const struct model *m, const struct calib_opts *o, int B)
{
    return (size_t)B * (size_t)o->T * (size_t)m->c.block.G * (size_t)m->c.block.E;
}

uint64_t calib_bytes(const struct model *m, const struct calib_opts *o)
{
    if (is_text(o)) return (uint64_t)o->n * (uint64_t)o->T * 4;
    int B = o->batch < o->n ? o->batch : o->n;
    uint64_t layer = block_bytes(&m->c) + 8 * cache_floats(m, o, B);
    return (uint64_t)m->c.n_layers * layer + head_bytes(&m->c) + block_work_bytes(&m->c.block, B, false) +
           (uint64_t)B * (uint64_t)(m->c.vocab + 2 * m->c.block.D + o->T) * 4;
}

static int load_weights(struct generator *g, struct err *e)
{
    g->blocks = MEM_NEW(struct block *, g->L);
    g->kc = MEM_NEW(dev, g->L);
    g->vc = MEM_NEW(dev, g->L);
    progress_start("load", "layer", g->L);
    for (int l = 0; l < g->L; l++) {
        g->blocks[l] = block_alloc(g->m, g->o->T);
        if (block_load(g->m, g->blocks[l], l, e)) return -1;
        size_t bytes = cache_floats(g->m, g->o, g->B) * sizeof(float);
        g->kc[l] = g->be->alloc(bytes);
        g->vc[l] = g->be->alloc(bytes);
        progress_at(l + 1, " ");
    }
    progress_end();
    g->head = head_open(g->m, NULL, e);
    return g->head ? 0 : -1;
}

static int generator_open(struct generator *g, struct err *e)
{
    const struct block_shape *s = &g->m->c.block;
    size_t B = (size_t)g->B;
    g->work = block_work_alloc(g->be, s, g->B, false);
    g->x = g->be->alloc(B * (size_t)s->D * sizeof(float));
    g->y = g->be->alloc(B * (size_t)s->D * sizeof(float));
    g->logits = mem_array(B * (size_t)g->V, sizeof(float));
    g->ids = mem_array(B * (size_t)g->o->T, sizeof *g->ids);
    g->meta = MEM_NEW(json_t *, B);
    g->banned = MEM_NEW(bool, g->V);
    for (int i = 0; i < g->V; i++) g->banned[i] = i >= tokenizer_size(g->t) || tokenizer_is_end(g->t, i);
    g->sampler = (struct sampler){g->o->top_k, g->o->temperature, g->banned};
    if (!is_qat(g->o) && !(g->lang = lang_open(g->o->languages, e))) return -1;
    return load_weights(g, e);
}

static void generator_close(struct generator *g)
{
    for (int l = 0; g->blocks && l < g->L; l++) {
        if (g->blocks[l]) block_free(g->m, g->blocks[l]);
        g->be->release(g->kc[l]);
        g->be->release(g->vc[l]);
    }
    for (int b = 0; b < g->B; b++) json_decref(g->meta[b]);
    if (g->head) head_free(g->head);
    block_work_free(g->work);
    lang_close(g->lang);
    g->be->release(g->x);
    g->be->release(g->y);
    void *all[] = {g->blocks, g->kc, g->vc, g->logits, g->ids, g->meta, g->banned};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) mem_free(all[i]);
}

/* The language of a token when it may start a sequence; llm-qat takes any token. *text is its spelling,
 * allocated. */
static const char *may_start(struct generator *g, int32_t id, char **text, struct err *e)
{
    size_t len;
    *text = NULL;
    if (tokenizer_decode(g->t, &id, 1, text, &len, e)) return NULL;
    if (!g->lang) return len ? "any" : NULL;
    if (tokenizer_is_special(g->t, id) || strstr(*text, "\xEF\xBF\xBD"))
        return NULL; /* part of a character */
    return lang_of(g->lang, *text, len);
}

/* Draws first tokens until one is accepted, and notes it in the record's meta. */
static int first_token(struct generator *g, int seq, int b, struct err *e)
{
    for (uint64_t k = 0; k < MAX_DRAWS; k++) {
        char *text;
        int32_t id =
            (int32_t)rng_below(g->o->seed, (uint64_t)seq, START_DRAWS + k, (uint64_t)tokenizer_size(g->t));
        const char *lang = may_start(g, id, &text, e);
        if (lang) {
            int32_t *ids = g->ids + (size_t)b * (size_t)g->o->T;
            ids[0] = g->o->bos;
            ids[lead(g->o)] = id;
            g->meta[b] = json_pack("{s:i, s:s}", "start", id, "start_text", text);
            if (g->lang)
                json_object_set_new(g->meta[b], "language", json_string(lang));
            else
                json_object_set_new(g->meta[b], "greedy", json_integer(3 + seq % 3));
        }
        mem_free(text);
        if (lang) return 0;
        if (e->code) return -1;
    }
    return err_set(e, NT_EXIT_DATA, "no token of the vocabulary looks like one of the languages %s",
                   g->o->languages);
}

/* Tokens at pos go through all layers; logits of what follows. */
static int step(struct generator *g, int B, int pos, struct err *e)
{
    const int T = g->o->T;
    int32_t *now = MEM_NEW(int32_t, B);
    for (int b = 0; b < B; b++) now[b] = g->ids[(size_t)b * (size_t)T + (size_t)pos];
    int r = model_embed(g->m, now, B, 1, pos, g->x, e);
    mem_free(now);
    if (r) return -1;
    for (int l = 0; l < g->L; l++) {
        block_step(g->be, g->blocks[l], g->work, B, pos, g->x, g->y, g->kc[l], g->vc[l], T);
        dev swap = g->x;
        g->x = g->y;
        g->y = swap;
    }
    head_logits(g->head, g->x, B, g->logits);
    return 0;
}

static int choose(struct generator *g, int first, int B, int pos, struct err *e)
{
    int bad = -1;
#pragma omp parallel for schedule(static)
    for (int b = 0; b < B; b++) {
        const float *z = g->logits + (size_t)b * (size_t)g->V;
        int greedy = is_qat(g->o) ? 3 + (first + b) % 3 : 5;
        double u = rng_uniform(g->o->seed, (uint64_t)(first + b), (uint64_t)pos);
        int32_t id = f32_first_nonfinite(z, (size_t)g->V) < (size_t)g->V ? -1
                     : pos < greedy + lead(g->o)                         ? sample_greedy(&g->sampler, z, g->V)
                                    : sample_top_k(&g->sampler, z, g->V, u);
        if (id >= 0)
            g->ids[(size_t)b * (size_t)g->o->T + (size_t)pos] = id;
        else
#pragma omp atomic write
            bad = first + b;
    }
    if (bad < 0) return 0;
    return err_set(e, NT_EXIT_DATA, "%s: no finite logits at position %d of a sequence", g->m->ck->path, pos);
}

static int generate_batch(struct generator *g, int first, int B, struct stream_writer *w, struct err *e)
{
    const int T = g->o->T, given = 1 + lead(g->o);
    for (int b = 0; b < B; b++)
        if (first_token(g, first + b, b, e)) return -1;
    if (lead(g->o) && step(g, B, 0, e)) return -1;
    for (int pos = given; pos < T; pos++) {
        if (tool_stopping())
            return err_set(e, 128 + err_stop_signal, "stopped by a signal in sequence %d", first);
        if (step(g, B, pos - 1, e) || choose(g, first, B, pos, e)) return -1;
        progress_at((double)first * T + (double)(pos + 1) * B, "sequences %d..%d", first, first + B - 1);
    }
    for (int b = 0; b < B; b++) {
        if (put_sequence(w, g->o, first + b, g->ids + (size_t)b * (size_t)T, g->meta[b], e)) return -1;
        json_decref(g->meta[b]);
        g->meta[b] = NULL;
    }
    return 0;
}

int calib_generate(struct model *m, const struct tokenizer *t, const struct calib_opts *o,
                   struct stream_writer *w, struct err *e)
{
    struct generator g = {.m = m,
                          .be = m->be,
                          .t = t,
                          .o = o,
                          .L = m->c.n_layers,
                          .V = m->c.vocab,
                          .B = o->batch < o->n ? o->batch : o->n};
    int r = generator_open(&g, e);
    if (!r) progress_start("generate", "tok", (double)o->n * o->T);
    for (int i = 0; i < o->n && !r; i += g.B)
        r = generate_batch(&g, i, o->n - i < g.B ? o->n - i : g.B, w, e);
    progress_end();
    generator_close(&g);
    return r;
}
