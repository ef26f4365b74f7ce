/* SPDX-License-Identifier: Apache-2.0
 * Reading tokenizer.json, shared by tokenizer_json*.c only: small readers, and the steps around the model. */
#ifndef NT_TOKENIZER_JSON_H
#define NT_TOKENIZER_JSON_H
#include "common/tokenizer_impl.h"

/* "NAME: WHAT "NAME2" is not supported"; -1. */
int tokenizer_refuse(const struct tokenizer *t, const char *what, const char *name, struct err *e);
bool tokenizer_json_flag(const json_t *j, const char *key, bool missing);
const char *tokenizer_json_text(const json_t *j, const char *key, const char *missing);
/* normalizer, pre_tokenizer, decoder of a whole file. */
int tokenizer_json_steps(struct tokenizer *t, const json_t *j, struct err *e) NT_MUST_CHECK;
/* post_processor; the ids must be known. */
int tokenizer_json_template(struct tokenizer *t, const json_t *j, struct err *e) NT_MUST_CHECK;
#endif
