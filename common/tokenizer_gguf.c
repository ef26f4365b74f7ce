/* SPDX-License-Identifier: Apache-2.0
 * The vocabulary in the metadata of a GGUF file: byte-level BPE ("gpt2"), SentencePiece's BPE ("llama"), or
 * merges over characters ("gemma4"). The file names its pre-tokenizer (tokenizer.ggml.pre) instead of
 * describing it, so what llama.cpp does for each name is a table here; a name that is not in it is refused.
 */
#include "common/tokenizer_gguf.h"
#include <ctype.h>
#include <math.h>
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
/* DeepSeek LLM's letters: the cased ones, by name. */
#define DEEPSEEK_LETTERS                                                                                     \
    "\\s?[A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-"             \
    "\\x{293}\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}"            \
    "\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-"                  \
    "\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-"           \
    "\\x{1CBA}\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}"                  \
    "\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-"                 \
    "\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}\\x{1FB6}-"                   \
    "\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}\\x{1FD6}-"                  \
    "\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}"                   \
    "\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}\\x{212A}-"                   \
    "\\x{212D}\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}"                   \
    "\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}\\x{2CF2}"                   \
    "\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}"                  \
    "\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}\\x{FF21}-"                 \
    "\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}"            \
    "\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}]+"
#define BLOOM " ?[^(\\s|.,!?\xE2\x80\xA6\xE3\x80\x82\xEF\xBC\x8C\xE3\x80\x81\xE0\xA5\xA4\xDB\x94\xD8\x8C)]+"

static const struct gguf_pre PRE[] = {
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
    {"deepseek-llm ",
     {"[\\r\\n]", DEEPSEEK_LETTERS,
      "\\s?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}]+", "\\s+$",
      "[\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+", "\\p{N}+"},
     false,
     false},
    {"jais-2 ",
     {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
                   "\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)|\\s{16}(?!"
                   "\\S)|\\s{8}(?!\\S)|"
                   "\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}"},
     false,
     false},
    {"exaone-moe ",
     {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| "
                   "?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"},
     false,
     false},
    {"laguna ", {"[^\\n]+|[\\n]+", QWEN2}, false, false},
    {"ufakzeka ",
     {"[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES_END},
     false,
     false},
    {"chameleon ",
     {"<sentinel:[0-9]+>", "(?:IMGIMG)(?:A|B|C|D|E|F|G|H|I){1,4}Z", "[\\t\\n]|    |  ", "\\p{N}",
      "[\\p{P}!-/:-@\\[-`{-~]", GPT2},
     false,
     true},
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

/* What "gemma4" names: no bytes for letters, and lines apart. */
static const struct gguf_pre GEMMA4 = {"gemma4 ", {"[^\\n]+|[\\n]+"}, false, true};

static const struct gguf_pre *find_pre(const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof PRE / sizeof *PRE; i++)
        for (const char *s = PRE[i].names; *s; s = strchr(s, ' ') + 1)
            if (!strncmp(s, name, n) && s[n] == ' ') return &PRE[i];
    return NULL;
}

const char *gguf_pre_name(int i)
{
    static char name[64];
    if (i >= (int)(sizeof PRE / sizeof *PRE)) return NULL;
    snprintf(name, sizeof name, "%.*s", (int)strcspn(PRE[i].names, " "), PRE[i].names);
    return name;
}

json_t *gguf_get(const json_t *meta, const char *key)
{
    char full[128];
    snprintf(full, sizeof full, "tokenizer.ggml.%s", key);
    return json_object_get(meta, full);
}

/* The id that a key names, or what llama.cpp takes where there is no such key. */
static int32_t get_id(const struct tokenizer *t, const json_t *meta, const char *key, int32_t missing)
{
    const json_t *v = gguf_get(meta, key);
    int64_t id = json_is_integer(v) ? json_integer_value(v) : -1;
    if (id < 0 || id >= t->n) id = missing;
    return id >= 0 && id < t->n ? (int32_t)id : -1;
}

bool gguf_flag(const json_t *meta, const char *key, bool missing)
{
    const json_t *v = gguf_get(meta, key);
    return json_is_boolean(v) ? json_is_true(v) : missing;
}

static int load_tokens(struct tokenizer *t, const json_t *meta, struct err *e)
{
    size_t i;
    json_t *v;
    json_array_foreach(gguf_get(meta, "tokens"), i, v)
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
int64_t gguf_type(const json_t *types, bool plain_end, size_t i, const char *s, size_t len)
{
    int64_t type = types ? json_integer_value(json_array_get(types, i)) : GGUF_NORMAL;
    if (plain_end && types && len == 4 && !memcmp(s, "</s>", 4)) return GGUF_NORMAL;
    return type == GGUF_NORMAL && types && tokenizer_looks_final(s, len) ? GGUF_CONTROL : type;
}

bool gguf_plain_end(const json_t *meta)
{
    size_t i;
    json_t *v;
    json_array_foreach(gguf_get(meta, "tokens"), i, v)
    {
        const char *s = json_string_value(v);
        if (s && (!strcmp(s, "<|tool_response>") || !strcmp(s, "<|plamo:eos|>"))) return true;
    }
    return false;
}

bool gguf_is_added(int64_t type)
{
    return type == GGUF_CONTROL || type == GGUF_USER || type == GGUF_UNKNOWN;
}

/* llama.cpp knows this flag by the name of the model only. */
bool gguf_strips_right(const json_t *meta, const char *s, size_t len)
{
    const char *name = json_string_value(json_object_get(meta, "general.name"));
    static const char *const but[] = {"<unk>", "<s>", "<|endoftext|>"};
    if (!name || (!strcasestr(name, "phi-3") && !strcasestr(name, "phi3"))) return false;
    for (int i = 0; i < 3; i++)
        if (strlen(but[i]) == len && !memcmp(but[i], s, len)) return false;
    return true;
}

static int load_types(struct tokenizer *t, const json_t *meta, struct err *e)
{
    const json_t *types = gguf_get(meta, "token_type");
    if (types && json_array_size(types) != (size_t)t->n)
        return err_set(e, NT_EXIT_DATA, "%s: tokenizer.ggml.token_type has %zu items for %d tokens", t->name,
                       json_array_size(types), t->n);
    bool plain_end = gguf_plain_end(meta);
    t->is_byte = MEM_NEW(bool, t->n);
    t->unused = MEM_NEW(bool, t->n);
    for (int i = 0; types && i < t->n; i++) {
        const char *s = t->blob + t->raw[i].off;
        int64_t type = gguf_type(types, plain_end, (size_t)i, s, t->raw[i].len);
        t->special[i] = type == GGUF_CONTROL || type == GGUF_UNKNOWN;
        t->is_byte[i] = type == GGUF_BYTE;
        t->unused[i] = type != GGUF_NORMAL && type != GGUF_BYTE && !gguf_is_added(type);
        if (!gguf_is_added(type)) continue;
        struct added a = {.id = i, .len = t->raw[i].len, .rstrip = gguf_strips_right(meta, s, t->raw[i].len)};
        a.text = MEM_NEW(char, a.len + 1);
        memcpy(a.text, t->blob + t->raw[i].off, a.len);
        tokenizer_add_token(t, &a);
    }
    return 0;
}

/* Scores to ranks in the order of merging: a greater float has a smaller rank. */
static int load_scores(struct tokenizer *t, const json_t *scores, struct err *e)
{
    if (scores && json_array_size(scores) != (size_t)t->n)
        return err_set(e, NT_EXIT_DATA, "%s: tokenizer.ggml.scores has %zu items for %d tokens", t->name,
                       json_array_size(scores), t->n);
    t->rank = MEM_NEW(uint32_t, t->n);
    for (int i = 0; i < t->n; i++) {
        float f = (float)json_number_value(json_array_get(scores, (size_t)i)) + 0.0f; /* no -0 */
        uint32_t bits;
        if (!isfinite(f))
            return err_set(e, NT_EXIT_DATA, "%s: token %d has a score that is no number", t->name, i);
        memcpy(&bits, &f, 4);
        t->rank[i] = ~(bits >> 31 ? ~bits : bits | 1u << 31);
    }
    return 0;
}

static int set_pre(struct tokenizer *t, const struct gguf_pre *p, struct err *e)
{
    for (int i = 0; p && i < GGUF_PATTERNS && p->patterns[i]; i++) {
        struct step *st = steps_add(&t->pre, STEP_SPLIT);
        st->re = regex_compile(p->patterns[i], strlen(p->patterns[i]), false, e);
        if (!st->re) return -1;
    }
    return 0;
}

/* always: whatever the file says */
static void set_ends(struct tokenizer *t, const json_t *meta, bool add_bos, bool always)
{
    bool spm = t->model == MODEL_SPM;
    t->bos = get_id(t, meta, "bos_token_id", spm ? 1 : -1);
    t->eos = get_id(t, meta, "eos_token_id", spm ? 2 : -1);
    if (spm) t->unk = get_id(t, meta, "unknown_token_id", 0);
    static const char *const ends[] = {"eos_token_id", "eot_token_id", "eom_token_id"};
    for (int i = 0; i < 3; i++) {
        int32_t id = get_id(t, meta, ends[i], -1);
        if (id >= 0) t->eog[id] = true;
    }
    if ((always || gguf_flag(meta, "add_bos_token", add_bos)) && t->bos >= 0) {
        t->prefix = MEM_NEW(int32_t, 1);
        t->prefix[0] = t->bos;
        t->n_prefix = 1;
    }
    if (gguf_flag(meta, "add_eos_token", false) && t->eos >= 0) {
        t->suffix = MEM_NEW(int32_t, 1);
        t->suffix[0] = t->eos;
        t->n_suffix = 1;
    }
}

static int load(struct tokenizer *t, const json_t *meta, const struct gguf_pre *p, struct err *e)
{
    t->gguf = true;
    t->model = p ? MODEL_BPE : MODEL_SPM;
    t->byte_level = p && p != &GEMMA4;
    t->marks_spaces = !t->byte_level;
    t->space_prefix = !p && gguf_flag(meta, "add_space_prefix", true);
    t->ignore_merges = p && p->ignore_merges;
    t->whole_lines = p == &GEMMA4;
    if (set_pre(t, p, e) || load_tokens(t, meta, e) || load_types(t, meta, e) ||
        (p ? load_merges(t, gguf_get(meta, "merges"), e) : load_scores(t, gguf_get(meta, "scores"), e)))
        return -1;
    set_ends(t, meta, !p || p->add_bos, p == &GEMMA4);
    tokenizer_finish(t);
    return 0;
}

int gguf_find_pre(const json_t *meta, const char *name, const struct gguf_pre **p, struct err *e)
{
    const char *model = json_string_value(gguf_get(meta, "model")),
               *pre = json_string_value(gguf_get(meta, "pre"));
    *p = NULL;
    if (!model) return err_set(e, NT_EXIT_DATA, "%s: no tokenizer.ggml.model in the file", name);
    if (!strcmp(model, "llama")) return 0;
    if (!strcmp(model, "gemma4")) {
        *p = &GEMMA4;
        return 0;
    }
    if (strcmp(model, "gpt2"))
        return err_set(e, NT_EXIT_DATA,
                       "%s: tokenizer.ggml.model \"%.60s\" is not supported (gpt2, llama, gemma4 are)", name,
                       model);
    *p = find_pre(pre ? pre : "default");
    return *p ? 0 : err_set(e, NT_EXIT_DATA, "%s: tokenizer.ggml.pre \"%.60s\" is not supported", name, pre);
}

int tokenizer_from_gguf(const json_t *meta, const char *name, struct tokenizer **out, struct err *e)
{
    const struct gguf_pre *p;
    size_t n = json_array_size(gguf_get(meta, "tokens"));
    *out = NULL;
    if (gguf_find_pre(meta, name, &p, e)) return -1;
    if (!n || n > INT32_MAX) return err_set(e, NT_EXIT_DATA, "%s: tokenizer.ggml.tokens is missing", name);
    if (p && !json_is_array(gguf_get(meta, "merges")))
        return err_set(e, NT_EXIT_DATA, "%s: tokenizer.ggml.merges is missing", name);
    struct tokenizer *t = tokenizer_alloc(name, (int)n);
    if (load(t, meta, p, e)) {
        tokenizer_free(t);
        return -1;
    }
    *out = t;
    return 0;
}
