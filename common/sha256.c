/* SPDX-License-Identifier: Apache-2.0
 * libcrypto's EVP interface behind three calls. */
#include "common/sha256.h"
#include <openssl/evp.h>
#include <stdio.h>

static EVP_MD_CTX *context(struct sha256 *h)
{
    return (EVP_MD_CTX *)h;
}

static void to_hex(const unsigned char *md, unsigned n, char hex[65])
{
    hex[0] = 0;
    for (unsigned i = 0; i < 32 && i < n; i++) snprintf(hex + 2 * i, 3, "%02x", md[i]);
}

struct sha256 *sha256_start(struct err *e)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    if (md && EVP_DigestInit_ex(md, EVP_sha256(), NULL)) return (struct sha256 *)md;
    EVP_MD_CTX_free(md);
    err_set(e, NT_EXIT_DEVICE, "libcrypto gives no sha256");
    return NULL;
}

void sha256_add(struct sha256 *h, const void *p, size_t n)
{
    EVP_DigestUpdate(context(h), p, n);
}

void sha256_end(struct sha256 *h, char hex[65])
{
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    if (h) EVP_DigestFinal_ex(context(h), md, &n);
    to_hex(md, n, hex);
    EVP_MD_CTX_free(context(h));
}

void sha256_of(const void *p, size_t n, char hex[65])
{
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned k = 0;
    EVP_Digest(p, n, md, &k, EVP_sha256(), NULL);
    to_hex(md, k, hex);
}
