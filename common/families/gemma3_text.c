/* SPDX-License-Identifier: Apache-2.0
 * Gemma 3, its language model: Gemma 2 with norms of queries and keys instead of soft caps, and a rope of its own
 * for layers with a window (the first five of six). transformers computes nothing with attn_logit_softcapping. */
#include <math.h>
#include "common/families/gemma.h"

static int configure(struct model_config *c, const json_t *j, struct err *e)
{
    int window, pattern = 6;
    double scalar = 256, final_cap = 0, local = 10000;
    c->block.act = ACT_GELU_TANH, c->embed_scale = sqrtf((float)c->block.D);
    if (key_act(j, "hidden_activation", &c->block.act, e) ||
        key_number(j, "query_pre_attn_scalar", &scalar, e) ||
        config_softcap(j, "final_logit_softcapping", &final_cap, e) || config_window(j, 4096, &window, e) ||
        key_int(j, "sliding_window_pattern", 1, &pattern, e) ||
        key_number(j, "rope_local_base_freq", &local, e))
        return -1;
    c->block.scale = (float)(1 / sqrt(scalar)), c->logit_softcap = (float)final_cap;
    return config_sliding(c, j, window, pattern, e) ? -1 : config_local_rope(c, j, local, e);
}

static void from_gguf(const struct checkpoint *ck, json_t *j)
{
    (void)ck;
    gemma_scale_from_gguf(j, 62);
}

const struct family family_gemma3_text = {
    .model_type = "gemma3_text",
    .gguf_arch = "gemma3",
    .hf_class = "Gemma3ForCausalLM",
    .hf = GEMMA_HF_NAMES,
    .gguf = GEMMA_GGUF_NAMES,
    .block = {.norm = {true, true, true, true, true, true},
              .rms = true,
              .qk_norm = QK_NORM_HEAD,
              .qk_rms = true,
              .gated = true},
    .norm_offset = 1,
    .rope_layer_type = "full_attention",
    .defaults = {.vocab = 262208,
                 .hidden = 2304,
                 .ff = 9216,
                 .layers = 26,
                 .heads = 8,
                 .groups = 4,
                 .head_dim = 256,
                 .max_pos = 131072,
                 .eps = 1e-6,
                 .rope_theta = 1e6,
                 .tied = true},
    .keys = CONFIG_KEYS("sliding_window", "layer_types", "query_pre_attn_scalar", "attn_logit_softcapping",
                        "final_logit_softcapping", "sliding_window_pattern", "rope_local_base_freq"),
    .configure = configure,
    .from_gguf = from_gguf,
};
