/* SPDX-License-Identifier: Apache-2.0
 * A tokens stream: header.params {scheme, T, n, vocab, ...}; one record "Tokens" per sequence: I32 [T], meta
 * {seq: index, split: "train"|"holdout"}. Holdout sequences are the last max(1, round(n * ratio)). */
#ifndef NT_TOKENS_H
#define NT_TOKENS_H
#include <stdbool.h>
#include "common/stream.h"

struct tokens {
    int n, T;           /* n sequences (all), T tokens each */
    int n_holdout;      /* the last n_holdout sequences */
    int32_t *ids;       /* [n, T] */
    char hash[17];      /* stream_hash: identity carried by acts, stats, qweights (meta/header "tokens") */
    json_t *header;     /* owned copy */
    json_t *provenance; /* for stream_note_provenance; owned */
};
/* Reads a whole tokens stream; checks equal lengths and 0 <= id < vocab (vocab 0: not checked). */
int tokens_read(const char *path, int vocab, struct tokens *t, struct err *e) NT_MUST_CHECK;
void tokens_clear(struct tokens *t);
int tokens_holdout_count(int n, double ratio); /* max(1, round(n*ratio)), 0 if ratio is 0 or n < 2 */
#endif
