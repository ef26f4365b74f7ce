/* SPDX-License-Identifier: Apache-2.0
 * Text to ids: added tokens first, then what is between them through normalizers and pre-tokenizers to the
 * model, whose words are tokenizer_word.c's. The vocabulary is tokenizer_vocab.c's; where the rules come from
 * (tokenizer.json, GGUF) is in tokenizer_json*.c and tokenizer_gguf*.c. */
#include "common/tokenizer_encode.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>
#include "common/mem.h"

/* SentencePiece as llama.cpp has it: a space before the text and after each added token, then every space is
 * a mark. */
static void mark_spaces(const struct tokenizer *t, const char *s, size_t n, bool first, struct buf *out)
{
    if (first && t->space_prefix) buf_put(out, SPACE_MARK, 3);
    for (size_t i = 0, k; i < n; i = k + 1) {
        const char *space = memchr(s + i, ' ', n - i);
        k = space ? (size_t)(space - s) : n;
        buf_put(out, s + i, k - i);
        if (space) buf_put(out, SPACE_MARK, 3);
    }
}

static int encode_text(struct encoder *c, const char *s, size_t n, bool first)
{
    if (!n) return 0;
    struct buf text = {0};
    struct pieces l = {0};
    if (c->t->marks_spaces)
        mark_spaces(c->t, s, n, first, &text);
    else
        buf_put(&text, s, n);
    int r = text_split(&c->t->pre, &c->m, &text, first, &l, c->e);
    for (size_t i = 0; i < l.n && !r; i++) r = encode_word(c, text.p + l.v[i].off, l.v[i].len);
    mem_free(l.v);
    buf_clear(&text);
    return r;
}

/* ---- added tokens ---- */

/* The longest one that begins here. */
static const struct added *added_at(const struct tokenizer *t, const char *s, size_t n, bool normalized)
{
    const struct trie *trie = normalized ? &t->added_trie_normalized : &t->added_trie;
    const struct added *found = NULL;
    const struct trie_edge *edge;
    if (!trie->first[(unsigned char)*s]) return NULL;
    uint32_t node = 0;
    for (size_t i = 0; i < n && (edge = trie_step(trie, node, (unsigned char)s[i])); i++, node = edge->child)
        if (edge->value >= 0) found = &t->added[edge->value];
    return found;
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
        encoder_put(c, a->id);
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

/* What is left of a text: an added token, or -1, then a range in which the present tokens from k on may
 * occur. */
struct rest {
    int32_t id;
    const char *s;
    size_t n, k;
};

/* llama.cpp: the longest token takes its occurrences everywhere first, then the next one in what is left. The
 * stack holds what lies to the right. */
static int encode_partition(struct encoder *c, const char *text, size_t text_n)
{
    const struct tokenizer *t = c->t;
    struct rest *stack = NULL, r = {-1, text, text_n, 0};
    size_t depth = 0, cap = 0;
    int bad = 0;
    for (;;) {
        const struct added *a = NULL;
        const char *hit = NULL;
        if (r.id >= 0) encoder_put(c, r.id), c->after_special = true;
        for (; r.n && r.k < c->n_present && !hit; r.k++) {
            a = &t->added[c->present[r.k]];
            hit = memmem(r.s, r.n, a->text, a->len);
        }
        if (hit) {
            size_t left = (size_t)(hit - r.s), right = left + a->len;
            while (a->lstrip && left && isspace((unsigned char)r.s[left - 1])) left--;
            while (a->rstrip && right < r.n && isspace((unsigned char)r.s[right])) right++;
            stack = mem_grow(stack, &cap, depth + 1, sizeof *stack);
            stack[depth++] =
                (struct rest){a->id, r.s + right, r.n - right, r.k - 1}; /* it may be there again */
            r = (struct rest){-1, r.s, left, r.k};
            continue;
        }
        if (r.n) {
            bool first = c->after_special;
            c->after_special = false;
            bad = encode_text(c, r.s, r.n, first);
        }
        if (bad || !depth) break;
        r = stack[--depth];
    }
    mem_free(stack);
    return bad;
}

static int by_number(const void *a, const void *b)
{
    return (*(const int32_t *)a > *(const int32_t *)b) - (*(const int32_t *)a < *(const int32_t *)b);
}

static int encode_gguf(struct encoder *c, const char *s, size_t n)
{
    const struct trie *trie = &c->t->added_trie;
    bool *seen = MEM_NEW(bool, c->t->n_added + 1);
    for (size_t i = 0; i < n; i++) {
        const struct trie_edge *edge;
        uint32_t node = 0;
        if (!trie->first[(unsigned char)s[i]]) continue;
        for (size_t k = i; k < n && (edge = trie_step(trie, node, (unsigned char)s[k]));
             k++, node = edge->child) {
            if (edge->value < 0 || seen[edge->value]) continue;
            seen[edge->value] = true;
            c->present = mem_grow(c->present, &c->present_cap, c->n_present + 1, sizeof *c->present);
            c->present[c->n_present++] = edge->value;
        }
    }
    mem_free(seen);
    if (c->n_present) qsort(c->present, c->n_present, sizeof *c->present, by_number);
    c->after_special = true;
    return encode_partition(c, s, n);
}

/* ---- the calls ---- */

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, bool special, int32_t **ids,
                     size_t *n, struct err *e)
{
    struct encoder c = {.t = t, .e = e};
    struct buf repaired = {0};
    if (len > INT32_MAX / 4) return err_set(e, NT_EXIT_DATA, "%s: a text of more than 512 MiB", t->name);
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
    for (size_t i = 0; special && i < t->n_prefix; i++) encoder_put(&c, t->prefix[i]);
    int r = t->gguf ? encode_gguf(&c, text, len) : encode_added(&c, text, len, false, true);
    for (size_t i = 0; special && i < t->n_suffix; i++) encoder_put(&c, t->suffix[i]);
    matcher_close(&c.m);
    void *all[] = {c.cache, c.sym, c.heap, c.best, c.word_ids, c.present};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) mem_free(all[i]);
    buf_clear(&c.words);
    buf_clear(&c.spell);
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
int tokenizer_first(const struct tokenizer *t, int32_t *bos, struct err *e)
{
    int32_t *ids = NULL;
    size_t n = 0;
    *bos = -1;
    if (tokenizer_encode(t, "a", 1, true, &ids, &n, e)) return -1;
    if (n && t->bos >= 0 && ids[0] == t->bos) *bos = ids[0];
    mem_free(ids);
    return 0;
}
int32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}
