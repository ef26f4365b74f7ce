/* SPDX-License-Identifier: Apache-2.0
 * SHA-256 (FIPS 180-4, by libcrypto) as 64 lower-case hexadecimal digits. */
#ifndef NT_SHA256_H
#define NT_SHA256_H
#include <stddef.h>
#include "common/err.h"

struct sha256;

/* NULL and an error when libcrypto refuses. */
struct sha256 *sha256_start(struct err *e) NT_MUST_CHECK;
void sha256_add(struct sha256 *h, const void *p, size_t n);
void sha256_end(struct sha256 *h, char hex[65]); /* frees h; NULL ok: hex is "" */
void sha256_of(const void *p, size_t n, char hex[65]);
#endif
