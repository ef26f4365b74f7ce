/* SPDX-License-Identifier: Apache-2.0
 * Sizes with overflow, names, and the float conversions: f16 and bf16 against the compiler's own types on
 * every bit pattern and on the ties between neighbours. */
#include "common/tensor.h"
#include "tests/check.h"

static void sizes(void)
{
    uint64_t nb = 1;
    struct err e = {0};
    uint64_t s2[] = {3, 64}, big[] = {1ull << 40, 1ull << 40}, zero[] = {0, 1ull << 40, 1ull << 40},
             odd[] = {2, 33};
    CHECK(!tensor_nbytes(DT_F32, 2, s2, &nb, &e) && nb == 768, "F32 [3,64]");
    CHECK(!tensor_nbytes(DT_Q4_1, 2, s2, &nb, &e) && nb == 3 * 2 * 20, "Q4_1 [3,64]");
    CHECK(!tensor_nbytes(DT_F64, 0, NULL, &nb, &e) && nb == 8, "scalar");
    CHECK(!tensor_nbytes(DT_U8, 1, &(uint64_t){0}, &nb, &e) && nb == 0, "empty");
    CHECK(!e.code, "no error so far");
    CHECK(tensor_nbytes(DT_F32, 2, big, &nb, &e) == -1 && e.code == NT_EXIT_DATA, "overflow: %s", e.text);
    e.code = 0;
    CHECK(tensor_nbytes(DT_F32, 3, zero, &nb, &e) == -1, "overflow behind a zero: %s", e.text);
    e.code = 0;
    CHECK(tensor_nbytes(DT_Q4_0, 2, odd, &nb, &e) == -1, "broken block: %s", e.text);
    e.code = 0;
    CHECK(tensor_nbytes(DT_F32, 9, big, &nb, &e) == -1, "rank 9: %s", e.text);
    e.code = 0;
    CHECK(tensor_nbytes(DT_NONE, 1, s2, &nb, &e) == -1, "no type");
    e.code = 0;
    CHECK(tensor_nbytes(DT_F64, 1, &(uint64_t){1ull << 61}, &nb, &e) == -1, "bytes overflow: %s", e.text);
    int named = 0;
    for (int t = 1; t < DT_COUNT; t++) named += dtype_parse(dtype_name((enum dtype)t)) == (enum dtype)t;
    CHECK(named == DT_COUNT - 1 && dtype_parse("F33") == DT_NONE, "names go both ways");
}

static float bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static uint16_t compiler_f16(float f)
{
    _Float16 h = (_Float16)f;
    uint16_t u;
    memcpy(&u, &h, 2);
    return u;
}

static void halves(void)
{
    int bad = 0, ties = 0;
    for (uint32_t i = 0; i < 65536; i++) {
        uint16_t u = (uint16_t)i;
        _Float16 h;
        memcpy(&h, &u, 2);
        float a = f16_to_f32(u), b = (float)h;
        bad += !(a == b || (a != a && b != b)) || signbit(a) != signbit(b);
        if (a == a) bad += f32_to_f16(a) != u;
        float c = bf16_to_f32(u);
        if (c == c) bad += f32_to_bf16(c) != u;
        if ((i & 0x7fff) < 0x7c00) { /* the tie above u, and its neighbours */
            float next = f16_to_f32((uint16_t)(u + 1)),
                  mid = (u & 0x7fff) == 0x7bff ? copysignf(65520, a) : (a + next) / 2;
            ties += f32_to_f16(mid) != compiler_f16(mid);
            ties += f32_to_f16(nextafterf(mid, 0)) != compiler_f16(nextafterf(mid, 0));
            ties += f32_to_f16(nextafterf(mid, copysignf(1e9f, a))) !=
                    compiler_f16(nextafterf(mid, copysignf(1e9f, a)));
        }
    }
    CHECK(!bad, "all 65536 half and bfloat patterns go to f32 and back");
    CHECK(!ties, "half: ties to even, infinity from 65520");
    CHECK(f32_to_f16(1e-30f) == 0 && f32_to_f16(-1e-30f) == 0x8000 && f32_to_f16(INFINITY) == 0x7c00,
          "half: tiny, infinite");
    CHECK((f32_to_f16(NAN) & 0x7fff) > 0x7c00 && (f32_to_bf16(bits(0x7f800001)) & 0x7fff) > 0x7f80,
          "NaN stays NaN");
    CHECK(f32_to_bf16(bits(0x3f808000)) == 0x3f80 && f32_to_bf16(bits(0x3f818000)) == 0x3f82,
          "bfloat: ties to even");
    CHECK(f32_to_bf16(bits(0x7f7fffff)) == 0x7f80, "bfloat: overflow gives infinity");
}

int main(void)
{
    sizes();
    halves();
    const uint8_t e4m3[] = {0x00, 0x01, 0x08, 0x38, 0x7e, 0xfe, 0x7f}, e5m2[] = {0x01, 0x3c, 0x7b, 0x7c},
                  e8m0[] = {0, 127, 254};
    float f[8];
    dtype_to_f32(f, DT_F8_E4M3, e4m3, 7);
    CHECK(f[0] == 0 && f[1] == 0x1p-9f && f[2] == 0x1p-6f && f[3] == 1 && f[4] == 448 && f[5] == -448 &&
              isnan(f[6]),
          "e4m3");
    dtype_to_f32(f, DT_F8_E5M2, e5m2, 4);
    CHECK(f[0] == 0x1p-16f && f[1] == 1 && f[2] == 57344 && isinf(f[3]), "e5m2");
    dtype_to_f32(f, DT_F8_E8M0, e8m0, 3);
    CHECK(f[0] == 0x1p-127f && f[1] == 1 && f[2] == 0x1p127f, "e8m0");
    uint8_t odd[9] = {0, 0, 0, 0x80, 0x3f, 0, 0, 0, 0x40};
    dtype_to_f32(f, DT_F32, odd + 1, 2);
    CHECK(f[0] == 1 && f[1] == 2, "unaligned source");

    static float x[10000];
    CHECK(f32_first_nonfinite(x, 10000) == 10000 && f32_first_nonfinite(x, 0) == 0, "all finite");
    x[9999] = NAN;
    CHECK(f32_first_nonfinite(x, 10000) == 9999, "last is NaN");
    x[4096] = -INFINITY;
    CHECK(f32_first_nonfinite(x, 10000) == 4096, "first of two");
    return check_done();
}
