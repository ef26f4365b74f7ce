/* SPDX-License-Identifier: Apache-2.0
 * Byte-level BPE from the metadata of a GGUF file. The file names its pre-tokenizer (tokenizer.ggml.pre)
 * instead of describing it, so what llama.cpp does for each name is a table here; a name that is not in it is
 * refused. */
#include "common/tokenizer_impl.h"
#include <string.h>
#include "common/mem.h"

#define CONTRACTIONS "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
#define SPACES_END "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s"
#define LLAMA3                                                                                               \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES_END
#define QWEN2 CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES_END
#define QWEN35                                                                                               \
    CONTRACTIONS                                                                                             \
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES_END
#define DEEPSEEK3                                                                                            \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"     \
    " ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACES_END
/* Letters that are not lower-case (upper-case) ASCII: what llama.cpp makes of the upper and lower-case
 * categories. */
#define NOT_LOWER "[^\\P{L}a-z]"
#define NOT_UPPER "[^\\P{L}A-Z]"
#define CASED(end)                                                                                           \
    "[^\\r\\n\\p{L}\\p{N}]?" NOT_LOWER "*" NOT_UPPER "+" end "|[^\\r\\n\\p{L}\\p{N}]?" NOT_LOWER             \
    "+" NOT_UPPER "*" end
#define BLOOM " ?[^(\\s|.,!?\xE2\x80\xA6\xE3\x80\x82\xEF\xBC\x8C\xE3\x80\x81\xE0\xA5\xA4\xDB\x94\xD8\x8C)]+"

static const struct pre {
    const char *names;       /* space after each */
    const char *patterns[5]; /* applied one after the other, each to the pieces of the one before */
    bool ignore_merges, add_bos;
} PRE[] = {
    {"smollm starcoder refact command-r codeshell exaone minerva-7b mellum2 ",
     {"\\p{N}", GPT2},
     false,
     false},
    {"gpt-2 phi-2 gigachat a.x-4.0 mellum mpt olmo jais trillion granite-docling exaone4 ",
     {GPT2},
     false,
     false},
    {"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 ", {LLAMA3}, true, true},
    {"dbrx smaug-bpe chatglm-bpe ", {LLAMA3}, false, false},
    {"glm4 glm5 ", {LLAMA3}, true, false},
    {"qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2 ",
     {QWEN2},
     false,
     false},
    {"qwen35 ", {QWEN35}, false, false},
    {"deepseek-v3 hunyuan-dense joyai-llm hy_v4 ",
     {"\\p{N}{1,3}", "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+", DEEPSEEK3},
     false,
     false},
    {"tekken ", {CASED("") "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES_END}, true, true},
    {"gpt-4o llama4 kanana2 talkie minimax-m2 ",
     {CASED(CONTRACTIONS "?") "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES_END},
     false,
     false},
    {"deepseek-coder ",
     {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+",
      "\\p{N}"},
     false,
     false},
    {"bloom poro-chat gpt3-finnish ", {BLOOM}, false, false},
    {"viking ", {BLOOM, "\\p{N}"}, false, false},
    {"seed-coder ",
     {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" SPACES_END},
     false,
     false},
    {"bailingmoe bailingmoe2 llada-moe ",
     {"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
      "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
      "\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"},
     false,
     false},
    {"minicpm5 ",
     {"\\p{N}{1,3}",
      CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}+| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES_END},
     true,
     false},
    {"falcon ", {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]"}, false, false},
    {"default ", {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}, false, false},
};

static const struct pre *find_pre(const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof PRE / sizeof *PRE; i++)
        for (const char *s = PRE[i].names; *s; s = strchr(s, ' ') + 1)
            if (!strncmp(s, name, n) && s[n] == ' ') return &PRE[i];
    return NULL;
}

enum { TYPE_NORMAL = 1, TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_USER = 4, TYPE_UNUSED = 5, TYPE_BYTE = 6 };

static json_t *get(const json_t *meta, const char *key)
{
    char full[128];
    snprintf(full, sizeof full, "tokenizer.ggml.%s", key);
    return json_object_get(meta, full);
}

static int32_t get_id(const struct tokenizer *t, const json_t *meta, const char *key)
{
    const json_t *v = get(meta, key);
    int64_t id = json_is_integer(v) ? json_integer_value(v) : -1;
    return id >= 0 && id < t->n ? (int32_t)id : -1;
}

static bool get_flag(const json_t *meta, const char *key, bool missing)
{
    const json_t *v = get(meta, key);
    return json_is_boolean(v) ? json_is_true(v) : missing;
}

static int load_tokens(struct tokenizer *t, const json_t *meta, struct err *e)
{
    size_t i;
    json_t *v;
    json_array_foreach(get(meta, "tokens"), i, v)
    {
        if (!json_is_string(v)) return err_set(e, NT_EXIT_DATA, "%s: token %zu is no string", t->name, i);
        if (tokenizer_set_string(t, (int)i, json_string_value(v), json_string_length(v), e)) return -1;
    }
    tokenizer_index(t);
    return 0;
}

/* Pieces that the vocabulary lacks still merge; the first of two equal pairs counts. */
static int load_merges(struct tokenizer *t, const json_t *merges, struct err *e)
{
    size_t i;
    json_t *v;
    tokenizer_reserve_merges(t, json_array_size(merges));
    json_array_foreach(merges, i, v)
    {
        const char *s = json_string_value(v), *space = s && *s ? strchr(s + 1, ' ') : NULL;
        if (!space || !space[1])
            return err_set(e, NT_EXIT_DATA, "%s: merge %zu is no pair of tokens", t->name, i);
        size_t left = (size_t)(space - s);
        tokenizer_add_merge(t, (uint32_t)i, s, left, space + 1, json_string_length(v) - left - 1);
    }
    return 0;
}

/* A normal token spelled like the end of a turn is a converter's mistake that llama.cpp repairs. */
static int64_t type_of(const json_t *types, size_t i, const char *s, size_t len)
{
    int64_t type = types ? json_integer_value(json_array_get(types, i)) : TYPE_NORMAL;
    return type == TYPE_NORMAL && types && tokenizer_looks_final(s, len) ? TYPE_CONTROL : type;
}

static int load_types(struct tokenizer *t, const json_t *types, struct err *e)
{
    if (types && json_array_size(types) != (size_t)t->n)
        return err_set(e, NT_EXIT_DATA, "%s: tokenizer.ggml.token_type has %zu items for %d tokens", t->name,
                       json_array_size(types), t->n);
    for (int i = 0; types && i < t->n; i++) {
        int64_t type = type_of(types, (size_t)i, t->blob + t->raw[i].off, t->raw[i].len);
        t->special[i] = type == TYPE_CONTROL || type == TYPE_UNKNOWN;
        if (type != TYPE_CONTROL && type != TYPE_USER && type != TYPE_UNKNOWN) continue;
        struct added a = {.id = i, .len = t->raw[i].len};
        a.text = MEM_NEW(char, a.len + 1);
        memcpy(a.text, t->blob + t->raw[i].off, a.len);
        tokenizer_add_token(t, &a);
    }
    return 0;
}

static int set_pre(struct tokenizer *t, const struct pre *p, struct err *e)
{
    for (int i = 0; i < 5 && p->patterns[i]; i++) {
        struct step *st = steps_add(&t->pre, STEP_SPLIT);
        st->re = regex_compile(p->patterns[i], strlen(p->patterns[i]), false, e);
        if (!st->re) return -1;
    }
    return 0;
}

static int load(struct tokenizer *t, const json_t *meta, const struct pre *p, struct err *e)
{
    t->gguf = t->byte_level = true;
    t->ignore_merges = p->ignore_merges;
    if (set_pre(t, p, e) || load_tokens(t, meta, e) || load_merges(t, get(meta, "merges"), e) ||
        load_types(t, get(meta, "token_type"), e))
        return -1;
    t->bos = get_id(t, meta, "bos_token_id");
    t->eos = get_id(t, meta, "eos_token_id");
    static const char *const ends[] = {"eos_token_id", "eot_token_id", "eom_token_id"};
    for (int i = 0; i < 3; i++) {
        int32_t id = get_id(t, meta, ends[i]);
        if (id >= 0) t->eog[id] = true;
    }
    if (get_flag(meta, "add_bos_token", p->add_bos) && t->bos >= 0) {
        t->prefix = MEM_NEW(int32_t, 1);
        t->prefix[0] = t->bos;
        t->n_prefix = 1;
    }
    if (get_flag(meta, "add_eos_token", false) && t->eos >= 0) {
        t->suffix = MEM_NEW(int32_t, 1);
        t->suffix[0] = t->eos;
        t->n_suffix = 1;
    }
    tokenizer_finish(t);
    return 0;
}

int tokenizer_from_gguf(const json_t *meta, const char *name, struct tokenizer **out, struct err *e)
{
    const char *model = json_string_value(get(meta, "model")), *pre = json_string_value(get(meta, "pre"));
    size_t n = json_array_size(get(meta, "tokens"));
    *out = NULL;
    if (!model) return err_set(e, NT_EXIT_DATA, "%s: no tokenizer.ggml.model in the file", name);
    if (strcmp(model, "gpt2"))
        return err_set(e, NT_EXIT_DATA,
                       "%s: tokenizer.ggml.model \"%.60s\" is not supported (only gpt2, byte-level BPE)",
                       name, model);
    const struct pre *p = find_pre(pre ? pre : "default");
    if (!p) return err_set(e, NT_EXIT_DATA, "%s: tokenizer.ggml.pre \"%.60s\" is not supported", name, pre);
    if (!n || n > INT32_MAX || !json_is_array(get(meta, "merges")))
        return err_set(e, NT_EXIT_DATA, "%s: tokenizer.ggml.tokens or tokenizer.ggml.merges is missing",
                       name);
    struct tokenizer *t = tokenizer_alloc(name, (int)n);
    if (load(t, meta, p, e)) {
        tokenizer_free(t);
        return -1;
    }
    *out = t;
    return 0;
}

/* ---- as tokenizer.json: the same ids, but where added tokens overlap ---- */

static json_t *added_tokens(const json_t *meta)
{
    json_t *list = json_array(), *v;
    size_t i;
    json_array_foreach(get(meta, "tokens"), i, v)
    {
        int64_t type = type_of(get(meta, "token_type"), i, json_string_value(v), json_string_length(v));
        if (type != TYPE_CONTROL && type != TYPE_USER && type != TYPE_UNKNOWN) continue;
        json_array_append_new(list, json_pack("{s:I, s:O, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)i,
                                              "content", v, "single_word", 0, "lstrip", 0, "rstrip", 0,
                                              "normalized", 0, "special", type != TYPE_USER));
    }
    return list;
}

/* One Split after the other, then the byte alphabet. */
static json_t *pre_tokenizers(const struct pre *p)
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
    json_t *id = get(meta, key), *token = json_array_get(get(meta, "tokens"), (size_t)json_integer_value(id));
    if (!token) return;
    json_array_append_new(single, json_pack("{s:{s:O, s:i}}", "SpecialToken", "id", token, "type_id", 0));
    json_object_set_new(special, json_string_value(token),
                        json_pack("{s:O, s:[O], s:[O]}", "id", token, "ids", id, "tokens", token));
}

/* What stands before and after every text, or null. */
static json_t *post_processor(const json_t *meta, const struct pre *p)
{
    bool bos = get_flag(meta, "add_bos_token", p->add_bos) && json_is_integer(get(meta, "bos_token_id"));
    bool eos = get_flag(meta, "add_eos_token", false) && json_is_integer(get(meta, "eos_token_id"));
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
    const char *pre = json_string_value(get(meta, "pre"));
    const struct pre *p = find_pre(pre ? pre : "default");
    json_t *vocab = json_object(), *merges = json_array(), *seen = json_object(), *v;
    size_t i;
    json_array_foreach(get(meta, "tokens"), i, v) if (!json_object_get(vocab, json_string_value(v)))
        json_object_set_new(vocab, json_string_value(v), json_integer((json_int_t)i));
    json_array_foreach(get(meta, "merges"), i, v)
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
        const json_t *id = get(meta, keys[i][1]);
        json_t *token =
            json_is_integer(id) ? json_array_get(get(meta, "tokens"), (size_t)json_integer_value(id)) : NULL;
        if (token) json_object_set(c, keys[i][0], token);
    }
    json_t *template = json_object_get(meta, "tokenizer.chat_template");
    if (json_is_string(template)) json_object_set(c, "chat_template", template);
    return c;
}
