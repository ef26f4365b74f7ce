/* SPDX-License-Identifier: Apache-2.0
 * Byte pair encoding: merges by a heap, added tokens, encode. The vocabulary is tokenizer_vocab.c's; where
 * the rules come from (tokenizer.json, GGUF) is in tokenizer_json.c and tokenizer_gguf.c, text before the
 * merges in tokenizer_text.c. */
#include "common/tokenizer_impl.h"
#include <ctype.h>
#include <string.h>
#include <utf8proc.h>
#include "common/mem.h"

/* ---- words ---- */

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
    const struct merge *m = tokenizer_merge(c->t, s->id, c->sym[s->next].id);
    if (!m) return;
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
        int32_t id = tokenizer_find_bytes(t, s + i, k);
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
        int32_t id = tokenizer_find_bytes(t, s, len);
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
    struct seen *w = &c->cache[text_hash(s, len) & c->cache_mask];
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
