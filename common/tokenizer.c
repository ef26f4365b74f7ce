/* SPDX-License-Identifier: Apache-2.0
 * Byte pair encoding: the vocabulary, merges by a heap, added tokens, encode and decode. Where the rules come
 * from (tokenizer.json, GGUF) is in tokenizer_json.c and tokenizer_gguf.c, text before the merges in
 * tokenizer_text.c. */
#include "common/tokenizer_impl.h"
#include <ctype.h>
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

static uint64_t hash_bytes(const char *s, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u ^ n;
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * 0x100000001b3u;
    return h ^ (h >> 29);
}

static int32_t *hash_slot(const struct tokenizer *t, const char *s, size_t n)
{
    size_t mask = t->hash_size - 1, i = hash_bytes(s, n) & mask;
    for (; t->hash[i] >= 0; i = (i + 1) & mask) {
        const struct string *k = &t->bytes[t->hash[i]];
        if (k->len == n && !memcmp(t->blob + k->off, s, n)) break;
    }
    return &t->hash[i];
}

static int32_t find_bytes(const struct tokenizer *t, const char *s, size_t n)
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
        if (*slot < 0) *slot = (int32_t)i;
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
        t->byte_id[b] = t->byte_level || b < 0x80 ? find_bytes(t, &c, 1) : -1;
        int k = snprintf(name, sizeof name, "<0x%02X>", (unsigned)b);
        t->fallback_id[b] = find_bytes(t, name, (size_t)k);
    }
}

int32_t tokenizer_find_raw(const struct tokenizer *t, const char *s, size_t len)
{
    struct buf tmp = {0};
    bool ok = !t->byte_level || alphabet_decode(s, len, &tmp);
    int32_t id = !ok ? -1 : t->byte_level ? find_bytes(t, tmp.p ? tmp.p : "", tmp.n) : find_bytes(t, s, len);
    buf_clear(&tmp);
    return id;
}

int32_t tokenizer_extra(struct tokenizer *t, const char *s, size_t len)
{
    int32_t id = tokenizer_find_raw(t, s, len);
    if (id >= 0) return id;
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

void tokenizer_reserve_merges(struct tokenizer *t, size_t n)
{
    t->merges_size = 16;
    while (t->merges_size < 3 * n) t->merges_size *= 2;
    t->merges = MEM_NEW(struct merge, t->merges_size);
    for (size_t i = 0; i < t->merges_size; i++) t->merges[i].key = UINT64_MAX;
}

void tokenizer_add_merge(struct tokenizer *t, int32_t left, int32_t right, uint32_t rank, int32_t id,
                         bool replace)
{
    struct merge *m = merge_slot(t, merge_key(left, right));
    if (m->key == UINT64_MAX || replace) *m = (struct merge){merge_key(left, right), rank, id};
}

struct symbol {
    int32_t id, prev, next;
};
struct candidate {
    uint32_t rank;
    int32_t at, left, right, id;
};

/* Everything one call of encode needs. */
struct encoder {
    const struct tokenizer *t;
    struct err *e;
    struct matcher m;
    int32_t *ids;
    size_t n, cap;
    struct symbol *sym;
    size_t sym_cap;
    struct candidate *heap;
    size_t heap_n, heap_cap;
    /* words seen before: direct-mapped, the bytes in words, their ids in word_ids */
    struct seen {
        uint32_t word, first;
        uint16_t len, count;
    } * cache;
    size_t cache_mask;
    struct buf words;
    int32_t *word_ids;
    size_t word_ids_n, word_ids_cap;
};

static void put_id(struct encoder *c, int32_t id)
{
    if (c->n == c->cap) c->ids = mem_grow(c->ids, &c->cap, c->n + 1, sizeof *c->ids);
    c->ids[c->n++] = id;
}

static bool before(const struct candidate *a, const struct candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_push(struct encoder *c, int32_t at)
{
    const struct symbol *s = &c->sym[at];
    if (s->next < 0) return;
    const struct merge *m = merge_slot(c->t, merge_key(s->id, c->sym[s->next].id));
    if (m->key == UINT64_MAX) return;
    if (c->heap_n == c->heap_cap) c->heap = mem_grow(c->heap, &c->heap_cap, c->heap_n + 1, sizeof *c->heap);
    struct candidate v = {m->rank, at, s->id, c->sym[s->next].id, m->id};
    size_t i = c->heap_n++;
    for (; i && before(&v, &c->heap[(i - 1) / 2]); i = (i - 1) / 2) c->heap[i] = c->heap[(i - 1) / 2];
    c->heap[i] = v;
}

static struct candidate heap_pop(struct encoder *c)
{
    struct candidate top = c->heap[0], v = c->heap[--c->heap_n];
    size_t i = 0;
    for (size_t k; (k = 2 * i + 1) < c->heap_n; i = k) {
        if (k + 1 < c->heap_n && before(&c->heap[k + 1], &c->heap[k])) k++;
        if (!before(&c->heap[k], &v)) break;
        c->heap[i] = c->heap[k];
    }
    c->heap[i] = v;
    return top;
}

static void add_symbol(struct encoder *c, int32_t *n, int32_t id)
{
    if ((size_t)*n == c->sym_cap) c->sym = mem_grow(c->sym, &c->sym_cap, (size_t)*n + 1, sizeof *c->sym);
    c->sym[*n] = (struct symbol){id, *n - 1, *n + 1};
    (*n)++;
}

/* Symbols of a word in a vocabulary that is not byte-level: characters, else bytes of them, else the unknown
 * token. */
static int32_t char_symbols(struct encoder *c, const char *s, size_t len)
{
    const struct tokenizer *t = c->t;
    int32_t n = 0;
    for (size_t i = 0, k; i < len; i += k) {
        k = 1;
        while (i + k < len && ((unsigned char)s[i + k] & 0xC0) == 0x80) k++;
        int32_t id = find_bytes(t, s + i, k);
        bool fall = id < 0 && t->byte_fallback;
        for (size_t b = 0; fall && b < k; b++) fall = t->fallback_id[(unsigned char)s[i + b]] >= 0;
        if (id >= 0)
            add_symbol(c, &n, id);
        else if (fall)
            for (size_t b = 0; b < k; b++) add_symbol(c, &n, t->fallback_id[(unsigned char)s[i + b]]);
        else if (t->unk >= 0 && !(t->fuse_unk && n && c->sym[n - 1].id == t->unk))
            add_symbol(c, &n, t->unk);
    }
    return n;
}

static int32_t byte_symbols(struct encoder *c, const char *s, size_t len)
{
    int32_t n = 0;
    for (size_t i = 0; i < len; i++) {
        int32_t id = c->t->byte_id[(unsigned char)s[i]];
        if (id < 0 && !c->t->gguf) id = c->t->unk;
        if (id < 0 && c->t->gguf)
            id = -2 - (unsigned char)s[i]; /* stands in the way of merges, gives nothing */
        if (id == -1) continue;
        if (c->t->fuse_unk && id == c->t->unk && n && c->sym[n - 1].id == id) continue;
        add_symbol(c, &n, id);
    }
    return n;
}

/* A merge result that the vocabulary lacks falls apart into the ASCII characters of its spelling, as in
 * llama.cpp. */
static void put_symbol(struct encoder *c, int32_t id)
{
    const struct tokenizer *t = c->t;
    if (id < 0) return;
    if (id < t->n) {
        put_id(c, id);
        return;
    }
    const char *s = t->blob + t->bytes[id].off;
    for (uint32_t i = 0; i < t->bytes[id].len; i++)
        if (s[i] > 0x20 && s[i] < 0x7F && t->byte_id[(int)s[i]] >= 0) put_id(c, t->byte_id[(int)s[i]]);
}

static void merge_word(struct encoder *c, const char *s, size_t len)
{
    int32_t n = c->t->byte_level ? byte_symbols(c, s, len) : char_symbols(c, s, len);
    if (!n) return;
    c->sym[n - 1].next = -1;
    c->heap_n = 0;
    for (int32_t i = 0; i + 1 < n; i++) heap_push(c, i);
    while (c->heap_n) {
        struct candidate v = heap_pop(c);
        struct symbol *l = &c->sym[v.at];
        if (l->id != v.left || l->next < 0 || c->sym[l->next].id != v.right) continue; /* out of date */
        struct symbol *r = &c->sym[l->next];
        l->id = v.id;
        l->next = r->next;
        if (r->next >= 0) c->sym[r->next].prev = v.at;
        r->id = INT32_MIN; /* gone: matches no candidate */
        if (l->prev >= 0) heap_push(c, l->prev);
        heap_push(c, v.at);
    }
    for (int32_t i = 0; i >= 0; i = c->sym[i].next) put_symbol(c, c->sym[i].id);
}

static void encode_word(struct encoder *c, const char *s, size_t len)
{
    const struct tokenizer *t = c->t;
    if (t->ignore_merges) {
        int32_t id = find_bytes(t, s, len);
        if (id >= 0 && id < t->n) {
            put_id(c, id);
            return;
        }
    }
    if (len == 1 && t->byte_level && t->byte_id[(unsigned char)*s] >= 0) {
        put_symbol(c, t->byte_id[(unsigned char)*s]);
        return;
    }
    if (len > 64) {
        merge_word(c, s, len);
        return;
    }
    struct seen *w = &c->cache[hash_bytes(s, len) & c->cache_mask];
    if (w->len == len && !memcmp(c->words.p + w->word, s, len)) {
        for (uint32_t i = 0; i < w->count; i++) put_id(c, c->word_ids[w->first + i]);
        return;
    }
    size_t start = c->n;
    merge_word(c, s, len);
    size_t count = c->n - start;
    if (c->words.n > UINT32_MAX / 2 || c->word_ids_n > UINT32_MAX / 2) return;
    *w = (struct seen){(uint32_t)c->words.n, (uint32_t)c->word_ids_n, (uint16_t)len, (uint16_t)count};
    buf_put(&c->words, s, len);
    c->word_ids = mem_grow(c->word_ids, &c->word_ids_cap, c->word_ids_n + count + 1, sizeof *c->word_ids);
    if (count) memcpy(c->word_ids + c->word_ids_n, c->ids + start, count * sizeof *c->ids);
    c->word_ids_n += count;
}

static int encode_text(struct encoder *c, const char *s, size_t n, bool first)
{
    if (!n) return 0;
    struct buf text = {0};
    struct pieces l = {0};
    buf_put(&text, s, n);
    int r = text_split(&c->t->pre, &c->m, &text, first, &l, c->e);
    for (size_t i = 0; i < l.n && !r; i++) encode_word(c, text.p + l.v[i].off, l.v[i].len);
    mem_free(l.v);
    buf_clear(&text);
    return r;
}

/* ---- added tokens ---- */

void tokenizer_add_token(struct tokenizer *t, const struct added *a)
{
    size_t cap = t->n_added;
    t->added = mem_grow(t->added, &cap, t->n_added + 1, sizeof *t->added);
    t->added[t->n_added++] = *a;
    t->is_added[a->id] = true;
    if (a->len)
        (a->normalized ? t->added_first_normalized : t->added_first)[(unsigned char)a->text[0]] = true;
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

void tokenizer_finish(struct tokenizer *t)
{
    if (t->n_added) qsort(t->added, t->n_added, sizeof *t->added, by_length);
    for (size_t i = 0; i < t->n_added; i++) {
        const struct added *a = &t->added[i];
        if (t->special[a->id] && tokenizer_looks_final(a->text, a->len)) t->eog[a->id] = true;
    }
    if (t->eos >= 0) t->eog[t->eos] = true;
}

static const struct added *added_at(const struct tokenizer *t, const char *s, size_t n, bool normalized)
{
    if (!(normalized ? t->added_first_normalized : t->added_first)[(unsigned char)*s]) return NULL;
    for (size_t i = 0; i < t->n_added; i++) {
        const struct added *a = &t->added[i];
        if (a->normalized == normalized && a->len && a->len <= n && !memcmp(a->text, s, a->len)) return a;
    }
    return NULL;
}

static int32_t char_before(const char *s, size_t at)
{
    size_t k = 1;
    while (k < at && ((unsigned char)s[at - k] & 0xC0) == 0x80) k++;
    utf8proc_int32_t c = 0;
    utf8proc_iterate((const utf8proc_uint8_t *)s + at - k, (utf8proc_ssize_t)k, &c);
    return c;
}

static size_t char_after(const char *s, size_t at, size_t n, int32_t *c)
{
    utf8proc_int32_t v = 0;
    utf8proc_ssize_t k = utf8proc_iterate((const utf8proc_uint8_t *)s + at, (utf8proc_ssize_t)(n - at), &v);
    *c = v;
    return k > 0 ? (size_t)k : 1;
}

static bool stands_alone(const char *s, size_t a, size_t b, size_t n)
{
    int32_t c;
    if (a && char_is_word(char_before(s, a))) return false;
    return b == n || (char_after(s, b, n, &c), !char_is_word(c));
}

static int encode_normalized(struct encoder *c, const char *s, size_t n, bool first);

/* Leftmost-longest matches of one kind of added token; the text between goes to the next stage. */
static int encode_added(struct encoder *c, const char *s, size_t n, bool normalized, bool first)
{
    size_t done = 0;
    for (size_t i = 0; i < n;) {
        const struct added *a = added_at(c->t, s + i, n - i, normalized);
        if (!a) {
            i++;
            continue;
        }
        size_t from = i, to = i + a->len;
        i = to;
        if (a->single_word && !stands_alone(s, from, to, n)) continue;
        int32_t ch;
        while (a->lstrip && from > done && (ch = char_before(s, from), char_is_space(ch))) do
                from--;
            while (from > done && ((unsigned char)s[from] & 0xC0) == 0x80);
        for (size_t k; a->rstrip && to < n && (k = char_after(s, to, n, &ch), char_is_space(ch)); to += k) {
        }
        if (from > done &&
            (normalized ? encode_text : encode_normalized)(c, s + done, from - done, first && !done))
            return -1;
        put_id(c, a->id);
        done = to;
        if (i < done) i = done;
    }
    if (done == n) return 0;
    return (normalized ? encode_text : encode_normalized)(c, s + done, n - done, first && !done);
}

static int encode_normalized(struct encoder *c, const char *s, size_t n, bool first)
{
    if (!c->t->normalizer.n) return encode_added(c, s, n, true, first);
    struct buf out = {0};
    int r = text_normalize(&c->t->normalizer, &c->m, s, n, &out, c->e);
    if (!r) r = encode_added(c, out.p, out.n, true, first);
    buf_clear(&out);
    return r;
}

/* llama.cpp: the longest token takes its occurrences everywhere first, then the next one in what is left. */
static int encode_partition(struct encoder *c, const char *s, size_t n, size_t k)
{
    const struct tokenizer *t = c->t;
    while (n) {
        const struct added *a = NULL;
        const char *hit = NULL;
        for (; k < t->n_added && !hit; k++) {
            a = &t->added[k];
            hit = a->len ? memmem(s, n, a->text, a->len) : NULL;
        }
        if (!hit) return encode_text(c, s, n, false);
        k--; /* the rest may hold it again */
        size_t left = (size_t)(hit - s), right = left + a->len;
        size_t keep = left;
        while (a->lstrip && keep && isspace((unsigned char)s[keep - 1])) keep--;
        if (encode_partition(c, s, keep, k + 1)) return -1;
        put_id(c, a->id);
        while (a->rstrip && right < n && isspace((unsigned char)s[right])) right++;
        s += right;
        n -= right;
    }
    return 0;
}

/* ---- the calls ---- */

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, bool special, int32_t **ids,
                     size_t *n, struct err *e)
{
    struct encoder c = {.t = t, .e = e};
    struct buf repaired = {0};
    if (!text_valid(text, len)) {
        text_repair(&repaired, text, len);
        text = repaired.p;
        len = repaired.n;
    }
    size_t slots = 256;
    while (slots < len / 4 && slots < 1u << 16) slots *= 2;
    c.cache = MEM_NEW(struct seen, slots);
    c.cache_mask = slots - 1;
    matcher_open(&c.m);
    for (size_t i = 0; special && i < t->n_prefix; i++) put_id(&c, t->prefix[i]);
    int r = t->gguf ? encode_partition(&c, text, len, 0) : encode_added(&c, text, len, false, true);
    for (size_t i = 0; special && i < t->n_suffix; i++) put_id(&c, t->suffix[i]);
    matcher_close(&c.m);
    mem_free(c.cache);
    mem_free(c.sym);
    mem_free(c.heap);
    buf_clear(&c.words);
    mem_free(c.word_ids);
    buf_clear(&repaired);
    if (r) {
        mem_free(c.ids);
        return err_prefix(e, "%s", t->name);
    }
    *ids = c.ids ? c.ids : MEM_NEW(int32_t, 1);
    *n = c.n;
    return 0;
}

int tokenizer_size(const struct tokenizer *t)
{
    return t->n;
}
bool tokenizer_is_special(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n && t->special[id];
}
bool tokenizer_is_end(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n && t->eog[id];
}
int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}
int32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

void tokenizer_free(struct tokenizer *t)
{
    if (!t) return;
    for (size_t i = 0; i < t->n_added; i++) mem_free(t->added[i].text);
    steps_clear(&t->normalizer);
    steps_clear(&t->pre);
    steps_clear(&t->decoder);
    void *all[] = {t->name,    t->raw,      t->bytes, t->blob,  t->hash,   t->merges,
                   t->special, t->is_added, t->eog,   t->added, t->prefix, t->suffix};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) mem_free(all[i]);
    mem_free(t);
}
