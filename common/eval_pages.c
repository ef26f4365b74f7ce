/* SPDX-License-Identifier: Apache-2.0
 * The protocol lm-eval-word: the task "wikitext" of lm-evaluation-harness. Pages, spelled as people write, in
 * rolling windows of all positions that the model has; perplexity per word and byte of the page as it lies.
 */
#include <math.h>
#include <string.h>
#include "common/eval.h"
#include "common/mem.h"
#include "common/tokenizer_text.h"

struct page {
    size_t words, bytes;
    int windows; /* of the set, in order */
};
struct pages {
    int n;
    struct page *page;
    size_t cap;
};

void pages_free(struct pages *p)
{
    if (p) mem_free(p->page);
    mem_free(p);
}

/* ---- spelling ---- */

static void swap_in(struct buf *b, struct buf *out)
{
    struct buf t = *b;
    *b = *out;
    *out = t;
    out->n = 0;
}

static void replace_all(struct buf *b, struct buf *out, const char *old, const char *new)
{
    const char *s = b->p, *end = b->p + b->n, *hit;
    out->n = 0;
    for (; (hit = memmem(s, (size_t)(end - s), old, strlen(old))); s = hit + strlen(old)) {
        buf_put(out, s, (size_t)(hit - s));
        buf_put(out, new, strlen(new));
    }
    buf_put(out, s, (size_t)(end - s));
    swap_in(b, out);
}

/* White space as Python's re sees it; the character's length, or 0. */
static size_t space_at(const char *s, size_t n)
{
    int32_t c;
    size_t k = char_at(s, n, &c);
    return char_is_space(c) || (c >= 0x1C && c <= 0x1F) ? k : 0;
}

static const char *skip_spaces(const char *s, const char *end)
{
    for (size_t k; s < end && (k = space_at(s, (size_t)(end - s))); s += k) {
    }
    return s;
}

static const char *drop_spaces(const char *s, const char *end)
{
    while (end > s) {
        const char *last = end - 1;
        while (last > s && ((unsigned char)*last & 0xC0) == 0x80) last--;
        if (!space_at(last, (size_t)(end - last))) break;
        end = last;
    }
    return end;
}

/* No space inside of a pair of marks. */
static void tighten(struct buf *b, struct buf *out, char open, char close)
{
    const char *s = b->p, *end = b->p + b->n;
    out->n = 0;
    for (;;) {
        const char *from = memchr(s, open, (size_t)(end - s));
        const char *to = from ? memchr(from + 1, close, (size_t)(end - from - 1)) : NULL;
        if (!to) break;
        const char *a = skip_spaces(from + 1, to), *z = drop_spaces(a, to);
        buf_put(out, s, (size_t)(from + 1 - s));
        buf_put(out, a, (size_t)(z - a));
        buf_put(out, to, 1);
        s = to + 1;
    }
    buf_put(out, s, (size_t)(end - s));
    swap_in(b, out);
}

/* The tokens of WikiText back to prose, by the harness's rules in its order. */
static void spell(struct buf *b)
{
    static const char *const first[][2] = {{" @-@ ", "-"}, {" @,@ ", ","}, {" @.@ ", "."},
                                           {" : ", ": "},  {" ; ", "; "},  {" . ", ". "},
                                           {" ! ", "! "},  {" ? ", "? "},  {" , ", ", "}};
    static const char *const last[][2] = {
        {"= = = =", "===="}, {"= = =", "==="}, {"= =", "=="},  {" \xC2\xB0 ", "\xC2\xB0"},
        {" \n", "\n"},       {"\n ", "\n"},    {" N ", " 1 "}, {" 's", "'s"}};
    static const char marks[][2] = {{'(', ')'}, {'[', ']'}, {'{', '}'}, {'"', '"'}, {'\'', '\''}};
    struct buf out = {0};
    replace_all(b, &out, "s '", "s'");
    for (char digit[] = "/' 0/"; digit[3] <= '9'; digit[3]++)
        replace_all(b, &out, digit, "/'[0-9]/"); /* sic */
    for (size_t i = 0; i < sizeof first / sizeof *first; i++) replace_all(b, &out, first[i][0], first[i][1]);
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) tighten(b, &out, marks[i][0], marks[i][1]);
    for (size_t i = 0; i < sizeof last / sizeof *last; i++) replace_all(b, &out, last[i][0], last[i][1]);
    buf_clear(&out);
}

/* Parts between runs of white space, empty ones at the ends included. */
static size_t count_words(const char *s, size_t n)
{
    size_t words = 1;
    const char *end = s + n;
    while (s < end) {
        const char *next = skip_spaces(s, end);
        words += next > s;
        int32_t c;
        s = next > s ? next : s + char_at(s, (size_t)(end - s), &c);
    }
    return words;
}

/* ---- pages and windows ---- */

/* " = Title = ", of the first level. */
static bool begins_page(const char *s, size_t n)
{
    struct buf b = {0}, out = {0};
    buf_put(&b, s, n);
    replace_all(&b, &out, "= = =", "===");
    replace_all(&b, &out, "= =", "==");
    const char *a = skip_spaces(b.p, b.p + b.n), *z = drop_spaces(a, b.p + b.n);
    bool yes = z - a >= 2 && a[0] == '=' && a[1] == ' ' && z[-1] == '=' && z[-2] == ' ';
    buf_clear(&b), buf_clear(&out);
    return yes;
}

/* n ids and the one behind them: scores the last k predictions. */
static void add_window(struct score_set *set, const int32_t *input, int n, int k)
{
    int32_t *target = MEM_NEW(int32_t, n);
    for (int i = 0; i < n; i++) target[i] = i >= n - k ? input[i + 1] : -1;
    score_add(set, input, target, n);
    mem_free(target);
}

/* The first window begins with the prefix; the last one is as long as the others and scores what is left. */
static int add_windows(struct score_set *set, const int32_t *ids, size_t n, int longest)
{
    size_t done = n < (size_t)longest ? n : (size_t)longest;
    int windows = 1;
    add_window(set, ids, (int)done, (int)done);
    for (size_t k; done < n; done += k, windows++) {
        k = n - done < (size_t)longest ? n - done : (size_t)longest;
        add_window(set, ids + done + k - (size_t)longest, longest, (int)k);
    }
    return windows;
}

static int add_page(struct pages *p, const char *s, size_t n, const struct tokenizer *tok, int32_t prefix,
                    int longest, struct score_set *set, struct err *e)
{
    struct buf b = {0};
    int32_t *ids = NULL;
    size_t n_ids = 0;
    text_repair(&b, s, n);
    struct page page = {count_words(b.p, b.n), n, 0};
    spell(&b);
    int rc = tokenizer_encode(tok, b.p, b.n, false, &ids, &n_ids, e);
    if (!rc && n_ids) {
        int32_t *all = MEM_NEW(int32_t, n_ids + 1);
        all[0] = prefix;
        memcpy(all + 1, ids, n_ids * sizeof *ids);
        page.windows = add_windows(set, all, n_ids, longest);
        mem_free(all);
    }
    mem_free(ids), buf_clear(&b);
    p->page = mem_grow(p->page, &p->cap, (size_t)p->n + 1, sizeof *p->page);
    p->page[p->n++] = page;
    return rc;
}

/* The end of the page that begins at *at: before the next title, without its line end. Empty lines before the
 * first title are of no page. */
static size_t page_end(const char *text, size_t *at, size_t len, size_t *next)
{
    bool blank = true; /* so far */
    for (size_t i = *at, line; i <= len; i = line + 1) {
        const char *nl = memchr(text + i, '\n', len - i);
        line = nl ? (size_t)(nl - text) : len;
        if (begins_page(text + i, line - i)) {
            *next = i;
            if (!blank) return i - 1;
            *at = i;
        }
        blank = blank && skip_spaces(text + i, text + line) == text + line;
    }
    *next = len + 1;
    return len;
}

struct pages *pages_read(const char *path, const int64_t range[2], const struct tokenizer *tok, int longest,
                         struct score_set *set, char rule[160], struct err *e)
{
    struct pages *p = MEM_NEW(struct pages, 1);
    int32_t prefix = tokenizer_bos(tok) >= 0 ? tokenizer_bos(tok) : tokenizer_eos(tok);
    char *text = NULL;
    size_t len = 0, next;
    int64_t page = 0;
    int rc =
        prefix < 0 ? err_set(e, NT_EXIT_DATA, "lm-eval-word: the vocabulary has neither BOS nor EOS") : 0;
    if (!rc) rc = eval_read_text(path, &text, &len, e);
    if (!rc) eval_unify_line_ends(text, &len);
    for (size_t at = 0; at < len && page < range[1] && !rc; at = next, page++) {
        size_t end = page_end(text, &at, len, &next);
        if (page >= range[0]) rc = add_page(p, text + at, end - at, tok, prefix, longest, set, e);
    }
    mem_free(text);
    if (!rc && !set->n) rc = err_set(e, NT_EXIT_DATA, "%s: holds no page of this range", path);
    snprintf(rule, 160, "%d pages, %s before each", p->n, prefix == tokenizer_bos(tok) ? "BOS" : "EOS");
    if (!rc) return p;
    pages_free(p);
    return NULL;
}

/* ---- rows ---- */

/* -log p per word or byte over all pages: a ratio of sums, with its standard error over pages. */
static double ratio(const struct pages *p, const double *nll, bool bytes, double *se, uint64_t *total)
{
    double sum = 0, of = 0, square = 0;
    for (int i = 0; i < p->n; i++) sum += nll[i], of += (double)(bytes ? p->page[i].bytes : p->page[i].words);
    for (int i = 0; i < p->n; i++) {
        double d = nll[i] - sum / of * (double)(bytes ? p->page[i].bytes : p->page[i].words);
        square += d * d;
    }
    *se = p->n > 1 ? sqrt(square * p->n / (p->n - 1)) / of : NAN;
    *total = (uint64_t)of;
    return sum / of;
}

void pages_rows(struct eval_table *t, const struct pages *p, const struct score_set *set,
                const char *protocol)
{
    double *nll = MEM_NEW(double, p->n), se;
    int page = 0, left = p->page[0].windows;
    uint64_t n;
    for (int i = 0; i < set->n; i++)
        for (int s = 0; s < set->batch[i].B; s++, left--) {
            const struct score_batch *b = &set->batch[i];
            while (!left) left = p->page[++page].windows;
            for (int r = s * b->T; r < (s + 1) * b->T; r++) nll[page] += b->nll[r];
        }
    double word = ratio(p, nll, false, &se, &n);
    eval_add(t, (struct eval_row){"word_ppl", protocol, -1, exp(word), exp(word) * se, n});
    double byte = ratio(p, nll, true, &se, &n);
    eval_add(t, (struct eval_row){"byte_ppl", protocol, -1, exp(byte), exp(byte) * se, n});
    eval_add(t, (struct eval_row){"bits_per_byte", protocol, -1, byte / log(2), se / log(2), n});
    mem_free(nll);
}
