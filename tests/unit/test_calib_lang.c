/* SPDX-License-Identifier: Apache-2.0
 * Languages of tokens: scripts decide by themselves; Latin words whose language nobody would doubt. */
#include "common/calib_lang.h"
#include "tests/check.h"

static const struct {
    const char *list, *text, *want;
} cases[] = {
    {"en,fr", " the", "en"},    {"en,fr", "which", "en"}, {"en", " und", NULL},     {"en,de", " und", "de"},
    {"en,fr", " qui", "fr"},    {"en,zh", "世界", "zh"},  {"en", "世界", NULL},     {"ja", "世界", "ja"},
    {"zh", "こんにちは", NULL}, {"ja", "カタカナ", "ja"}, {"ru", " привет", "ru"},  {"uk", "привет", "uk"},
    {"en", "привет", NULL},     {"ar", "السلام", "ar"},   {"hi", "नमस्ते", "hi"},     {"th", "ไทย", "th"},
    {"ko", "안녕", "ko"},       {"el", " και", "el"},     {"en,zh", "世abc", NULL}, {"en", "1999", NULL},
    {"en", " ", NULL},          {"en", "", NULL},         {"en", "!?", NULL},       {"en", "a", NULL},
    {"zh", " 世1", "zh"}};

int main(void)
{
    struct err e = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lang *l = lang_open(cases[i].list, &e);
        if (!CHECK(l, "list %s (%s)", cases[i].list, e.text)) continue;
        const char *got = lang_of(l, cases[i].text, strlen(cases[i].text));
        CHECK(got ? cases[i].want && !strcmp(got, cases[i].want) : !cases[i].want, "\"%s\" of %s: %s",
              cases[i].text, cases[i].list, got ? got : "none");
        lang_close(l);
    }
    CHECK(!lang_open("en,klingon", &e) && e.code == NT_EXIT_USAGE && strstr(e.text, "klingon"), "refused: %s",
          e.text);
    return check_done();
}
