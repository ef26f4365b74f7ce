/* SPDX-License-Identifier: Apache-2.0
 * tokenizer.json of Hugging Face tokenizers: BPE models with the steps around them. What is not understood is
 * refused by its name, because a tokenizer that is nearly right gives wrong ids without a word. "truncation"
 * and "padding" concern batches and are not looked at. */
#include "common/tokenizer_impl.h"
#include <string.h>
#include "common/mem.h"

#define GPT2_PATTERN "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

static int refuse(const struct tokenizer *t, const char *what, const char *name, struct err *e)
{
    return err_set(e, NT_EXIT_DATA, "%s: %s \"%.80s\" is not supported", t->name, what, name);
}

static const char *type_of(const json_t *j)
{
    const char *s = json_string_value(json_object_get(j, "type"));
    return s ? s : "(without type)";
}

static bool flag(const json_t *j, const char *key, bool missing)
{
    const json_t *v = json_object_get(j, key);
    return json_is_boolean(v) ? json_is_true(v) : missing;
}

static const char *text(const json_t *j, const char *key, const char *missing)
{
    const char *s = json_string_value(json_object_get(j, key));
    return s ? s : missing;
}

static char *copy(const char *s, size_t n)
{
    char *p = MEM_NEW(char, n + 1);
    memcpy(p, s, n);
    return p;
}

/* {"String": "..."} or {"Regex": "..."}, or a plain string. */
static pcre2_code *pattern_of(const struct tokenizer *t, const json_t *j, struct err *e)
{
    const json_t *s = json_is_string(j) ? j : json_object_get(j, "String"), *re = json_object_get(j, "Regex");
    const json_t *use = json_is_string(s) ? s : re;
    if (!json_is_string(use)) {
        err_set(e, NT_EXIT_DATA, "%s: a pattern is neither String nor Regex", t->name);
        return NULL;
    }
    pcre2_code *c = regex_compile(json_string_value(use), json_string_length(use), use == s, e);
    if (!c) (void)err_prefix(e, "%s", t->name);
    return c;
}

static int add_replace(struct tokenizer *t, struct steps *s, const json_t *j, struct err *e)
{
    const json_t *content = json_object_get(j, "content");
    pcre2_code *re = pattern_of(t, json_object_get(j, "pattern"), e);
    if (!re) return -1;
    struct step *st = steps_add(s, STEP_REPLACE);
    st->re = re;
    st->len = json_string_length(content);
    st->text = copy(json_is_string(content) ? json_string_value(content) : "", st->len);
    return 0;
}

static int add_normalizer(struct tokenizer *t, const json_t *j, int depth, struct err *e)
{
    static const struct {
        const char *name;
        enum step_kind kind;
    } simple[] = {{"NFC", STEP_NFC},   {"NFD", STEP_NFD},         {"NFKC", STEP_NFKC},
                  {"NFKD", STEP_NFKD}, {"Lowercase", STEP_LOWER}, {"StripAccents", STEP_STRIP_ACCENTS}};
    const char *type = type_of(j);
    if (json_is_null(j) || !j) return 0;
    for (size_t i = 0; i < sizeof simple / sizeof *simple; i++) {
        if (strcmp(type, simple[i].name)) continue;
        steps_add(&t->normalizer, simple[i].kind);
        return 0;
    }
    if (!strcmp(type, "Sequence") && depth < 8) {
        size_t i;
        json_t *v;
        json_array_foreach(json_object_get(j, "normalizers"), i,
                           v) if (add_normalizer(t, v, depth + 1, e)) return -1;
    } else if (!strcmp(type, "Replace")) {
        return add_replace(t, &t->normalizer, j, e);
    } else if (!strcmp(type, "Prepend")) {
        struct step *st = steps_add(&t->normalizer, STEP_PREPEND);
        st->text = mem_strdup(text(j, "prepend", ""));
        st->len = strlen(st->text);
    } else if (!strcmp(type, "Strip")) {
        struct step *st = steps_add(&t->normalizer, STEP_STRIP);
        st->left = flag(j, "strip_left", true);
        st->right = flag(j, "strip_right", true);
    } else {
        return refuse(t, "normalizer", type, e);
    }
    return 0;
}

static int add_split(struct tokenizer *t, pcre2_code *re, const char *behavior, bool invert, struct err *e)
{
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext",
                                        "Contiguous"};
    if (!re) return -1;
    struct step *st = steps_add(&t->pre, STEP_SPLIT);
    st->re = re;
    st->invert = invert;
    for (int i = 0; i < 5; i++) {
        if (strcmp(behavior, names[i])) continue;
        st->behavior = (enum behavior)i;
        return 0;
    }
    return refuse(t, "split behavior", behavior, e);
}

static int add_fixed(struct tokenizer *t, const char *pattern, const char *behavior, struct err *e)
{
    return add_split(t, regex_compile(pattern, strlen(pattern), false, e), behavior, false, e);
}

static int set_metaspace(struct tokenizer *t, struct step *st, const json_t *j, struct err *e)
{
    const char *scheme = text(j, "prepend_scheme", flag(j, "add_prefix_space", true) ? "always" : "never");
    st->text = mem_strdup(text(j, "replacement", "\xE2\x96\x81"));
    st->len = strlen(st->text);
    st->split = flag(j, "split", true);
    if (!strcmp(scheme, "always"))
        st->prepend = PREPEND_ALWAYS;
    else if (!strcmp(scheme, "first"))
        st->prepend = PREPEND_FIRST;
    else if (!strcmp(scheme, "never"))
        st->prepend = PREPEND_NEVER;
    else
        return refuse(t, "prepend_scheme", scheme, e);
    if (!st->len) return refuse(t, "Metaspace replacement", "", e);
    return 0;
}

static int add_pre_tokenizer(struct tokenizer *t, const json_t *j, int depth, struct err *e)
{
    const char *type = type_of(j);
    if (json_is_null(j) || !j) return 0;
    if (t->byte_level && strcmp(type, "Sequence"))
        return refuse(t, "after ByteLevel, the pre-tokenizer", type, e);
    if (!strcmp(type, "Sequence") && depth < 8) {
        size_t i;
        json_t *v;
        json_array_foreach(json_object_get(j, "pretokenizers"), i,
                           v) if (add_pre_tokenizer(t, v, depth + 1, e)) return -1;
        return 0;
    }
    if (!strcmp(type, "Split"))
        return add_split(t, pattern_of(t, json_object_get(j, "pattern"), e), text(j, "behavior", "Isolated"),
                         flag(j, "invert", false), e);
    if (!strcmp(type, "Digits"))
        return add_fixed(t, flag(j, "individual_digits", false) ? "\\p{N}" : "\\p{N}+", "Isolated", e);
    if (!strcmp(type, "Punctuation"))
        return add_fixed(t, "[\\p{P}!-/:-@\\[-`{-~]", text(j, "behavior", "Isolated"), e);
    if (!strcmp(type, "WhitespaceSplit")) return add_fixed(t, "\\s", "Removed", e);
    if (!strcmp(type, "Metaspace")) return set_metaspace(t, steps_add(&t->pre, STEP_METASPACE), j, e);
    if (strcmp(type, "ByteLevel")) return refuse(t, "pre-tokenizer", type, e);
    t->byte_level = true;
    if (flag(j, "add_prefix_space", true)) steps_add(&t->pre, STEP_SPACE_PREFIX);
    return flag(j, "use_regex", true) ? add_fixed(t, GPT2_PATTERN, "Isolated", e) : 0;
}

static int add_decoder(struct tokenizer *t, const json_t *j, int depth, struct err *e)
{
    const char *type = type_of(j);
    if (json_is_null(j) || !j) return 0;
    if (!strcmp(type, "Sequence") && depth < 8) {
        size_t i;
        json_t *v;
        json_array_foreach(json_object_get(j, "decoders"), i,
                           v) if (add_decoder(t, v, depth + 1, e)) return -1;
    } else if (!strcmp(type, "ByteLevel")) {
        steps_add(&t->decoder, STEP_BYTES);
    } else if (!strcmp(type, "ByteFallback")) {
        steps_add(&t->decoder, STEP_BYTE_FALLBACK);
    } else if (!strcmp(type, "Fuse")) {
        steps_add(&t->decoder, STEP_FUSE);
    } else if (!strcmp(type, "Replace")) {
        return add_replace(t, &t->decoder, j, e);
    } else if (!strcmp(type, "Metaspace")) {
        return set_metaspace(t, steps_add(&t->decoder, STEP_METASPACE), j, e);
    } else if (!strcmp(type, "Strip")) {
        struct step *st = steps_add(&t->decoder, STEP_STRIP_CHAR);
        st->text = mem_strdup(text(j, "content", " "));
        st->len = strlen(st->text);
        st->left = (int)json_integer_value(json_object_get(j, "start"));
        st->right = (int)json_integer_value(json_object_get(j, "stop"));
        if (!st->len) return refuse(t, "Strip decoder with content", "", e);
    } else {
        return refuse(t, "decoder", type, e);
    }
    return 0;
}

static int put_special(struct tokenizer *t, int64_t id, bool before, struct err *e)
{
    if (id < 0 || id >= t->n)
        return err_set(e, NT_EXIT_DATA, "%s: post_processor has the id %lld of no token", t->name,
                       (long long)id);
    size_t *n = before ? &t->n_prefix : &t->n_suffix, cap = *n;
    int32_t **list = before ? &t->prefix : &t->suffix;
    *list = mem_grow(*list, &cap, *n + 1, sizeof **list);
    (*list)[(*n)++] = (int32_t)id;
    return 0;
}

static int add_template(struct tokenizer *t, const json_t *j, struct err *e)
{
    size_t i, k;
    json_t *item, *id;
    bool before = true;
    json_array_foreach(json_object_get(j, "single"), i, item)
    {
        if (json_object_get(item, "Sequence")) {
            before = false;
            continue;
        }
        const char *name = text(json_object_get(item, "SpecialToken"), "id", "");
        const json_t *ids =
            json_object_get(json_object_get(json_object_get(j, "special_tokens"), name), "ids");
        if (!json_is_array(ids)) return refuse(t, "in TemplateProcessing, the special token", name, e);
        json_array_foreach(ids, k, id) if (put_special(t, json_integer_value(id), before, e)) return -1;
    }
    return 0;
}

static int add_post_processor(struct tokenizer *t, const json_t *j, int depth, struct err *e)
{
    const char *type = type_of(j);
    if (json_is_null(j) || !j || !strcmp(type, "ByteLevel")) return 0; /* ByteLevel only trims offsets */
    if (!strcmp(type, "TemplateProcessing")) return add_template(t, j, e);
    if (!strcmp(type, "RobertaProcessing") || !strcmp(type, "BertProcessing")) {
        const json_t *cls = json_array_get(json_object_get(j, "cls"), 1),
                     *sep = json_array_get(json_object_get(j, "sep"), 1);
        if (put_special(t, json_is_integer(cls) ? json_integer_value(cls) : -1, true, e)) return -1;
        return put_special(t, json_is_integer(sep) ? json_integer_value(sep) : -1, false, e);
    }
    if (strcmp(type, "Sequence") || depth >= 8) return refuse(t, "post_processor", type, e);
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(j, "processors"), i,
                       v) if (add_post_processor(t, v, depth + 1, e)) return -1;
    return 0;
}

/* ---- the model ---- */

static int check_model(const struct tokenizer *t, const json_t *model, struct err *e)
{
    const json_t *type = json_object_get(model, "type");
    if (json_is_string(type) ? strcmp(json_string_value(type), "BPE") : !json_object_get(model, "merges"))
        return refuse(t, "model", json_is_string(type) ? json_string_value(type) : "(without type)", e);
    if (*text(model, "continuing_subword_prefix", ""))
        return refuse(t, "continuing_subword_prefix", text(model, "continuing_subword_prefix", ""), e);
    if (*text(model, "end_of_word_suffix", ""))
        return refuse(t, "end_of_word_suffix", text(model, "end_of_word_suffix", ""), e);
    if (json_number_value(json_object_get(model, "dropout")) > 0) return refuse(t, "BPE with", "dropout", e);
    if (!json_is_object(json_object_get(model, "vocab")))
        return err_set(e, NT_EXIT_DATA, "%s: model.vocab is no object", t->name);
    if (!json_is_array(json_object_get(model, "merges")))
        return err_set(e, NT_EXIT_DATA, "%s: model.merges is no array", t->name);
    return 0;
}

/* Ids are 0..n-1 with few holes; a hostile id must not make us allocate for it. */
static int count_ids(const json_t *j, const char *name, int *n, struct err *e)
{
    json_t *vocab = json_object_get(json_object_get(j, "model"), "vocab"), *v;
    const char *key;
    int64_t max = -1, min = 0, count = (int64_t)json_object_size(vocab);
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

static int load_vocab(struct tokenizer *t, const json_t *j, struct err *e)
{
    const json_t *model = json_object_get(j, "model");
    json_t *vocab = json_object_get(model, "vocab"), *v;
    const char *key;
    size_t klen, i;
    json_object_keylen_foreach(
        vocab, key, klen, v) if (tokenizer_set_string(t, (int)json_integer_value(v), key, klen, e)) return -1;
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
    t->ignore_merges = flag(model, "ignore_merges", false);
    t->byte_fallback = flag(model, "byte_fallback", false);
    t->fuse_unk = flag(model, "fuse_unk", false);
    tokenizer_index(t);
    const char *unk = text(model, "unk_token", NULL);
    if (unk) t->unk = (int32_t)json_integer_value(json_object_get(vocab, unk));
    if (unk && !json_is_integer(json_object_get(vocab, unk)))
        return refuse(t, "outside of the vocabulary, unk_token", unk, e);
    return 0;
}

static int load_merges(struct tokenizer *t, const json_t *merges, struct err *e)
{
    size_t i;
    json_t *v;
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
                          .single_word = flag(v, "single_word", false),
                          .lstrip = flag(v, "lstrip", false),
                          .rstrip = flag(v, "rstrip", false),
                          .normalized = flag(v, "normalized", true)};
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
            a.text = copy(json_string_value(content), a.len);
        }
        t->special[a.id] = flag(v, "special", false);
        tokenizer_add_token(t, &a);
        if (r) break;
    }
    matcher_close(&m);
    return r;
}

int tokenizer_from_json(const json_t *j, const char *name, struct tokenizer **out, struct err *e)
{
    int n = 0;
    struct tokenizer *t = tokenizer_alloc(name, 0);
    const json_t *model = json_object_get(j, "model");
    *out = NULL;
    int r = check_model(t, model, e) || count_ids(j, name, &n, e);
    tokenizer_free(t);
    if (r) return -1;
    t = tokenizer_alloc(name, n);
    if (add_normalizer(t, json_object_get(j, "normalizer"), 0, e) ||
        add_pre_tokenizer(t, json_object_get(j, "pre_tokenizer"), 0, e) ||
        add_decoder(t, json_object_get(j, "decoder"), 0, e) || load_vocab(t, j, e) ||
        load_merges(t, json_object_get(model, "merges"), e) ||
        load_added(t, json_object_get(j, "added_tokens"), e) ||
        add_post_processor(t, json_object_get(j, "post_processor"), 0, e)) {
        tokenizer_free(t);
        return -1;
    }
    tokenizer_finish(t);
    *out = t;
    return 0;
}
