/* SPDX-License-Identifier: Apache-2.0
 * What nt-eval measures: text cut into windows by a named protocol, last words, and the table of results. */
#ifndef NT_EVAL_H
#define NT_EVAL_H
#include <stdio.h>
#include "common/score.h"
#include "common/tokenizer.h"

struct eval_row {
    const char *metric, *protocol; /* static strings */
    int layer;                     /* -1: none */
    double value, err;             /* err NaN: none */
    uint64_t n;                    /* tokens or items */
};

struct eval_table {
    int n;
    struct eval_row *row;
    size_t cap;
    const char *model; /* the model column */
    bool bf16;         /* the protocol column says so */
    double bits, seconds;
};
void eval_add(struct eval_table *t, struct eval_row row);
/* TSV with a header line, or an array of objects; path "-" = stdout, anything else appears whole. */
int eval_write(const struct eval_table *t, const char *path, bool json, struct err *e) NT_MUST_CHECK;
void eval_clear(struct eval_table *t);

/* Windows of a text. */
struct eval_protocol {
    const char *name; /* "gptq-2048", "llama.cpp-512", "tokens" */
    int T;            /* window length */
    int first;        /* first position whose prediction is scored */
    bool special;     /* tokenize with the vocabulary's own BOS rule and let BOS replace the first token of a
                         window */
    bool by_token;    /* standard error over tokens, else over windows */
    bool line_ends;   /* CR LF and CR count as LF (the text mode of Python, in which the figures of the
                         literature were made) */
    bool pages;       /* pages_read instead of eval_windows; T is the number of positions of the model */
};
const struct eval_protocol *eval_protocol_find(const char *name); /* NULL: unknown */
#define EVAL_PROTOCOLS "gptq-2048|llama.cpp-512|lm-eval-word"

/* The whole file, at most 2 GiB; *text allocated. */
int eval_read_text(const char *path, char **text, size_t *len, struct err *e) NT_MUST_CHECK;
size_t eval_unify_line_ends(char *text, size_t *len); /* in place; the number changed */
/* Windows from..to-1 (to may exceed what the text holds) into set; *rule gets words about BOS and line ends
 * for people. */
int eval_windows(struct score_set *set, const struct eval_protocol *p, const struct tokenizer *tok,
                 const char *path, const int64_t range[2], char rule[160], struct err *e) NT_MUST_CHECK;
/* The held-out sequences of a tokens stream (all if none is held out), each one a window. */
int eval_token_windows(struct score_set *set, struct eval_protocol *p, const char *path, int vocab,
                       struct err *e) NT_MUST_CHECK;
/* Rows ppl and, where the set has them, kl, top1; drift_mean and drift_var when drift is not NULL. */
void eval_window_rows(struct eval_table *t, const struct score_set *set, const struct eval_protocol *p,
                      const struct score_drift *drift, int n_layers);

/* lm-eval-word: the pages of a WikiText file, range counts them; windows of at most `longest` tokens. Rows
 * word_ppl, byte_ppl, bits_per_byte. */
struct pages;
struct pages *pages_read(const char *path, const int64_t range[2], const struct tokenizer *tok, int longest,
                         struct score_set *set, char rule[160], struct err *e) NT_MUST_CHECK;
void pages_rows(struct eval_table *t, const struct pages *p, const struct score_set *set,
                const char *protocol);
void pages_free(struct pages *p);

/* LAMBADA: one object with "text" a line. The row "lambada": share of items whose whole last word is
 * predicted. */
struct lambada;
struct lambada *lambada_read(const char *path, int64_t max_items, const struct tokenizer *tok,
                             struct score_set *set, struct err *e) NT_MUST_CHECK;
void lambada_row(struct eval_table *t, const struct lambada *l, const struct score_set *set);
void lambada_free(struct lambada *l);

/* --dump: raw numbers for comparison with other software, as a safetensors file. */
struct dump_request {
    bool nll, logits, hidden, norm_grads;
};
int dump_parse(const char *list, struct dump_request *d, struct err *e) NT_MUST_CHECK;
int dump_run(struct score_source *s, const char *ids_json, const struct dump_request *d, const char *out,
             struct err *e) NT_MUST_CHECK;
#endif
