/* SPDX-License-Identifier: Apache-2.0
 * Qwen3-MoE: Qwen3 with routed experts; some layers may be plain. */
#include "common/families/llama.h"

static int configure(struct model_config *c, const json_t *j, struct err *e)
{
    bool use = false;
    int window;
    c->block.expert_F = 768;
    if (key_bool(j, "use_sliding_window", &use, e) || config_window(j, 4096, &window, e) ||
        key_int(j, "moe_intermediate_size", 1, &c->block.expert_F, e))
        return -1;
    c->block.window = use ? window : 0;
    return config_experts(c, j, 128, 8, true, e);
}

/* llama.cpp's always divides the weights of the chosen experts by their sum. */
static void from_gguf(const struct checkpoint *ck, json_t *cfg)
{
    (void)ck;
    json_object_set_new(cfg, "norm_topk_prob", json_true());
}

const struct family family_qwen3_moe = {
    .model_type = "qwen3_moe",
    .gguf_arch = "qwen3moe",
    .hf_class = "Qwen3MoeForCausalLM",
    .hf = {LLAMA_HF_FIELDS, QWEN_HF_EXPERTS},
    .gguf = LLAMA_GGUF_EXPERTS,
    .block = LLAMA_QK_NORM_BLOCK,
    .defaults = {.vocab = 151936,
                 .hidden = 2048,
                 .ff = 6144,
                 .layers = 24,
                 .heads = 32,
                 .groups = 4,
                 .max_pos = 32768,
                 .eps = 1e-6,
                 .rope_theta = 10000},
    .spellings = CONFIG_KEYS("num_local_experts", "num_experts"),
    .keys = CONFIG_KEYS("sliding_window", "num_experts", "num_local_experts", "num_experts_per_tok",
                        "moe_intermediate_size"),
    .configure = configure,
    .from_gguf = from_gguf,
};
