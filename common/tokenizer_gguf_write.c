/* SPDX-License-Identifier: Apache-2.0
 * tokenizer.json as the keys of a GGUF file. Byte-level BPE ("gpt2") needs the name of a pre-tokenizer, SPM's
 * BPE
 * ("llama") a space in front or none: what is right shows when a text full of traps gets the same ids from
 * both vocabularies, and if none does, there is no such form. */
#include <stdlib.h>
#include <string.h>
#include "common/mem.h"
#include "common/tokenizer_gguf.h"

static const char traps[] =
    "Hello, World! It's 3.14159 or 1234567890, isn't IT'S\?  two   spaces\n\n\tTab\r\n  end DON'T we'Re"
    " I'd x=y+1; "
    "foo_bar(baz)->qux[0] http://a.b/c\?d=1&e=%20 \xC3\x84rger na\xC3\xAFve "
    "\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E\xE3\x81\xA7\xE3\x81\x99\xE3\x80\x82\xE3\x82\xAB\xE3\x82\xBF"
    "\xE3\x82\xAB\xE3\x83\x8A\xE3\x80\x81\xE3\x81\xB2\xE3\x82\x89\xE3\x81\x8C\xE3\x81\xAA! \xE4\xBD\xA0"
    "\xE5\xA5\xBD,\xE4\xB8\x96\xE7\x95\x8C\xE3\x80\x82\xE4\xBB\x8A\xE5\xA4\xA9\xE5\xA4\xA9\xE6\xB0\x94"
    "\xE5\xBE\x88\xE5\xA5\xBD \xEC\x95\x88\xEB\x85\x95\xED\x95\x98\xEC\x84\xB8\xEC\x9A\x94 \xEC\x84\xB8"
    "\xEA\xB3\x84 "
    "\xD9\x85\xD8\xB1\xD8\xAD\xD8\xA8\xD8\xA7 \xD8\xA8\xD8\xA7\xD9\x84\xD8\xB9\xD8\xA7\xD9\x84\xD9\x85"
    "\xD8\x8C \xD9\x83\xD9\x8A\xD9\x81 \xD8\xAD\xD8\xA7\xD9\x84\xD9\x83\xD8\x9F \xD0\x9F\xD1\x80\xD0"
    "\xB8\xD0\xB2\xD0\xB5\xD1\x82, \xD0\xBA\xD0\xB0\xD0\xBA \xD0\xB4\xD0\xB5\xD0\xBB\xD0\xB0\? \xE0\xB8"
    "\xAA\xE0\xB8\xA7\xE0\xB8\xB1\xE0\xB8\xAA\xE0\xB8\x94\xE0\xB8\xB5\xE0\xB8\x8A\xE0\xB8\xB2\xE0\xB8"
    "\xA7\xE0\xB9\x82\xE0\xB8\xA5\xE0\xB8\x81 \xE0\xB8\xA0\xE0\xB8\xB2\xE0\xB8\xA9\xE0\xB8\xB2\xE0\xB9"
    "\x84\xE0\xB8\x97\xE0\xB8\xA2 \xE0\xA4\xB9\xE0\xA4\xBF\xE0\xA4\xA8\xE0\xA5\x8D\xE0\xA4\xA6\xE0\xA5"
    "\x80 \xE0\xA4\xAE\xE0\xA5\x87\xE0\xA4\x82 "
    "\xF0\x9F\x99\x82\xF0\x9F\x91\x8D\xF0\x9F\x8F\xBD !!!\?\?\? ... 007 1st \n \n x\n\n\n  y caf\xC3"
    "\xA9's l'\xC3\xA9t\xC3\xA9 $5.00 a/b\\c \xC2\xA0nb \xC2\xBD \xC2\xB2 \xE2\x85\xA7 x\xC2\xB2 ";

/* The same ids for the traps as a whole, and for each of their beginnings and ends of some lengths? */
static bool same_ids(const struct tokenizer *a, const struct tokenizer *b)
{
    size_t all = sizeof traps - 1;
    bool same = true;
    for (size_t cut = 0; cut < all && same; cut += 7) {
        int32_t *x = NULL, *y = NULL;
        size_t nx = 0, ny = 0;
        struct err e = {0};
        bool special = cut % 2;
        same = !tokenizer_encode(a, traps + cut, all - cut, special, &x, &nx, &e) &&
               !tokenizer_encode(b, traps + cut, all - cut, special, &y, &ny, &e) && nx == ny &&
               !memcmp(x, y, nx * sizeof *x);
        mem_free(x);
        mem_free(y);
    }
    return same;
}

static bool fits(const struct tokenizer *t, const json_t *meta)
{
    struct err why = {0};
    struct tokenizer *g = NULL;
    bool ok = !tokenizer_from_gguf(meta, "GGUF", &g, &why) && same_ids(t, g);
    tokenizer_free(g);
    return ok;
}

static void put(json_t *meta, const char *key, json_t *v)
{
    char full[128];
    snprintf(full, sizeof full, "tokenizer.ggml.%s", key);
    json_object_set_new(meta, full, v);
}

/* ---- tokens ---- */

static int put_one(json_t *tokens, json_t *types, size_t id, json_t *text, int type, const char *name,
                   struct err *e)
{
    if (id >= json_array_size(tokens) || !json_is_string(text))
        return err_set(e, NT_EXIT_DATA, "%s: token %zu is beyond the model's vocabulary", name, id);
    json_array_set(tokens, id, text);
    json_array_set_new(types, id, json_integer(type));
    return 0;
}

static bool is_byte_token(const char *s)
{
    return strlen(s) == 6 && !strncmp(s, "<0x", 3) && s[5] == '>';
}

/* Ids without a token are filled up, as llama.cpp's converter does. */
static int put_tokens(json_t *meta, const json_t *j, int vocab, bool spm, const char *name, struct err *e)
{
    json_t *tokens = json_array(), *types = json_array(), *id, *v;
    const json_t *model = json_object_get(j, "model");
    const char *text, *unk = json_string_value(json_object_get(model, "unk_token"));
    size_t i;
    int rc = 0;
    for (int k = 0; k < vocab; k++) {
        json_array_append_new(tokens, json_sprintf("[PAD%d]", k));
        json_array_append_new(types, json_integer(GGUF_UNUSED));
    }
    json_object_foreach(json_object_get(model, "vocab"), text, id)
    {
        int type = spm && is_byte_token(text)         ? GGUF_BYTE
                   : spm && unk && !strcmp(text, unk) ? GGUF_UNKNOWN
                                                      : GGUF_NORMAL;
        json_t *s = json_string(text);
        if (!rc) rc = put_one(tokens, types, (size_t)json_integer_value(id), s, type, name, e);
        json_decref(s);
    }
    json_array_foreach(json_object_get(j, "added_tokens"), i, v)
    {
        size_t at = (size_t)json_integer_value(json_object_get(v, "id"));
        bool unknown = json_integer_value(json_array_get(types, at)) == GGUF_UNKNOWN;
        int type = unknown                                       ? GGUF_UNKNOWN
                   : json_is_true(json_object_get(v, "special")) ? GGUF_CONTROL
                                                                 : GGUF_USER;
        if (!rc) rc = put_one(tokens, types, at, json_object_get(v, "content"), type, name, e);
    }
    put(meta, "tokens", tokens);
    put(meta, "token_type", types);
    return rc;
}

/* "a b" whatever form they have. */
static json_t *merge_text(const json_t *m)
{
    if (json_is_string(m)) return json_incref((json_t *)(uintptr_t)m);
    const char *a = json_string_value(json_array_get(m, 0)), *b = json_string_value(json_array_get(m, 1));
    return a && b ? json_sprintf("%s %s", a, b) : NULL;
}

static void put_merges(json_t *meta, const json_t *merges)
{
    json_t *list = json_array(), *text;
    size_t i;
    const json_t *m;
    json_array_foreach(merges, i, m) if ((text = merge_text(m)) != NULL) json_array_append_new(list, text);
    put(meta, "merges", list);
}

/* SentencePiece's scores of such a vocabulary: minus the rank of the first merge that makes a token;
 * characters come after all of them. */
static void put_scores(json_t *meta, const json_t *model, const struct tokenizer *t)
{
    const json_t *merges = json_object_get(model, "merges"), *m;
    size_t n = json_array_size(merges), i;
    double *score = MEM_NEW(double, (size_t)t->n);
    for (int k = 0; k < t->n; k++) score[k] = t->special[k] ? 0 : -(double)(n + (size_t)k);
    for (i = n; i > 0; i--) {
        json_t *text = merge_text(m = json_array_get(merges, i - 1));
        const char *s = json_string_value(text), *space = s ? strchr(s, ' ') : NULL;
        char *both = space ? mem_printf("%.*s%s", (int)(space - s), s, space + 1) : NULL;
        int32_t id = both ? tokenizer_find_raw(t, both, strlen(both)) : -1;
        if (id >= 0) score[id] = -(double)(i - 1);
        mem_free(both);
        json_decref(text);
    }
    json_t *list = json_array();
    for (int k = 0; k < t->n; k++) json_array_append_new(list, json_real(score[k]));
    while ((int)json_array_size(list) < (int)json_array_size(gguf_get(meta, "tokens")))
        json_array_append_new(list, json_real(-1e6));
    put(meta, "scores", list);
    mem_free(score);
}

/* ---- the kind ---- */

/* Is the entry built like tokenizer.json? Where a vocabulary has no runs of digits, say, ids do not tell. */
static bool built_alike(const json_t *meta, const struct tokenizer *t, const char *patterns)
{
    const struct gguf_pre *p;
    struct err none = {0};
    bool threes = false;
    if (gguf_find_pre(meta, "GGUF", &p, &none) || !p) return false;
    for (int i = 0; i < GGUF_PATTERNS && p->patterns[i]; i++)
        threes |= strstr(p->patterns[i], "{1,3}") != NULL;
    return p->ignore_merges == t->ignore_merges && threes == (patterns && strstr(patterns, "{1,3}"));
}

static int choose_pre(json_t *meta, const struct tokenizer *t, const json_t *j, const char *name,
                      struct err *e)
{
    char *patterns = json_dumps(json_object_get(j, "pre_tokenizer"), 0);
    const char *pre;
    bool found = false;
    for (int any = 0; any < 2 && !found; any++)
        for (int i = 0; (pre = gguf_pre_name(i)) != NULL && !found; i++) {
            put(meta, "pre", json_string(pre));
            found = (any || built_alike(meta, t, patterns)) && fits(t, meta);
        }
    free(patterns);
    if (found) return 0;
    return err_set(
        e, NT_EXIT_DATA,
        "%s: no pre-tokenizer that GGUF has a name for gives the same ids: --like FILE takes a template's",
        name);
}

static int choose_space(json_t *meta, const struct tokenizer *t, const char *name, struct err *e)
{
    put(meta, "pre", json_string("default"));
    for (int space = 0; space < 2; space++) {
        put(meta, "add_space_prefix", json_boolean(space));
        if (fits(t, meta)) return 0;
    }
    return err_set(e, NT_EXIT_DATA,
                   "%s: no vocabulary with scores gives the same ids: --like FILE takes a template's", name);
}

json_t *tokenizer_to_gguf(const struct tokenizer *t, const json_t *j, int vocab, int bos, int eos,
                          struct err *e)
{
    const json_t *model = json_object_get(j, "model");
    const char *type = json_string_value(json_object_get(model, "type"));
    bool spm = t->byte_fallback && !t->byte_level;
    if ((type && strcmp(type, "BPE")) || (!spm && !t->byte_level) || t->n > vocab) {
        err_set(e, NT_EXIT_DATA,
                "%s: a vocabulary that has no form in GGUF here: --like FILE takes a template's", t->name);
        return NULL;
    }
    json_t *meta = json_object();
    put(meta, "model", json_string(spm ? "llama" : "gpt2"));
    int rc = put_tokens(meta, j, vocab, spm, t->name, e);
    if (spm)
        put_scores(meta, model, t);
    else
        put_merges(meta, json_object_get(model, "merges"));
    if (t->n_prefix) bos = t->prefix[0];
    if (t->n_suffix) eos = t->suffix[0];
    if (bos >= 0) put(meta, "bos_token_id", json_integer(bos));
    if (eos >= 0) put(meta, "eos_token_id", json_integer(eos));
    if (spm && t->unk >= 0) put(meta, "unknown_token_id", json_integer(t->unk));
    put(meta, "add_bos_token", json_boolean(t->n_prefix > 0));
    put(meta, "add_eos_token", json_boolean(t->n_suffix > 0));
    if (!rc) rc = spm ? choose_space(meta, t, t->name, e) : choose_pre(meta, t, j, t->name, e);
    if (!rc) return meta;
    json_decref(meta);
    return NULL;
}
