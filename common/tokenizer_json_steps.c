/* SPDX-License-Identifier: Apache-2.0
 * tokenizer.json of Hugging Face tokenizers, all but the model: normalizers, pre-tokenizers, decoders,
 * post-processors. What is not understood is refused by its name, because a tokenizer that is nearly right
 * gives wrong ids without a word. "truncation" and "padding" concern batches and are not looked at. */
#include "common/tokenizer_json.h"
#include <string.h>
#include "common/mem.h"

#define GPT2_PATTERN "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

int tokenizer_refuse(const struct tokenizer *t, const char *what, const char *name, struct err *e)
{
    return err_set(e, NT_EXIT_DATA, "%s: %s \"%.80s\" is not supported", t->name, what, name);
}

static const char *type_of(const json_t *j)
{
    const char *s = json_string_value(json_object_get(j, "type"));
    return s ? s : "(without type)";
}

bool tokenizer_json_flag(const json_t *j, const char *key, bool missing)
{
    const json_t *v = json_object_get(j, key);
    return json_is_boolean(v) ? json_is_true(v) : missing;
}

const char *tokenizer_json_text(const json_t *j, const char *key, const char *missing)
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

/* {"precompiled_charsmap": base64} */
static int add_charsmap(struct tokenizer *t, const json_t *j, struct err *e)
{
    const json_t *map = json_object_get(j, "precompiled_charsmap");
    struct buf b = {0};
    struct step *st = steps_add(&t->normalizer, STEP_CHARSMAP);
    int bad = json_is_string(map) ? base64_decode(json_string_value(map), json_string_length(map), &b) : -1;
    st->text = b.p;
    st->len = b.n;
    if (bad) return err_set(e, NT_EXIT_DATA, "%s: precompiled_charsmap is no base64", t->name);
    return charsmap_check(st->text, st->len, t->name, e);
}

/* clean_text, handle_chinese_chars, strip_accents (null: as lowercase), lowercase. */
static void add_bert_normalizer(struct tokenizer *t, const json_t *j)
{
    bool lower = tokenizer_json_flag(j, "lowercase", true);
    if (tokenizer_json_flag(j, "clean_text", true)) steps_add(&t->normalizer, STEP_CLEAN);
    if (tokenizer_json_flag(j, "handle_chinese_chars", true)) steps_add(&t->normalizer, STEP_CJK);
    if (tokenizer_json_flag(j, "strip_accents", lower)) {
        steps_add(&t->normalizer, STEP_NFD);
        steps_add(&t->normalizer, STEP_STRIP_NONSPACING);
    }
    if (lower) steps_add(&t->normalizer, STEP_LOWER);
}

static int add_normalizer(struct tokenizer *t, const json_t *j, int depth, struct err *e)
{
    static const struct {
        const char *name;
        enum step_kind kind;
    } simple[] = {{"NFC", STEP_NFC},   {"NFD", STEP_NFD},         {"NFKC", STEP_NFKC},
                  {"NFKD", STEP_NFKD}, {"Lowercase", STEP_LOWER}, {"StripAccents", STEP_STRIP_ACCENTS},
                  {"Nmt", STEP_NMT}};
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
        st->text = mem_strdup(tokenizer_json_text(j, "prepend", ""));
        st->len = strlen(st->text);
    } else if (!strcmp(type, "Precompiled")) {
        return add_charsmap(t, j, e);
    } else if (!strcmp(type, "BertNormalizer")) {
        add_bert_normalizer(t, j);
    } else if (!strcmp(type, "Strip")) {
        struct step *st = steps_add(&t->normalizer, STEP_STRIP);
        st->left = tokenizer_json_flag(j, "strip_left", true);
        st->right = tokenizer_json_flag(j, "strip_right", true);
    } else {
        return tokenizer_refuse(t, "normalizer", type, e);
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
    return tokenizer_refuse(t, "split behavior", behavior, e);
}

static int add_fixed(struct tokenizer *t, const char *pattern, const char *behavior, struct err *e)
{
    return add_split(t, regex_compile(pattern, strlen(pattern), false, e), behavior, false, e);
}

static int set_metaspace(struct tokenizer *t, struct step *st, const json_t *j, struct err *e)
{
    const char *scheme = tokenizer_json_text(
        j, "prepend_scheme", tokenizer_json_flag(j, "add_prefix_space", true) ? "always" : "never");
    st->text = mem_strdup(tokenizer_json_text(j, "replacement", "\xE2\x96\x81"));
    st->len = strlen(st->text);
    st->split = tokenizer_json_flag(j, "split", true);
    if (!strcmp(scheme, "always"))
        st->prepend = PREPEND_ALWAYS;
    else if (!strcmp(scheme, "first"))
        st->prepend = PREPEND_FIRST;
    else if (!strcmp(scheme, "never"))
        st->prepend = PREPEND_NEVER;
    else
        return tokenizer_refuse(t, "prepend_scheme", scheme, e);
    if (!st->len) return tokenizer_refuse(t, "Metaspace replacement", "", e);
    return 0;
}

/* {"delimiter": one character}, {"length": characters} */
static int add_measured(struct tokenizer *t, const json_t *j, const char *type, struct err *e)
{
    if (!strcmp(type, "CharDelimiterSplit")) {
        const char *d = tokenizer_json_text(j, "delimiter", "");
        if (!*d) return tokenizer_refuse(t, "CharDelimiterSplit with delimiter", d, e);
        return add_split(t, regex_compile(d, strlen(d), true, e), "Removed", false, e);
    }
    const json_t *length = json_object_get(j, "length");
    int64_t n = json_is_integer(length) ? json_integer_value(length) : 5;
    if (n < 1 || n > INT32_MAX) return tokenizer_refuse(t, "with this length, the pre-tokenizer", type, e);
    steps_add(&t->pre, STEP_CHUNKS)->left = (int)n;
    return 0;
}

/* Rust's \w, which has the joiners too. */
#define WORD_OR_NOT "[\\w\\x{200C}\\x{200D}]+|[^\\w\\x{200C}\\x{200D}\\s]+"
#define PUNCTUATION "[\\p{P}!-/:-@\\[-`{-~]"

static int add_pre_tokenizer(struct tokenizer *t, const json_t *j, int depth, struct err *e)
{
    const char *type = type_of(j);
    if (json_is_null(j) || !j) return 0;
    if (t->byte_level && strcmp(type, "Sequence"))
        return tokenizer_refuse(t, "after ByteLevel, the pre-tokenizer", type, e);
    if (!strcmp(type, "Sequence") && depth < 8) {
        size_t i;
        json_t *v;
        json_array_foreach(json_object_get(j, "pretokenizers"), i,
                           v) if (add_pre_tokenizer(t, v, depth + 1, e)) return -1;
        return 0;
    }
    if (!strcmp(type, "Split"))
        return add_split(t, pattern_of(t, json_object_get(j, "pattern"), e),
                         tokenizer_json_text(j, "behavior", "Isolated"),
                         tokenizer_json_flag(j, "invert", false), e);
    if (!strcmp(type, "Digits"))
        return add_fixed(t, tokenizer_json_flag(j, "individual_digits", false) ? "\\p{N}" : "\\p{N}+",
                         "Isolated", e);
    if (!strcmp(type, "Punctuation"))
        return add_fixed(t, PUNCTUATION, tokenizer_json_text(j, "behavior", "Isolated"), e);
    if (!strcmp(type, "WhitespaceSplit")) return add_fixed(t, "\\s", "Removed", e);
    if (!strcmp(type, "BertPreTokenizer"))
        return add_fixed(t, "\\s", "Removed", e) || add_fixed(t, PUNCTUATION, "Isolated", e);
    if (!strcmp(type, "Whitespace"))
        return add_split(t, regex_compile(WORD_OR_NOT, strlen(WORD_OR_NOT), false, e), "Removed", true, e);
    if (!strcmp(type, "CharDelimiterSplit") || !strcmp(type, "FixedLength"))
        return add_measured(t, j, type, e);
    if (!strcmp(type, "Metaspace")) return set_metaspace(t, steps_add(&t->pre, STEP_METASPACE), j, e);
    if (strcmp(type, "ByteLevel")) return tokenizer_refuse(t, "pre-tokenizer", type, e);
    t->byte_level = true;
    if (tokenizer_json_flag(j, "add_prefix_space", true)) steps_add(&t->pre, STEP_SPACE_PREFIX);
    return tokenizer_json_flag(j, "use_regex", true) ? add_fixed(t, GPT2_PATTERN, "Isolated", e) : 0;
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
    } else if (!strcmp(type, "WordPiece") || !strcmp(type, "BPEDecoder")) {
        bool piece = *type == 'W';
        struct step *st = steps_add(&t->decoder, piece ? STEP_WORDPIECE : STEP_WORD_END);
        st->text = mem_strdup(tokenizer_json_text(j, piece ? "prefix" : "suffix", piece ? "##" : "</w>"));
        st->len = strlen(st->text);
        st->left = tokenizer_json_flag(j, "cleanup", true);
    } else if (!strcmp(type, "Metaspace")) {
        return set_metaspace(t, steps_add(&t->decoder, STEP_METASPACE), j, e);
    } else if (!strcmp(type, "Strip")) {
        struct step *st = steps_add(&t->decoder, STEP_STRIP_CHAR);
        st->text = mem_strdup(tokenizer_json_text(j, "content", " "));
        st->len = strlen(st->text);
        st->left = (int)json_integer_value(json_object_get(j, "start"));
        st->right = (int)json_integer_value(json_object_get(j, "stop"));
        if (!st->len) return tokenizer_refuse(t, "Strip decoder with content", "", e);
    } else {
        return tokenizer_refuse(t, "decoder", type, e);
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
        const char *name = tokenizer_json_text(json_object_get(item, "SpecialToken"), "id", "");
        const json_t *ids =
            json_object_get(json_object_get(json_object_get(j, "special_tokens"), name), "ids");
        if (!json_is_array(ids))
            return tokenizer_refuse(t, "in TemplateProcessing, the special token", name, e);
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
    if (strcmp(type, "Sequence") || depth >= 8) return tokenizer_refuse(t, "post_processor", type, e);
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(j, "processors"), i,
                       v) if (add_post_processor(t, v, depth + 1, e)) return -1;
    return 0;
}

int tokenizer_json_template(struct tokenizer *t, const json_t *j, struct err *e)
{
    return add_post_processor(t, json_object_get(j, "post_processor"), 0, e);
}

int tokenizer_json_steps(struct tokenizer *t, const json_t *j, struct err *e)
{
    return add_normalizer(t, json_object_get(j, "normalizer"), 0, e) ||
                   add_pre_tokenizer(t, json_object_get(j, "pre_tokenizer"), 0, e) ||
                   add_decoder(t, json_object_get(j, "decoder"), 0, e)
               ? -1
               : 0;
}
