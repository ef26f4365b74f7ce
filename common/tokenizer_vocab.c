/* SPDX-License-Identifier: Apache-2.0
 * The vocabulary of a tokenizer: strings and the bytes they stand for, merges, added tokens; built once by a
 * reader of tokenizer files. */
#include "common/tokenizer_impl.h"
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>
#include "common/mem.h"

/* ---- vocabulary ---- */

/* Printable ASCII and Latin-1 stand for themselves, the other 68 bytes for U+0100 and up, in order. */
static bool alphabet_plain(int c)
{
    return (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF);
}

int alphabet_byte(int32_t c)
{
    if (c >= 0 && c < 256) return alphabet_plain(c) ? c : -1;
    if (c < 256 || c >= 256 + 68) return -1;
    int b = 0;
    for (int k = c - 256;; b++)
        if (!alphabet_plain(b) && !k--) return b;
}

struct tokenizer *tokenizer_alloc(const char *name, int n)
{
    struct tokenizer *t = MEM_NEW(struct tokenizer, 1);
    t->name = mem_strdup(name);
    t->n = n;
    t->n_strings = t->cap_strings = (size_t)n;
    t->raw = MEM_NEW(struct string, n);
    t->bytes = MEM_NEW(struct string, n);
    t->special = MEM_NEW(bool, n);
    t->is_added = MEM_NEW(bool, n);
    t->eog = MEM_NEW(bool, n);
    t->unk = t->bos = t->eos = -1;
    for (int i = 0; i < n; i++) t->raw[i].off = SIZE_MAX;
    return t;
}

static size_t blob_put(struct tokenizer *t, const char *s, size_t len)
{
    size_t off = t->blob_n;
    t->blob = mem_grow(t->blob, &t->blob_cap, off + len + 1, 1);
    memcpy(t->blob + off, s, len);
    t->blob[off + len] = 0;
    t->blob_n = off + len + 1;
    return off;
}

int tokenizer_set_string(struct tokenizer *t, int id, const char *s, size_t len, struct err *e)
{
    if (t->raw[id].off != SIZE_MAX)
        return err_set(e, NT_EXIT_DATA, "%s: two tokens have the id %d", t->name, id);
    t->raw[id].off = blob_put(t, s, len);
    t->raw[id].len = (uint32_t)len;
    return 0;
}

void tokenizer_respell(struct tokenizer *t, int id, const char *s, size_t len)
{
    t->raw[id] = (struct string){blob_put(t, s, len), (uint32_t)len};
}

/* Bytes of a spelling in the byte alphabet; false when a character is not of it. */
static bool alphabet_decode(const char *s, size_t n, struct buf *out)
{
    out->n = 0;
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t k = utf8proc_iterate((const utf8proc_uint8_t *)s + i, (utf8proc_ssize_t)(n - i), &c);
        int b = k > 0 ? alphabet_byte(c) : -1;
        if (b < 0) return false;
        char byte = (char)b;
        buf_put(out, &byte, 1);
        i += (size_t)k;
    }
    return true;
}

uint64_t text_hash(const char *s, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u ^ n;
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * 0x100000001b3u;
    return h ^ (h >> 29);
}

static int32_t *hash_slot(const struct tokenizer *t, const char *s, size_t n)
{
    size_t mask = t->hash_size - 1, i = text_hash(s, n) & mask;
    for (; t->hash[i] >= 0; i = (i + 1) & mask) {
        const struct string *k = &t->bytes[t->hash[i]];
        if (k->len == n && !memcmp(t->blob + k->off, s, n)) break;
    }
    return &t->hash[i];
}

int32_t tokenizer_find_bytes(const struct tokenizer *t, const char *s, size_t n)
{
    return *hash_slot(t, s, n);
}

static void hash_grow(struct tokenizer *t)
{
    int32_t *old = t->hash;
    t->hash_size = 1024;
    while (t->hash_size < 4 * t->n_strings) t->hash_size *= 2;
    t->hash = MEM_NEW(int32_t, t->hash_size);
    memset(t->hash, 0xFF, t->hash_size * sizeof *t->hash);
    for (size_t i = 0; i < t->n_strings; i++) {
        if (t->bytes[i].off == SIZE_MAX) continue;
        int32_t *slot = hash_slot(t, t->blob + t->bytes[i].off, t->bytes[i].len);
        if (*slot < 0 || t->model == MODEL_UNIGRAM) *slot = (int32_t)i;
    }
    mem_free(old);
}

static void set_bytes(struct tokenizer *t, size_t id, struct buf *tmp)
{
    struct string raw = t->raw[id];
    t->bytes[id] = raw;
    if (!t->byte_level || raw.off == SIZE_MAX) return;
    if (!alphabet_decode(t->blob + raw.off, raw.len, tmp)) {
        t->bytes[id].off = SIZE_MAX;
        return;
    }
    t->bytes[id].off = blob_put(t, tmp->p ? tmp->p : "", tmp->n);
    t->bytes[id].len = (uint32_t)tmp->n;
}

void tokenizer_index(struct tokenizer *t)
{
    struct buf tmp = {0};
    for (size_t i = 0; i < t->n_strings; i++) set_bytes(t, i, &tmp);
    buf_clear(&tmp);
    hash_grow(t);
    for (int b = 0; b < 256; b++) {
        char c = (char)b, name[8];
        t->byte_id[b] = t->byte_level || b < 0x80 ? tokenizer_find_bytes(t, &c, 1) : -1;
        int k = snprintf(name, sizeof name, "<0x%02X>", (unsigned)b);
        t->fallback_id[b] = tokenizer_find_bytes(t, name, (size_t)k);
    }
}

int32_t tokenizer_find_raw(const struct tokenizer *t, const char *s, size_t len)
{
    struct buf tmp = {0};
    bool ok = !t->byte_level || alphabet_decode(s, len, &tmp);
    int32_t id = !ok             ? -1
                 : t->byte_level ? tokenizer_find_bytes(t, tmp.p ? tmp.p : "", tmp.n)
                                 : tokenizer_find_bytes(t, s, len);
    buf_clear(&tmp);
    return id;
}

/* A piece of a merge: GGUF files may lack it, then it becomes a string beyond the ids. */
static int32_t find_piece(struct tokenizer *t, const char *s, size_t len)
{
    int32_t id = tokenizer_find_raw(t, s, len);
    if (id >= 0 || !t->gguf) return id;
    size_t i = t->n_strings, cap = t->cap_strings;
    t->raw = mem_grow(t->raw, &cap, i + 1, sizeof *t->raw);
    t->bytes = mem_grow(t->bytes, &t->cap_strings, i + 1, sizeof *t->bytes);
    t->n_strings++;
    t->raw[i] = (struct string){blob_put(t, s, len), (uint32_t)len};
    struct buf tmp = {0};
    set_bytes(t, i, &tmp);
    buf_clear(&tmp);
    if (t->bytes[i].off == SIZE_MAX) return -1;
    if (4 * t->n_strings > 2 * t->hash_size) hash_grow(t);
    *hash_slot(t, t->blob + t->bytes[i].off, t->bytes[i].len) = (int32_t)i;
    return (int32_t)i;
}

/* ---- merges ---- */

static struct merge *merge_slot(const struct tokenizer *t, uint64_t key)
{
    size_t mask = t->merges_size - 1, i = (size_t)((key * 0x9E3779B97F4A7C15u) >> 20) & mask;
    while (t->merges[i].key != UINT64_MAX && t->merges[i].key != key) i = (i + 1) & mask;
    return &t->merges[i];
}

static uint64_t merge_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

const struct merge *tokenizer_merge(const struct tokenizer *t, int32_t left, int32_t right)
{
    const struct merge *m = merge_slot(t, merge_key(left, right));
    return m->key == UINT64_MAX ? NULL : m;
}

void tokenizer_reserve_merges(struct tokenizer *t, size_t n)
{
    t->merges_size = 16;
    while (t->merges_size < 3 * n) t->merges_size *= 2;
    t->merges = MEM_NEW(struct merge, t->merges_size);
    for (size_t i = 0; i < t->merges_size; i++) t->merges[i].key = UINT64_MAX;
}

int tokenizer_add_merge(struct tokenizer *t, uint32_t rank, const char *a, size_t an, const char *b,
                        size_t bn)
{
    struct buf both = {0};
    size_t skip = t->subword ? strlen(t->subword) : 0; /* of b, what marks it as no beginning */
    if (bn < skip) return 2;
    buf_put(&both, a, an);
    buf_put(&both, b + skip, bn - skip);
    int32_t left = find_piece(t, a, an), right = find_piece(t, b, bn), id = find_piece(t, both.p, both.n);
    buf_clear(&both);
    if (left < 0 || right < 0 || id < 0) return left < 0 ? 1 : right < 0 ? 2 : 3;
    struct merge *m = merge_slot(t, merge_key(left, right));
    if (m->key == UINT64_MAX || !t->gguf) *m = (struct merge){merge_key(left, right), rank, id};
    return 0;
}

/* ---- added tokens ---- */

void tokenizer_add_token(struct tokenizer *t, const struct added *a)
{
    size_t cap = t->n_added;
    t->added = mem_grow(t->added, &cap, t->n_added + 1, sizeof *t->added);
    t->added[t->n_added++] = *a;
    t->is_added[a->id] = true;
}

static int by_length(const void *pa, const void *pb)
{
    const struct added *a = pa, *b = pb;
    return a->len != b->len ? (a->len < b->len) - (a->len > b->len) : (a->id > b->id) - (a->id < b->id);
}

/* Tokens that end a generation, as models in circulation spell them. */
static const char *const END_TOKENS[] = {"<|endoftext|>",
                                         "<|im_end|>",
                                         "<|eot_id|>",
                                         "<|eom_id|>",
                                         "<|end_of_text|>",
                                         "<|end|>",
                                         "<|return|>",
                                         "<|call|>",
                                         "<|calls|>",
                                         "<|flush|>",
                                         "<end_of_turn>",
                                         "<end_of_utterance>",
                                         "</s>",
                                         "<eos>",
                                         "<EOT>",
                                         "_<EOT>",
                                         "[EOS]",
                                         "[EOT]",
                                         "<turn|>",
                                         "<|tool_response>",
                                         "[e~[",
                                         "<\xEF\xBD\x9C"
                                         "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"};

bool tokenizer_looks_final(const char *s, size_t len)
{
    for (size_t k = 0; k < sizeof END_TOKENS / sizeof *END_TOKENS; k++)
        if (strlen(END_TOKENS[k]) == len && !memcmp(s, END_TOKENS[k], len)) return true;
    return false;
}

/* No token goes on over the mark of a space, so that words end before one, whatever the scores. */
static bool words_end(const struct tokenizer *t)
{
    if ((t->model != MODEL_BPE && t->model != MODEL_SPM) || t->byte_level || t->ignore_merges || t->subword ||
        t->word_end || tokenizer_find_bytes(t, SPACE_MARK, 3) < 0)
        return false;
    for (size_t i = 0; i < t->n_strings; i++) {
        if (t->raw[i].off == SIZE_MAX) continue;
        const char *s = t->blob + t->raw[i].off, *end = s + t->raw[i].len;
        while (end - s >= 3 && !memcmp(s, SPACE_MARK, 3)) s += 3;
        if (s < end && memmem(s, (size_t)(end - s), SPACE_MARK, 3)) return false;
    }
    return true;
}

void tokenizer_finish(struct tokenizer *t)
{
    if (t->n_added) qsort(t->added, t->n_added, sizeof *t->added, by_length);
    t->cuts = words_end(t);
    for (size_t i = 0; i < t->n_added; i++) {
        const struct added *a = &t->added[i];
        trie_add(a->normalized ? &t->added_trie_normalized : &t->added_trie, a->text, a->len, (int32_t)i);
        if (t->special[a->id] && tokenizer_looks_final(a->text, a->len)) t->eog[a->id] = true;
    }
    if (t->eos >= 0) t->eog[t->eos] = true;
}

void tokenizer_free(struct tokenizer *t)
{
    if (!t) return;
    for (size_t i = 0; i < t->n_added; i++) mem_free(t->added[i].text);
    steps_clear(&t->normalizer);
    steps_clear(&t->pre);
    steps_clear(&t->decoder);
    trie_clear(&t->trie);
    trie_clear(&t->added_trie);
    trie_clear(&t->added_trie_normalized);
    void *all[] = {t->name,    t->raw,      t->bytes,   t->blob,     t->hash,    t->merges,
                   t->special, t->is_added, t->eog,     t->added,    t->prefix,  t->suffix,
                   t->rank,    t->score,    t->subword, t->word_end, t->is_byte, t->unused};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) mem_free(all[i]);
    mem_free(t);
}
