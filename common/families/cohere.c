/* SPDX-License-Identifier: Apache-2.0
 * Cohere (Command R): one LayerNorm without bias before parallel sublayers, rotation of neighbouring pairs,
 * scaled logits, maybe norms of every head's query and key. */
#include "common/families/llama.h"

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
    .hf = LLAMA_HF_NAMES,
    .gguf = LLAMA_GGUF_NAMES,
    .block = {.norm = {[NORM_ATTN] = true},
              .rot_pairs = true,
              .gated = true,
              .act = ACT_SILU,
              .parallel = true},
    .no_norm_bias = true,
    .defaults = {.vocab = 256000,
                 .hidden = 8192,
                 .ff = 22528,
                 .layers = 40,
                 .heads = 64,
                 .max_pos = 8192,
                 .eps = 1e-5,
                 .rope_theta = 500000,
                 .tied = true},
    .keys = CONFIG_KEYS("logit_scale", "use_qk_norm"),
    .configure = configure,
    .from_gguf = from_gguf,
};
