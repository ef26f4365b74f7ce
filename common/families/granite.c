/* SPDX-License-Identifier: Apache-2.0
 * Granite: Llama with multipliers of embeddings, attention logits, what a sublayer adds, and logits. */
#include <math.h>
#include "common/families/llama.h"

static int configure(struct model_config *c, const json_t *j, struct err *e)
{
    double embed = 1, residual = 1, attention = 1, logits = 1;
    if (key_number(j, "embedding_multiplier", &embed, e) ||
        key_number(j, "residual_multiplier", &residual, e) ||
        key_number(j, "attention_multiplier", &attention, e) || key_number(j, "logits_scaling", &logits, e))
        return -1;
    c->embed_scale = (float)embed, c->block.residual = (float)residual;
    c->block.scale = (float)attention, c->logit_scale = (float)(1 / logits);
    return 0;
}

/* llama.cpp's default is that of other families, transformers' is 1. */
static void from_gguf(const struct checkpoint *ck, json_t *j)
{
    double E = json_number_value(json_object_get(j, "head_dim"));
    (void)ck;
    if (!json_is_number(json_object_get(j, "attention_multiplier")))
        json_object_set_new(j, "attention_multiplier", json_real(1 / sqrt(E > 0 ? E : 1)));
}

const struct family family_granite = {
    .model_type = "granite",
    .gguf_arch = "granite",
    .hf_class = "GraniteForCausalLM",
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
    .keys = CONFIG_KEYS("embedding_multiplier", "residual_multiplier", "attention_multiplier",
                        "logits_scaling"),
    .configure = configure,
    .from_gguf = from_gguf,
};
