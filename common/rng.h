/* SPDX-License-Identifier: Apache-2.0
 * Counter-based random numbers (Philox4x32-10; Salmon et al., SC 2011): value i of stream s of a seed is a
 * pure function, so results do not depend on threads, batches or shards. */
#ifndef NT_RNG_H
#define NT_RNG_H
#include <stdint.h>

void rng_block(uint64_t seed, uint64_t stream, uint64_t counter, uint32_t out[4]);
uint32_t rng_u32(uint64_t seed, uint64_t stream, uint64_t counter);
double rng_uniform(uint64_t seed, uint64_t stream, uint64_t counter);             /* [0, 1), 53 bits */
uint64_t rng_below(uint64_t seed, uint64_t stream, uint64_t counter, uint64_t n); /* [0, n), n > 0 */
#endif
