/* SPDX-License-Identifier: Apache-2.0
 * What the tests of checkpoint readers share: whole files, the values of the reference files, refusals. */
#ifndef NT_TESTS_CHECKPOINT_FIXTURE_H
#define NT_TESTS_CHECKPOINT_FIXTURE_H
#include "common/checkpoint.h"

void *file_load(const char *file, size_t *n);               /* mem_free it; NULL: not there */
void file_store(const char *file, const void *p, size_t n); /* ends the program where it cannot */

/* The k-th tensor of tests/data/checkpoints/make.py and make_torch.py: type, shape and values, each of which
 * stands there `repeat` times in a row (an expanded dimension; else 1). */
bool values_equal(const struct checkpoint *c, const char *name, int k, enum dtype dtype, int rank,
                  const uint64_t *shape, uint64_t repeat);
#define SHAPE(...) (int)(sizeof((uint64_t[]){__VA_ARGS__}) / 8), (const uint64_t[]){__VA_ARGS__}, 1

/* Opening fails with 65 and one sentence, left in e, that begins with the file and holds want. */
bool refuses(const char *file, const char *want, struct err *e);

/* Stores in `to` every prefix of a file up to its last `padding` bytes (beyond the first `dense` ones every
 * 37th, and the last 100), and opens it. */
struct cuts {
    size_t tried, opened, silent; /* refused without a sentence that names the file */
};
struct cuts cut_everywhere(const char *from, const char *to, size_t dense, size_t padding);
#endif
