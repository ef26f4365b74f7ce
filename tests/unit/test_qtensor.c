/* SPDX-License-Identifier: Apache-2.0
 * Packing against bit-by-bit loops, sizes as stored, dequantization. */
#include "common/qtensor.h"
#include "common/mem.h"
#include "common/rng.h"
#include "tests/check.h"

static void test_pack(void)
{
    for (int bits = 2; bits <= 8; bits++) {
        int good = 1;
        for (uint64_t n = 1; n < 70; n += n < 20 ? 1 : 7) {
            uint8_t codes[70], packed[80], back[70];
            uint64_t bytes = qtensor_packed_bytes(n, bits);
            memset(packed, 0xee, sizeof packed);
            for (uint64_t i = 0; i < n; i++) codes[i] = (uint8_t)(rng_u32(7, (uint64_t)bits, i) & ((1u << bits) - 1));
            qtensor_pack(packed, codes, n, bits);
            good &= bytes == (n * (uint64_t)bits + 7) / 8 && packed[bytes] == 0xee;
            for (uint64_t k = 0; k < 8 * bytes; k++) {
                int want = k / (uint64_t)bits < n ? codes[k / (uint64_t)bits] >> (k % (uint64_t)bits) & 1 : 0;
                good &= (packed[k / 8] >> (k % 8) & 1) == want;
            }
            qtensor_unpack(back, packed, n, bits);
            good &= !memcmp(codes, back, n);
        }
        CHECK(good, "packing of %d bits, dense and little-endian", bits);
    }
}

static void test_sizes(void)
{
    struct qtensor q = {0};
    qtensor_init_uniform(&q, 4, 256, 2, 64, true, DT_F16);
    CHECK(qtensor_bits(&q) == 2.25, "W2 g64 symmetric is 2.25 bits a weight");
    qtensor_init_uniform(&q, 8, 256, 3, 128, false, DT_F16);
    CHECK(qtensor_bits(&q) == 3 + 16.0 / 128 + 3.0 / 128, "W3 g128 asymmetric is 3 + 19/128 bits");
    qtensor_init_uniform(&q, 8, 256, 4, 0, true, DT_F32);
    CHECK(qtensor_bits(&q) == 4 + 32.0 / 256 && q.n_groups == 1, "one group per row");
    q.gidx = MEM_NEW(int32_t, 256);
    CHECK(qtensor_stored_bytes(&q) == 8 * 128 + 8 * 4 + 256 * 4, "a group index counts");
    qtensor_clear(&q);
    CHECK(qtensor_groups(576, 128) == 5 && qtensor_groups(512, 128) == 4 && qtensor_groups(5, 128) == 1 &&
              qtensor_groups(5, 0) == 1, "groups of a row, the last one short");
}

static void test_dequant(void)
{
    enum { OUT = 19, IN = 37, GROUP = 10 };
    struct qtensor q = {.layer = -1};
    float w[OUT * IN];
    for (int kind = 0; kind < 4; kind++) {
        int good = 1;
        qtensor_init_uniform(&q, OUT, IN, 3, GROUP, kind == 0, DT_F32);
        for (int i = 0; i < OUT * IN; i++) q.codes[i] = (uint8_t)(rng_u32(1, 2, (uint64_t)i) & 7);
        for (int i = 0; i < OUT * q.n_groups; i++) {
            q.scale[i] = 0.25f * (float)(1 + i % 5);
            if (q.zero) q.zero[i] = (uint8_t)(i % 8);
        }
        if (kind == 2) {
            mem_free(q.zero);
            q.zero = NULL;
            q.minimum = MEM_NEW(float, OUT * q.n_groups);
            for (int i = 0; i < OUT * q.n_groups; i++) q.minimum[i] = -0.5f * (float)i;
        }
        if (kind == 3) {
            q.gidx = MEM_NEW(int32_t, IN);
            for (int i = 0; i < IN; i++) q.gidx[i] = (IN - 1 - i) / GROUP;
        }
        qtensor_dequant(&q, w);
        for (int o = 0; o < OUT; o++)
            for (int i = 0; i < IN; i++) {
                int g = o * q.n_groups + (q.gidx ? q.gidx[i] : i / GROUP), c = q.codes[o * IN + i];
                float want = kind == 2 ? q.scale[g] * (float)c + q.minimum[g] : q.scale[g] * (float)(c - (q.zero ? q.zero[g] : 4));
                good &= w[o * IN + i] == want;
            }
        static const char *const what[] = {"symmetric", "integer zeros", "float minima", "group index"};
        CHECK(good, "dequantization: %s", what[kind]);
    }
    qtensor_clear(&q);
}

static void test_plain(void)
{
    struct qtensor q = {.layer = -1};
    float a[6] = {1, -2, 0.5f, 3, 0, -1}, b[6] = {1, 0.0999755859375f, 2, 3, 4, 5}, c[6] = {0.1f, 1, 2, 3, 4, 5}, back[6];
    qtensor_init_plain(&q, 2, 3, a);
    CHECK(q.plain.dtype == DT_BF16 && qtensor_bits(&q) == 16, "plain values that BF16 holds");
    qtensor_init_plain(&q, 2, 3, b);
    qtensor_dequant(&q, back);
    CHECK(q.plain.dtype == DT_F16 && !memcmp(b, back, sizeof b), "plain values that F16 holds");
    qtensor_init_plain(&q, 2, 3, c);
    qtensor_dequant(&q, back);
    CHECK(q.plain.dtype == DT_F32 && !memcmp(c, back, sizeof c), "plain values that need F32");
    qtensor_clear(&q);
}

int main(void)
{
    test_pack();
    test_sizes();
    test_dequant();
    test_plain();
    return check_done();
}
