/* SPDX-License-Identifier: Apache-2.0
 * Llama: RMSNorm before attention and feed-forward, rotary positions, grouped keys, SwiGLU, optional biases.
 */
#include "common/families/llama.h"

const struct family family_llama = {
    .model_type = "llama",
    .gguf_arch = "llama",
    .hf_class = "LlamaForCausalLM",
    .hf = LLAMA_HF_NAMES,
    .gguf = LLAMA_GGUF_NAMES,
    .gguf_permuted_qk = true,
    .block = LLAMA_BLOCK,
    .defaults = {.vocab = 32000,
                 .hidden = 4096,
                 .ff = 11008,
                 .layers = 32,
                 .heads = 32,
                 .max_pos = 2048,
                 .eps = 1e-6,
                 .rope_theta = 10000},
};
