/* SPDX-License-Identifier: Apache-2.0
 * Cohere (Command R): one LayerNorm without bias before parallel sublayers, rotation of neighbouring pairs,
 * scaled logits, maybe norms of every head's query and key. */
#include "common/families/cohere.h"

static int configure(struct model_config *c, const json_t *j, struct err *e)
{
    double scale = 0.0625;
    bool qk = false;
    if (key_number(j, "logit_scale", &scale, e) || key_bool(j, "use_qk_norm", &qk, e)) return -1;
    c->logit_scale = (float)scale;
    c->block.norm[NORM_Q] = c->block.norm[NORM_K] = qk;
    c->block.qk_norm = qk ? QK_NORM_HEADS : QK_NORM_NONE;
    return 0;
}

static void from_gguf(const struct checkpoint *ck, json_t *j)
{
    json_object_set_new(j, "use_qk_norm", json_boolean(model_gguf_has(ck, "blk.%d.attn_q_norm", ".weight")));
}

const struct family family_cohere = {
    .model_type = "cohere",
    .gguf_arch = "command-r",
    .hf_class = "CohereForCausalLM",
    COHERE_TABLE(500000),
    .keys = CONFIG_KEYS("logit_scale", "use_qk_norm"),
    .configure = configure,
    .from_gguf = from_gguf,
};
