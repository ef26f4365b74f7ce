/* SPDX-License-Identifier: Apache-2.0
 * Script first, then fingerprints among the languages of Latin script that make up most of any text corpus.
 * More fingerprints would be worse: a word of four letters is always likeliest in one of 170 languages nobody
 * meant. */
#include "common/calib_lang.h"
#include <libexttextcat/textcat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "common/mem.h"
#include "common/tokenizer_impl.h"

#ifndef NT_TEXTCAT_DIR
#define NT_TEXTCAT_DIR "/usr/share/libexttextcat/" /* Debian: libexttextcat-data */
#endif

static const struct {
    const char *script, *languages;
} SCRIPTS[] = {{"Han", "zh ja"},
               {"Hiragana}\\p{Katakana", "ja"},
               {"Hangul", "ko"},
               {"Cyrillic", "ru uk bg sr mk be kk ky tg mn"},
               {"Arabic", "ar fa ur sd ug"},
               {"Hebrew", "he yi"},
               {"Greek", "el"},
               {"Devanagari", "hi mr ne sa"},
               {"Bengali", "bn"},
               {"Gurmukhi", "pa"},
               {"Gujarati", "gu"},
               {"Tamil", "ta"},
               {"Telugu", "te"},
               {"Kannada", "kn"},
               {"Malayalam", "ml"},
               {"Sinhala", "si"},
               {"Thai", "th"},
               {"Lao", "lo"},
               {"Myanmar", "my"},
               {"Khmer", "km"},
               {"Tibetan", "bo"},
               {"Georgian", "ka"},
               {"Armenian", "hy"},
               {"Ethiopic", "am ti"},
               {"Latin", ""}};
enum { N_SCRIPTS = sizeof SCRIPTS / sizeof *SCRIPTS, LATIN = N_SCRIPTS - 1 };

static const char LATIN_LANGUAGES[] = "en es pt fr de it nl pl ro sv da nb cs hu fi tr vi id";

struct lang {
    char *allowed;             /* " en es " */
    pcre2_code *re[N_SCRIPTS]; /* every letter is of the script */
    struct matcher m;
    void *cat;
    char found[12];
};

static bool listed(const char *list, const char *code, size_t n)
{
    for (const char *s = list; (s = strstr(s, code)); s++)
        if ((s == list || s[-1] == ' ') && (s[n] == ' ' || !s[n])) return true;
    return false;
}

static bool known(const char *code)
{
    bool yes = listed(LATIN_LANGUAGES, code, strlen(code));
    for (int i = 0; i < N_SCRIPTS; i++) yes |= listed(SCRIPTS[i].languages, code, strlen(code));
    return yes;
}

static int parse_list(struct lang *l, const char *list, struct err *e)
{
    struct buf b = {0};
    buf_put(&b, " ", 1);
    for (const char *s = list, *end; *s; s = *end ? end + 1 : end) {
        char code[9] = "";
        end = strchr(s, ',');
        if (!end) end = s + strlen(s);
        snprintf(code, sizeof code, "%.*s", (int)(end - s), s);
        if (!*code || !known(code)) {
            buf_clear(&b);
            return err_set(e, NT_EXIT_USAGE, "--languages: \"%.*s\" is no language this program can tell",
                           (int)(end - s), s);
        }
        buf_put(&b, code, strlen(code));
        buf_put(&b, " ", 1);
    }
    l->allowed = b.p;
    return 0;
}

/* The library reads its list of fingerprints from a file only. */
static int open_fingerprints(struct lang *l, struct err *e)
{
    char path[64];
    int fd = memfd_create("languages", MFD_CLOEXEC);
    if (fd < 0) return err_set(e, NT_EXIT_DEVICE, "no memory file for the list of languages");
    for (const char *s = LATIN_LANGUAGES; s; s = strchr(s, ' ') ? strchr(s, ' ') + 1 : NULL)
        dprintf(fd, "%.2s.lm %.2s\n", s, s);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    l->cat = access(NT_TEXTCAT_DIR "en.lm", R_OK) ? NULL : special_textcat_Init(path, NT_TEXTCAT_DIR);
    close(fd);
    if (!l->cat)
        return err_set(e, NT_EXIT_DATA, "no language fingerprints in %s (Debian: libexttextcat-data)",
                       NT_TEXTCAT_DIR);
    textcat_SetProperty(l->cat, TCPROP_UTF8AWARE, 1);
    textcat_SetProperty(l->cat, TCPROP_MINIMUM_DOCUMENT_SIZE, 1);
    return 0;
}

struct lang *lang_open(const char *list, struct err *e)
{
    struct lang *l = MEM_NEW(struct lang, 1);
    matcher_open(&l->m);
    bool ok = !parse_list(l, list, e) && !open_fingerprints(l, e);
    for (int i = 0; i < N_SCRIPTS && ok; i++) {
        char *pattern = mem_printf("^(?:\\P{L}*[\\p{%s}])+\\P{L}*$", SCRIPTS[i].script);
        l->re[i] = regex_compile(pattern, strlen(pattern), false, e);
        ok = l->re[i] != NULL;
        mem_free(pattern);
    }
    if (ok) return l;
    lang_close(l);
    return NULL;
}

void lang_close(struct lang *l)
{
    if (!l) return;
    for (int i = 0; i < N_SCRIPTS; i++) pcre2_code_free(l->re[i]);
    matcher_close(&l->m);
    if (l->cat) textcat_Done(l->cat);
    mem_free(l->allowed);
    mem_free(l);
}

/* The fingerprints hold few capitals and no single letter says anything. */
static const char *latin(struct lang *l, const char *token, size_t token_len)
{
    char text[64];
    size_t len = 0;
    for (size_t i = 0; i < token_len && len < sizeof text; i++) {
        unsigned char c = (unsigned char)token[i];
        if (c >= 'A' && c <= 'Z') c |= 0x20;
        if ((c >= 'a' && c <= 'z') || c >= 0x80) text[len++] = (char)c;
    }
    if (len < 2) return NULL;
    candidate_t *c = textcat_GetClassifyFullOutput(l->cat);
    int n = textcat_ClassifyFull(l->cat, text, len, c), best = 0;
    for (int i = 1; i < n; i++)
        if (c[i].score < c[best].score) best = i;
    bool yes = n > 0 && listed(l->allowed, c[best].name, strlen(c[best].name));
    if (yes) snprintf(l->found, sizeof l->found, "%s", c[best].name);
    textcat_ReleaseClassifyFullOutput(l->cat, c);
    return yes ? l->found : NULL;
}

const char *lang_of(struct lang *l, const char *text, size_t len)
{
    struct err e = {0};
    size_t a, b;
    for (int i = 0; i < N_SCRIPTS; i++) {
        if (matcher_next(&l->m, l->re[i], text, len, 0, &a, &b, &e) != 1) continue;
        if (i == LATIN) return latin(l, text, len);
        for (const char *s = SCRIPTS[i].languages; s; s = strchr(s, ' ') ? strchr(s, ' ') + 1 : NULL) {
            snprintf(l->found, sizeof l->found, "%.2s", s);
            if (listed(l->allowed, l->found, 2)) return l->found;
        }
        return NULL;
    }
    return NULL;
}
