/* SPDX-License-Identifier: Apache-2.0
 * SHA-256 in one piece and in parts: the vectors of FIPS 180-4's examples. */
#include "tests/check.h"
#include <string.h>
#include "common/sha256.h"

static const struct {
    const char *text, *hex;
} vectors[] = {
    {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
};

int main(void)
{
    struct err e = {0};
    char hex[65];
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        size_t n = strlen(vectors[i].text);
        sha256_of(vectors[i].text, n, hex);
        CHECK(!strcmp(hex, vectors[i].hex), "%zu bytes at once", n);
        struct sha256 *h = sha256_start(&e);
        for (size_t k = 0; h && k < n; k++) sha256_add(h, vectors[i].text + k, 1);
        sha256_end(h, hex);
        CHECK(!strcmp(hex, vectors[i].hex), "%zu bytes one by one", n);
    }
    sha256_end(NULL, hex);
    CHECK(!*hex, "nothing begun: no digits");
    return check_done();
}
