/* SPDX-License-Identifier: Apache-2.0
 * OLMo: Llama whose LayerNorms have no parameters; maybe q, k and v clamped. */
#include "common/families/llama.h"

static int configure(struct model_config *c, const json_t *j, struct err *e)
{
    double clip = 0;
    if (key_number(j, "clip_qkv", &clip, e)) return -1;
    c->block.clip = (float)clip;
    c->norm_constant = true;
    c->block.eps = 1e-5f; /* no key says it */
    return 0;
}

const struct family family_olmo = {
    .model_type = "olmo",
    .gguf_arch = "olmo",
    .hf_class = "OlmoForCausalLM",
    .hf = LLAMA_HF_NAMES,
    .gguf = LLAMA_GGUF_NAMES,
    .gguf_permuted_qk = true,
    .block = {.norm = {[NORM_ATTN] = true, [NORM_MLP] = true}, .gated = true, .act = ACT_SILU},
    .no_norm_bias = true,
    .defaults = {.vocab = 50304,
                 .hidden = 4096,
                 .ff = 11008,
                 .layers = 32,
                 .heads = 32,
                 .max_pos = 2048,
                 .eps = 1e-5,
                 .rope_theta = 10000},
    .keys = CONFIG_KEYS("clip_qkv"),
    .configure = configure,
};
