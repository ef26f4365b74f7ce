/* SPDX-License-Identifier: Apache-2.0
 * What every output format of nt-pack needs after its bytes are written: the comparison of the file with its
 * sources, side files, configuration, and the identity of the weights. */
#include "common/checkpoint_impl.h"
#include "common/mem.h"
#include "common/pack.h"
#include "common/sha256.h"
#include "common/tokenizer.h"
#include "common/tool.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- comparison ---- */

struct compare {
    struct model *m; /* what was written */
    const struct pack_item *theirs;
    float *got;
    size_t cap;
    uint64_t at; /* values compared */
};

static int compare_values(void *ctx, const float *x, size_t n, struct err *e)
{
    struct compare *c = ctx;
    const struct pack_item *it = c->theirs;
    uint64_t cols = it->part.cols;
    enum dtype t = it->part.t->t.dtype;
    c->got = mem_grow(c->got, &c->cap, n, sizeof *c->got);
    if (model_read_rows(c->m, &it->part, c->at / cols, n / cols, c->got, e) < 0) return -1;
    for (size_t i = 0; i < n; i++) {
        float off = it->part.offset, want = x[i] - off;
        if (t == DT_F16) want = f16_to_f32(f32_to_f16(want));
        if (t == DT_BF16) want = bf16_to_f32(f32_to_bf16(want));
        want += off;
        if (c->got[i] == want) continue;
        return err_set(e, NT_EXIT_DATA, "%s: tensor %s: value %llu is %.9g there, should be %.9g",
                       c->m->ck->path, it->name, (unsigned long long)(c->at + i), (double)c->got[i],
                       (double)want);
    }
    c->at += n;
    return 0;
}

int pack_same_values(struct pack *p, const struct pack_item *ours, struct model *m,
                     const struct pack_item *theirs, struct err *e)
{
    struct compare c = {.m = m, .theirs = theirs};
    int rc = pack_values(p, ours, compare_values, &c, e);
    checkpoint_release(m->ck, theirs->part.t);
    mem_free(c.got);
    return rc;
}

int pack_verify(struct pack *p, const char *path, struct err *e)
{
    struct pack written = {.m = model_open(path, NULL, e)};
    int rc = written.m ? pack_bind(&written, e) : -1;
    if (rc == 0 && written.n_items != p->n_items)
        rc = err_set(e, NT_EXIT_DATA, "%s: %zu tensors read back, %zu should be there", path, written.n_items,
                     p->n_items);
    for (size_t i = 0; i < p->n_items && rc == 0; i++) {
        const struct pack_item *theirs = &written.items[i];
        bool same = written.m->gguf ? strcmp(theirs->gguf_name, p->items[i].gguf_name) == 0
                                    : strcmp(theirs->name, p->items[i].name) == 0;
        if (!same) /* a glm model is a chatglm one in GGUF */
            rc = err_set(e, NT_EXIT_DATA, "%s: tensor %s where %s should be", path, theirs->name,
                         p->items[i].name);
        else
            rc = pack_same_values(p, &p->items[i], written.m, theirs, e);
    }
    model_close(written.m);
    pack_clear(&written);
    return rc < 0 ? err_prefix(e, "verification failed") : 0;
}

struct pack_change pack_norm_change(const struct pack *p, enum dtype dtype)
{
    struct pack_change c = {0};
    for (size_t i = 0; i < p->n_norms; i++) {
        const struct pack_norm *n = &p->norms[i];
        const float *v = pack_norm_values(p, n);
        c.tensors++;
        for (int k = 0; k < n->dim; k++) {
            float pair[2] = {v[k], n->old ? n->old[k] : NAN};
            c.elements++;
            if (pair[0] == pair[1]) continue;
            c.changed++;
            uint8_t raw[8];
            float back[2];
            dtype_from_f32(raw, dtype, pair, 2);
            dtype_to_f32(back, dtype, raw, 2);
            c.kept += back[0] != back[1];
        }
    }
    return c;
}

/* ---- identity of the linears ---- */

static int hash_values(void *ctx, const float *x, size_t n, struct err *e)
{
    float buf[1024];
    (void)e;
    for (size_t i = 0; i < n; i += 1024) {
        size_t k = n - i < 1024 ? n - i : 1024;
        for (size_t j = 0; j < k; j++) buf[j] = x[i + j] + 0.0f; /* -0 and 0 are the same weight */
        sha256_add(ctx, buf, k * sizeof *buf);
    }
    return 0;
}

int pack_weights_sha256(struct pack *p, char hex[65], struct err *e)
{
    struct sha256 *h = sha256_start(e);
    int rc = h ? 0 : -1;
    for (size_t i = 0; i < p->n_items && rc == 0; i++)
        if (p->items[i].linear) rc = pack_values(p, &p->items[i], hash_values, h, e);
    sha256_end(h, hex);
    return rc;
}

/* ---- directory files ---- */

int pack_write_json(const char *dir, const char *name, const json_t *j, struct err *e)
{
    char *path = path_join(dir, name), *text = json_dumps(j, JSON_INDENT(2));
    struct outfile *f = outfile_open(path, e);
    int rc = !f ? -1 : outfile_write(f, text, strlen(text), e) < 0 || outfile_write(f, "\n", 1, e) < 0;
    if (f && rc) outfile_discard(f);
    if (f && !rc) rc = outfile_commit(f, e);
    free(text);
    mem_free(path);
    return rc ? -1 : 0;
}

int pack_copy_file(const char *from, const char *to, struct err *e)
{
    FILE *in = fopen(from, "rb");
    if (!in) return err_set(e, NT_EXIT_IO, "%s: %s", from, strerror(errno));
    struct outfile *f = outfile_open(to, e);
    char *buf = mem_array(1 << 20, 1);
    size_t n;
    int rc = f ? 0 : -1;
    while (rc == 0 && (n = fread(buf, 1, 1 << 20, in)) > 0) rc = outfile_write(f, buf, n, e);
    if (rc == 0 && ferror(in)) rc = err_set(e, NT_EXIT_IO, "%s: %s", from, strerror(errno));
    fclose(in);
    mem_free(buf);
    if (rc == 0) return outfile_commit(f, e);
    outfile_discard(f);
    return -1;
}

/* The tokenizer that a GGUF file describes, as the files of a Hugging Face directory. One that has no such
 * form is no reason to write no weights. */
static int write_gguf_tokenizer(const struct pack *p, const char *dir, struct err *e)
{
    struct err why = {0};
    json_t *j = tokenizer_json_from_gguf(p->m->ck->meta, p->m->ck->path, &why),
           *c = tokenizer_config_from_gguf(p->m->ck->meta);
    int rc = 0;
    if (j)
        rc = pack_write_json(dir, "tokenizer.json", j, e);
    else
        note("no tokenizer is written: %s", why.text);
    if (j && rc == 0) rc = pack_write_json(dir, "tokenizer_config.json", c, e);
    json_decref(j);
    json_decref(c);
    return rc;
}

int pack_copy_side_files(const struct pack *p, const char *dir, struct err *e)
{
    static const char *const names[] = {"tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "tokenizer.model",
                                        "chat_template.jinja",
                                        "generation_config.json"};
    const char *from = p->m->ck->dir;
    bool tokenizer = false;
    int rc = 0;
    for (size_t i = 0; from && i < sizeof names / sizeof *names && rc == 0; i++) {
        char *a = path_join(from, names[i]), *b = path_join(dir, names[i]);
        if (path_exists(a)) {
            rc = pack_copy_file(a, b, e);
            tokenizer |= i == 0 || i == 6;
        }
        mem_free(a);
        mem_free(b);
    }
    if (rc == 0 && !tokenizer && p->m->gguf) return write_gguf_tokenizer(p, dir, e);
    if (rc == 0 && !tokenizer) note("no tokenizer file beside %s: none is written", p->m->ck->path);
    return rc;
}

int pack_write_config(const struct pack *p, const char *dir, enum dtype dtype, const json_t *extra,
                      struct err *e)
{
    const char *name = dtype == DT_F16 ? "float16" : dtype == DT_BF16 ? "bfloat16" : "float32";
    json_t *c = json_copy(p->m->hf_config);
    json_object_set_new(c, json_object_get(c, "dtype") ? "dtype" : "torch_dtype", json_string(name));
    json_object_set_new(c, "tie_word_embeddings", json_boolean(p->m->c.tied));
    json_object_del(c, "nt_init_seed"); /* the weights are there now */
    if (extra) json_object_update(c, (json_t *)(uintptr_t)extra);
    int rc = pack_write_json(dir, "config.json", c, e);
    json_decref(c);
    return rc;
}
