/* SPDX-License-Identifier: Apache-2.0
 * Keys of a config.json, checked: a key that is missing or null leaves the value alone, one of a wrong type or
 * out of range is an error that names it. */
#ifndef NT_MODEL_KEYS_H
#define NT_MODEL_KEYS_H
#include <jansson.h>
#include <stdbool.h>
#include "common/block.h"
#include "common/err.h"

int key_int(const json_t *c, const char *key, int lo, int *v, struct err *e) NT_MUST_CHECK;
int key_number(const json_t *c, const char *key, double *v, struct err *e) NT_MUST_CHECK; /* above 0 */
int key_bool(const json_t *c, const char *key, bool *v, struct err *e) NT_MUST_CHECK;
/* The name of an activation function. */
int key_act(const json_t *c, const char *key, enum act *v, struct err *e) NT_MUST_CHECK;
/* Token ids may be a number or a list of which the first counts; -1: none. */
int key_token(const json_t *c, const char *key);
/* Nothing is computed with it: missing, null, false, an empty list, or the number that neutral spells. */
bool key_is_neutral(const json_t *j, const char *neutral);
#endif
