/* SPDX-License-Identifier: Apache-2.0
 * The vocabulary of a GGUF file as tokenizer.json and tokenizer_config.json, for checkpoints made from one.
 */
#include <stdlib.h>
#include <string.h>
#include "common/mem.h"
#include "common/tokenizer_gguf.h"

/* ---- as tokenizer.json: the same ids, but where added tokens overlap ---- */

static json_t *added_tokens(const json_t *meta)
{
    json_t *list = json_array(), *v;
    bool plain_end = gguf_plain_end(meta);
    size_t i;
    json_array_foreach(gguf_get(meta, "tokens"), i, v)
    {
        const char *text = json_string_value(v);
        size_t len = json_string_length(v);
        int64_t type = gguf_type(gguf_get(meta, "token_type"), plain_end, i, text, len);
        if (!gguf_is_added(type)) continue;
        json_array_append_new(list, json_pack("{s:I, s:O, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)i,
                                              "content", v, "single_word", 0, "lstrip", 0, "rstrip",
                                              gguf_strips_right(meta, text, len), "normalized", 0, "special",
                                              type != GGUF_USER));
    }
    return list;
}

/* One Split after the other, then the byte alphabet. */
static json_t *pre_tokenizers(const struct tokenizer *t, const struct gguf_pre *p)
{
    json_t *list = json_array();
    for (int i = 0; i < GGUF_PATTERNS && p->patterns[i]; i++)
        json_array_append_new(list, json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex",
                                              p->patterns[i], "behavior", "Isolated", "invert", 0));
    if (t->byte_level)
        json_array_append_new(list, json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space",
                                              0, "trim_offsets", 1, "use_regex", 0));
    return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", list);
}

static void put_special(json_t *single, json_t *special, const json_t *meta, int32_t id)
{
    json_t *token = json_array_get(gguf_get(meta, "tokens"), (size_t)id);
    json_array_append_new(single, json_pack("{s:{s:O, s:i}}", "SpecialToken", "id", token, "type_id", 0));
    json_object_set_new(special, json_string_value(token),
                        json_pack("{s:O, s:[i], s:[O]}", "id", token, "ids", id, "tokens", token));
}

/* What stands before and after every text, or null. */
static json_t *post_processor(const json_t *meta, const struct tokenizer *t)
{
    if (!t->n_prefix && !t->n_suffix) return json_null();
    json_t *single = json_array(), *special = json_object();
    if (t->n_prefix) put_special(single, special, meta, t->prefix[0]);
    json_array_append_new(single, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0));
    if (t->n_suffix) put_special(single, special, meta, t->suffix[0]);
    return json_pack("{s:s, s:o, s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}], s:o}", "type", "TemplateProcessing",
                     "single", single, "pair", "Sequence", "id", "A", "type_id", 0, "Sequence", "id", "B",
                     "type_id", 1, "special_tokens", special);
}

/* Merges as the file has them. */
static json_t *listed_merges(const json_t *meta)
{
    json_t *merges = json_array(), *seen = json_object(), *v;
    size_t i;
    json_array_foreach(gguf_get(meta, "merges"), i, v)
    {
        if (json_object_get(seen, json_string_value(v))) continue; /* the first of equal pairs counts */
        json_object_set(seen, json_string_value(v), v);
        json_array_append(merges, v);
    }
    json_decref(seen);
    return merges;
}

/* ---- merges from scores ---- */

struct pair {
    int32_t id, left, right; /* tokens */
    uint32_t rank;
    uint32_t left_chars, right_chars;
};

static uint32_t count_chars(const char *s, size_t n)
{
    uint32_t chars = 0;
    for (size_t i = 0; i < n; i++) chars += ((unsigned char)s[i] & 0xC0) != 0x80;
    return chars;
}

/* Scores say nothing about two ways to one token, nor about tokens of equal score, where SentencePiece goes
 * from left to right: the pair with the longer left part first comes nearest to it, as runs of one character
 * grow from the left. */
static int by_rank(const void *pa, const void *pb)
{
    const struct pair *a = pa, *b = pb;
    if (a->rank != b->rank) return a->rank < b->rank ? -1 : 1;
    if (a->left_chars != b->left_chars) return a->left_chars > b->left_chars ? -1 : 1;
    if (a->right_chars != b->right_chars) return a->right_chars > b->right_chars ? -1 : 1;
    return a->id != b->id ? (a->id < b->id ? -1 : 1) : 0;
}

#define LONGEST 4096 /* bytes of a token: every place in it is tried */

static struct pair *find_pairs(const struct tokenizer *t, size_t *n)
{
    struct pair *v = NULL;
    size_t cap = 0;
    for (int32_t id = 0; id < t->n; id++) {
        const char *s = t->blob + t->raw[id].off;
        size_t len = t->raw[id].len;
        for (size_t i = 1; i < len; i++) {
            if (((unsigned char)s[i] & 0xC0) == 0x80) continue;
            int32_t left = tokenizer_find_bytes(t, s, i), right = tokenizer_find_bytes(t, s + i, len - i);
            if (left < 0 || right < 0) continue;
            v = mem_grow(v, &cap, *n + 1, sizeof *v);
            v[(*n)++] =
                (struct pair){id, left, right, t->rank[id], count_chars(s, i), count_chars(s + i, len - i)};
        }
    }
    if (v) qsort(v, *n, sizeof *v, by_rank);
    return v;
}

/* "a b", or ["a", "b"] if a token has a space in it. */
static json_t *scored_merges(const struct tokenizer *t)
{
    size_t n = 0;
    struct pair *v = find_pairs(t, &n);
    json_t *merges = json_array();
    bool spaces = false;
    for (int32_t i = 0; i < t->n && !spaces; i++)
        spaces = memchr(t->blob + t->raw[i].off, ' ', t->raw[i].len);
    for (size_t i = 0; i < n; i++) {
        const struct string *a = &t->raw[v[i].left], *b = &t->raw[v[i].right];
        json_t *both =
            spaces ? json_pack("[s%, s%]", t->blob + a->off, (size_t)a->len, t->blob + b->off, (size_t)b->len)
                   : json_sprintf("%s %s", t->blob + a->off, t->blob + b->off);
        json_array_append_new(merges, both);
    }
    mem_free(v);
    return merges;
}

/* ---- the file ---- */

/* Spaces are marks, of which one may stand in front. */
static json_t *normalizer(const struct tokenizer *t)
{
    if (!t->marks_spaces) return json_null();
    json_t *mark =
        json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", " ", "content", SPACE_MARK);
    if (!t->space_prefix) return mark;
    return json_pack("{s:s, s:[{s:s, s:s}, o]}", "type", "Sequence", "normalizers", "type", "Prepend",
                     "prepend", SPACE_MARK, mark);
}

static json_t *decoder(const struct tokenizer *t)
{
    if (!t->marks_spaces)
        return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets",
                         1, "use_regex", 1);
    json_t *list = json_pack("[{s:s, s:{s:s}, s:s}, {s:s}, {s:s}]", "type", "Replace", "pattern", "String",
                             SPACE_MARK, "content", " ", "type", "ByteFallback", "type", "Fuse");
    if (t->space_prefix)
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip", "content", " ", "start", 1, "stop", 0));
    return json_pack("{s:s, s:o}", "type", "Sequence", "decoders", list);
}

static json_t *model(const struct tokenizer *t, const json_t *meta)
{
    json_t *vocab = json_object(), *v;
    size_t i;
    json_array_foreach(gguf_get(meta, "tokens"), i, v) if (!json_object_get(vocab, json_string_value(v)))
        json_object_set_new(vocab, json_string_value(v), json_integer((json_int_t)i));
    json_t *merges = t->model == MODEL_SPM ? scored_merges(t) : listed_merges(meta);
    json_t *m = json_pack("{s:s, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "fuse_unk", t->marks_spaces,
                          "byte_fallback", t->marks_spaces, "ignore_merges", t->ignore_merges, "vocab", vocab,
                          "merges", merges);
    if (t->unk >= 0)
        json_object_set(m, "unk_token", json_array_get(gguf_get(meta, "tokens"), (size_t)t->unk));
    return m;
}

json_t *tokenizer_json_from_gguf(const json_t *meta, const char *name, struct err *e)
{
    struct tokenizer *t = NULL;
    const struct gguf_pre *p;
    json_t *j = NULL;
    if (tokenizer_from_gguf(meta, name, &t, e) || gguf_find_pre(meta, name, &p, e))
        return NULL; /* checks all */
    int32_t id = 0;
    while (t->model == MODEL_SPM && id < t->n && t->raw[id].len <= LONGEST) id++;
    if (t->model == MODEL_SPM && id < t->n)
        (void)err_set(e, NT_EXIT_DATA, "%s: token %d has more than %d bytes", name, id, LONGEST);
    else if (t->n_strings == (size_t)t->n)
        j = json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation",
                      "padding", "added_tokens", added_tokens(meta), "normalizer", normalizer(t),
                      "pre_tokenizer", p ? pre_tokenizers(t, p) : json_null(), "post_processor",
                      post_processor(meta, t), "decoder", decoder(t), "model", model(t, meta));
    else
        (void)err_set(e, NT_EXIT_DATA, "%s: merges need pieces that the vocabulary lacks", name);
    tokenizer_free(t);
    return j;
}

json_t *tokenizer_config_from_gguf(const json_t *meta)
{
    static const char *const keys[][2] = {
        {"bos_token", "bos_token_id"}, {"eos_token", "eos_token_id"}, {"pad_token", "padding_token_id"}};
    json_t *c = json_pack("{s:s, s:b}", "tokenizer_class", "PreTrainedTokenizerFast",
                          "clean_up_tokenization_spaces", 0);
    for (int i = 0; i < 3; i++) {
        const json_t *id = gguf_get(meta, keys[i][1]);
        json_t *token = json_is_integer(id)
                            ? json_array_get(gguf_get(meta, "tokens"), (size_t)json_integer_value(id))
                            : NULL;
        if (token) json_object_set(c, keys[i][0], token);
    }
    json_t *template = json_object_get(meta, "tokenizer.chat_template");
    if (json_is_string(template)) json_object_set(c, "chat_template", template);
    return c;
}
