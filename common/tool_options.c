/* SPDX-License-Identifier: Apache-2.0
 * The option table: getopt_long, checked values, and the text of -h. The first paragraph of -h is what the
 * SYNOPSIS of the man page must say (tests/cli/all/usage.sh). */
#include "common/mem.h"
#include "common/model_keys.h"
#include "common/tool_priv.h"
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_OPTS 96
#define WIDTH 100
#define FIRST_OPT 1000 /* getopt's number of the first option; above any letter */

struct table {
    struct opt o[MAX_OPTS];
    int n;
};

static bool has_name(const struct table *t, const char *name)
{
    for (int i = 0; i < t->n; i++)
        if (!strcmp(t->o[i].name, name)) return true;
    return false;
}

static bool has_letter(const struct table *t, int letter)
{
    for (int i = 0; i < t->n; i++)
        if (t->o[i].letter == letter) return true;
    return false;
}

/* The tool's own options first: they win over a common one of the same name or letter. */
static void add_options(struct table *t, const struct opt *o)
{
    for (; o && o->name; o++) {
        assert(t->n < MAX_OPTS);
        if (has_name(t, o->name)) continue;
        t->o[t->n] = *o;
        if (o->letter && has_letter(t, o->letter)) t->o[t->n].letter = 0;
        t->n++;
    }
}

/* "BITS=2..8" -> length of "BITS" and the range; either end of it may be missing */
static int arg_range(const char *arg, double *lo, double *hi)
{
    const char *eq = strchr(arg, '='), *dots = eq ? strstr(eq, "..") : NULL;
    *lo = -INFINITY, *hi = INFINITY;
    if (!dots) return (int)strlen(arg);
    if (dots > eq + 1) *lo = strtod(eq + 1, NULL);
    if (dots[2]) *hi = strtod(dots + 2, NULL);
    return (int)(eq - arg);
}

static void check_range(const struct opt *o, double v, const char *text)
{
    double lo, hi;
    arg_range(o->arg, &lo, &hi);
    if (v >= lo && v <= hi) return;
    if (hi == INFINITY) die_usage("--%s: %s is too small (at least %g)", o->name, text, lo);
    if (lo == -INFINITY) die_usage("--%s: %s is too large (at most %g)", o->name, text, hi);
    die_usage("--%s: %s is not in %g..%g", o->name, text, lo, hi);
}

static bool parse_i64(const char *s, int64_t *v)
{
    char *end;
    errno = 0;
    long long x = strtoll(s, &end, 10);
    if (errno || end == s || *end || isspace((unsigned char)*s)) return false;
    *v = x;
    return true;
}

static bool parse_f64(const char *s, double *v)
{
    char *end;
    errno = 0;
    *v = strtod(s, &end);
    return !errno && end != s && !*end && isfinite(*v) && !isspace((unsigned char)*s);
}

static bool parse_size(const char *s, uint64_t *v)
{
    char *end;
    double x = strtod(s, &end);
    static const char suffix[] = "KMGT";
    if (end == s || !isfinite(x) || x < 0 || !isdigit((unsigned char)*s)) return false;
    const char *at = *end ? strchr(suffix, toupper((unsigned char)*end)) : NULL;
    if (at) {
        for (int i = 0; i <= at - suffix; i++) x *= 1024;
        end++;
        if (*end == 'i') end++;
        if (*end == 'B') end++;
    }
    if (*end || x >= 0x1p63) return false;
    *v = (uint64_t)x;
    return true;
}

static bool parse_range(const char *s, int64_t v[2])
{
    char *colon = strchr(s, ':'), head[32];
    if (!colon || colon - s >= (long)sizeof head) return false;
    snprintf(head, sizeof head, "%.*s", (int)(colon - s), s);
    v[0] = 0, v[1] = INT64_MAX;
    if (head[0] && !parse_i64(head, &v[0])) return false;
    if (colon[1] && !parse_i64(colon + 1, &v[1])) return false;
    return v[0] >= 0 && v[1] > v[0];
}

static bool parse_ratio(const char *s, double *v)
{
    char head[64];
    const char *slash = strchr(s, '/');
    double below;
    if (!slash) return parse_f64(s, v);
    if (slash - s >= (long)sizeof head) return false;
    snprintf(head, sizeof head, "%.*s", (int)(slash - s), s);
    if (!parse_f64(head, v) || !parse_f64(slash + 1, &below) || below == 0) return false;
    *v /= below;
    return true;
}

static bool is_choice(const char *choices, const char *s)
{
    size_t n = strlen(s);
    for (const char *c = choices; c; c = strchr(c, '|') ? strchr(c, '|') + 1 : NULL)
        if (n && !strncmp(c, s, n) && (c[n] == '|' || !c[n])) return true;
    return false;
}

static void set_option(const struct opt *o, const char *s)
{
    switch (o->type) {
    case OPT_FLAG:
        *(bool *)o->value = true;
        break;
    case OPT_STR:
        if (!*s) die_usage("--%s: an empty argument", o->name);
        *(const char **)o->value = s;
        break;
    case OPT_INT:
        if (!parse_i64(s, o->value)) die_usage("--%s: '%s' is not a whole number", o->name, s);
        check_range(o, (double)*(int64_t *)o->value, s);
        break;
    case OPT_F64:
        if (!parse_f64(s, o->value)) die_usage("--%s: '%s' is not a number", o->name, s);
        check_range(o, *(double *)o->value, s);
        break;
    case OPT_SIZE:
        if (!parse_size(s, o->value)) die_usage("--%s: '%s' is not a size such as 500M or 2G", o->name, s);
        break;
    case OPT_CHOICE:
        if (!is_choice(o->arg, s)) die_usage("--%s: '%s' is not one of %s", o->name, s, o->arg);
        *(const char **)o->value = s;
        break;
    case OPT_RANGE:
        if (!parse_range(s, o->value)) die_usage("--%s: '%s' is not a range A:B with A < B", o->name, s);
        break;
    case OPT_RATIO:
        if (!parse_ratio(s, o->value))
            die_usage("--%s: '%s' is not a ratio such as 1/8 or 0.125", o->name, s);
        check_range(o, *(double *)o->value, s);
        break;
    }
}

static void print_size(uint64_t v)
{
    int unit = 0;
    for (; v % 1024 == 0 && unit < 4; unit++) v /= 1024;
    printf(" (default %llu%.*s)", (unsigned long long)v, unit ? 1 : 0, &"BKMGT"[unit]);
}

static void print_default(const struct opt *o)
{
    const char *s = o->type == OPT_STR || o->type == OPT_CHOICE ? *(const char **)o->value : NULL;
    const int64_t *r = o->value;
    if (s) printf(" (default %s)", s);
    if (o->type == OPT_INT) printf(" (default %lld)", (long long)*r);
    if ((o->type == OPT_F64 || o->type == OPT_RATIO) && !isnan(*(double *)o->value))
        printf(" (default %g)", *(double *)o->value);
    if (o->type == OPT_SIZE && *(uint64_t *)o->value) print_size(*(uint64_t *)o->value);
    if (o->type == OPT_RANGE && (r[0] || r[1] != INT64_MAX))
        printf(" (default %lld:%lld)", (long long)r[0], (long long)r[1]);
}

/* One word of the synopsis, wrapped and indented. */
static void usage_word(int *column, int indent, const char *word)
{
    int n = (int)strlen(word);
    if (*column > indent && *column + 1 + n > WIDTH)
        *column = printf("\n%*s", indent, "") - 1;
    else
        *column += printf(" ");
    *column += printf("%s", word);
}

static void print_usage(const struct table *t, const char *operands, const char *summary)
{
    double lo, hi;
    int column = printf("usage: %s", tool_name), indent = column;
    for (int i = 0; i < t->n; i++) {
        const struct opt *o = &t->o[i];
        char dash[72];
        if (o->letter)
            snprintf(dash, sizeof dash, "-%c", o->letter);
        else
            snprintf(dash, sizeof dash, "--%s", o->name);
        char *word = o->arg ? mem_printf("[%s %.*s]", dash, arg_range(o->arg, &lo, &hi), o->arg)
                            : mem_printf("[%s]", dash);
        usage_word(&column, indent, word);
        mem_free(word);
    }
    if (operands && *operands) usage_word(&column, indent, operands);
    printf("\n\n%s\n\n", summary);
    for (int i = 0; i < t->n; i++) {
        const struct opt *o = &t->o[i];
        int arg = o->arg ? arg_range(o->arg, &lo, &hi) : 0, w;
        w = o->letter ? printf("  -%c, --%s", o->letter, o->name) : printf("      --%s", o->name);
        if (arg) w += printf(" %.*s", arg, o->arg);
        printf("%*s%s", w < 30 ? 30 - w : 2, "", o->help);
        if (arg && o->arg[arg]) printf(" [%s]", o->arg + arg + 1);
        if (strcmp(o->name, "threads")) print_default(o);
        putchar('\n');
    }
}

/* getopt only says that something is wrong; find the words for it. */
static void bad_option(char **argv, bool missing)
{
    const char *word = argv[optind - 1];
    if (missing) die_usage("%s needs an argument", word);
    if (optopt >= FIRST_OPT) die_usage("'%s': this option takes no argument", word);
    if (word[0] == '-' && word[1] == '-') die_usage("unknown option '%s'", word);
    die_usage("unknown option '-%c'", optopt);
}

static void run_getopt(struct tool *t, const struct table *tab, int argc, char **argv)
{
    struct option lo[MAX_OPTS + 1] = {{0}};
    char letters[2 * MAX_OPTS + 2] = ":";
    int n = 1, k;
    for (int i = 0; i < tab->n; i++) {
        lo[i] = (struct option){tab->o[i].name, tab->o[i].arg ? required_argument : no_argument, NULL,
                                FIRST_OPT + i};
        if (tab->o[i].letter) n += sprintf(letters + n, "%c%s", tab->o[i].letter, tab->o[i].arg ? ":" : "");
    }
    opterr = 0;
    optind = 0;
    while ((k = getopt_long(argc, argv, letters, lo, NULL)) != -1) {
        if (k == '?' || k == ':') bad_option(argv, k == ':');
        if (k < FIRST_OPT)
            for (int i = 0; i < tab->n; i++)
                if (tab->o[i].letter == k) k = FIRST_OPT + i;
        set_option(&tab->o[k - FIRST_OPT], optarg);
    }
    t->argc = argc - optind;
    t->argv = argv + optind;
}

void tool_parse(struct tool *t, const char *operands, const char *summary, const struct opt *opts, int argc,
                char **argv)
{
    bool help = false, version = false;
    const char *family = NULL;
    const struct opt common[] = {
        {'m', "model", OPT_STR, &t->model, "MODEL", "HF directory, .safetensors or .gguf file"},
        {0, "family", OPT_STR, &family, "NAME", "what an unknown model_type is taken for, as llama"},
        {'o', "output", OPT_STR, &t->out, "FILE", "output; appears whole or not at all; - is stdout"},
        {'j', "threads", OPT_INT, &t->threads, "THREADS=1..1024", "threads (default all cores)"},
        {0, "seed", OPT_INT, &t->seed, "N=0..", "seed of everything random"},
        {0, "device", OPT_CHOICE, &t->device, "cpu|cuda|auto", "where to compute"},
        {0, "precision", OPT_CHOICE, &t->precision, "f32|bf16", "precision of matrix products"},
        {0, "layers", OPT_RANGE, t->layers, "A:B", "only layers A to B-1"},
        {0, "max-mem", OPT_SIZE, &t->max_mem, "SIZE", "refuse to use more memory than this (K M G T)"},
        {0, "progress", OPT_CHOICE, &t->progress, "auto|plain|json|none", "progress on stderr"},
        {'h', "help", OPT_FLAG, &help, NULL, "print this text"},
        {0, "version", OPT_FLAG, &version, NULL, "print the version"},
        {0},
    };
    struct table tab = {.n = 0}, shown;
    add_options(&tab, opts);
    add_options(&tab, common);
    /* defaults are shown as they are before the command line changes them */
    for (int i = 1; i < argc && strcmp(argv[i], "--"); i++)
        if (!strcmp(argv[i], "-h") || !strcmp(argv[i], "--help")) {
            shown = tab;
            print_usage(&shown, operands, summary);
            tool_finish(0);
        }
    run_getopt(t, &tab, argc, argv);
    if (help) { /* -h inside a cluster of letters */
        print_usage(&tab, operands, summary);
        tool_finish(0);
    }
    if (family && !model_assume_family(family))
        die_usage("--family: '%s' is no family (nt-models(7) lists them)", family);
    if (version) {
        printf("%s %s\n", tool_name, NT_VERSION);
        tool_finish(0);
    }
}
