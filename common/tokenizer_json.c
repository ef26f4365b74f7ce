/* SPDX-License-Identifier: Apache-2.0
 * tokenizer.json of Hugging Face tokenizers: the model (BPE, Unigram, WordPiece, WordLevel) and the added
 * tokens. What stands around the model is tokenizer_json_steps.c's. */
#include "common/tokenizer_json.h"
#include <math.h>
#include <string.h>
#include "common/mem.h"

/* ---- the model ---- */

static int find_model(const json_t *model, const char *name, enum token_model *found, struct err *e)
{
    static const char *const names[] = {[MODEL_BPE] = "BPE",
                                        [MODEL_SPM] = "",
                                        [MODEL_UNIGRAM] = "Unigram",
                                        [MODEL_WORDPIECE] = "WordPiece",
                                        [MODEL_WORDLEVEL] = "WordLevel"};
    const json_t *type = json_object_get(model, "type"), *vocab = json_object_get(model, "vocab");
    const char *s = json_string_value(type);
    if (!s) /* old files: told by what they hold */
        s = json_object_get(model, "merges")                      ? "BPE"
            : json_object_get(model, "continuing_subword_prefix") ? "WordPiece"
            : json_is_array(vocab)                                ? "Unigram"
                                                                  : "(without type)";
    int k = MODEL_WORDLEVEL;
    while (k >= 0 && (k == MODEL_SPM || strcmp(s, names[k]))) k--;
    if (k < 0) return err_set(e, NT_EXIT_DATA, "%s: model \"%.80s\" is not supported", name, s);
    *found = (enum token_model)k;
    if (k == MODEL_UNIGRAM ? !json_is_array(vocab) : !json_is_object(vocab))
        return err_set(e, NT_EXIT_DATA, "%s: model.vocab is no %s", name,
                       k == MODEL_UNIGRAM ? "array" : "object");
    return 0;
}

/* NULL for "": nothing is marked. */
static char *mark_of(const json_t *model, const char *key, const char *missing)
{
    const char *s = tokenizer_json_text(model, key, missing);
    return s && *s ? mem_strdup(s) : NULL;
}

static int set_model(struct tokenizer *t, const json_t *model, struct err *e)
{
    bool bpe = t->model == MODEL_BPE, piece = t->model == MODEL_WORDPIECE;
    if (bpe && !json_is_array(json_object_get(model, "merges")))
        return err_set(e, NT_EXIT_DATA, "%s: model.merges is no array", t->name);
    if (json_number_value(json_object_get(model, "dropout")) > 0)
        return tokenizer_refuse(t, "BPE with", "dropout", e);
    if (t->byte_level && !bpe)
        return tokenizer_refuse(t, "together with ByteLevel, a model other than", "BPE", e);
    if (bpe || piece) t->subword = mark_of(model, "continuing_subword_prefix", piece ? "##" : NULL);
    if (bpe) t->word_end = mark_of(model, "end_of_word_suffix", NULL);
    const json_t *max = json_object_get(model, "max_input_chars_per_word");
    t->max_chars =
        json_is_integer(max) && json_integer_value(max) >= 0 ? (size_t)json_integer_value(max) : 100;
    t->ignore_merges = tokenizer_json_flag(model, "ignore_merges", false);
    t->byte_fallback = tokenizer_json_flag(model, "byte_fallback", false);
    t->fuse_unk = tokenizer_json_flag(model, "fuse_unk", false);
    return 0;
}

/* Ids are 0..n-1 with few holes; a hostile id must not make us allocate for it. */
static int count_ids(const json_t *j, const char *name, int *n, struct err *e)
{
    json_t *vocab = json_object_get(json_object_get(j, "model"), "vocab"), *v;
    const char *key;
    bool list = json_is_array(vocab); /* ids are the places in it */
    int64_t count = (int64_t)(list ? json_array_size(vocab) : json_object_size(vocab));
    int64_t max = list ? count - 1 : -1, min = 0;
    size_t i;
    json_object_foreach(vocab, key, v)
    {
        int64_t id = json_is_integer(v) ? json_integer_value(v) : -1;
        if (id > max) max = id;
        if (id < min) min = id;
    }
    json_array_foreach(json_object_get(j, "added_tokens"), i, v)
    {
        const json_t *id = json_object_get(v, "id");
        int64_t k = json_is_integer(id) ? json_integer_value(id) : -1;
        if (k > max) max = k;
        if (k < min) min = k;
        count++;
    }
    if (min < 0 || max < 0 || max > 2 * count + 100000)
        return err_set(e, NT_EXIT_DATA, "%s: token ids from %lld to %lld for %lld tokens", name,
                       (long long)min, (long long)max, (long long)count);
    *n = (int)max + 1;
    return 0;
}

/* [[piece, score], ...] */
static int load_pieces(struct tokenizer *t, const json_t *model, struct err *e)
{
    const json_t *vocab = json_object_get(model, "vocab"), *unk = json_object_get(model, "unk_id");
    size_t i;
    json_t *v;
    t->score = MEM_NEW(double, t->n);
    t->min_score = INFINITY;
    json_array_foreach(vocab, i, v)
    {
        const json_t *s = json_array_get(v, 0), *score = json_array_get(v, 1);
        t->score[i] = json_number_value(score);
        if (!json_is_string(s) || !json_is_number(score) || !isfinite(t->score[i]))
            return err_set(e, NT_EXIT_DATA, "%s: piece %zu is no pair of a string and a score", t->name, i);
        if (tokenizer_set_string(t, (int)i, json_string_value(s), json_string_length(s), e)) return -1;
        trie_add(&t->trie, json_string_value(s), json_string_length(s), (int32_t)i);
        t->min_score = fmin(t->min_score, t->score[i]);
    }
    int64_t id = json_is_integer(unk) ? json_integer_value(unk) : -1;
    if (unk && !json_is_null(unk) && (id < 0 || id >= (int64_t)json_array_size(vocab)))
        return err_set(e, NT_EXIT_DATA, "%s: unk_id is no place in the vocabulary", t->name);
    t->unk = (int32_t)id;
    return 0;
}

/* {token: id, ...} */
static int load_tokens(struct tokenizer *t, const json_t *model, struct err *e)
{
    bool words = t->model != MODEL_BPE;
    json_t *vocab = json_object_get(model, "vocab"), *v;
    const char *key;
    size_t len;
    json_object_keylen_foreach(vocab, key, len, v)
    {
        if (tokenizer_set_string(t, (int)json_integer_value(v), key, len, e)) return -1;
        if (t->model == MODEL_WORDPIECE) trie_add(&t->trie, key, len, (int32_t)json_integer_value(v));
    }
    const char *unk = tokenizer_json_text(model, "unk_token",
                                          !words          ? NULL
                                          : t->trie.edges ? "[UNK]"
                                                          : "<unk>");
    v = unk ? json_object_get(vocab, unk) : NULL;
    if (unk && !json_is_integer(v))
        return tokenizer_refuse(t, "outside of the vocabulary, unk_token", unk, e);
    if (unk) t->unk = (int32_t)json_integer_value(v);
    return 0;
}

static int load_vocab(struct tokenizer *t, const json_t *j, struct err *e)
{
    const json_t *model = json_object_get(j, "model");
    json_t *v;
    size_t i;
    if (t->model == MODEL_UNIGRAM ? load_pieces(t, model, e) : load_tokens(t, model, e)) return -1;
    tokenizer_index(t); /* before the added tokens: those that the model lacks it never finds */
    json_array_foreach(json_object_get(j, "added_tokens"), i, v)
    {
        const json_t *content = json_object_get(v, "content");
        int id = (int)json_integer_value(json_object_get(v, "id"));
        if (!json_is_string(content) || !json_string_length(content))
            return err_set(e, NT_EXIT_DATA, "%s: added token %zu has no content", t->name, i);
        if (t->raw[id].off == SIZE_MAX &&
            tokenizer_set_string(t, id, json_string_value(content), json_string_length(content), e))
            return -1;
    }
    return 0;
}

static int load_merges(struct tokenizer *t, const json_t *merges, struct err *e)
{
    size_t i;
    json_t *v;
    if (t->model != MODEL_BPE) return 0;
    tokenizer_reserve_merges(t, json_array_size(merges));
    json_array_foreach(merges, i, v)
    {
        const char *a = NULL, *b = NULL;
        size_t an = 0, bn = 0;
        if (json_is_string(v)) { /* "a b" */
            const char *s = json_string_value(v), *space = strchr(s, ' ');
            if (space) a = s, an = (size_t)(space - s), b = space + 1, bn = strlen(b);
        } else if (json_array_size(v) == 2) {
            a = json_string_value(json_array_get(v, 0)), an = json_string_length(json_array_get(v, 0));
            b = json_string_value(json_array_get(v, 1)), bn = json_string_length(json_array_get(v, 1));
        }
        if (!a || !b || !an || !bn)
            return err_set(e, NT_EXIT_DATA, "%s: merge %zu is no pair of tokens", t->name, i);
        int lacks = tokenizer_add_merge(t, (uint32_t)i, a, an, b, bn);
        if (lacks)
            return err_set(e, NT_EXIT_DATA,
                           "%s: merge %zu needs the token \"%.*s%.*s\", which the vocabulary lacks", t->name,
                           i, lacks & 1 ? (int)an : 0, a, lacks & 2 ? (int)bn : 0, b);
    }
    return 0;
}

static int load_added(struct tokenizer *t, const json_t *list, struct err *e)
{
    size_t i;
    json_t *v;
    struct matcher m;
    matcher_open(&m);
    int r = 0;
    json_array_foreach(list, i, v)
    {
        const json_t *content = json_object_get(v, "content");
        struct added a = {.id = (int32_t)json_integer_value(json_object_get(v, "id")),
                          .single_word = tokenizer_json_flag(v, "single_word", false),
                          .lstrip = tokenizer_json_flag(v, "lstrip", false),
                          .rstrip = tokenizer_json_flag(v, "rstrip", false),
                          .normalized = tokenizer_json_flag(v, "normalized", true)};
        if (a.normalized &&
            t->normalizer.n) { /* it is looked for in normalized text, so its spelling is normalized too */
            struct buf out = {0};
            r = text_normalize(&t->normalizer, &m, json_string_value(content), json_string_length(content),
                               &out, e);
            a.text = out.p;
            a.len = out.n;
            tokenizer_respell(t, a.id, a.text, a.len); /* and decoding gives it so, as in tokenizers 0.23 */
        } else {
            a.len = json_string_length(content);
            a.text = MEM_NEW(char, a.len + 1);
            memcpy(a.text, json_string_value(content), a.len);
        }
        t->special[a.id] = tokenizer_json_flag(v, "special", false);
        tokenizer_add_token(t, &a);
        if (r) break;
    }
    matcher_close(&m);
    return r;
}

int tokenizer_from_json(const json_t *j, const char *name, struct tokenizer **out, struct err *e)
{
    int n = 0;
    enum token_model found = MODEL_BPE;
    const json_t *model = json_object_get(j, "model");
    *out = NULL;
    if (find_model(model, name, &found, e) || count_ids(j, name, &n, e)) return -1;
    struct tokenizer *t = tokenizer_alloc(name, n);
    t->model = found;
    if (tokenizer_json_steps(t, j, e) || set_model(t, model, e) || load_vocab(t, j, e) ||
        load_merges(t, json_object_get(model, "merges"), e) ||
        load_added(t, json_object_get(j, "added_tokens"), e) || tokenizer_json_template(t, j, e)) {
        tokenizer_free(t);
        return -1;
    }
    tokenizer_finish(t);
    *out = t;
    return 0;
}
