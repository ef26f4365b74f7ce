/* SPDX-License-Identifier: Apache-2.0
 * The vocabulary of a GGUF file as tokenizer.json and tokenizer_config.json, for checkpoints made from one.
 */
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
static json_t *pre_tokenizers(const struct gguf_pre *p)
{
    json_t *list = json_array();
    for (int i = 0; i < 5 && p->patterns[i]; i++)
        json_array_append_new(list, json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex",
                                              p->patterns[i], "behavior", "Isolated", "invert", 0));
    json_array_append_new(list, json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                                          "trim_offsets", 1, "use_regex", 0));
    return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", list);
}

static void put_special(json_t *single, json_t *special, const json_t *meta, const char *key)
{
    json_t *id = gguf_get(meta, key),
           *token = json_array_get(gguf_get(meta, "tokens"), (size_t)json_integer_value(id));
    if (!token) return;
    json_array_append_new(single, json_pack("{s:{s:O, s:i}}", "SpecialToken", "id", token, "type_id", 0));
    json_object_set_new(special, json_string_value(token),
                        json_pack("{s:O, s:[O], s:[O]}", "id", token, "ids", id, "tokens", token));
}

/* What stands before and after every text, or null. */
static json_t *post_processor(const json_t *meta, const struct gguf_pre *p)
{
    bool bos =
        gguf_flag(meta, "add_bos_token", p->add_bos) && json_is_integer(gguf_get(meta, "bos_token_id"));
    bool eos = gguf_flag(meta, "add_eos_token", false) && json_is_integer(gguf_get(meta, "eos_token_id"));
    if (!bos && !eos) return json_null();
    json_t *single = json_array(), *special = json_object();
    if (bos) put_special(single, special, meta, "bos_token_id");
    json_array_append_new(single, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0));
    if (eos) put_special(single, special, meta, "eos_token_id");
    return json_pack("{s:s, s:o, s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}], s:o}", "type", "TemplateProcessing",
                     "single", single, "pair", "Sequence", "id", "A", "type_id", 0, "Sequence", "id", "B",
                     "type_id", 1, "special_tokens", special);
}

json_t *tokenizer_json_from_gguf(const json_t *meta, const char *name, struct err *e)
{
    struct tokenizer *t = NULL;
    if (tokenizer_from_gguf(meta, name, &t, e)) return NULL; /* checks everything */
    bool whole = t->n_strings == (size_t)t->n;
    tokenizer_free(t);
    if (!whole) {
        err_set(e, NT_EXIT_DATA, "%s: merges need pieces that the vocabulary lacks", name);
        return NULL;
    }
    const struct gguf_pre *p;
    if (gguf_find_pre(meta, name, &p, e)) return NULL;
    json_t *vocab = json_object(), *merges = json_array(), *seen = json_object(), *v;
    size_t i;
    json_array_foreach(gguf_get(meta, "tokens"), i, v) if (!json_object_get(vocab, json_string_value(v)))
        json_object_set_new(vocab, json_string_value(v), json_integer((json_int_t)i));
    json_array_foreach(gguf_get(meta, "merges"), i, v)
    {
        if (json_object_get(seen, json_string_value(v))) continue; /* the first of equal pairs counts */
        json_object_set(seen, json_string_value(v), v);
        json_array_append(merges, v);
    }
    json_decref(seen);
    json_t *model = json_pack("{s:s, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "fuse_unk", 0, "byte_fallback",
                              0, "ignore_merges", p->ignore_merges, "vocab", vocab, "merges", merges);
    return json_pack("{s:s, s:n, s:n, s:o, s:n, s:o, s:o, s:{s:s, s:b, s:b, s:b}, s:o}", "version", "1.0",
                     "truncation", "padding", "added_tokens", added_tokens(meta), "normalizer",
                     "pre_tokenizer", pre_tokenizers(p), "post_processor", post_processor(meta, p), "decoder",
                     "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex", 1, "model",
                     model);
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
