/* SPDX-License-Identifier: Apache-2.0
 * Which language a token may begin: by its script where that says enough, by n-gram fingerprints
 * (libexttextcat) for Latin script. A guess on a few letters: noisy by nature, like any detector on
 * vocabulary entries. */
#ifndef NT_CALIB_LANG_H
#define NT_CALIB_LANG_H
#include <stddef.h>
#include "common/err.h"

struct lang;
/* list: ISO 639-1 codes separated by commas. NULL and a sentence on an unknown code or when the data is
 * missing. */
struct lang *lang_open(const char *list, struct err *e) NT_MUST_CHECK;
void lang_close(struct lang *l);
/* The listed language of well-formed text, or NULL. */
const char *lang_of(struct lang *l, const char *text, size_t len);
#endif
