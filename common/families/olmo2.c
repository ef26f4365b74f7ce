/* SPDX-License-Identifier: Apache-2.0
 * OLMo 2: norms of what each sublayer gives, none before it; norms of whole queries and keys. */
#include "common/families/gemma.h"

const struct family family_olmo2 = {
    .model_type = "olmo2",
    .gguf_arch = "olmo2",
    .hf_class = "Olmo2ForCausalLM",
    .hf = GEMMA_HF_NAMES,
    .gguf = GEMMA_GGUF_NAMES,
    .block = {.norm = {[NORM_ATTN_OUT] = true, [NORM_MLP_OUT] = true, [NORM_Q] = true, [NORM_K] = true},
              .rms = true,
              .qk_norm = QK_NORM_WHOLE,
              .qk_rms = true,
              .gated = true,
              .act = ACT_SILU},
    .defaults = {.vocab = 50304,
                 .hidden = 4096,
                 .ff = 11008,
                 .layers = 32,
                 .heads = 32,
                 .max_pos = 2048,
                 .eps = 1e-5,
                 .rope_theta = 10000},
};
