/* SPDX-License-Identifier: Apache-2.0
 * Calibration data: sequences of T tokens that a model wrote itself, or windows of a text. */
#ifndef NT_CALIB_H
#define NT_CALIB_H
#include "common/model.h"
#include "common/stream.h"
#include "common/tokenizer.h"

struct calib_opts {
    const char *scheme; /* "norm-tweaking", "llm-qat", "text" */
    int n, T;           /* sequences, tokens of each */
    double holdout;     /* share of the sequences, the last ones */
    const char *text;   /* text: file or "-" */
    int batch;          /* the others: sequences decoded at a time */
    int top_k;
    double temperature;
    const char *languages; /* norm-tweaking: of the first token, by commas */
    uint64_t seed;
    int32_t bos; /* every sequence begins with it; -1: none (calib_check sets it by the vocabulary's rule) */
};

/* What cannot work, before anything is read or computed: T beyond the model's positions, a tokenizer of
 * another model. */
int calib_check(const struct model *m, const struct tokenizer *t, struct calib_opts *o,
                struct err *e) NT_MUST_CHECK;
json_t *calib_header(struct model *m, const struct calib_opts *o); /* of the tokens stream; new reference */
uint64_t calib_bytes(const struct model *m, const struct calib_opts *o); /* predicted memory */
/* Writes n records: generated, or windows of the text. */
int calib_generate(struct model *m, const struct tokenizer *t, const struct calib_opts *o,
                   struct stream_writer *w, struct err *e) NT_MUST_CHECK;
int calib_text(const struct tokenizer *t, const struct calib_opts *o, struct stream_writer *w,
               struct err *e) NT_MUST_CHECK;

/* The ids of the opts' text, which must be enough for n sequences of T, BOS included: plain text, or one JSON object with "text" a line;
 * the texts are joined by empty lines. Allocated. w's trailer will name the text by its hash. */
int calib_read_text(const struct tokenizer *t, const struct calib_opts *o, struct stream_writer *w,
                    int32_t **ids, struct err *e) NT_MUST_CHECK;

/* nt-gen-calib --encode and --decode: a JSON value a line, in and out. */
int calib_encode_lines(const struct tokenizer *t, bool special, FILE *in, FILE *out,
                       struct err *e) NT_MUST_CHECK;
int calib_decode_lines(const struct tokenizer *t, FILE *in, FILE *out, struct err *e) NT_MUST_CHECK;
#endif
