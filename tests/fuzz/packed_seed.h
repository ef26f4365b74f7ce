/* SPDX-License-Identifier: Apache-2.0
 * Small valid checkpoints of each layout of quantized weights, for the fuzz target and the unit test: a table
 * of parts, the safetensors file they make, the config.json that goes with them. */
#ifndef NT_PACKED_SEED_H
#define NT_PACKED_SEED_H
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEED_OPTIONAL = 1, SEED_LOOSE = 2, SEED_TEXT = 4 };

struct seed_part {
    const char *name, *dtype;
    int rank, shape[2], size;
    const char *data; /* 16 bytes, or with SEED_TEXT a string; NULL: zeros */
    int flags;        /* SEED_OPTIONAL: may be missing; SEED_LOOSE: other sizes would be valid, too */
};

#define SEED_PARTS 8
static const struct seed {
    const char *layout, *config;
    struct seed_part part[SEED_PARTS];
} seeds[] = {
    {"gptq",
     "{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32,\"sym\":false}}",
     {{"a.qweight", "I32", 2, {8, 32}, 4, NULL, 0},
      {"a.qzeros", "I32", 2, {2, 4}, 4, NULL, 0},
      {"a.scales", "F16", 2, {2, 32}, 2, NULL, 0},
      {"a.g_idx", "I32", 1, {64, 0}, 4, NULL, SEED_OPTIONAL}}},
    {"awq",
     "{\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":32}}",
     {{"a.qweight", "I32", 2, {64, 4}, 4, NULL, SEED_LOOSE},
      {"a.qzeros", "I32", 2, {2, 4}, 4, NULL, 0},
      {"a.scales", "F16", 2, {2, 32}, 2, NULL, 0}}},
    {"compressed-tensors",
     "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"config_groups\":{\"g\":{"
     "\"weights\":"
     "{\"num_bits\":4,\"group_size\":32}}}}}",
     {{"a.weight_packed", "I32", 2, {32, 8}, 4, NULL, 0},
      {"a.weight_scale", "F16", 2, {32, 2}, 2, NULL, 0},
      {"a.weight_shape", "I64", 1, {2, 0}, 8, "\x20\0\0\0\0\0\0\0\x40\0\0\0\0\0\0", 0},
      {"a.weight_zero_point", "I32", 2, {4, 2}, 4, NULL, SEED_OPTIONAL},
      {"a.weight_g_idx", "I32", 1, {64, 0}, 4, NULL, SEED_OPTIONAL}}},
    {"compressed-tensors",
     "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\"}}",
     {{"b.weight_packed", "U8", 2, {32, 16}, 1, NULL, 0},
      {"b.weight_scale", "F8_E4M3", 2, {32, 2}, 1, NULL, 0},
      {"b.weight_global_scale", "F32", 1, {1, 0}, 4, "\0\0\x80\x3f\0\0\0\0\0\0\0\0\0\0\0", 0}}},
    {"compressed-tensors",
     "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\"}}",
     {{"c.weight", "I8", 2, {32, 32}, 1, NULL, SEED_LOOSE},
      {"c.weight_scale", "F32", 2, {32, 1}, 4, NULL, 0},
      {"c.weight_zero_point", "I8", 2, {32, 1}, 1, NULL, SEED_OPTIONAL}}},
    {"mlx",
     "{\"quantization\":{\"group_size\":32,\"bits\":4}}",
     {{"a.weight", "U32", 2, {32, 8}, 4, NULL, 0},
      {"a.scales", "F16", 2, {32, 2}, 2, NULL, 0},
      {"a.biases", "F16", 2, {32, 2}, 2, NULL, 0}}},
    {"bitsandbytes",
     "{\"quantization_config\":{\"quant_method\":\"bitsandbytes\"}}",
     {{"a.weight", "U8", 2, {1024, 1}, 1, NULL, 0},
      {"a.weight.absmax", "F32", 1, {32, 0}, 4, NULL, 0},
      {"a.weight.quant_state.bitsandbytes__nf4", "U8", 1, {36, 0}, 1,
       "{\"blocksize\": 64, \"shape\": [32, 64]}", SEED_TEXT}}},
    {"bitsandbytes",
     "{\"quantization_config\":{\"quant_method\":\"bitsandbytes\"}}",
     {{"a.weight", "U8", 2, {1024, 1}, 1, NULL, 0},
      {"a.weight.absmax", "U8", 1, {128, 0}, 1, NULL, 0},
      {"a.weight.nested_absmax", "F32", 1, {2, 0}, 4, NULL, 0},
      {"a.weight.nested_quant_map", "F32", 1, {256, 0}, 4, NULL, 0},
      {"a.weight.quant_state.bitsandbytes__fp4", "U8", 1, {76, 0}, 1,
       "{\"blocksize\":16,\"shape\":[32,64],\"nested_blocksize\":64,\"nested_offset\":0.125}", SEED_TEXT}}},
    {"bitsandbytes",
     "{\"quantization_config\":{\"quant_method\":\"bitsandbytes\"}}",
     {{"a.weight", "I8", 2, {32, 32}, 1, NULL, SEED_LOOSE},
      {"a.SCB", "F32", 1, {32, 0}, 4, NULL, 0},
      {"a.weight_format", "U8", 1, {1, 0}, 1, NULL, SEED_OPTIONAL}}},
    {"hqq",
     "{\"quantization_config\":{\"quant_method\":\"hqq\"}}",
     {{"a.W_q", "U8", 2, {32, 32}, 1, NULL, 0},
      {"a.scale", "F16", 2, {64, 1}, 2, NULL, 0},
      {"a.zero", "F16", 2, {64, 1}, 2, NULL, 0},
      {"a.shape", "I64", 1, {2, 0}, 8, "\x20\0\0\0\0\0\0\0\x40\0\0\0\0\0\0", 0},
      {"a.axis", "I32", 1, {1, 0}, 4, "\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 0},
      {"a.packing", "U8", 1, {7, 0}, 1, "4bit_u8", SEED_TEXT}}},
    {"hqq",
     "{}",
     {{"a.W_q", "I32", 2, {2, 128}, 4, NULL, 0},
      {"a.scale", "BF16", 2, {1, 128}, 2, NULL, 0},
      {"a.zero", "BF16", 2, {1, 128}, 2, NULL, 0},
      {"a.shape", "I64", 1, {2, 0}, 8, "\x20\0\0\0\0\0\0\0\x40\0\0\0\0\0\0", 0},
      {"a.axis", "I32", 1, {1, 0}, 4, NULL, 0},
      {"a.packing", "U8", 1, {7, 0}, 1, "3bit_32", SEED_TEXT}}},
    {"modelopt",
     "{\"quantization_config\":{\"quant_method\":\"modelopt\",\"quant_algo\":\"NVFP4\"}}",
     {{"a.weight", "U8", 2, {32, 16}, 1, NULL, 0},
      {"a.weight_scale", "F8_E4M3", 2, {32, 2}, 1, NULL, 0},
      {"a.weight_scale_2", "F32", 1, {1, 0}, 4, "\0\0\x80\x3f\0\0\0\0\0\0\0\0\0\0\0", 0}}},
    {"modelopt",
     "{\"quantization_config\":{\"quant_method\":\"fbgemm_fp8\"}}",
     {{"a.weight", "F8_E4M3", 2, {32, 32}, 1, NULL, SEED_LOOSE},
      {"a.weight_scale", "F32", 2, {32, 1}, 4, NULL, 0}}},
};
#define N_SEEDS ((int)(sizeof seeds / sizeof *seeds))

/* The file of these parts; without those whose name is NULL. The caller frees. */
static inline uint8_t *seed_file(const struct seed_part *part, size_t *size)
{
    char head[2048] = "{", *o = head + 1;
    size_t at = 0, n;
    for (int i = 0; i < SEED_PARTS; i++) {
        const struct seed_part *p = &part[i];
        if (!p->name) continue;
        n = (size_t)p->size * (size_t)p->shape[0] * (size_t)(p->rank == 2 ? p->shape[1] : 1);
        o += sprintf(o, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%d", o == head + 1 ? "" : ",", p->name,
                     p->dtype, p->shape[0]);
        if (p->rank == 2) o += sprintf(o, ",%d", p->shape[1]);
        o += sprintf(o, "],\"data_offsets\":[%zu,%zu]}", at, at + n);
        at += n;
    }
    *o++ = '}', *o = 0;
    uint64_t len = (uint64_t)(o - head);
    uint8_t *f = calloc(1, 8 + (size_t)len + at);
    for (int i = 0; i < 8; i++) f[i] = (uint8_t)(len >> 8 * i);
    memcpy(f + 8, head, (size_t)len);
    *size = 8 + (size_t)len + at;
    for (int i = 0, to = (int)(8 + len); i < SEED_PARTS; i++) {
        const struct seed_part *p = &part[i];
        if (!p->name) continue;
        n = (size_t)p->size * (size_t)p->shape[0] * (size_t)(p->rank == 2 ? p->shape[1] : 1);
        size_t has = !p->data ? 0 : p->flags & SEED_TEXT ? strlen(p->data) : 16;
        if (has) memcpy(f + to, p->data, n < has ? n : has);
        to += (int)n;
    }
    return f;
}
#endif
