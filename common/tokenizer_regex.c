/* SPDX-License-Identifier: Apache-2.0
 * Patterns of tokenizers on PCRE2. Hugging Face tokenizers use Oniguruma, whose syntax and character classes
 * differ in places: what differs is translated here, or refused by name. */
#include "common/tokenizer_impl.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include "common/mem.h"

/* \s is White_Space; PCRE2's own also holds U+180E. */
#define SPACES                                                                                               \
    "\\t-\\r\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
/* \w likewise: Oniguruma goes by Alphabetic, PCRE2 by letters. */
#define WORDS "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define PUT(b, lit) buf_put(b, lit, sizeof(lit) - 1)

struct translation {
    const char *p;
    size_t n, i;
    struct buf out;
    bool in_class;
};

static int refuse(const struct translation *t, size_t at, const char *what, struct err *e)
{
    return err_set(e, NT_EXIT_DATA, "regular expression with %s is not supported (at offset %zu of \"%.*s\")",
                   what, at, (int)(t->n < 120 ? t->n : 120), t->p);
}

static int translate_escape(struct translation *t, struct err *e)
{
    const char *p = t->p;
    size_t i = t->i, n = t->n;
    if (i + 1 >= n) return refuse(t, i, "a backslash at its end", e);
    char c = p[i + 1];
    t->i = i + 2;
    if (c == 's' && t->in_class)
        PUT(&t->out, SPACES);
    else if (c == 's')
        PUT(&t->out, "[" SPACES "]");
    else if (c == 'S' && !t->in_class)
        PUT(&t->out, "[^" SPACES "]");
    else if (c == 'w' && t->in_class)
        PUT(&t->out, WORDS);
    else if (c == 'w')
        PUT(&t->out, "[" WORDS "]");
    else if (c == 'W' && !t->in_class)
        PUT(&t->out, "[^" WORDS "]");
    else if ((c == 'p' || c == 'P') && i + 2 < n && p[i + 2] == '{') {
        const char *close = memchr(p + i, '}', n - i);
        if (!close) return refuse(t, i, "an open \\p{", e);
        t->i = (size_t)(close - p) + 1;
        buf_put(&t->out, p + i, t->i - i);
    } else if (c == 'u' && i + 6 <= n && isxdigit((unsigned char)p[i + 2])) {
        PUT(&t->out, "\\x{");
        buf_put(&t->out, p + i + 2, 4);
        PUT(&t->out, "}");
        t->i = i + 6;
    } else if (c == 'x' && i + 2 < n && p[i + 2] == '{') {
        const char *close = memchr(p + i, '}', n - i);
        if (!close) return refuse(t, i, "an open \\x{", e);
        t->i = (size_t)(close - p) + 1;
        buf_put(&t->out, p + i, t->i - i);
    } else if (isalnum((unsigned char)c) && !strchr("SdDnrtfaezAx0", c)) {
        char what[] = "\\?";
        what[1] = c;
        return refuse(t, i, what, e);
    } else {
        buf_put(&t->out, p + i, 2);
    }
    return 0;
}

/* The beginning of a group: only what both engines read alike. */
static int translate_group(struct translation *t, struct err *e)
{
    const char *p = t->p;
    size_t i = t->i;
    if (i + 2 < t->n && p[i + 1] == '?') {
        char c = p[i + 2];
        if (isalpha((unsigned char)c) || c == '-') {
            size_t k = i + 2;
            while (k < t->n && (p[k] == 'i' || p[k] == '-')) k++;
            if (k >= t->n || (p[k] != ':' && !(p[k] == ')' && i == 0)))
                return refuse(t, i, "this option group", e);
        } else if (!strchr(":=!<>", c)) {
            return refuse(t, i, "this kind of group", e);
        }
    }
    buf_put(&t->out, p + i, 1);
    t->i++;
    return 0;
}

static int translate_interval(struct translation *t, struct err *e)
{
    size_t k = t->i + 1;
    while (k < t->n && (isdigit((unsigned char)t->p[k]) || t->p[k] == ',')) k++;
    bool interval = k < t->n && t->p[k] == '}' && k > t->i + 1;
    if (interval && t->p[t->i + 1] == ',') return refuse(t, t->i, "{,n}", e);
    if (interval && k + 1 < t->n && t->p[k + 1] == '+') return refuse(t, t->i, "{n}+", e);
    buf_put(&t->out, t->p + t->i, 1);
    t->i++;
    return 0;
}

static int translate_class(struct translation *t, struct err *e)
{
    const char *p = t->p + t->i;
    size_t n = t->n - t->i, take = 1;
    if (p[0] == ']')
        t->in_class = false;
    else if (n > 1 && p[0] == '&' && p[1] == '&')
        return refuse(t, t->i, "&& in a class", e);
    else if (p[0] == '[') {
        if (n < 2 || p[1] != ':') return refuse(t, t->i, "a class in a class", e);
        take = 2;
    }
    buf_put(&t->out, p, take);
    t->i += take;
    if (take == 2)
        while (t->i < t->n && !(t->p[t->i - 1] == ':' && t->p[t->i] == ']'))
            buf_put(&t->out, t->p + t->i++, 1);
    if (take == 2 && t->i < t->n) buf_put(&t->out, t->p + t->i++, 1);
    return 0;
}

static int translate(struct translation *t, struct err *e)
{
    while (t->i < t->n) {
        char c = t->p[t->i];
        int r = 0;
        if (c == '\\')
            r = translate_escape(t, e);
        else if (t->in_class)
            r = translate_class(t, e);
        else if (c == '(')
            r = translate_group(t, e);
        else if (c == '{')
            r = translate_interval(t, e);
        else {
            buf_put(&t->out, &c, 1);
            t->i++;
            if (c == '[') {
                t->in_class = true;
                if (t->i < t->n && t->p[t->i] == '^') buf_put(&t->out, t->p + t->i++, 1);
                if (t->i < t->n && t->p[t->i] == ']') buf_put(&t->out, t->p + t->i++, 1);
            }
        }
        if (r) return -1;
    }
    return 0;
}

pcre2_code *regex_compile(const char *pattern, size_t len, bool literal, struct err *e)
{
    struct translation t = {.p = pattern, .n = len};
    pcre2_code *re = NULL;
    if (literal)
        buf_put(&t.out, pattern, len);
    else if (translate(&t, e))
        goto out;
    pcre2_compile_context *c = pcre2_compile_context_create(NULL);
    pcre2_set_newline(c, PCRE2_NEWLINE_LF);
    int code;
    PCRE2_SIZE at;
    uint32_t options = PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE);
    re = pcre2_compile((PCRE2_SPTR)(t.out.p ? t.out.p : ""), t.out.n, options, &code, &at, c);
    pcre2_compile_context_free(c);
    if (!re) {
        PCRE2_UCHAR why[128];
        pcre2_get_error_message(code, why, sizeof why);
        err_set(e, NT_EXIT_DATA, "regular expression \"%.*s\" cannot be compiled: %s",
                (int)(len < 120 ? len : 120), pattern, (char *)why);
        goto out;
    }
    pcre2_jit_compile(re, PCRE2_JIT_COMPLETE); /* where there is no JIT, pcre2_match interprets */
out:
    buf_clear(&t.out);
    return re;
}

void matcher_open(struct matcher *m)
{
    m->context = pcre2_match_context_create(NULL);
    m->data = pcre2_match_data_create(16, NULL);
    m->stack =
        pcre2_jit_stack_create(32 << 10, 64 << 20, NULL); /* grows on demand: long runs of nested groups */
    if (m->stack) pcre2_jit_stack_assign(m->context, NULL, m->stack);
}

void matcher_close(struct matcher *m)
{
    pcre2_match_data_free(m->data);
    pcre2_match_context_free(m->context);
    pcre2_jit_stack_free(m->stack);
}

int matcher_next(struct matcher *m, const pcre2_code *re, const char *s, size_t n, size_t from, size_t *start,
                 size_t *end, struct err *e)
{
    int r = pcre2_match(re, (PCRE2_SPTR)s, n, from, PCRE2_NO_UTF_CHECK, m->data, m->context);
    if (r == PCRE2_ERROR_NOMATCH) return 0;
    if (r < 0) {
        PCRE2_UCHAR why[128];
        pcre2_get_error_message(r, why, sizeof why);
        return err_set(e, NT_EXIT_DATA, "regular expression failed at byte %zu of a text: %s", from,
                       (char *)why);
    }
    const PCRE2_SIZE *o = pcre2_get_ovector_pointer(m->data);
    *start = o[0];
    *end = o[1];
    return 1;
}
