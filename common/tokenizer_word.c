/* SPDX-License-Identifier: Apache-2.0
 * Words to ids by merging: byte pair encoding (the pair of the lowest rank first) and SentencePiece's kind of
 * it (the pair that makes the token of the best score first), both by a heap; and a memory of words. */
#include <string.h>
#include "common/mem.h"
#include "common/tokenizer_encode.h"

void encoder_put(struct encoder *c, int32_t id)
{
    if (c->n == c->cap) c->ids = mem_grow(c->ids, &c->cap, c->n + 1, sizeof *c->ids);
    c->ids[c->n++] = id;
}

/* ---- the heap ---- */

static bool before(const struct candidate *a, const struct candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

/* What two neighbours become, if anything. */
static bool candidate_of(const struct encoder *c, const char *word, const struct symbol *l,
                         const struct symbol *r, struct candidate *v)
{
    if (c->t->model == MODEL_SPM) {
        int32_t id = tokenizer_find_bytes(c->t, word + l->off, (size_t)l->len + r->len);
        if (id < 0) return false;
        *v = (struct candidate){c->t->rank[id], 0, l->id, r->id, id};
    } else {
        const struct merge *m = tokenizer_merge(c->t, l->id, r->id);
        if (!m) return false;
        *v = (struct candidate){m->rank, 0, l->id, r->id, m->id};
    }
    return true;
}

static void heap_push(struct encoder *c, const char *word, int32_t at)
{
    const struct symbol *s = &c->sym[at];
    struct candidate v;
    if (s->next < 0 || !candidate_of(c, word, s, &c->sym[s->next], &v)) return;
    v.at = at;
    if (c->heap_n == c->heap_cap) c->heap = mem_grow(c->heap, &c->heap_cap, c->heap_n + 1, sizeof *c->heap);
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

/* ---- the symbols that a word begins with ---- */

static void add_symbol(struct encoder *c, int32_t *n, int32_t id, size_t off, size_t len)
{
    if ((size_t)*n == c->sym_cap) c->sym = mem_grow(c->sym, &c->sym_cap, (size_t)*n + 1, sizeof *c->sym);
    c->sym[*n] = (struct symbol){id, *n - 1, *n + 1, (uint32_t)off, (uint32_t)len};
    (*n)++;
}

static size_t char_length(const char *s, size_t n)
{
    size_t k = 1;
    while (k < n && ((unsigned char)s[k] & 0xC0) == 0x80) k++;
    return k;
}

/* A character as the vocabulary marks it inside and at the end of a word. */
static const char *spelled(struct encoder *c, const char *word, size_t len, size_t at, size_t *size)
{
    const struct tokenizer *t = c->t;
    bool inside = at && t->subword, last = at + *size == len && t->word_end;
    if (!inside && !last) return word + at;
    c->spell.n = 0;
    if (inside) buf_put(&c->spell, t->subword, strlen(t->subword));
    buf_put(&c->spell, word + at, *size);
    if (last) buf_put(&c->spell, t->word_end, strlen(t->word_end));
    *size = c->spell.n;
    return c->spell.p;
}

/* The bytes of a character that is no token, if all of them have one. */
static bool put_fallback(struct encoder *c, int32_t *n, const char *s, size_t len)
{
    const int32_t *id = c->t->fallback_id;
    for (size_t b = 0; b < len; b++)
        if (id[(unsigned char)s[b]] < 0) return false;
    for (size_t b = 0; b < len; b++) add_symbol(c, n, id[(unsigned char)s[b]], 0, 0);
    return true;
}

/* A vocabulary that is not byte-level: characters, else bytes of them, else the unknown token, which comes
 * after such bytes when it waits for more of its kind (as in Hugging Face tokenizers). */
static int32_t char_symbols(struct encoder *c, const char *word, size_t len)
{
    const struct tokenizer *t = c->t;
    int32_t n = 0, unknown = 0;
    for (size_t i = 0, k; i < len; i += k) {
        size_t size = k = char_length(word + i, len - i);
        const char *s = spelled(c, word, len, i, &size);
        int32_t id = tokenizer_find_bytes(t, s, size);
        if (id < 0 && t->byte_fallback && put_fallback(c, &n, s, size)) continue;
        if (id < 0 && t->unk < 0) continue;
        if (unknown && (id >= 0 || !t->fuse_unk)) add_symbol(c, &n, t->unk, 0, 0), unknown = 0;
        if (id >= 0)
            add_symbol(c, &n, id, 0, 0);
        else
            unknown = 1;
    }
    if (unknown) add_symbol(c, &n, t->unk, 0, 0);
    return n;
}

static int32_t byte_symbols(struct encoder *c, const char *s, size_t len)
{
    int32_t n = 0;
    for (size_t i = 0; i < len; i++) {
        size_t size = 1;
        const char *p = spelled(c, s, len, i, &size);
        int32_t id = size == 1 ? c->t->byte_id[(unsigned char)s[i]] : tokenizer_find_bytes(c->t, p, size);
        if (id < 0 && !c->t->gguf) id = c->t->unk;
        if (id < 0 && c->t->gguf)
            id = -2 - (unsigned char)s[i]; /* stands in the way of merges, gives nothing */
        if (id == -1) continue;
        if (c->t->fuse_unk && id == c->t->unk && n && c->sym[n - 1].id == id) continue;
        add_symbol(c, &n, id, 0, 0);
    }
    return n;
}

/* llama.cpp: characters, also those that are no token: together with others they may make one. Each such has
 * an id of its own, so that no candidate takes it for another. */
static int32_t own_symbols(struct encoder *c, const char *s, size_t len)
{
    int32_t n = 0;
    for (size_t i = 0, k; i < len; i += k) {
        k = char_length(s + i, len - i);
        int32_t id = tokenizer_find_bytes(c->t, s + i, k);
        add_symbol(c, &n, id >= 0 ? id : -2 - (int32_t)i, i, k);
    }
    return n;
}

/* ---- and what becomes of them ---- */

/* A merge result that the vocabulary lacks falls apart into the ASCII characters of its spelling, as in
 * llama.cpp; a character that is no token, into bytes. */
static void put_symbol(struct encoder *c, const char *word, const struct symbol *sym)
{
    const struct tokenizer *t = c->t;
    if (sym->id >= 0 && sym->id < t->n) {
        encoder_put(c, sym->id);
    } else if (sym->id >= 0) {
        const char *s = t->blob + t->bytes[sym->id].off;
        for (uint32_t i = 0; i < t->bytes[sym->id].len; i++)
            if (s[i] > 0x20 && s[i] < 0x7F && t->byte_id[(int)s[i]] >= 0)
                encoder_put(c, t->byte_id[(int)s[i]]);
    } else {
        for (uint32_t i = 0; i < sym->len; i++) {
            unsigned char b = (unsigned char)word[sym->off + i];
            int32_t id = t->fallback_id[b] >= 0 ? t->fallback_id[b]
                         : t->byte_id[b] >= 0   ? t->byte_id[b]
                                                : t->unk;
            if (id >= 0) encoder_put(c, id);
        }
    }
}

static void merge_word(struct encoder *c, const char *s, size_t len)
{
    const struct tokenizer *t = c->t;
    int32_t n = t->byte_level ? byte_symbols(c, s, len)
                : t->gguf     ? own_symbols(c, s, len)
                              : char_symbols(c, s, len);
    if (!n) return;
    c->sym[n - 1].next = -1;
    c->heap_n = 0;
    for (int32_t i = 0; i + 1 < n; i++) heap_push(c, s, i);
    while (c->heap_n) {
        struct candidate v = heap_pop(c);
        struct symbol *l = &c->sym[v.at];
        if (l->id != v.left || l->next < 0 || c->sym[l->next].id != v.right) continue; /* out of date */
        struct symbol *r = &c->sym[l->next];
        l->id = v.id;
        l->len += r->len;
        l->next = r->next;
        if (r->next >= 0) c->sym[r->next].prev = v.at;
        r->id = INT32_MIN; /* gone: matches no candidate */
        if (l->prev >= 0) heap_push(c, s, l->prev);
        heap_push(c, s, v.at);
    }
    for (int32_t i = 0; i >= 0; i = c->sym[i].next) put_symbol(c, s, &c->sym[i]);
}

static int word_ids(struct encoder *c, const char *s, size_t len)
{
    const struct tokenizer *t = c->t;
    if (t->model != MODEL_BPE && t->model != MODEL_SPM) return encode_pieces(c, s, len);
    bool whole = t->ignore_merges || (t->whole_lines && strspn(s, "\n") >= len);
    int32_t id = whole ? tokenizer_find_bytes(t, s, len) : -1;
    if (id >= 0 && id < t->n)
        encoder_put(c, id);
    else
        merge_word(c, s, len);
    return 0;
}

static int remembered_word(struct encoder *c, const char *s, size_t len)
{
    if (len == 1 && c->t->byte_level && c->t->byte_id[(unsigned char)*s] >= 0 && !c->t->word_end) {
        put_symbol(c, s, &(struct symbol){.id = c->t->byte_id[(unsigned char)*s]});
        return 0;
    }
    if (len > 64) return word_ids(c, s, len);
    struct seen *w = &c->cache[text_hash(s, len) & c->cache_mask];
    if (w->len == len && !memcmp(c->words.p + w->word, s, len)) {
        for (uint32_t i = 0; i < w->count; i++) encoder_put(c, c->word_ids[w->first + i]);
        return 0;
    }
    size_t start = c->n;
    if (word_ids(c, s, len)) return -1;
    size_t count = c->n - start;
    if (c->words.n > UINT32_MAX / 2 || c->word_ids_n > UINT32_MAX / 2) return 0;
    *w = (struct seen){(uint32_t)c->words.n, (uint32_t)c->word_ids_n, (uint16_t)len, (uint16_t)count};
    buf_put(&c->words, s, len);
    c->word_ids = mem_grow(c->word_ids, &c->word_ids_cap, c->word_ids_n + count + 1, sizeof *c->word_ids);
    if (count) memcpy(c->word_ids + c->word_ids_n, c->ids + start, count * sizeof *c->ids);
    c->word_ids_n += count;
    return 0;
}

int encode_word(struct encoder *c, const char *s, size_t len)
{
    if (!c->t->cuts) return remembered_word(c, s, len);
    for (size_t i = 0, k; i < len; i = k) { /* marks, then what is up to the next mark */
        for (k = i; len - k >= 3 && !memcmp(s + k, SPACE_MARK, 3);) k += 3;
        const char *mark = memmem(s + k, len - k, SPACE_MARK, 3);
        k = mark ? (size_t)(mark - s) : len;
        if (remembered_word(c, s + i, k - i)) return -1;
    }
    return 0;
}
