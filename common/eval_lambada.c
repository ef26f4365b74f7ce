/* SPDX-License-Identifier: Apache-2.0
 * LAMBADA: predict the last word of a passage. Context and ' ' + last word are tokenized apart; an item is
 * right only if every token of the word is the most likely one. Items are sorted by length, so that a batch
 * pads little. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/eval.h"
#include "common/mem.h"

struct item {
    int32_t *ids;
    int len, word;
}; /* word: tokens of the last word, at the end */

struct lambada {
    int n;
    struct item *item;
    size_t cap;
};

void lambada_free(struct lambada *l)
{
    if (!l) return;
    for (int i = 0; i < l->n; i++) mem_free(l->item[i].ids);
    mem_free(l->item);
    mem_free(l);
}

static int add_item(struct lambada *l, const char *text, const struct tokenizer *tok, const char *where,
                    int line, struct err *e)
{
    size_t end = strlen(text), start, ctx_end, n_ctx = 0, n_word = 0;
    int32_t *ctx = NULL, *word = NULL;
    while (end && strchr(" \n\t\r", text[end - 1])) end--;
    for (start = end; start && text[start - 1] != ' ' && text[start - 1] != '\n';) start--;
    for (ctx_end = start; ctx_end && strchr(" \n\t\r", text[ctx_end - 1]);) ctx_end--;
    if (!ctx_end)
        return err_set(e, NT_EXIT_DATA, "%s: line %d: the text has no word before its last one", where, line);
    char *last = mem_printf(" %.*s", (int)(end - start), text + start);
    int rc = tokenizer_encode(tok, text, ctx_end, false, &ctx, &n_ctx, e);
    if (!rc) rc = tokenizer_encode(tok, last, strlen(last), false, &word, &n_word, e);
    if (!rc) {
        struct item it = {
            .ids = MEM_NEW(int32_t, n_ctx + n_word), .len = (int)(n_ctx + n_word), .word = (int)n_word};
        memcpy(it.ids, ctx, n_ctx * sizeof *ctx);
        memcpy(it.ids + n_ctx, word, n_word * sizeof *word);
        l->item = mem_grow(l->item, &l->cap, (size_t)l->n + 1, sizeof *l->item);
        l->item[l->n++] = it;
    }
    mem_free(ctx), mem_free(word), mem_free(last);
    return rc;
}

static int by_length(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    return (x->len > y->len) - (x->len < y->len);
}

/* The last word's tokens but the very last are inputs too; the very last is only a target. */
static void fill_set(const struct lambada *l, struct score_set *set)
{
    for (int i = 0; i < l->n; i++) {
        const struct item *it = &l->item[i];
        int len = it->len - 1, T = (len + 15) / 16 * 16;
        int32_t *target = MEM_NEW(int32_t, len);
        for (int t = 0; t < len; t++) target[t] = t + 1 >= it->len - it->word ? it->ids[t + 1] : -1;
        score_add_padded(set, it->ids, target, len, T);
        mem_free(target);
    }
}

static int parse_line(struct lambada *l, const char *line, size_t len, int number, const char *path,
                      const struct tokenizer *tok, struct err *e)
{
    json_error_t je;
    json_t *j = json_loadb(line, len, 0, &je);
    const char *text = json_string_value(json_object_get(j, "text"));
    int rc =
        text ? add_item(l, text, tok, path, number, e)
             : err_set(e, NT_EXIT_DATA, "%s: line %d: no JSON object with a string \"text\"", path, number);
    json_decref(j);
    return rc;
}

struct lambada *lambada_read(const char *path, int64_t max_items, const struct tokenizer *tok,
                             struct score_set *set, struct err *e)
{
    struct lambada *l = MEM_NEW(struct lambada, 1);
    char *text = NULL;
    size_t len = 0;
    int rc = eval_read_text(path, &text, &len, e), number = 0;
    for (size_t at = 0; at < len && !rc && l->n < max_items;) {
        char *nl = memchr(text + at, '\n', len - at);
        size_t n = nl ? (size_t)(nl - (text + at)) : len - at;
        number++;
        if (n && strspn(text + at, " \t\r") < n) rc = parse_line(l, text + at, n, number, path, tok, e);
        at += n + 1;
    }
    if (!rc && !l->n) rc = err_set(e, NT_EXIT_DATA, "%s: holds no item", path);
    mem_free(text);
    if (rc) {
        lambada_free(l);
        return NULL;
    }
    qsort(l->item, (size_t)l->n, sizeof *l->item, by_length);
    fill_set(l, set);
    return l;
}

void lambada_row(struct eval_table *t, const struct lambada *l, const struct score_set *set)
{
    int right = 0;
    for (int i = 0; i < set->n; i++)
        for (int s = 0; s < set->batch[i].B; s++) {
            const struct score_batch *b = &set->batch[i];
            bool all = true;
            for (int r = s * b->T; r < (s + 1) * b->T; r++)
                all = all && (b->targets[r] < 0 || b->best[r] == b->targets[r]);
            right += all;
        }
    double p = (double)right / l->n;
    eval_add(t, (struct eval_row){"lambada", "last-word", -1, p,
                                  l->n > 1 ? sqrt(p * (1 - p) / (l->n - 1)) : NAN, (uint64_t)l->n});
}
