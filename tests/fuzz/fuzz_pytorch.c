/* SPDX-License-Identifier: Apache-2.0
 * PyTorch .bin files, zip archives and the older pickles alone: whatever the bytes are, opening ends with a
 * sentence or with tensors that lie inside what was mapped. */
#include "tests/fuzz/fuzz_checkpoint.h"

bool fuzz_seed(int i, uint8_t **data, size_t *size)
{
    static const char *const files[] = {
        "tests/data/checkpoints/torch/legacy.bin", "tests/data/checkpoints/torch/views.bin",
        "tests/data/checkpoints/torch/plain.bin", "tests/data/checkpoints/torch/deflated.bin",
        "tests/data/checkpoints/torch/big.bin"};
    return i < 5 && fuzz_load(files[i], data, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) { return fuzz_open(data, size, ".bin"); }
