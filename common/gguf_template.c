/* SPDX-License-Identifier: Apache-2.0
 * Keys and tensors of a GGUF file from a configuration: see gguf_template.h. What is written is read again as
 * any GGUF file is; a configuration that comes back as one that computes something else is refused. */
#include "common/gguf_template.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "common/checkpoint_impl.h"
#include "common/gguf_write.h"
#include "common/mem.h"
#include "common/model_keys.h"
#include "common/tempfile.h"
#include "common/tokenizer.h"
#include "common/tool.h"

/* Architectures whose keys are all written here. */
static bool known(const char *arch)
{
    static const char *const list[] = {"llama",  "qwen2",  "qwen2moe", "qwen3", "qwen3moe",
                                       "gemma", "gemma2", "gemma3",   "gpt2"};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (strcmp(arch, list[i]) == 0) return true;
    return false;
}

/* ---- keys ---- */

struct keys {
    struct gguf_writer *w;
    const char *arch;
};

static void put_int(const struct keys *k, const char *suffix, int v)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", k->arch, suffix);
    gguf_put_u32(k->w, key, (uint32_t)v);
}

static void put_number(const struct keys *k, const char *suffix, double v)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", k->arch, suffix);
    gguf_put_f32(k->w, key, (float)v);
}

static void put_text(const struct keys *k, const char *suffix, const char *v)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", k->arch, suffix);
    gguf_put_string(k->w, key, v);
}

static void put_rope(const struct keys *k, const struct model_config *c)
{
    const struct rope *r = &c->rope[0];
    if (c->block.rot <= 0) return;
    put_int(k, "rope.dimension_count", c->block.rot);
    put_number(k, "rope.freq_base", r->theta);
    if (r->type == ROPE_LINEAR || r->type == ROPE_YARN) {
        put_text(k, "rope.scaling.type", r->type == ROPE_LINEAR ? "linear" : "yarn");
        put_number(k, "rope.scaling.factor", r->factor);
    }
    if (r->type == ROPE_YARN) {
        put_int(k, "rope.scaling.original_context_length", r->orig);
        put_number(k, "rope.scaling.yarn_beta_fast", r->high);
        put_number(k, "rope.scaling.yarn_beta_slow", r->low);
    }
    for (int l = 0; l < c->n_layers; l++)
        if (c->layer[l].rope == 1) {
            put_number(k, "rope.freq_base_swa", c->rope[1].theta);
            break;
        }
}

/* Sliding windows, where llama.cpp's code for the architecture has them, and which layers they are of. */
static void put_windows(const struct keys *k, const struct model_config *c)
{
    uint8_t *has = MEM_NEW(uint8_t, c->n_layers);
    char key[128];
    int window = 0;
    for (int l = 0; l < c->n_layers; l++) {
        has[l] = c->layer[l].window > 0;
        if (c->layer[l].window > window) window = c->layer[l].window;
    }
    if (window && strncmp(k->arch, "qwen", 4) != 0) put_int(k, "attention.sliding_window", window);
    snprintf(key, sizeof key, "%s.attention.sliding_window_pattern", k->arch);
    if (window && strncmp(k->arch, "gemma", 5) == 0)
        gguf_put_array(k->w, key, GGUF_BOOL, has, (size_t)c->n_layers);
    mem_free(has);
}

static void put_experts(const struct keys *k, const struct block_shape *s)
{
    if (!s->experts) return;
    put_int(k, "expert_count", s->experts);
    put_int(k, "expert_used_count", s->per_token);
    if (strcmp(k->arch, "llama") == 0) return; /* theirs is the usual width */
    put_int(k, "expert_feed_forward_length", s->expert_F);
    if (s->shared_F) put_int(k, "expert_shared_feed_forward_length", s->shared_F);
}

/* The usual width, which says nothing where all layers have experts of their own. */
static int feed_width(const struct model *m)
{
    const struct block_shape *s = &m->c.block;
    int F = s->F ? s->F : s->expert_F;
    struct err none = {0};
    return key_int(m->hf_config, "intermediate_size", 1, &F, &none) ? s->expert_F : F;
}

static void put_shape(const struct keys *k, const struct model *m)
{
    const struct model_config *c = &m->c;
    const struct block_shape *s = &c->block;
    put_int(k, "vocab_size", c->vocab);
    put_int(k, "context_length", c->max_pos);
    put_int(k, "embedding_length", s->D);
    put_int(k, "block_count", c->n_layers);
    put_int(k, "feed_forward_length", s->experts ? feed_width(m) : s->F);
    put_experts(k, s);
    put_int(k, "attention.head_count", s->H);
    put_int(k, "attention.head_count_kv", s->G);
    put_int(k, "attention.key_length", s->E);
    put_int(k, "attention.value_length", s->E);
    put_number(k, s->rms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon",
               (double)s->eps);
    put_windows(k, c);
    if (s->softcap > 0) put_number(k, "attn_logit_softcapping", (double)s->softcap);
    if (c->logit_softcap > 0) put_number(k, "final_logit_softcapping", (double)c->logit_softcap);
}

/* The model's chat template: of its own file, or a key of tokenizer_config.json. */
static void put_chat_template(struct gguf_writer *w, const char *dir)
{
    struct err none = {0};
    char *path = path_join(dir, "tokenizer_config.json");
    json_t *config = path_exists(path) ? checkpoint_load_json(path, &none) : NULL;
    const char *text = json_string_value(json_object_get(config, "chat_template"));
    if (text) gguf_put_string(w, "tokenizer.chat_template", text);
    json_decref(config);
    mem_free(path);
}

static int put_tokenizer(struct gguf_writer *w, const struct model *m, struct err *e)
{
    const char *dir = m->ck->dir, *key;
    char *path = dir ? path_join(dir, "tokenizer.json") : NULL;
    json_t *v;
    if (!path || !path_exists(path)) {
        mem_free(path);
        warn("%s: no tokenizer.json: the file has no vocabulary", m->ck->path);
        gguf_put_string(w, "tokenizer.ggml.model", "no_vocab");
        return 0;
    }
    struct tokenizer *t = tokenizer_open(dir, e);
    json_t *j = t ? checkpoint_load_json(path, e) : NULL,
           *keys = j ? tokenizer_to_gguf(t, j, m->c.vocab, m->c.bos, m->c.eos, e) : NULL;
    json_object_foreach(keys, key, v) gguf_put_json(w, key, v);
    if (keys) put_chat_template(w, dir);
    int rc = keys ? 0 : -1;
    json_decref(keys);
    json_decref(j);
    tokenizer_free(t);
    mem_free(path);
    return rc;
}

static int put_keys(struct gguf_writer *w, const struct model *m, struct err *e)
{
    struct keys k = {w, m->c.family->gguf_arch};
    gguf_put_string(w, "general.architecture", k.arch);
    gguf_put_u32(w, "general.file_type", 0);
    put_shape(&k, m);
    put_rope(&k, &m->c);
    return put_tokenizer(w, m, e);
}

/* ---- tensors ---- */

/* Llama 3's scaling is a divisor for every frequency. */
static int put_divisors(struct gguf_writer *w, const struct model_config *c, struct err *e)
{
    struct rope plain = c->rope[0];
    int n = c->block.rot / 2;
    float *a = MEM_NEW(float, n), *b = MEM_NEW(float, n);
    plain.type = ROPE_DEFAULT;
    rope_frequencies(&plain, 1, a);
    rope_frequencies(&c->rope[0], 1, b);
    for (int i = 0; i < n; i++) a[i] /= b[i];
    int rc = gguf_put(w, a, (uint64_t)n * sizeof *a, e);
    mem_free(a);
    mem_free(b);
    return rc;
}

/* As llama.cpp's converter has them: experts one after the other, the gate of the shared one as a vector. */
static int put_tensor(struct gguf_writer *w, const struct model_config *c, const struct pack_whole *whole,
                      uint64_t *bytes, struct err *e)
{
    const struct pack_item *it = whole->part[0];
    uint64_t rows = whole->shape[0], shape[3] = {rows, whole->shape[1], 0};
    int rank = whole->rank, expert = it->role < 0 ? -1 : linear_expert(it->role);
    if (expert >= 0 && expert < c->block.experts) {
        uint64_t n = (uint64_t)c->block.experts;
        rank = 3, shape[0] = n, shape[1] = rows / n, shape[2] = whole->shape[1];
    } else if (rank == 2 && rows == 1) {
        rank = 1, shape[0] = whole->shape[1];
    }
    gguf_tensor(w, whole->name, DT_F32, rank, shape);
    return tensor_nbytes(DT_F32, rank, shape, bytes, e);
}

/* Everything but the values, and a hole where they would be. */
static int write_template(const struct pack *p, struct outfile *f, struct err *e)
{
    const struct model_config *c = &p->m->c;
    bool divisors = c->block.rot > 0 && c->rope[0].type == ROPE_LLAMA3;
    struct gguf_writer *w = gguf_create(f);
    uint64_t hole = 0, bytes, half = (uint64_t)c->block.rot / 2;
    size_t n;
    struct pack_whole *list = pack_wholes(p, true, &n);
    int rc = put_keys(w, p->m, e);
    if (divisors) gguf_tensor(w, "rope_freqs.weight", DT_F32, 1, &half);
    for (size_t i = 0; i < n && rc == 0; i++) {
        rc = put_tensor(w, c, &list[i], &bytes, e);
        hole += (bytes + GGUF_ALIGNMENT - 1) / GGUF_ALIGNMENT * GGUF_ALIGNMENT;
    }
    if (rc == 0) rc = gguf_data(w, e);
    if (rc == 0 && divisors) rc = put_divisors(w, c, e);
    if (rc == 0) rc = outfile_flush(f, e);
    if (rc == 0 && truncate(outfile_tmp(f), (off_t)(outfile_pos(f) + hole)))
        rc = err_set(e, NT_EXIT_IO, "%s: %s", outfile_tmp(f), strerror(errno));
    gguf_drop(w);
    pack_wholes_free(list, n);
    return rc;
}

/* Does the file say what the model computes? Its own name of the architecture aside: several share one here.
 */
static int check_meaning(const struct pack *p, const struct checkpoint *like, struct err *e)
{
    struct model_config back = {0};
    char ours[65] = "", theirs[65] = "";
    json_t *j = model_config_from_gguf(like, e);
    int rc = j ? model_config_read(&back, j, e) : -1;
    if (rc == 0) {
        memcpy(back.arch, p->m->c.arch, sizeof back.arch);
        model_config_hash(&p->m->c, ours);
        model_config_hash(&back, theirs);
    }
    model_config_clear(&back);
    json_decref(j);
    if (rc == 0 && strcmp(ours, theirs) == 0) return 0;
    struct err why = *e;
    e->code = 0;
    return err_set(
        e, NT_EXIT_DATA,
        "%s: its configuration has settings that GGUF keys of %s do not express here%s%s: --like FILE takes "
        "a template's",
        p->m->ck->path, p->m->c.family->gguf_arch, rc ? ": " : "", rc ? why.text : "");
}

struct checkpoint *gguf_template(const struct pack *p, struct outfile **file, struct err *e)
{
    const char *arch = p->m->c.family->gguf_arch;
    struct checkpoint *c = NULL;
    *file = NULL;
    if (!arch || !known(arch)) {
        err_set(e, NT_EXIT_USAGE,
                "--format gguf needs --like TEMPLATE.gguf for %s models (from scratch: llama, mistral, mixtral, "
                "qwen2, qwen2_moe, qwen3, qwen3_moe, gemma, gemma2, gemma3, gpt2)",
                p->m->c.arch);
        return NULL;
    }
    char *path = mem_printf("%s/nt-pack-%ld.gguf", tempfile_dir(), (long)getpid());
    *file = outfile_open(path, e);
    mem_free(path);
    if (*file && write_template(p, *file, e) == 0) c = checkpoint_open(outfile_tmp(*file), e);
    if (c && check_meaning(p, c, e) == 0) return c;
    checkpoint_close(c);
    outfile_discard(*file);
    *file = NULL;
    return NULL;
}
