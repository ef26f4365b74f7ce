/* SPDX-License-Identifier: Apache-2.0
 * Mixtral: Mistral whose feed-forwards are experts, two of which see a token. */
#include "common/families/llama.h"

static int configure(struct model_config *c, const json_t *j, struct err *e)
{
    c->block.expert_F = c->block.F;
    c->block.norm_topk = true;
    return config_window(j, 0, &c->block.window, e) || config_experts(c, j, 8, 2, false, e) ? -1 : 0;
}

const struct family family_mixtral = {
    .model_type = "mixtral",
    .gguf_arch = "llama",
    .hf_class = "MixtralForCausalLM",
    .hf = {LLAMA_HF_FIELDS,
           .expert = {"model.layers.%d.block_sparse_moe.experts.%x.w1", "model.layers.%d.block_sparse_moe.experts.%x.w3",
                      "model.layers.%d.block_sparse_moe.experts.%x.w2"},
           .router = "model.layers.%d.block_sparse_moe.gate"},
    .gguf = LLAMA_GGUF_EXPERTS,
    .gguf_permuted_qk = true,
    .block = LLAMA_BLOCK,
    .defaults = {.vocab = 32000,
                 .hidden = 4096,
                 .ff = 14336,
                 .layers = 32,
                 .heads = 32,
                 .groups = 8,
                 .max_pos = 131072,
                 .eps = 1e-5,
                 .rope_theta = 1e6},
    .spellings = CONFIG_KEYS("num_local_experts", "num_experts"),
    .keys = CONFIG_KEYS("sliding_window", "num_experts", "num_local_experts", "num_experts_per_tok"),
    .configure = configure,
};
