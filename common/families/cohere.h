/* SPDX-License-Identifier: Apache-2.0
 * What both generations of Cohere share: one LayerNorm without bias before parallel sublayers, rotation of
 * neighbouring pairs, sizes. */
#ifndef NT_FAMILIES_COHERE_H
#define NT_FAMILIES_COHERE_H
#include "common/families/llama.h"

#define COHERE_TABLE(theta)                                                                                  \
    .hf = LLAMA_HF_NAMES, .gguf = LLAMA_GGUF_NAMES,                                                          \
    .block = {.norm = {[NORM_ATTN] = true},                                                                  \
              .rot_pairs = true,                                                                             \
              .gated = true,                                                                                 \
              .act = ACT_SILU,                                                                               \
              .parallel = true},                                                                             \
    .no_norm_bias = true, .defaults = {                                                                      \
        .vocab = 256000,                                                                                     \
        .hidden = 8192,                                                                                      \
        .ff = 22528,                                                                                         \
        .layers = 40,                                                                                        \
        .heads = 64,                                                                                         \
        .max_pos = 8192,                                                                                     \
        .eps = 1e-5,                                                                                         \
        .rope_theta = theta,                                                                                 \
        .tied = true                                                                                         \
    }
#endif
