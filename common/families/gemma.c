/* SPDX-License-Identifier: Apache-2.0
 * Gemma: Llama with norms of 1 + w, scaled embeddings and GELU; "gelu" in its files always meant the tanh form. */
#include <math.h>
#include "common/families/llama.h"

static int configure(struct model_config *c, const json_t *j, struct err *e)
{
    (void)j, (void)e;
    if (c->block.act == ACT_GELU) c->block.act = ACT_GELU_TANH;
    c->embed_scale = sqrtf((float)c->block.D);
    return 0;
}

const struct family family_gemma = {
    .model_type = "gemma",
    .gguf_arch = "gemma",
    .hf_class = "GemmaForCausalLM",
    .hf = LLAMA_HF_NAMES,
    .gguf = LLAMA_GGUF_NAMES,
    .block = {.norm = {[NORM_ATTN] = true, [NORM_MLP] = true},
              .rms = true,
              .gated = true,
              .act = ACT_GELU_TANH},
    .norm_offset = 1,
    .defaults = {.vocab = 256000,
                 .hidden = 3072,
                 .ff = 24576,
                 .layers = 28,
                 .heads = 16,
                 .groups = 16,
                 .head_dim = 256,
                 .max_pos = 8192,
                 .eps = 1e-6,
                 .rope_theta = 10000,
                 .tied = true},
    .configure = configure,
};
