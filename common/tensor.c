/* SPDX-License-Identifier: Apache-2.0
 * Element types as a table, sizes with overflow checks, and conversions of the plain types. The ggml block
 * types are decoded in ggml_types.c. */
#include "common/tensor.h"
#include "common/ggml_types.h"
#include <assert.h>
#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    int block, bytes;
    bool is_float;
} dtypes[DT_COUNT] = {
    [DT_NONE] = {"NONE", 1, 0, false},      [DT_F64] = {"F64", 1, 8, true},
    [DT_F32] = {"F32", 1, 4, true},         [DT_F16] = {"F16", 1, 2, true},
    [DT_BF16] = {"BF16", 1, 2, true},       [DT_I64] = {"I64", 1, 8, false},
    [DT_I32] = {"I32", 1, 4, false},        [DT_I16] = {"I16", 1, 2, false},
    [DT_I8] = {"I8", 1, 1, false},          [DT_U64] = {"U64", 1, 8, false},
    [DT_U32] = {"U32", 1, 4, false},        [DT_U16] = {"U16", 1, 2, false},
    [DT_U8] = {"U8", 1, 1, false},          [DT_BOOL] = {"BOOL", 1, 1, false},
    [DT_F8_E4M3] = {"F8_E4M3", 1, 1, true}, [DT_F8_E5M2] = {"F8_E5M2", 1, 1, true},
    [DT_F8_E8M0] = {"F8_E8M0", 1, 1, true}, [DT_Q4_0] = {"Q4_0", 32, 18, true},
    [DT_Q4_1] = {"Q4_1", 32, 20, true},     [DT_Q5_0] = {"Q5_0", 32, 22, true},
    [DT_Q5_1] = {"Q5_1", 32, 24, true},     [DT_Q8_0] = {"Q8_0", 32, 34, true},
    [DT_Q2_K] = {"Q2_K", 256, 84, true},    [DT_Q3_K] = {"Q3_K", 256, 110, true},
    [DT_Q4_K] = {"Q4_K", 256, 144, true},   [DT_Q5_K] = {"Q5_K", 256, 176, true},
    [DT_Q6_K] = {"Q6_K", 256, 210, true},   [DT_IQ1_S] = {"IQ1_S", 256, 50, true},
    [DT_IQ1_M] = {"IQ1_M", 256, 56, true},  [DT_IQ2_XXS] = {"IQ2_XXS", 256, 66, true},
    [DT_IQ2_XS] = {"IQ2_XS", 256, 74, true}, [DT_IQ2_S] = {"IQ2_S", 256, 82, true},
    [DT_IQ3_XXS] = {"IQ3_XXS", 256, 98, true}, [DT_IQ3_S] = {"IQ3_S", 256, 110, true},
    [DT_IQ4_NL] = {"IQ4_NL", 32, 18, true}, [DT_IQ4_XS] = {"IQ4_XS", 256, 136, true},
    [DT_TQ1_0] = {"TQ1_0", 256, 54, true},  [DT_TQ2_0] = {"TQ2_0", 256, 66, true},
    [DT_MXFP4] = {"MXFP4", 32, 17, true},   [DT_NVFP4] = {"NVFP4", 64, 36, true},
    [DT_Q1_0] = {"Q1_0", 128, 18, true},    [DT_Q2_0] = {"Q2_0", 64, 18, true},
};

const char *dtype_name(enum dtype t)
{
    return dtypes[t].name;
}
int dtype_block(enum dtype t)
{
    return dtypes[t].block;
}
int dtype_block_bytes(enum dtype t)
{
    return dtypes[t].bytes;
}
bool dtype_is_float(enum dtype t)
{
    return dtypes[t].is_float;
}

enum dtype dtype_parse(const char *name)
{
    for (int t = DT_NONE + 1; t < DT_COUNT; t++)
        if (!strcmp(dtypes[t].name, name)) return (enum dtype)t;
    return DT_NONE;
}

int tensor_nbytes(enum dtype t, int rank, const uint64_t *shape, uint64_t *nbytes, struct err *e)
{
    uint64_t n = 1;
    if (t <= DT_NONE || t >= DT_COUNT) return err_set(e, NT_EXIT_DATA, "unknown element type");
    if (rank < 0 || rank > TENSOR_MAX_RANK)
        return err_set(e, NT_EXIT_DATA, "a shape of %d dimensions (at most %d)", rank, TENSOR_MAX_RANK);
    uint64_t block = (uint64_t)dtypes[t].block, row = rank ? shape[rank - 1] : 1;
    if (row % block)
        return err_set(e, NT_EXIT_DATA, "a row of %llu elements is no whole number of %s blocks of %llu",
                       (unsigned long long)row, dtypes[t].name, (unsigned long long)block);
    /* zero dimensions first must not hide an overflow that another reader would trip over */
    for (int i = 0; i < rank; i++)
        if (__builtin_mul_overflow(n, shape[i] ? shape[i] : 1, &n))
            return err_set(e, NT_EXIT_DATA, "the shape overflows 64 bits");
    if (n / block > INT64_MAX / (uint64_t)dtypes[t].bytes)
        return err_set(e, NT_EXIT_DATA, "the shape overflows 63 bits of bytes");
    *nbytes = n / block * (uint64_t)dtypes[t].bytes;
    for (int i = 0; i < rank; i++)
        if (!shape[i]) *nbytes = 0;
    return 0;
}

uint64_t tensor_count(const struct tensor *t)
{
    uint64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->shape[i];
    return n;
}

static inline float bits_f32(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static inline uint32_t f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

float bf16_to_f32(uint16_t h)
{
    return bits_f32((uint32_t)h << 16);
}

uint16_t f32_to_bf16(float f)
{
    uint32_t u = f32_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40); /* NaN stays NaN */
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, man = h & 0x3ff;
    if (exp == 31) return bits_f32(sign | 0x7f800000u | man << 13);
    if (exp) return bits_f32(sign | (exp + 112) << 23 | man << 13);
    float f = (float)man * 0x1p-24f; /* subnormal or zero: exact */
    return bits_f32(sign | f32_bits(f));
}

uint16_t f32_to_f16(float f)
{
    uint32_t u = f32_bits(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x1ff));
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00); /* 65520 and up round to infinity */
    if (a < 0x38800000u) {
        /* below 2^-14: adding 0.5 aligns the result's last bit with 2^-24 and rounds to nearest even */
        float r = bits_f32(a) + 0.5f;
        return (uint16_t)(sign | (f32_bits(r) - 0x3f000000u));
    }
    return (uint16_t)(sign | (a - 0x38000000u + 0xfff + (a >> 13 & 1)) >> 13);
}

static float f8_e4m3_to_f32(uint8_t b)
{
    int exp = b >> 3 & 15, man = b & 7;
    float f = (b & 0x7f) == 0x7f ? NAN : exp ? ldexpf((float)(8 + man), exp - 10) : ldexpf((float)man, -9);
    return b & 0x80 ? -f : f;
}

/* mapped files promise no alignment */
static inline uint16_t load_u16(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, 2);
    return h;
}

static inline float load_f64(const uint8_t *p)
{
    double d;
    memcpy(&d, p, 8);
    return (float)d;
}

void dtype_to_f32(float *dst, enum dtype t, const void *src, size_t n)
{
    const uint8_t *b = src;
    assert(dtype_is_float(t));
    switch (t) {
    case DT_F64:
        for (size_t i = 0; i < n; i++) dst[i] = load_f64(b + 8 * i);
        break;
    case DT_F32:
        memcpy(dst, src, n * sizeof(float));
        break;
    case DT_F16:
        for (size_t i = 0; i < n; i++) dst[i] = f16_to_f32(load_u16(b + 2 * i));
        break;
    case DT_BF16:
        for (size_t i = 0; i < n; i++) dst[i] = bf16_to_f32(load_u16(b + 2 * i));
        break;
    case DT_F8_E4M3:
        for (size_t i = 0; i < n; i++) dst[i] = f8_e4m3_to_f32(b[i]);
        break;
    case DT_F8_E5M2:
        for (size_t i = 0; i < n; i++)
            dst[i] = f16_to_f32((uint16_t)(b[i] << 8)); /* its bits are the high half */
        break;
    case DT_F8_E8M0:
        for (size_t i = 0; i < n; i++) dst[i] = b[i] == 255 ? NAN : ldexpf(1, b[i] - 127);
        break;
    default:
        ggml_to_f32(dst, t, src, n);
    }
}

static uint8_t f32_to_e4m3(float x)
{
    uint8_t sign = signbit(x) ? 0x80 : 0;
    float a = fabsf(x);
    int e;
    if (!(a <= 464)) return sign | 0x7F; /* the type has no infinity */
    if (a < 0x1p-6f) return sign | (uint8_t)rintf(a * 512);
    frexpf(a, &e);
    int man = (int)rintf(ldexpf(a, 4 - e)), code = (e + 6) * 8 + man - 8; /* man 8..16, a carry included */
    return sign | (uint8_t)(code > 0x7E ? 0x7E : code);
}

/* The power of two at or below x. */
static uint8_t f32_to_e8m0(float x)
{
    return isfinite(x) ? (uint8_t)(f32_bits(x) >> 23) : 255;
}

void dtype_from_f32(void *dst, enum dtype t, const float *src, size_t n)
{
    uint16_t *h = dst;
    uint8_t *b = dst;
    assert(t == DT_F32 || t == DT_F16 || t == DT_BF16 || t == DT_F8_E4M3 || t == DT_F8_E8M0);
    if (t == DT_F8_E4M3)
        for (size_t i = 0; i < n; i++) b[i] = f32_to_e4m3(src[i]);
    else if (t == DT_F8_E8M0)
        for (size_t i = 0; i < n; i++) b[i] = f32_to_e8m0(src[i]);
    else if (t == DT_F32)
        memcpy(dst, src, n * sizeof(float));
    else if (t == DT_F16)
        for (size_t i = 0; i < n; i++) h[i] = f32_to_f16(src[i]);
    else
        for (size_t i = 0; i < n; i++) h[i] = f32_to_bf16(src[i]);
}

size_t f64_first_nonfinite(const double *x, size_t n)
{
    size_t i = 0;
    while (i < n && isfinite(x[i])) i++;
    return i;
}

size_t f32_first_nonfinite(const float *x, size_t n)
{
    size_t i = 0;
    while (i < n) {
        /* whole blocks first: one branch in 4096 elements lets the compiler use vectors */
        size_t end = n - i < 4096 ? n : i + 4096, at = i;
        uint32_t bad = 0;
        for (; i < end; i++) bad |= (f32_bits(x[i]) & 0x7f800000u) == 0x7f800000u;
        if (!bad) continue;
        for (i = at; (f32_bits(x[i]) & 0x7f800000u) != 0x7f800000u; i++) {
        }
        return i;
    }
    return n;
}
