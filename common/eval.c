/* SPDX-License-Identifier: Apache-2.0
 * Protocols and the table. A protocol fixes everything that moves a perplexity: tokenization, windows, BOS,
 * what is scored. */
#include "common/eval.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/mem.h"
#include "common/tokens.h"

/* ---- the table ---- */

void eval_add(struct eval_table *t, struct eval_row row)
{
    t->row = mem_grow(t->row, &t->cap, (size_t)t->n + 1, sizeof *t->row);
    t->row[t->n++] = row;
}

void eval_clear(struct eval_table *t)
{
    mem_free(t->row);
    memset(t, 0, sizeof *t);
}

/* A protocol is what fixes a result; so the precision of the products is part of its name. */
static const char *precision(const struct eval_table *t)
{
    return t->bf16 ? "+bf16" : "";
}

static void print_tsv(const struct eval_table *t, FILE *f)
{
    fprintf(f, "model\tmetric\tprotocol\tlayer\tvalue\tstderr\tn\tbits\tseconds\n");
    for (int i = 0; i < t->n; i++) {
        const struct eval_row *r = &t->row[i];
        fprintf(f, "%s\t%s\t%s%s\t", t->model, r->metric, r->protocol, precision(t));
        if (r->layer >= 0) fprintf(f, "%d", r->layer);
        fprintf(f, "\t%.6g\t", r->value);
        if (isfinite(r->err)) fprintf(f, "%.3g", r->err);
        fprintf(f, "\t%llu\t%.3f\t%.1f\n", (unsigned long long)r->n, t->bits, t->seconds);
    }
}

static json_t *rounded(const char *fmt, double v)
{
    char s[40];
    if (!isfinite(v)) return json_null();
    snprintf(s, sizeof s, fmt, v);
    return json_real(strtod(s, NULL));
}

static void print_json(const struct eval_table *t, FILE *f)
{
    json_t *all = json_array();
    for (int i = 0; i < t->n; i++) {
        const struct eval_row *r = &t->row[i];
        json_array_append_new(all,
                              json_pack("{s:s,s:s,s:s+,s:o,s:o,s:o,s:I,s:o,s:o}", "model", t->model, "metric",
                                        r->metric, "protocol", r->protocol, precision(t), "layer",
                                        r->layer < 0 ? json_null() : json_integer(r->layer), "value",
                                        rounded("%.6g", r->value), "stderr", rounded("%.3g", r->err), "n",
                                        (json_int_t)r->n, "bits", rounded("%.3f", t->bits), "seconds",
                                        rounded("%.1f", t->seconds)));
    }
    json_dumpf(all, f, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    fputc('\n', f);
    json_decref(all);
}

int eval_write(const struct eval_table *t, const char *path, bool json, struct err *e)
{
    char *text = NULL;
    size_t len = 0;
    bool screen = !strcmp(path, "-"); /* outfile keeps bytes off terminals; this is text */
    FILE *f = screen ? stdout : open_memstream(&text, &len);
    if (!f) return err_set(e, NT_EXIT_DEVICE, "out of memory");
    if (json)
        print_json(t, f);
    else
        print_tsv(t, f);
    if (screen) return 0;
    fclose(f);
    struct outfile *out = outfile_open(path, e);
    int rc = out ? outfile_write(out, text, len, e) : -1;
    if (rc)
        outfile_discard(out);
    else
        rc = outfile_commit(out, e);
    free(text);
    return rc;
}

/* ---- windows ---- */

/* gptq-2048: the evaluation of the GPTQ paper's code. llama.cpp-512: llama-perplexity at its defaults; only
 * the second half of a window is scored, and position 511 predicts nothing. */
static const struct eval_protocol protocols[] = {
    {.name = "gptq-2048", .T = 2048, .first = 0, .line_ends = true},
    {.name = "llama.cpp-512", .T = 512, .first = 256, .special = true, .by_token = true},
    {.name = "lm-eval-word", .by_token = true, .pages = true},
};

const struct eval_protocol *eval_protocol_find(const char *name)
{
    for (size_t i = 0; i < sizeof protocols / sizeof *protocols; i++)
        if (!strcmp(protocols[i].name, name)) return &protocols[i];
    return NULL;
}

int eval_read_text(const char *path, char **text, size_t *len, struct err *e)
{
    FILE *f = !strcmp(path, "-") ? stdin : fopen(path, "rb");
    size_t cap = 0, n = 0, got = 1;
    char *buf = NULL;
    if (!f) return err_set(e, NT_EXIT_IO, "%s: %s", path, strerror(errno));
    while (got && n < (size_t)1 << 31) {
        buf = mem_grow(buf, &cap, n + (1 << 20) + 1, 1);
        got = fread(buf + n, 1, 1 << 20, f);
        n += got;
    }
    int bad = ferror(f) ? err_set(e, NT_EXIT_IO, "%s: %s", path, strerror(errno)) : 0;
    if (!bad && got) bad = err_set(e, NT_EXIT_DATA, "%s: a text of more than 2 GiB", path);
    if (f != stdin) fclose(f);
    if (bad) {
        mem_free(buf);
        return -1;
    }
    buf[n] = 0;
    *text = buf, *len = n;
    return 0;
}

static void add_window(struct score_set *set, const struct eval_protocol *p, int32_t *ids, int32_t bos)
{
    int32_t *target = MEM_NEW(int32_t, p->T), keep = ids[0];
    for (int i = 0; i < p->T; i++) target[i] = i >= p->first && i + 1 < p->T ? ids[i + 1] : -1;
    if (bos >= 0) ids[0] = bos;
    score_add(set, ids, target, p->T);
    ids[0] = keep;
    mem_free(target);
}

size_t eval_unify_line_ends(char *text, size_t *len)
{
    size_t n = 0, changed = 0;
    for (size_t i = 0; i < *len; i++) {
        bool cr = text[i] == '\r';
        if (cr && text[i + 1] == '\n') i++; /* text[len] is NUL */
        text[n++] = cr ? '\n' : text[i];
        changed += cr;
    }
    text[n] = 0, *len = n;
    return changed;
}

int eval_windows(struct score_set *set, const struct eval_protocol *p, const struct tokenizer *tok,
                 const char *path, const int64_t range[2], char rule[160], struct err *e)
{
    char *text = NULL;
    size_t len = 0, n = 0, cr = 0;
    int32_t *ids = NULL, bos = -1;
    int rc = eval_read_text(path, &text, &len, e);
    if (!rc && p->line_ends) cr = eval_unify_line_ends(text, &len);
    if (!rc && p->special) rc = tokenizer_first(tok, &bos, e);
    if (!rc) rc = tokenizer_encode(tok, text, len, bos >= 0, &ids, &n, e);
    int64_t have = (int64_t)(n / (size_t)p->T), to = range[1] < have ? range[1] : have;
    snprintf(rule, 160, "%s%s",
             !p->special ? "no BOS"
             : bos >= 0  ? "BOS first in the text and in every window"
                         : "no BOS (the vocabulary adds none)",
             cr ? ", CR LF read as LF" : "");
    if (!rc && have == 0)
        rc = err_set(e, NT_EXIT_DATA, "%s: %zu tokens, too short for one window of %d", path, n, p->T);
    if (!rc && range[0] >= to)
        rc = err_set(e, NT_EXIT_DATA, "%s: holds windows 0 to %lld, not %lld", path, (long long)have - 1,
                     (long long)range[0]);
    for (int64_t w = range[0]; w < to && !rc; w++) add_window(set, p, ids + w * p->T, bos);
    mem_free(text), mem_free(ids);
    return rc;
}

int eval_token_windows(struct score_set *set, struct eval_protocol *p, const char *path, int vocab,
                       struct err *e)
{
    struct tokens t = {0};
    if (tokens_read(path, vocab, &t, e)) return -1;
    int first = t.n_holdout ? t.n - t.n_holdout : 0, rc = 0;
    *p = (struct eval_protocol){.name = t.n_holdout ? "holdout" : "tokens", .T = t.T};
    if (t.T < 2) rc = err_set(e, NT_EXIT_DATA, "%s: sequences of %d token", path, t.T);
    for (int i = first; i < t.n && !rc; i++) add_window(set, p, t.ids + (size_t)i * (size_t)t.T, -1);
    tokens_clear(&t);
    return rc;
}

/* ---- sums over windows ---- */

/* Mean of a value over scored tokens with its standard error, over tokens or over windows (of equal numbers
 * of tokens). */
struct mean {
    double value, err;
    uint64_t n;
};

static double row_value(const struct score_batch *b, int r, int what)
{
    return what == 0 ? b->nll[r] : what == 1 ? b->kl[r] : b->best[r] == b->best_ref[r];
}

static struct mean mean_of(const struct score_set *set, int what, bool by_token)
{
    double sum = 0, tokens2 = 0, w_sum = 0, w_sum2 = 0;
    uint64_t n = 0, windows = 0;
    for (int i = 0; i < set->n; i++)
        for (int s = 0; s < set->batch[i].B; s++) {
            const struct score_batch *b = &set->batch[i];
            double one = 0;
            uint64_t scored = 0;
            for (int t = s * b->T; t < (s + 1) * b->T; t++) {
                if (b->targets[t] < 0) continue;
                double v = row_value(b, t, what);
                one += v, tokens2 += v * v, scored++;
            }
            sum += one, n += scored, windows++;
            w_sum += one / (double)scored, w_sum2 += one / (double)scored * (one / (double)scored);
        }
    double k = by_token ? (double)n : (double)windows, m = by_token ? sum / k : w_sum / k;
    double var = (by_token ? tokens2 : w_sum2) / k - m * m;
    return (struct mean){sum / (double)n, k > 1 ? sqrt(fmax(var, 0) / (k - 1)) : NAN, n};
}

void eval_window_rows(struct eval_table *t, const struct score_set *set, const struct eval_protocol *p,
                      const struct score_drift *drift, int n_layers)
{
    struct mean nll = mean_of(set, 0, p->by_token);
    double ppl = exp(nll.value);
    eval_add(t, (struct eval_row){"ppl", p->name, -1, ppl, ppl * nll.err, nll.n});
    if (set->n && set->batch[0].kl) {
        struct mean kl = mean_of(set, 1, p->by_token), top1 = mean_of(set, 2, p->by_token);
        eval_add(t, (struct eval_row){"kl", p->name, -1, kl.value, kl.err, kl.n});
        eval_add(t, (struct eval_row){"top1", p->name, -1, top1.value, top1.err, top1.n});
    }
    for (int l = 0; drift && l < n_layers; l++) {
        eval_add(t, (struct eval_row){"drift_mean", p->name, l, drift[l].mean, drift[l].mean_err,
                                      score_tokens(set)});
        eval_add(
            t, (struct eval_row){"drift_var", p->name, l, drift[l].var, drift[l].var_err, score_tokens(set)});
    }
}
