/* SPDX-License-Identifier: Apache-2.0
 * ggml's block types against the gguf Python package (tests/data/ggml/make.py). NT_GGML_DATA=DIR: a larger
 * set made by the same script, `make.py DIR 4096`. */
#include "common/ggml_types.h"
#include "common/mem.h"
#include "tests/check.h"
#include "tests/unit/checkpoint_fixture.h"

static void *load(const char *dir, const char *name, const char *suffix, size_t *n)
{
    char *path = mem_printf("%s/%s.%s", dir, name, suffix);
    void *p = file_load(path, n);
    mem_free(path);
    return p;
}

static void compare(const char *dir, enum dtype t)
{
    size_t nb = 0, ny = 0;
    uint8_t *b = load(dir, dtype_name(t), "blocks", &nb);
    float *want = load(dir, dtype_name(t), "f32", &ny);
    size_t n = nb / (size_t)dtype_block_bytes(t) * (size_t)dtype_block(t);
    if (!CHECK(b && want && n > 0 && ny == 4 * n, "%s: data there", dtype_name(t))) return;
    float *y = MEM_NEW(float, n);
    ggml_to_f32(y, t, b, n);
    CHECK(memcmp(y, want, 4 * n) == 0, "%s: %zu values equal to the gguf package", dtype_name(t), n);
    memset(y, 0, 4 * n);
    dtype_to_f32(y, t, b, n);
    CHECK(memcmp(y, want, 4 * n) == 0, "%s: dtype_to_f32 gives the same", dtype_name(t));
    mem_free(b);
    mem_free(want);
    mem_free(y);
}

/* Packing known numbers and reading them back: the value formulas, not the packer, give the expectation. */
static void packing(enum dtype t, int lo, int hi, float m)
{
    uint8_t b[34];
    int n[32], bad = 0;
    float y[32];
    for (int i = 0; i < 32; i++) n[i] = i == 30 ? lo : i == 31 ? hi : lo + (i * 29 + 3) % (hi - lo + 1);
    ggml_pack_block(b, t, f32_to_f16(-0.375f), f32_to_f16(m), n);
    ggml_to_f32(y, t, b, 32);
    for (int i = 0; i < 32; i++) bad += y[i] != -0.375f * (float)n[i] + m;
    CHECK(!bad, "%s: a packed block reads back", dtype_name(t));
}

/* Two types that the gguf package knows by number only: by hand. */
static void small_types(void)
{
    uint8_t b[18] = {0x00, 0xB8, 0x05, 0x80}; /* d = -0.5 */
    float y[128];
    ggml_to_f32(y, DT_Q1_0, b, 128);
    CHECK(y[0] == -0.5f && y[1] == 0.5f && y[2] == -0.5f && y[3] == 0.5f && y[14] == 0.5f && y[15] == -0.5f &&
              y[127] == 0.5f,
          "Q1_0: -d or d by a bit, the lowest first");
    b[2] = 0xE4, b[3] = 0, b[17] = 0xC0; /* 0 1 2 3 ... 3 */
    ggml_to_f32(y, DT_Q2_0, b, 64);
    CHECK(y[0] == 0.5f && y[1] == 0 && y[2] == -0.5f && y[3] == -1 && y[4] == 0.5f && y[62] == 0.5f &&
              y[63] == -1,
          "Q2_0: d times -1 to 2");
}

int main(void)
{
    static const enum dtype types[] = {
        DT_Q4_0,   DT_Q4_1,   DT_Q5_0,    DT_Q5_1,   DT_Q8_0,  DT_Q2_K,    DT_Q3_K,  DT_Q4_K,
        DT_Q5_K,   DT_Q6_K,   DT_IQ1_S,   DT_IQ1_M,  DT_IQ2_XXS, DT_IQ2_XS, DT_IQ2_S, DT_IQ3_XXS,
        DT_IQ3_S,  DT_IQ4_NL, DT_IQ4_XS,  DT_TQ1_0,  DT_TQ2_0, DT_MXFP4,   DT_NVFP4};
    const char *more = getenv("NT_GGML_DATA");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) compare("tests/data/ggml", types[i]);
    for (size_t i = 0; more && i < sizeof types / sizeof *types; i++) compare(more, types[i]);
    if (!more) SKIP("NT_GGML_DATA unset: no larger comparison");
    small_types();
    packing(DT_Q4_0, -8, 7, 0);
    packing(DT_Q4_1, 0, 15, -3.25f);
    packing(DT_Q5_0, -16, 15, 0);
    packing(DT_Q5_1, 0, 31, 1.5f);
    packing(DT_Q8_0, -128, 127, 0);
    CHECK(ggml_type_id(DT_Q6_K) == 14 && ggml_type_id(DT_BF16) == 30 && ggml_type_id(DT_U8) == -1,
          "type numbers");
    CHECK(ggml_type_dtype(3) == DT_Q4_1 && ggml_type_dtype(4) == DT_NONE &&
              ggml_type_dtype(4000000000u) == DT_NONE && strcmp(ggml_type_name(17), "IQ2_XS") == 0,
          "numbers to types");
    return check_done();
}
