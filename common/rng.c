/* SPDX-License-Identifier: Apache-2.0
 * Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011,
 * section 3.3). Key = seed; counter words 0-1 = counter, 2-3 = stream. */
#include "common/rng.h"

void rng_block(uint64_t seed, uint64_t stream, uint64_t counter, uint32_t out[4])
{
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32), c2 = (uint32_t)stream,
             c3 = (uint32_t)(stream >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)a;
        k0 += 0x9E3779B9u; /* golden ratio, and sqrt(3) - 1: the paper's Weyl constants */
        k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

uint32_t rng_u32(uint64_t seed, uint64_t stream, uint64_t counter)
{
    uint32_t b[4];
    rng_block(seed, stream, counter, b);
    return b[0];
}

static uint64_t rng_u64(uint64_t seed, uint64_t stream, uint64_t counter)
{
    uint32_t b[4];
    rng_block(seed, stream, counter, b);
    return (uint64_t)b[1] << 32 | b[0];
}

double rng_uniform(uint64_t seed, uint64_t stream, uint64_t counter)
{
    return (double)(rng_u64(seed, stream, counter) >> 11) * 0x1p-53;
}

uint64_t rng_below(uint64_t seed, uint64_t stream, uint64_t counter, uint64_t n)
{
    /* high word of a 64 x 64 bit product: the bias is below n / 2^64 */
    return (uint64_t)(((unsigned __int128)rng_u64(seed, stream, counter) * n) >> 64);
}
