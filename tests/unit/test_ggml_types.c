/* SPDX-License-Identifier: Apache-2.0
 * ggml's block types against the gguf Python package (tests/data/ggml/make.py). NT_GGML_DATA=DIR: a larger set made by
 * the same script, `make.py DIR 4096`. */
#include "common/ggml_types.h"
#include "common/mem.h"
#include "tests/check.h"

static void *load(const char *dir, const char *name, const char *suffix, size_t *n)
{
    char *path = mem_printf("%s/%s.%s", dir, name, suffix);
    FILE *f = fopen(path, "rb");
    mem_free(path);
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    void *p = mem_array(*n, 1);
    if (fread(p, 1, *n, f) != *n) *n = 0;
    fclose(f);
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

/* Packing known codes and reading them back: the value formulas, not the packer, give the expectation. */
static void packing(void)
{
    uint8_t code[32], b0[18], b1[20], b8[34];
    int8_t q[32];
    float y[32];
    int bad = 0;
    for (int i = 0; i < 32; i++) code[i] = (uint8_t)((i * 7 + 3) % 16), q[i] = (int8_t)(i * 8 - 128);
    ggml_pack_q4_0(b0, f32_to_f16(-0.375f), code);
    ggml_to_f32(y, DT_Q4_0, b0, 32);
    for (int i = 0; i < 32; i++) bad += y[i] != -0.375f * (float)(code[i] - 8);
    CHECK(!bad, "Q4_0: packed block reads back");
    ggml_pack_q4_1(b1, f32_to_f16(0.5f), f32_to_f16(-3.25f), code);
    ggml_to_f32(y, DT_Q4_1, b1, 32);
    for (int i = 0; i < 32; i++) bad += y[i] != 0.5f * (float)code[i] - 3.25f;
    CHECK(!bad, "Q4_1: packed block reads back");
    ggml_pack_q8_0(b8, f32_to_f16(0.125f), q);
    ggml_to_f32(y, DT_Q8_0, b8, 32);
    for (int i = 0; i < 32; i++) bad += y[i] != 0.125f * (float)q[i];
    CHECK(!bad, "Q8_0: packed block reads back");
}

int main(void)
{
    static const enum dtype types[] = {DT_Q4_0, DT_Q4_1, DT_Q5_0, DT_Q5_1, DT_Q8_0, DT_Q2_K, DT_Q3_K, DT_Q4_K, DT_Q5_K,
                                       DT_Q6_K};
    const char *more = getenv("NT_GGML_DATA");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) compare("tests/data/ggml", types[i]);
    for (size_t i = 0; more && i < sizeof types / sizeof *types; i++) compare(more, types[i]);
    if (!more) SKIP("NT_GGML_DATA unset: no larger comparison");
    packing();
    CHECK(ggml_type_id(DT_Q6_K) == 14 && ggml_type_id(DT_BF16) == 30 && ggml_type_id(DT_U8) == -1, "type numbers");
    CHECK(ggml_type_dtype(3) == DT_Q4_1 && ggml_type_dtype(4) == DT_NONE && ggml_type_dtype(4000000000u) == DT_NONE &&
          strcmp(ggml_type_name(17), "IQ2_XS") == 0, "numbers to types");
    return check_done();
}
