/* SPDX-License-Identifier: Apache-2.0
 * Ids back to text: the decoder chain of tokenizer.json, or llama.cpp's rule for GGUF vocabularies. */
#include "common/tokenizer_impl.h"
#include <string.h>
#include <utf8proc.h>
#include "common/mem.h"

/* The pieces of text on their way: one string per token, in one buffer. */
struct list {
    struct buf b;
    struct pieces p;
};

static void list_clear(struct list *l)
{
    buf_clear(&l->b);
    mem_free(l->p.v);
    l->p = (struct pieces){0};
}

static void list_begin(struct list *l)
{
    pieces_put(&l->p, l->b.n, 0);
}
static void list_put(struct list *l, const char *s, size_t n)
{
    buf_put(&l->b, s, n);
    l->p.v[l->p.n - 1].len += n;
}

/* A token in the byte alphabet becomes its bytes; one with any other character stays as spelled. */
static void put_bytes(struct list *out, const char *s, size_t n)
{
    size_t start = out->b.n;
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t k = utf8proc_iterate((const utf8proc_uint8_t *)s + i, (utf8proc_ssize_t)(n - i), &c);
        int b = k > 0 ? alphabet_byte(c) : -1;
        if (b < 0) {
            out->p.v[out->p.n - 1].len -= out->b.n - start;
            out->b.n = start;
            list_put(out, s, n);
            return;
        }
        char byte = (char)b;
        list_put(out, &byte, 1);
        i += (size_t)k;
    }
}

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

static int fallback_byte(const char *s, size_t n)
{
    if (n != 6 || memcmp(s, "<0x", 3) || s[5] != '>' || hex(s[3]) < 0 || hex(s[4]) < 0) return -1;
    return hex(s[3]) * 16 + hex(s[4]);
}

/* Runs of <0xHH> become characters, or one U+FFFD a byte when they are no UTF-8. */
static void byte_fallback(const struct list *in, struct list *out)
{
    for (size_t i = 0; i < in->p.n;) {
        struct buf run = {0};
        size_t k = i;
        for (int b; k < in->p.n && (b = fallback_byte(in->b.p + in->p.v[k].off, in->p.v[k].len)) >= 0; k++) {
            char byte = (char)b;
            buf_put(&run, &byte, 1);
        }
        if (k == i) {
            list_begin(out);
            list_put(out, in->b.p + in->p.v[i].off, in->p.v[i].len);
            i++;
        } else if (text_valid(run.p, run.n)) {
            list_begin(out);
            list_put(out, run.p, run.n);
        } else {
            for (size_t j = i; j < k; j++) {
                list_begin(out);
                list_put(out, "\xEF\xBF\xBD", 3);
            }
        }
        if (k > i) i = k;
        buf_clear(&run);
    }
}

static void strip_char(const struct step *st, const char *s, size_t n, struct list *out)
{
    size_t a = 0, b = n;
    for (int i = 0; i < st->left && b - a >= st->len && !memcmp(s + a, st->text, st->len); i++) a += st->len;
    for (int i = 0; i < st->right && b - a >= st->len && !memcmp(s + b - st->len, st->text, st->len); i++)
        b -= st->len;
    list_put(out, s + a, b - a);
}

/* The replacement character becomes a space, and disappears at the very beginning where encoding put it. */
static void metaspace(const struct step *st, const char *s, size_t n, bool first, struct list *out)
{
    for (size_t k = 0; k < n;) {
        if (n - k < st->len || memcmp(s + k, st->text, st->len)) {
            list_put(out, s + k++, 1);
            continue;
        }
        if (!(first && !k && st->prepend != PREPEND_NEVER)) list_put(out, " ", 1);
        k += st->len;
    }
}

static void put_replaced(struct buf *b, const char *old, const char *new)
{
    struct buf out = {0};
    const char *s = b->p, *hit, *end = b->p + b->n;
    for (; (hit = memmem(s, (size_t)(end - s), old, strlen(old))); s = hit + strlen(old)) {
        buf_put(&out, s, (size_t)(hit - s));
        buf_put(&out, new, strlen(new));
    }
    buf_put(&out, s, (size_t)(end - s));
    buf_clear(b);
    *b = out;
}

/* A piece inside of a word loses its prefix, another one gets a space; English is tidied up on demand. */
static void wordpiece(const struct step *st, const char *s, size_t n, bool first, struct list *out)
{
    static const char *const tidy[][2] = {
        {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
        {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    struct buf b = {0};
    bool inside = !first && n >= st->len && !memcmp(s, st->text, st->len);
    if (!first && !inside) buf_put(&b, " ", 1);
    buf_put(&b, inside ? s + st->len : s, inside ? n - st->len : n);
    for (size_t i = 0; st->left && i < sizeof tidy / sizeof *tidy; i++)
        put_replaced(&b, tidy[i][0], tidy[i][1]);
    list_put(out, b.p, b.n);
    buf_clear(&b);
}

static void word_end(const struct step *st, const char *s, size_t n, bool last, struct list *out)
{
    struct buf b = {0};
    buf_put(&b, s, n);
    if (st->len) put_replaced(&b, st->text, last ? "" : " ");
    list_put(out, b.p, b.n);
    buf_clear(&b);
}

static int decode_step(const struct step *st, struct matcher *m, const struct list *in, struct list *out,
                       struct err *e)
{
    if (st->kind == STEP_BYTE_FALLBACK) {
        byte_fallback(in, out);
        return 0;
    }
    if (st->kind == STEP_FUSE || st->kind == STEP_BYTES) list_begin(out); /* one string from here on */
    for (size_t i = 0; i < in->p.n; i++) {
        const char *s = in->b.p + in->p.v[i].off;
        size_t n = in->p.v[i].len;
        if (st->kind == STEP_FUSE) {
            list_put(out, s, n);
            continue;
        }
        if (st->kind == STEP_BYTES) {
            put_bytes(out, s, n);
            continue;
        }
        list_begin(out);
        if (st->kind == STEP_STRIP_CHAR)
            strip_char(st, s, n, out);
        else if (st->kind == STEP_METASPACE)
            metaspace(st, s, n, !i, out);
        else if (st->kind == STEP_WORDPIECE)
            wordpiece(st, s, n, !i, out);
        else if (st->kind == STEP_WORD_END)
            word_end(st, s, n, i + 1 == in->p.n, out);
        else { /* replace */
            struct steps one = {(struct step *)(uintptr_t)st, 1, 1};
            struct buf r = {0};
            int bad = text_normalize(&one, m, s, n, &r, e);
            if (!bad) list_put(out, r.p, r.n);
            buf_clear(&r);
            if (bad) return -1;
        }
    }
    return 0;
}

/* A token of SentencePiece in a GGUF file: marks are spaces, of which the first one is not of the text. */
static void put_marked(const struct tokenizer *t, int32_t id, bool first, struct list *l)
{
    const char *s = t->blob + t->raw[id].off;
    size_t n = t->raw[id].len, i = 0;
    int byte = t->is_byte[id] ? fallback_byte(s, n) : -1;
    char c = (char)byte;
    if (t->unused && t->unused[id]) return;
    if (byte >= 0) {
        list_put(l, &c, 1);
        return;
    }
    if (first && t->space_prefix && n >= 3 && !memcmp(s, SPACE_MARK, 3)) i = 3;
    while (i < n) {
        bool mark = n - i >= 3 && !memcmp(s + i, SPACE_MARK, 3);
        list_put(l, mark ? " " : s + i, 1);
        i += mark ? 3 : 1;
    }
}

static void put_token(const struct tokenizer *t, int32_t id, bool first, struct list *l)
{
    const struct string *raw = &t->raw[id];
    if (raw->off == SIZE_MAX) return; /* a hole in the ids */
    list_begin(l);
    if (t->gguf && !t->is_added[id] && t->marks_spaces)
        put_marked(t, id, first, l);
    else if (t->gguf && !t->is_added[id])
        put_bytes(l, t->blob + raw->off, raw->len);
    else
        list_put(l, t->blob + raw->off, raw->len);
}

int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, char **text, size_t *len,
                     struct err *e)
{
    struct list l = {0}, next = {0};
    struct matcher m;
    int r = 0;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= t->n)
            return list_clear(&l),
                   err_set(e, NT_EXIT_DATA, "%s: token id %d is outside of the vocabulary of %d", t->name,
                           ids[i], t->n);
        if (!t->gguf && !t->decoder.n && l.p.n) { /* no decoder: words apart */
            list_begin(&l);
            list_put(&l, " ", 1);
        }
        put_token(t, ids[i], !i, &l);
    }
    matcher_open(&m);
    for (size_t i = 0; i < t->decoder.n && !r; i++) {
        next.b.n = next.p.n = 0;
        r = decode_step(&t->decoder.v[i], &m, &l, &next, e);
        struct list swap = l;
        l = next;
        next = swap;
    }
    matcher_close(&m);
    struct buf out = {0};
    if (!r) text_repair(&out, l.b.p ? l.b.p : "", l.b.n);
    if (!out.p) buf_put(&out, "", 0);
    list_clear(&l);
    list_clear(&next);
    if (r) {
        buf_clear(&out);
        return err_prefix(e, "%s", t->name);
    }
    *text = out.p;
    *len = out.n;
    return 0;
}
