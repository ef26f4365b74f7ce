/* SPDX-License-Identifier: Apache-2.0
 * What the tests of model scope open and close: a backend, a model, an input, tokens, a scope over them. */
#ifndef NT_TESTS_SCOPE_FIXTURE_H
#define NT_TESTS_SCOPE_FIXTURE_H
#include <jansson.h>
#include "common/scope_train.h"

struct fixture {
    struct backend *be;
    struct model *m;
    struct scope_input in;
    struct scope_opts o;
    struct tokens tk;
    struct scope *s;
    struct err e;
};

double number(const json_t *o, const char *key);
/* ids: an array of sequences of one length; the last n_holdout are held out. */
void load_tokens(struct tokens *tk, const json_t *ids, int n_holdout);
void fixture_close(struct fixture *f); /* also one that was opened in part; prints its error */
/* The largest distance of every step-th of n values from the list, as a share of the list's largest;
 * infinity when their numbers differ. */
double worst(const float *a, const json_t *want, size_t n, size_t step);
#endif
