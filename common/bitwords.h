/* SPDX-License-Identifier: Apache-2.0
 * Values of a few bits in 32-bit words, as GPTQ, AWQ, compressed-tensors and MLX files have them: one dense
 * stream of bits, the least significant first, whose words may lie `stride` apart. */
#ifndef NT_BITWORDS_H
#define NT_BITWORDS_H
#include <stddef.h>
#include <stdint.h>

/* Words that n values need; the last one may end in unused bits. */
static inline uint64_t bits_words(uint64_t n, int bits)
{
    return (n * (uint64_t)bits + 31) / 32;
}

/* Value i. The words start as zeros and each value is put once. */
static inline void bits_put(uint32_t *words, size_t stride, uint64_t i, int bits, uint32_t v)
{
    uint64_t at = i * (uint64_t)bits;
    int off = (int)(at % 32);
    words[at / 32 * stride] |= v << off;
    if (off + bits > 32) words[(at / 32 + 1) * stride] |= v >> (32 - off);
}

static inline uint32_t bits_take(const uint32_t *words, size_t stride, uint64_t i, int bits)
{
    uint64_t at = i * (uint64_t)bits;
    int off = (int)(at % 32);
    uint32_t v = words[at / 32 * stride] >> off;
    if (off + bits > 32) v |= words[(at / 32 + 1) * stride] << (32 - off);
    return v & ((1u << bits) - 1);
}
#endif
