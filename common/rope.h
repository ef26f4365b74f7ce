/* SPDX-License-Identifier: Apache-2.0
 * Rotary positions: inverse frequencies and the factor on cosine and sine, as transformers computes them, in
 * its single precision. Reads both spellings of a config.json: rope_theta, rope_scaling and
 * partial_rotary_factor (transformers 4), rope_parameters (5), the latter also by layer type. */
#ifndef NT_ROPE_H
#define NT_ROPE_H
#include <jansson.h>
#include <stdbool.h>
#include "common/err.h"

enum rope_type {
    ROPE_DEFAULT,
    ROPE_LINEAR,
    ROPE_DYNAMIC, /* the base grows with sequences longer than max_pos */
    ROPE_YARN,
    ROPE_LONGROPE, /* two tables of divisors: sequences up to orig, longer ones */
    ROPE_LLAMA3,
    ROPE_PROPORTIONAL /* a part of the frequencies of a whole head, the others 0 */
};
enum { ROPE_MAX_HALF = 256 }; /* frequencies of a longrope table */

struct rope {
    enum rope_type type;
    int dim;  /* rotary dimensions of a head, even */
    int head; /* dimensions of a head */
    int max_pos, orig;
    double theta, partial, factor, low, high /* llama3's factors, yarn's slow and fast beta */;
    double attention; /* what cosine and sine are multiplied by */
    bool truncate;    /* yarn: the ramp's ends are whole dimensions */
    float divisor[2][ROPE_MAX_HALF]; /* longrope: of short, of long sequences */
};

struct rope_defaults {
    double theta, partial; /* partial 0: this family knows no partial_rotary_factor, which is refused */
    int max_pos, orig;     /* max_position_embeddings as read; orig: the class's own original_max_position_
                              embeddings, 0: none */
    bool yarn_is_longrope; /* Phi-3: "yarn" and "su" mean longrope */
};

/* layer_type: the entry of a rope_parameters that is kept by layer type; NULL: there is but one rope, and
 * such an object is refused. */
int rope_read(struct rope *r, const json_t *config, const char *layer_type, const struct rope_defaults *d,
              int head, struct err *e) NT_MUST_CHECK;
/* Inverse frequencies [dim/2] for sequences of this length. */
void rope_frequencies(const struct rope *r, int length, float *freq);
/* Cosines in the first dim/2, sines in the rest, of positions 0 to n-1: [n, dim], for sequences of n. */
void rope_cossin(const struct rope *r, int n, float *cossin);
#endif
