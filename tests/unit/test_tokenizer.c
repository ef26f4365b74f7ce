/* SPDX-License-Identifier: Apache-2.0
 * The tokenizer against Hugging Face tokenizers and llama.cpp (expected ids: make.py and make_pieces.py
 * in tests/data/tokenizer),
 * and what it must refuse. */
#include <stdlib.h>
#include <time.h>
#include "common/mem.h"
#include "common/tokenizer_impl.h"
#include "tests/check.h"

#define DATA "tests/data/tokenizer/"

static json_t *load(const char *path)
{
    json_error_t je;
    json_t *j = json_load_file(path, JSON_ALLOW_NUL, &je);
    if (!j) printf("# %s: %s\n", path, je.text);
    return j;
}

/* Text i: the good ones, then the ones with bad UTF-8 (as hex). */
static char *text_at(const json_t *texts, size_t i, size_t *n)
{
    const json_t *good = json_object_get(texts, "text"), *bad = json_object_get(texts, "hex");
    char *s;
    if (i < json_array_size(good)) {
        *n = json_string_length(json_array_get(good, i));
        s = MEM_NEW(char, *n + 1);
        memcpy(s, json_string_value(json_array_get(good, i)), *n);
        return s;
    }
    const char *hex = json_string_value(json_array_get(bad, i - json_array_size(good)));
    *n = strlen(hex) / 2;
    s = MEM_NEW(char, *n + 1);
    for (size_t k = 0; k < *n; k++) {
        unsigned v;
        sscanf(hex + 2 * k, "%2x", &v);
        s[k] = (char)v;
    }
    return s;
}

static bool same_ids(const struct tokenizer *t, const char *s, size_t n, bool special, const json_t *want)
{
    struct err e = {0};
    int32_t *ids;
    size_t k;
    if (tokenizer_encode(t, s, n, special, &ids, &k, &e)) {
        printf("# %s\n", e.text);
        return false;
    }
    bool same = k == json_array_size(want);
    for (size_t i = 0; i < k && same; i++) same = ids[i] == json_integer_value(json_array_get(want, i));
    if (!same) {
        printf("# text \"%.60s\" (%zu bytes): got", s, n);
        for (size_t i = 0; i < k && i < 40; i++) printf(" %d", ids[i]);
        printf(", want");
        for (size_t i = 0; i < json_array_size(want) && i < 40; i++)
            printf(" %d", (int)json_integer_value(json_array_get(want, i)));
        printf("\n");
    }
    mem_free(ids);
    return same;
}

static bool same_text(const struct tokenizer *t, const json_t *list, const json_t *want)
{
    struct err e = {0};
    size_t n = json_array_size(list), len;
    int32_t *ids = MEM_NEW(int32_t, n + 1);
    char *text;
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    bool same = !tokenizer_decode(t, ids, n, &text, &len, &e);
    if (same) {
        same = len == json_string_length(want) && !memcmp(text, json_string_value(want), len);
        if (!same) printf("# got \"%s\" want \"%s\"\n", text, json_string_value(want));
        mem_free(text);
    }
    mem_free(ids);
    return same;
}

static void test_hf(const json_t *texts, const char *file)
{
    json_t *all = load(file), *want;
    const char *name;
    json_object_foreach(all, name, want)
    {
        struct err e = {0};
        char *path = mem_printf(DATA "%s", name);
        struct tokenizer *t = tokenizer_open(path, &e);
        mem_free(path);
        if (!CHECK(t, "%s: opened (%s)", name, e.text)) continue;
        const json_t *ids = json_object_get(want, "ids");
        int bad = 0, wrong = 0;
        for (size_t i = 0; i < json_array_size(ids); i++) {
            size_t n;
            char *s = text_at(texts, i, &n);
            bad += !same_ids(t, s, n, false, json_array_get(ids, i));
            mem_free(s);
            wrong +=
                !same_text(t, json_array_get(ids, i), json_array_get(json_object_get(want, "decoded"), i));
        }
        CHECK(json_array_size(ids) > 90 && !bad, "%s: ids of %zu texts, %d differ", name,
              json_array_size(ids), bad);
        CHECK(!wrong, "%s: decoded texts, %d differ", name, wrong);
        CHECK(same_ids(t, "a b", 3, true, json_object_get(want, "special")), "%s: special", name);
        int32_t pieces[43];
        json_t *list = json_array();
        for (int i = 0; i < 43; i++) {
            pieces[i] = 3 + 7 * i;
            json_array_append_new(list, json_integer(pieces[i]));
        }
        if (tokenizer_size(t) >= 300) /* tokenizers leaves out ids that do not exist, we refuse them */
            CHECK(same_text(t, list, json_object_get(want, "pieces")), "%s: any ids decoded", name);
        json_decref(list);
        tokenizer_free(t);
    }
    json_decref(all);
}

/* Expected lists leave out texts with a NUL, which llama.cpp's caller cannot pass. `but` (may be NULL): texts
 * that hold this are not compared. */
static int compare_gguf(const struct tokenizer *t, const json_t *texts, const json_t *ids, const char *but,
                        size_t *count)
{
    size_t n_texts =
        json_array_size(json_object_get(texts, "text")) + json_array_size(json_object_get(texts, "hex"));
    int bad = 0;
    *count = 0;
    for (size_t i = 0; i < n_texts; i++) {
        size_t n;
        char *s = text_at(texts, i, &n);
        if (!memchr(s, 0, n)) {
            const json_t *want = json_array_get(ids, (*count)++);
            bad += !(but && memmem(s, n, but, strlen(but))) && !same_ids(t, s, n, false, want);
        }
        mem_free(s);
    }
    return bad;
}

static void check_gguf(const struct tokenizer *t, const char *name, const json_t *texts, const json_t *want,
                       const char *but)
{
    const json_t *ids = json_object_get(want, "ids");
    size_t n;
    int bad = compare_gguf(t, texts, ids, but, &n);
    CHECK(n > 90 && !bad, "%s: ids of %zu texts, %d differ", name, n, bad);
    if (!but)
        CHECK(same_ids(t, "abcd <|end|>x  y</s>", 20, false, json_array_get(ids, n)),
              "%s: longest added token first", name);
    CHECK(same_ids(t, "a b", 3, true, json_object_get(want, "special")), "%s: special", name);
}

/* The same through tokenizer.json. Where added tokens overlap (ab, bcd) llama.cpp takes the longest first and
 * tokenizers the leftmost: no file can say the one in the other's words. */
static void check_as_json(const json_t *meta, const char *pre, const json_t *texts, const json_t *want)
{
    struct err e = {0};
    struct tokenizer *t = NULL;
    char name[64];
    snprintf(name, sizeof name, "pre %s as tokenizer.json", pre);
    json_t *j = tokenizer_json_from_gguf(meta, "x.gguf", &e);
    if (CHECK(j && !tokenizer_from_json(j, name, &t, &e), "%s: written and read (%s)", name, e.text))
        check_gguf(t, name, texts, want, "abcd");
    tokenizer_free(t);
    json_decref(j);
}

static void test_gguf(const json_t *texts)
{
    json_t *all = load(DATA "gguf.json"), *meta = load(DATA "gguf-meta.json"), *want;
    const char *pre;
    json_object_foreach(all, pre, want)
    {
        struct err e = {0};
        struct tokenizer *t = NULL;
        char name[64];
        snprintf(name, sizeof name, "pre %s", pre);
        json_object_set_new(meta, "tokenizer.ggml.pre", json_string(pre));
        if (CHECK(!tokenizer_from_gguf(meta, "x.gguf", &t, &e), "%s: opened (%s)", name, e.text))
            check_gguf(t, name, texts, want, NULL);
        tokenizer_free(t);
        check_as_json(meta, pre, texts, want);
    }
    json_decref(meta);
    json_decref(all);
}

/* The merges that are made from the scores. */
static void check_spm_as_json(const json_t *meta, const char *name, const json_t *texts, const json_t *ids)
{
    struct err e = {0};
    struct tokenizer *t = NULL;
    size_t n;
    json_t *j = tokenizer_json_from_gguf(meta, "x.gguf", &e);
    if (CHECK(j && !tokenizer_from_json(j, name, &t, &e), "%s: as tokenizer.json (%s)", name, e.text)) {
        int bad = compare_gguf(t, texts, ids, "abcd", &n);
        CHECK(n > 90 && !bad, "%s as tokenizer.json: ids of %zu texts, %d differ", name, n, bad);
    }
    tokenizer_free(t);
    json_decref(j);
}

static void test_spm(const json_t *texts)
{
    json_t *all = load(DATA "spm.json"), *want;
    const char *name;
    json_object_foreach(all, name, want)
    {
        struct err e = {0};
        struct tokenizer *t = NULL;
        const json_t *meta = json_object_get(want, "meta"), *ids = json_object_get(want, "ids");
        size_t n;
        if (!CHECK(!tokenizer_from_gguf(meta, "x.gguf", &t, &e), "%s: opened (%s)", name, e.text)) continue;
        int bad = compare_gguf(t, texts, ids, NULL, &n);
        CHECK(n > 90 && !bad, "%s: ids of %zu texts, %d differ", name, n, bad);
        CHECK(same_ids(t, "abcd <sep>x  y</s>", 18, false, json_array_get(ids, n)), "%s: added tokens", name);
        CHECK(same_ids(t, "a b", 3, true, json_object_get(want, "special")), "%s: special", name);
        int32_t *back;
        size_t k, len;
        char *text = NULL;
        static const char odd[] = "e\xCC\x81 \xF0\x9F\x91\xA8\xE2\x80\x8D \xE7\x95\x8C\n";
        if (CHECK(!tokenizer_encode(t, odd, sizeof odd - 1, false, &back, &k, &e), "%s: %s", name, e.text)) {
            CHECK(!tokenizer_decode(t, back, k, &text, &len, &e) && !strcmp(text, odd), "%s: there and back",
                  name);
            mem_free(text);
            mem_free(back);
        }
        tokenizer_free(t);
        check_spm_as_json(meta, name, texts, ids);
    }
    json_decref(all);
}

/* Further names of pre-tokenizers, by hashes of their ids only. */
static void test_more_pres(const json_t *texts)
{
    json_t *all = load(DATA "gguf-hash.json"), *meta = load(DATA "gguf-meta.json"), *want;
    size_t n_texts =
        json_array_size(json_object_get(texts, "text")) + json_array_size(json_object_get(texts, "hex"));
    const char *pre;
    json_object_foreach(all, pre, want)
    {
        struct err e = {0};
        struct tokenizer *t = NULL;
        size_t k = 0, n, n_ids;
        int bad = 0;
        json_object_set_new(meta, "tokenizer.ggml.pre", json_string(pre));
        if (!CHECK(!tokenizer_from_gguf(meta, "x.gguf", &t, &e), "pre %s: opened (%s)", pre, e.text))
            continue;
        for (size_t i = 0; i < n_texts; i++) {
            char *s = text_at(texts, i, &n);
            int32_t *ids;
            if (!memchr(s, 0, n)) {
                int64_t hash = -1;
                if (!tokenizer_encode(t, s, n, false, &ids, &n_ids, &e)) {
                    hash = (int64_t)(text_hash((char *)ids, n_ids * 4) & 0x7FFFFFFF);
                    mem_free(ids);
                }
                bad += hash != json_integer_value(json_array_get(want, k++));
            }
            mem_free(s);
        }
        CHECK(k == json_array_size(want) && !bad, "pre %s: ids of %zu texts, %d differ", pre, k, bad);
        tokenizer_free(t);
    }
    json_decref(all);
    json_decref(meta);
}

static void test_smollm2(const json_t *texts)
{
    const char *path = getenv("NT_SMOLLM2");
    if (!path) {
        SKIP("NT_SMOLLM2 is not set");
        return;
    }
    struct err e = {0};
    struct tokenizer *t = tokenizer_open(path, &e);
    if (!CHECK(t, "SmolLM2 opened (%s)", e.text)) return;
    json_t *want = load(DATA "smollm2.json");
    size_t n;
    int bad = compare_gguf(t, texts, json_object_get(want, "ids"), NULL, &n);
    CHECK(n > 90 && !bad, "SmolLM2: ids of %zu texts, %d differ", n, bad);
    CHECK(same_ids(t, "a b", 3, true, json_object_get(want, "special")), "SmolLM2: no BOS, the file says so");
    CHECK(tokenizer_bos(t) == 1 && tokenizer_eos(t) == 2 && tokenizer_size(t) == 49152,
          "SmolLM2: BOS, EOS, size");
    CHECK(tokenizer_is_special(t, 0) && tokenizer_is_end(t, 0) && tokenizer_is_end(t, 2) &&
              !tokenizer_is_end(t, 1),
          "SmolLM2: <|endoftext|> and <|im_end|> end a generation");
    tokenizer_free(t);
    json_decref(want);
}

/* Linear enough: a word of 2,000,000 letters, and a million characters a second on prose. */
static void test_speed(void)
{
    struct err e = {0};
    struct tokenizer *t = tokenizer_open(DATA "gpt2", &e);
    if (!CHECK(t, "gpt2 opened (%s)", e.text)) return;
    size_t n = 2000000, k;
    char *s = MEM_NEW(char, n + 1);
    for (size_t i = 0; i < n; i++) s[i] = (char)('a' + (i * i + i / 7) % 26);
    int32_t *ids;
    clock_t c = clock();
    int r = tokenizer_encode(t, s, n, false, &ids, &k, &e);
    double seconds = (double)(clock() - c) / CLOCKS_PER_SEC;
    CHECK(!r && k > n / 10 && seconds < 60, "one word of 2,000,000 letters in %.2f s", seconds);
    if (!r) mem_free(ids);
    for (size_t i = 0; i < n; i += 1 + (i * 2654435761u >> 13) % 9) s[i] = ' ';
    c = clock();
    r = tokenizer_encode(t, s, n, false, &ids, &k, &e);
    seconds = (double)(clock() - c) / CLOCKS_PER_SEC;
    CHECK(!r && seconds < 30, "2,000,000 characters of short words in %.2f s", seconds);
    if (!r) mem_free(ids);
    mem_free(s);
    tokenizer_free(t);
}

static const char *refusal(const char *change, const char *key, bool model)
{
    static struct err e;
    e = (struct err){0};
    json_t *j = load(DATA "gpt2/tokenizer.json"), *v = json_loads(change, JSON_DECODE_ANY, NULL);
    struct tokenizer *t = NULL;
    json_object_set_new(model ? json_object_get(j, "model") : j, key, v);
    if (!tokenizer_from_json(j, "tokenizer.json", &t, &e)) tokenizer_free(t);
    json_decref(j);
    return e.code == NT_EXIT_DATA ? e.text : "";
}

static void test_refused(void)
{
    static const struct {
        const char *change, *key, *names;
        bool model;
    } cases[] = {
        {"{\"type\":\"Precompiled\"}", "normalizer", "precompiled_charsmap", false},
        {"{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAA=\"}", "normalizer", "precompiled_charsmap",
         false},
        {"{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"/////////w==\"}", "normalizer", "no table",
         false},
        {"{\"type\":\"ByteLevel\"}", "normalizer", "ByteLevel", false},
        {"{\"type\":\"UnicodeScripts\"}", "pre_tokenizer", "UnicodeScripts", false},
        {"{\"type\":\"CTC\"}", "decoder", "CTC", false},
        {"{\"type\":\"Odd\"}", "post_processor", "Odd", false},
        {"\"Unigram\"", "type", "vocab", true},
        {"\"WordPiece\"", "type", "ByteLevel", true},
        {"\"Morse\"", "type", "Morse", true},
        {"0.1", "dropout", "dropout", true},
        {"[[\"qq\",\"qqq\"]]", "merges", "merge 0", true},
        {"{\"a\":99999999}", "vocab", "token ids", true},
        {"{\"a\":1,\"b\":1}", "vocab", "two tokens", true},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\\\\b\"},\"behavior\":\"Isolated\"}", "pre_tokenizer",
         "\\b", false},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a-z&&[^b]]\"}}", "pre_tokenizer", "&&", false},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a\"}}", "pre_tokenizer", "compiled", false},
        {"{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Twice\"}", "pre_tokenizer",
         "Twice", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *why = refusal(cases[i].change, cases[i].key, cases[i].model);
        CHECK(strstr(why, cases[i].names) && strstr(why, "tokenizer.json"), "refused: %s", why);
    }
    json_t *meta = load(DATA "gguf-meta.json");
    struct tokenizer *t;
    struct err e = {0};
    json_object_set_new(meta, "tokenizer.ggml.pre", json_string("made-up"));
    CHECK(tokenizer_from_gguf(meta, "x.gguf", &t, &e) && strstr(e.text, "made-up"), "refused: %s", e.text);
    e = (struct err){0};
    json_object_set_new(meta, "tokenizer.ggml.model", json_string("rwkv"));
    CHECK(tokenizer_from_gguf(meta, "x.gguf", &t, &e) && strstr(e.text, "rwkv"), "refused: %s", e.text);
    json_decref(meta);
    e = (struct err){0};
    CHECK(!tokenizer_open("tests/data/tokenizer", &e) && e.code == NT_EXIT_DATA, "refused: %s", e.text);
}

int main(void)
{
    json_t *texts = load(DATA "texts.json");
    test_hf(texts, DATA "hf.json");
    test_hf(texts, DATA "hf-pieces.json");
    test_spm(texts);
    test_more_pres(texts);
    test_gguf(texts);
    test_smollm2(texts);
    test_speed();
    test_refused();
    json_decref(texts);
    return check_done();
}
