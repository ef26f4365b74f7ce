/* SPDX-License-Identifier: Apache-2.0
 * Qwen2 and Qwen2.5: Llama with biases of q, k and v; the upper layers may have a window. */
#include "common/families/llama.h"

const struct family family_qwen2 = {
    .model_type = "qwen2",
    .gguf_arch = "qwen2",
    .hf_class = "Qwen2ForCausalLM",
    .hf = LLAMA_HF_NAMES,
    .gguf = LLAMA_GGUF_NAMES,
    .block = LLAMA_BLOCK,
    .bias = ROLE_BITS_QKV,
    .defaults = {.vocab = 151936,
                 .hidden = 4096,
                 .ff = 22016,
                 .layers = 32,
                 .heads = 32,
                 .groups = 32,
                 .max_pos = 32768,
                 .eps = 1e-6,
                 .rope_theta = 10000},
    .keys = CONFIG_KEYS("sliding_window", "layer_types"),
    .configure = config_qwen_windows,
};
