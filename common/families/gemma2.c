/* SPDX-License-Identifier: Apache-2.0
 * Gemma 2: norms of 1 + w before and after each sublayer, soft caps on attention logits and logits, every other
 * layer with a window, attention scaled by query_pre_attn_scalar. */
#include <math.h>
#include "common/families/gemma.h"

static int configure(struct model_config *c, const json_t *j, struct err *e)
{
    int window;
    double scalar = 256, cap = 50, final_cap = 30;
    c->block.act = ACT_GELU_TANH, c->embed_scale = sqrtf((float)c->block.D);
    if (key_act(j, "hidden_activation", &c->block.act, e) ||
        key_number(j, "query_pre_attn_scalar", &scalar, e) ||
        config_softcap(j, "attn_logit_softcapping", &cap, e) ||
        config_softcap(j, "final_logit_softcapping", &final_cap, e) || config_window(j, 4096, &window, e))
        return -1;
    c->block.scale = (float)(1 / sqrt(scalar));
    c->block.softcap = (float)cap, c->logit_softcap = (float)final_cap;
    return config_sliding(c, j, window, 2, e);
}

static void from_gguf(const struct checkpoint *ck, json_t *j)
{
    (void)ck;
    gemma_scale_from_gguf(j, 46);
}

const struct family family_gemma2 = {
    .model_type = "gemma2",
    .gguf_arch = "gemma2",
    .hf_class = "Gemma2ForCausalLM",
    .hf = GEMMA_HF_NAMES,
    .gguf = GEMMA_GGUF_NAMES,
    .block = {.norm = {[NORM_ATTN] = true, [NORM_MLP] = true, [NORM_ATTN_OUT] = true, [NORM_MLP_OUT] = true},
              .rms = true,
              .gated = true},
    .norm_offset = 1,
    .defaults = {.vocab = 256000,
                 .hidden = 2304,
                 .ff = 9216,
                 .layers = 26,
                 .heads = 8,
                 .groups = 4,
                 .head_dim = 256,
                 .max_pos = 8192,
                 .eps = 1e-6,
                 .rope_theta = 10000,
                 .tied = true},
    .keys = CONFIG_KEYS("sliding_window", "layer_types", "query_pre_attn_scalar", "attn_logit_softcapping",
                        "final_logit_softcapping"),
    .configure = configure,
    .from_gguf = from_gguf,
};
