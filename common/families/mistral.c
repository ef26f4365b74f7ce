/* SPDX-License-Identifier: Apache-2.0
 * Mistral: Llama whose attention looks back a window of keys. */
#include "common/families/llama.h"

static int configure(struct model_config *c, const json_t *j, struct err *e)
{
    return config_window(j, 4096, &c->block.window, e);
}

const struct family family_mistral = {
    .model_type = "mistral",
    .gguf_arch = "llama",
    .hf_class = "MistralForCausalLM",
    .hf = LLAMA_HF_NAMES,
    .gguf = LLAMA_GGUF_NAMES,
    .gguf_permuted_qk = true,
    .block = LLAMA_BLOCK,
    .defaults = {.vocab = 32000,
                 .hidden = 4096,
                 .ff = 14336,
                 .layers = 32,
                 .heads = 32,
                 .groups = 8,
                 .max_pos = 131072,
                 .eps = 1e-6,
                 .rope_theta = 10000},
    .keys = CONFIG_KEYS("sliding_window"),
    .configure = configure,
};
