/* SPDX-License-Identifier: Apache-2.0
 * What happens to text before the merges: repair of UTF-8, normalizers, cutting into pieces. */
#include "common/tokenizer_text.h"
#include <string.h>
#include <utf8proc.h>
#include <stdlib.h>
#include "common/mem.h"

void buf_put(struct buf *b, const char *p, size_t n)
{
    b->p = mem_grow(b->p, &b->cap, b->n + n + 1, 1);
    if (n) memcpy(b->p + b->n, p, n);
    b->n += n;
    b->p[b->n] = 0;
}

void buf_clear(struct buf *b)
{
    mem_free(b->p);
    *b = (struct buf){0};
}

void pieces_put(struct pieces *l, size_t off, size_t len)
{
    l->v = mem_grow(l->v, &l->cap, l->n + 1, sizeof *l->v);
    l->v[l->n++] = (struct piece){off, len};
}

struct step *steps_add(struct steps *s, enum step_kind kind)
{
    s->v = mem_grow(s->v, &s->cap, s->n + 1, sizeof *s->v);
    s->v[s->n] = (struct step){.kind = kind};
    return &s->v[s->n++];
}

void steps_clear(struct steps *s)
{
    for (size_t i = 0; i < s->n; i++) {
        pcre2_code_free(s->v[i].re);
        mem_free(s->v[i].text);
    }
    mem_free(s->v);
    *s = (struct steps){0};
}

/* ---- UTF-8 ---- */

/* Length of the well-formed UTF-8 character at s, or 0 and in *bad how many bytes one U+FFFD stands for (the
 * longest beginning of a character, Unicode's recommended practice). */
static int text_char(const char *s, size_t n, int *bad)
{
    const unsigned char *p = (const unsigned char *)s;
    unsigned char c = p[0], lo = 0x80, hi = 0xBF;
    int len = c < 0x80                 ? 1
              : c >= 0xC2 && c <= 0xDF ? 2
              : c >= 0xE0 && c <= 0xEF ? 3
              : c >= 0xF0 && c <= 0xF4 ? 4
                                       : 0;
    *bad = 1;
    if (!len) return 0;
    if (c == 0xE0)
        lo = 0xA0;
    else if (c == 0xED)
        hi = 0x9F;
    else if (c == 0xF0)
        lo = 0x90;
    else if (c == 0xF4)
        hi = 0x8F;
    for (int i = 1; i < len; i++) {
        *bad = i;
        if ((size_t)i >= n || p[i] < lo || p[i] > hi) return 0;
        lo = 0x80, hi = 0xBF;
    }
    return len;
}

bool text_valid(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        int bad, k = (unsigned char)s[i] < 0x80 ? 1 : text_char(s + i, n - i, &bad);
        if (!k) return false;
        i += (size_t)k;
    }
    return true;
}

void text_repair(struct buf *out, const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        int bad, k = text_char(s + i, n - i, &bad);
        if (k)
            buf_put(out, s + i, (size_t)k);
        else
            buf_put(out, "\xEF\xBF\xBD", 3), k = bad;
        i += (size_t)k;
    }
}

bool char_is_space(int32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
           c == 0x3000;
}

bool char_is_word(int32_t c)
{
    utf8proc_category_t g = utf8proc_category(c);
    return (g >= UTF8PROC_CATEGORY_LU && g <= UTF8PROC_CATEGORY_NL) || g == UTF8PROC_CATEGORY_PC ||
           c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
           (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
}

size_t char_at(const char *s, size_t n, int32_t *c)
{
    utf8proc_int32_t v;
    utf8proc_ssize_t k = utf8proc_iterate((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &v);
    *c = v;
    return k > 0 ? (size_t)k : 1;
}

static void put_char(struct buf *b, int32_t c)
{
    utf8proc_uint8_t tmp[4];
    utf8proc_ssize_t k = utf8proc_encode_char(c, tmp);
    buf_put(b, (char *)tmp, (size_t)k);
}

/* ---- normalizers ---- */

static int unicode_form(enum step_kind kind, const char *p, size_t n, struct buf *out, struct err *e)
{
    int form = UTF8PROC_STABLE |
               (kind == STEP_NFC || kind == STEP_NFKC ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
               (kind == STEP_NFKC || kind == STEP_NFKD ? UTF8PROC_COMPAT : 0);
    utf8proc_uint8_t *r;
    utf8proc_ssize_t k =
        utf8proc_map((const utf8proc_uint8_t *)p, (utf8proc_ssize_t)n, &r, (utf8proc_option_t)form);
    if (k < 0) return err_set(e, NT_EXIT_DATA, "Unicode normalization failed: %s", utf8proc_errmsg(k));
    buf_put(out, (char *)r, (size_t)k);
    free(r);
    return 0;
}

static bool ascii_only(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)p[i] >= 0x80) return false;
    return true;
}

static int replace(const struct step *st, struct matcher *m, const char *p, size_t n, struct buf *out,
                   struct err *e)
{
    size_t from = 0, done = 0, a, b;
    int r;
    while (from <= n && (r = matcher_next(m, st->re, p, n, from, &a, &b, e)) != 0) {
        if (r < 0) return -1;
        buf_put(out, p + done, a - done);
        buf_put(out, st->text, st->len);
        done = from = b;
        if (a == b) { /* an empty match: go on after the next character */
            int32_t c;
            size_t k = b < n ? char_at(p + b, n - b, &c) : 1;
            from += k;
        }
    }
    buf_put(out, p + done, n - done);
    return 0;
}

static void strip(const struct step *st, const char *p, size_t n, struct buf *out)
{
    size_t a = 0, b = n, k;
    int32_t c;
    while (st->left && a < n && (k = char_at(p + a, n - a, &c), char_is_space(c))) a += k;
    while (st->right && b > a) {
        k = 1;
        while (k < b - a && ((unsigned char)p[b - k] & 0xC0) == 0x80) k++;
        char_at(p + b - k, k, &c);
        if (!char_is_space(c)) break;
        b -= k;
    }
    buf_put(out, p + a, b - a);
}

/* Nmt: what SentencePiece's nmt rules do. */
static void map_nmt(int32_t c, const char *p, size_t k, struct buf *out)
{
    if ((c >= 1 && c <= 8) || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F)
        return;
    if (c == 9 || c == 10 || c == 12 || c == 13 || c == 0x1680 || (c >= 0x200B && c <= 0x200F) ||
        c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD)
        buf_put(out, " ", 1);
    else
        buf_put(out, p, k);
}

static bool is_ideograph(int32_t c)
{
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
           (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) ||
           (c >= 0x2B920 && c <= 0x2CEAF) || (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

/* Everything Unicode calls "other" goes, tabs and line ends are spaces. */
static void map_clean(int32_t c, const char *p, size_t k, struct buf *out)
{
    utf8proc_category_t g = utf8proc_category(c);
    bool line = c == '\t' || c == '\n' || c == '\r';
    bool other = g == UTF8PROC_CATEGORY_CC || g == UTF8PROC_CATEGORY_CF || g == UTF8PROC_CATEGORY_CO;
    if (!c || c == 0xFFFD || (other && !line)) return;
    if (line || char_is_space(c))
        buf_put(out, " ", 1);
    else
        buf_put(out, p, k);
}

static void map_char(enum step_kind kind, int32_t c, const char *p, size_t k, struct buf *out)
{
    utf8proc_category_t g = c < 0x80 ? UTF8PROC_CATEGORY_LL : utf8proc_category(c);
    if (kind == STEP_STRIP_ACCENTS || kind == STEP_STRIP_NONSPACING) {
        utf8proc_category_t last = kind == STEP_STRIP_ACCENTS ? UTF8PROC_CATEGORY_ME : UTF8PROC_CATEGORY_MN;
        if (g < UTF8PROC_CATEGORY_MN || g > last) buf_put(out, p, k);
    } else if (kind == STEP_CJK) {
        if (is_ideograph(c)) buf_put(out, " ", 1);
        buf_put(out, p, k);
        if (is_ideograph(c)) buf_put(out, " ", 1);
    } else if (kind == STEP_CLEAN) {
        map_clean(c, p, k, out);
    } else if (kind == STEP_NMT) {
        map_nmt(c, p, k, out);
    } else if (c == 0x130) {
        buf_put(out, "i\xCC\x87", 3); /* the one character whose lower case is two */
    } else {
        put_char(out, utf8proc_tolower(c));
    }
}

static void map_chars(enum step_kind kind, const char *p, size_t n, struct buf *out)
{
    for (size_t i = 0, k; i < n; i += k) {
        int32_t c;
        k = char_at(p + i, n - i, &c);
        map_char(kind, c, p + i, k, out);
    }
}

int text_normalize(const struct steps *s, struct matcher *m, const char *p, size_t n, struct buf *out,
                   struct err *e)
{
    struct buf in = {0};
    buf_put(&in, p, n);
    int r = 0;
    for (size_t i = 0; i < s->n && !r; i++) {
        const struct step *st = &s->v[i];
        out->n = 0;
        switch (st->kind) {
        case STEP_NFC:
        case STEP_NFD:
        case STEP_NFKC:
        case STEP_NFKD:
            if (ascii_only(in.p, in.n))
                buf_put(out, in.p, in.n);
            else
                r = unicode_form(st->kind, in.p, in.n, out, e);
            break;
        case STEP_LOWER:
        case STEP_STRIP_ACCENTS:
        case STEP_STRIP_NONSPACING:
        case STEP_CLEAN:
        case STEP_CJK:
        case STEP_NMT:
            map_chars(st->kind, in.p, in.n, out);
            break;
        case STEP_CHARSMAP:
            charsmap_apply(st->text, st->len, in.p, in.n, out);
            break;
        case STEP_STRIP:
            strip(st, in.p, in.n, out);
            break;
        case STEP_PREPEND:
            if (in.n) buf_put(out, st->text, st->len);
            buf_put(out, in.p, in.n);
            break;
        default:
            r = replace(st, m, in.p, in.n, out, e);
            break;
        }
        struct buf swap = in;
        in = *out;
        *out = swap;
    }
    struct buf swap = in;
    in = *out;
    *out = swap;
    if (!out->p) buf_put(out, "", 0);
    buf_clear(&in);
    return r;
}

/* ---- cutting ---- */

/* Adds the ranges of one piece, each known to be a match or not, in the way of the behavior. */
static void put_ranges(const struct step *st, const struct pieces *cuts, const bool *hit, size_t base,
                       struct pieces *out)
{
    size_t start = SIZE_MAX; /* of a piece that still grows */
    for (size_t i = 0; i < cuts->n; i++) {
        size_t off = base + cuts->v[i].off, len = cuts->v[i].len;
        bool m = hit[i] != st->invert, more = i + 1 < cuts->n;
        bool next = more && hit[i + 1] != st->invert;
        switch (st->behavior) {
        case SPLIT_ISOLATED:
            pieces_put(out, off, len);
            break;
        case SPLIT_REMOVED:
            if (!m) pieces_put(out, off, len);
            break;
        case SPLIT_CONTIGUOUS:
            if (start == SIZE_MAX) start = off;
            if (!more || next != m) pieces_put(out, start, off + len - start), start = SIZE_MAX;
            break;
        case SPLIT_PREVIOUS: /* a match joins what came before, unless that was a match */
            if (start == SIZE_MAX) start = off;
            if (!more || m || !next) pieces_put(out, start, off + len - start), start = SIZE_MAX;
            break;
        case SPLIT_NEXT:
            if (start == SIZE_MAX) start = off;
            if (!more || !m || next) pieces_put(out, start, off + len - start), start = SIZE_MAX;
            break;
        }
    }
}

struct cutter {
    struct pieces cuts;
    bool *hit;
    size_t hit_cap;
};

static void cut(struct cutter *c, size_t off, size_t len, bool hit)
{
    if (!len) return;
    c->hit = mem_grow(c->hit, &c->hit_cap, c->cuts.n + 1, sizeof *c->hit);
    c->hit[c->cuts.n] = hit;
    pieces_put(&c->cuts, off, len);
}

static int split_piece(const struct step *st, struct matcher *m, const char *s, size_t base, size_t n,
                       struct cutter *c, struct pieces *out, struct err *e)
{
    size_t from = 0, done = 0, a, b;
    bool simple = st->behavior == SPLIT_ISOLATED; /* no need to know what matched */
    int r;
    c->cuts.n = 0;
    while (from <= n && (r = matcher_next(m, st->re, s, n, from, &a, &b, e)) != 0) {
        if (r < 0) return -1;
        if (simple) {
            if (a > done) pieces_put(out, base + done, a - done);
            if (b > a) pieces_put(out, base + a, b - a);
        } else {
            cut(c, done, a - done, false);
            cut(c, a, b - a, true);
        }
        done = from = b;
        if (a == b) {
            int32_t ch;
            from += b < n ? char_at(s + b, n - b, &ch) : 1;
        }
    }
    if (simple && n > done) pieces_put(out, base + done, n - done);
    if (simple) return 0;
    cut(c, done, n - done, false);
    put_ranges(st, &c->cuts, c->hit, base, out);
    return 0;
}

static int split_all(const struct step *st, struct matcher *m, const struct buf *text, struct pieces *l,
                     struct err *e)
{
    struct pieces out = {0};
    struct cutter c = {0};
    int r = 0;
    for (size_t i = 0; i < l->n && !r; i++)
        r = split_piece(st, m, text->p + l->v[i].off, l->v[i].off, l->v[i].len, &c, &out, e);
    mem_free(c.cuts.v);
    mem_free(c.hit);
    mem_free(l->v);
    *l = out;
    return r;
}

/* Pieces of so many characters; the last may be shorter. */
static void chunks(const struct step *st, const struct buf *text, struct pieces *l)
{
    struct pieces out = {0};
    for (size_t i = 0; i < l->n; i++) {
        size_t off = l->v[i].off, end = off + l->v[i].len;
        for (size_t k = off; k < end; off = k) {
            int32_t c;
            for (int j = 0; j < st->left && k < end; j++) k += char_at(text->p + k, end - k, &c);
            pieces_put(&out, off, k - off);
        }
    }
    mem_free(l->v);
    *l = out;
}

/* A space before each piece that has none. */
static void space_prefix(struct buf *text, struct pieces *l)
{
    struct buf out = {0};
    for (size_t i = 0; i < l->n; i++) {
        struct piece p = l->v[i];
        size_t off = out.n;
        if (text->p[p.off] != ' ') buf_put(&out, " ", 1);
        buf_put(&out, text->p + p.off, p.len);
        l->v[i] = (struct piece){off, out.n - off};
    }
    buf_clear(text);
    *text = out;
}

static void metaspace(const struct step *st, struct buf *text, bool first, struct pieces *l)
{
    struct buf out = {0};
    struct pieces done = {0};
    for (size_t i = 0; i < l->n; i++) {
        const char *s = text->p + l->v[i].off;
        size_t n = l->v[i].len, start = out.n;
        bool has = n && (s[0] == ' ' || (n >= st->len && !memcmp(s, st->text, st->len)));
        if (!has && (st->prepend == PREPEND_ALWAYS || (st->prepend == PREPEND_FIRST && first && !i)))
            buf_put(&out, st->text, st->len);
        for (size_t k = 0; k < n; k++) {
            bool mark = s[k] == ' ' || (n - k >= st->len && !memcmp(s + k, st->text, st->len));
            if (mark && st->split && out.n > start) pieces_put(&done, start, out.n - start), start = out.n;
            if (s[k] == ' ')
                buf_put(&out, st->text, st->len);
            else
                buf_put(&out, s + k, 1);
        }
        if (out.n > start) pieces_put(&done, start, out.n - start);
    }
    buf_clear(text);
    mem_free(l->v);
    *text = out;
    *l = done;
}

int text_split(const struct steps *s, struct matcher *m, struct buf *text, bool first, struct pieces *out,
               struct err *e)
{
    out->n = 0;
    if (text->n) pieces_put(out, 0, text->n);
    for (size_t i = 0; i < s->n && out->n; i++) {
        const struct step *st = &s->v[i];
        if (st->kind == STEP_SPLIT) {
            if (split_all(st, m, text, out, e)) return -1;
        } else if (st->kind == STEP_CHUNKS) {
            chunks(st, text, out);
        } else if (st->kind == STEP_SPACE_PREFIX) {
            space_prefix(text, out);
        } else {
            metaspace(st, text, first, out);
        }
    }
    return 0;
}
