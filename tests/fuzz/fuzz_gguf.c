/* SPDX-License-Identifier: Apache-2.0
 * GGUF files: whatever the bytes are, opening ends with a sentence or with tensors that lie inside the file.
 */
#include "tests/fuzz/fuzz_checkpoint.h"

bool fuzz_seed(int i, uint8_t **data, size_t *size)
{
    static const char *const files[] = {"tests/data/checkpoints/tiny.gguf",
                                        "tests/data/checkpoints/split-00002-of-00002.gguf",
                                        "tests/data/pack/tiny.gguf"};
    return i < 3 && fuzz_load(files[i], data, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) { return fuzz_open(data, size, ".gguf"); }
