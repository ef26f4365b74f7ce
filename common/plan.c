/* SPDX-License-Identifier: Apache-2.0
 * Plan files (plan.h): a line of words becomes a JSON object, and one function reads objects. */
#include "common/plan.h"
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/mem.h"

#define WORDS_MAX 16

static int bad(struct err *e, const char *what, const char *value)
{
    return err_set(e, NT_EXIT_DATA, "%s '%s'", what, value);
}

/* ---- words to JSON ---- */

static void put_number(json_t *j, const char *key, const char *word)
{
    char *end;
    long v = strtol(word, &end, 10);
    if (!strcmp(word, "-")) return;
    json_object_set_new(j, key, *word && !*end ? json_integer(v) : json_string(word));
}

static int put_option(json_t *j, const char *word, struct err *e)
{
    static const struct {
        const char *word, *key;
        bool value;
    } flag[] = {{"sym", "sym", true},
                {"asym", "sym", false},
                {"act-order", "act_order", true},
                {"no-act-order", "act_order", false},
                {"static-groups", "static_groups", true},
                {"no-static-groups", "static_groups", false}};
    for (size_t i = 0; i < sizeof flag / sizeof flag[0]; i++)
        if (!strcmp(word, flag[i].word))
            return json_object_set_new(j, flag[i].key, json_boolean(flag[i].value));
    if (!strncmp(word, "clip=", 5)) return json_object_set_new(j, "clip", json_string(word + 5));
    if (!strncmp(word, "scale=", 6)) return json_object_set_new(j, "scale_dtype", json_string(word + 6));
    if (!strncmp(word, "damp=", 5)) {
        char *end;
        double v = strtod(word + 5, &end);
        return json_object_set_new(j, "damp", word[5] && !*end ? json_real(v) : json_string(word + 5));
    }
    return bad(e, "unknown option", word);
}

static json_t *parse_words(char *line, struct err *e)
{
    char *word[WORDS_MAX], *save = NULL;
    int n = 0;
    for (char *w = strtok_r(line, " \t\r\n", &save); w && n < WORDS_MAX; w = strtok_r(NULL, " \t\r\n", &save))
        word[n++] = w;
    bool keep = n == 2 && !strcmp(word[1], "keep");
    if (!keep && n < 4) {
        err_set(e, NT_EXIT_DATA, "a rule is PATTERN METHOD BITS GROUP [OPTION...] or PATTERN keep");
        return NULL;
    }
    json_t *j = json_pack("{s:s, s:s}", "pattern", word[0], "method", word[1]);
    if (!j) {
        err_set(e, NT_EXIT_DATA, "not UTF-8");
        return NULL;
    }
    if (!keep) {
        put_number(j, "bits", word[2]);
        put_number(j, "group", word[3]);
    }
    for (int i = 4; i < n; i++)
        if (put_option(j, word[i], e)) {
            json_decref(j);
            return NULL;
        }
    return j;
}

/* ---- JSON to a rule ---- */

static int set_int(const json_t *v, int *to, const char *key, struct err *e)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX)
        return bad(e, "not a number:", key);
    *to = (int)json_integer_value(v);
    return 0;
}

static int set_bool(const json_t *v, bool *to, const char *key, struct err *e)
{
    if (!json_is_boolean(v)) return bad(e, "not true or false:", key);
    *to = json_is_true(v);
    return 0;
}

static int set_key(struct plan_rule *r, const char *key, const json_t *v, struct err *e)
{
    const char *s = json_string_value(v);
    if (!strcmp(key, "pattern") || !strcmp(key, "method")) return 0;
    if (!strcmp(key, "bits")) return set_int(v, &r->o.bits, key, e);
    if (!strcmp(key, "group")) return set_int(v, &r->o.group, key, e);
    if (!strcmp(key, "sym")) return set_bool(v, &r->o.sym, key, e);
    if (!strcmp(key, "act_order")) return set_bool(v, &r->o.act_order, key, e);
    if (!strcmp(key, "static_groups")) return set_bool(v, &r->o.static_groups, key, e);
    if (!strcmp(key, "f64")) return set_bool(v, &r->o.true_f64, key, e);
    if (!strcmp(key, "block")) return set_int(v, &r->o.block, key, e);
    if (!strcmp(key, "damp")) {
        if (!json_is_number(v)) return bad(e, "not a number:", key);
        r->o.damp = json_number_value(v);
        return 0;
    }
    if (!strcmp(key, "clip")) {
        if (!s || (strcmp(s, "mse") && strcmp(s, "none")))
            return bad(e, "clip is none or mse, not", s ? s : "?");
        r->o.clip_mse = !strcmp(s, "mse");
        return 0;
    }
    if (!strcmp(key, "scale_dtype")) {
        r->o.scale_dtype = quant_scale_dtype(s ? s : "");
        return r->o.scale_dtype == DT_NONE ? bad(e, "scales are f16, f32 or bf16, not", s ? s : "?") : 0;
    }
    return bad(e, "unknown key", key);
}

/* The rule starts as a copy of the command line's options. */
static int add_rule(struct plan *p, const json_t *j, const struct quant_opts *o, struct err *e)
{
    struct plan_rule r = {.o = *o};
    const char *pattern = json_string_value(json_object_get(j, "pattern")), *method, *key;
    json_t *v;
    method = json_string_value(json_object_get(j, "method"));
    if (!pattern || !method) return err_set(e, NT_EXIT_DATA, "a rule needs a pattern and a method");
    if (strcmp(method, "keep") && !(r.method = quantizer_find(method)))
        return bad(e, "unknown method", method);
    json_object_foreach((json_t *)j, key, v) if (set_key(&r, key, v, e)) return -1;
    struct err why = {0};
    if (r.method && quant_opts_check(&r.o, &why)) return err_set(e, NT_EXIT_DATA, "%s", why.text);
    r.pattern = mem_strdup(pattern);
    p->rules = mem_grow(p->rules, &p->cap, p->n + 1, sizeof *p->rules);
    p->rules[p->n++] = r;
    return 0;
}

static int read_line(struct plan *p, char *line, const struct quant_opts *o, struct err *e)
{
    char *at = line + strspn(line, " \t\r\n");
    json_t *j;
    json_error_t je;
    if (!*at || *at == '#') return 0;
    if (*at == '{') {
        j = json_loads(at, JSON_REJECT_DUPLICATES, &je);
        if (!j) return err_set(e, NT_EXIT_DATA, "%s", je.text);
    } else if (!(j = parse_words(at, e))) {
        return -1;
    }
    int rc = add_rule(p, j, o, e);
    json_decref(j);
    return rc;
}

int plan_read(const char *path, const struct quantizer *method, const struct quant_opts *o, struct plan *p,
              struct err *e)
{
    char *line = NULL;
    size_t cap = 0;
    int rc = 0;
    memset(p, 0, sizeof *p);
    FILE *f = path ? fopen(path, "r") : NULL;
    if (path && !f) return err_set(e, NT_EXIT_IO, "%s: %s", path, strerror(errno));
    for (long at = 1; f && !rc && getline(&line, &cap, f) >= 0; at++)
        if ((rc = read_line(p, line, o, e))) err_prefix(e, "%s:%ld", path, at);
    if (f && !rc && ferror(f)) rc = err_set(e, NT_EXIT_IO, "%s: %s", path, strerror(errno));
    if (f) fclose(f);
    free(line);
    if (rc) {
        plan_clear(p);
        return -1;
    }
    p->rules = mem_grow(p->rules, &p->cap, p->n + 1, sizeof *p->rules);
    p->rules[p->n++] = (struct plan_rule){.pattern = mem_strdup("*"), .method = method, .o = *o};
    return 0;
}

void plan_clear(struct plan *p)
{
    for (size_t i = 0; i < p->n; i++) mem_free(p->rules[i].pattern);
    mem_free(p->rules);
    memset(p, 0, sizeof *p);
}

struct plan_rule *plan_find(struct plan *p, const char *name)
{
    size_t i = 0;
    while (i + 1 < p->n && fnmatch(p->rules[i].pattern, name, 0)) i++;
    p->rules[i].matched++;
    return &p->rules[i];
}

/* ---- what a plan says about itself ---- */

static bool has_word(const char *list, const char *word, size_t n)
{
    for (const char *p = list; *p; p += strcspn(p, ","), p += *p == ',')
        if (strcspn(p, ",") == n && !memcmp(p, word, n)) return true;
    return false;
}

void plan_needs(const struct plan *p, char *out, size_t size)
{
    size_t used = 0;
    out[0] = 0;
    for (size_t i = 0; i < p->n; i++) {
        const char *w = p->rules[i].method ? p->rules[i].method->needs : "";
        for (size_t n; *w; w += n, w += *w == ',') {
            n = strcspn(w, ",");
            if (has_word(out, w, n) || used + n + 2 > size) continue;
            used += (size_t)snprintf(out + used, size - used, "%s%.*s", used ? "," : "", (int)n, w);
        }
    }
}

json_t *plan_json(const struct plan *p)
{
    const struct plan_rule *last = &p->rules[p->n - 1];
    json_t *j = quant_opts_json(last->method, &last->o), *rules = p->n > 1 ? json_array() : NULL;
    for (size_t i = 0; i + 1 < p->n; i++) {
        const struct plan_rule *r = &p->rules[i];
        json_t *rule = json_pack("{s:s, s:s}", "pattern", r->pattern, "method", "keep"), *o;
        if (r->method) {
            o = quant_opts_json(r->method, &r->o);
            json_object_update(rule, o);
            json_decref(o);
        }
        json_array_append_new(rules, rule);
    }
    if (rules) json_object_set_new(j, "plan", rules);
    return j;
}
