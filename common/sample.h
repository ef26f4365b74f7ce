/* SPDX-License-Identifier: Apache-2.0
 * Drawing a token from logits: greedy, or temperature and top-k. A pure function of its arguments. */
#ifndef NT_SAMPLE_H
#define NT_SAMPLE_H
#include <stdbool.h>
#include <stdint.h>

struct sampler {
    int top_k;          /* 0 = all */
    double temperature; /* > 0 */
    const bool *banned; /* [V] never drawn; may be NULL */
};

/* The largest logit, ties to the lowest index. -1 when nothing is allowed. */
int32_t sample_greedy(const struct sampler *s, const float *logits, int V);
/* softmax(logits / temperature) over the top_k largest (ties: the lower index is larger), drawn by u in [0,
 * 1): candidates in falling order of probability, the first whose cumulated share exceeds u. -1 when nothing
 * is allowed. */
int32_t sample_top_k(const struct sampler *s, const float *logits, int V, double u);
#endif
