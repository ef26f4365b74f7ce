/* SPDX-License-Identifier: Apache-2.0
 * Qwen3: Qwen2 without biases and with a norm of every head's query and key. */
#include "common/families/llama.h"

const struct family family_qwen3 = {
    .model_type = "qwen3",
    .gguf_arch = "qwen3",
    .hf_class = "Qwen3ForCausalLM",
    .hf = LLAMA_HF_NAMES,
    .gguf = LLAMA_GGUF_NAMES,
    .block = LLAMA_QK_NORM_BLOCK,
    .defaults = {.vocab = 151936,
                 .hidden = 4096,
                 .ff = 22016,
                 .layers = 32,
                 .heads = 32,
                 .groups = 32,
                 .head_dim = 128,
                 .max_pos = 32768,
                 .eps = 1e-6,
                 .rope_theta = 10000},
    .keys = CONFIG_KEYS("sliding_window", "layer_types"),
    .configure = config_qwen_windows,
};
