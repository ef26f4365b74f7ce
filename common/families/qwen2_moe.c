/* SPDX-License-Identifier: Apache-2.0
 * Qwen2-MoE (Qwen1.5-MoE, Qwen2-57B-A14B): Qwen2 with routed experts and one that sees every token, weighed by a gate
 * of its own; some layers may be plain. */
#include "common/families/llama.h"

/* Of windows, as the class has it: every second of the lower layers. */
static int windows(struct model_config *c, const json_t *j, struct err *e)
{
    bool use = false;
    int window, below = 28;
    if (key_bool(j, "use_sliding_window", &use, e) || config_window(j, 4096, &window, e) ||
        key_int(j, "max_window_layers", 0, &below, e))
        return -1;
    if (!use) window = 0;
    for (int l = 0; l < c->n_layers; l++) c->layer[l].window = l % 2 == 0 && l < below ? window : 0;
    return config_layer_types(c, j, window, e);
}

static int configure(struct model_config *c, const json_t *j, struct err *e)
{
    struct block_shape *s = &c->block;
    bool bias = true;
    s->expert_F = 1408, s->shared_F = 5632;
    if (key_int(j, "moe_intermediate_size", 1, &s->expert_F, e) ||
        key_int(j, "shared_expert_intermediate_size", 1, &s->shared_F, e) || key_bool(j, "qkv_bias", &bias, e))
        return -1;
    for (int r = ROLE_Q; r <= ROLE_V; r++) c->bias[r] = bias;
    return windows(c, j, e) || config_experts(c, j, 60, 4, true, e) ? -1 : 0;
}

const struct family family_qwen2_moe = {
    .model_type = "qwen2_moe",
    .gguf_arch = "qwen2moe",
    .hf_class = "Qwen2MoeForCausalLM",
    .hf = {LLAMA_HF_FIELDS, QWEN_HF_EXPERTS,
           .shared = {"model.layers.%d.mlp.shared_expert.gate_proj", "model.layers.%d.mlp.shared_expert.up_proj",
                      "model.layers.%d.mlp.shared_expert.down_proj"},
           .shared_gate = "model.layers.%d.mlp.shared_expert_gate"},
    .gguf = LLAMA_GGUF_EXPERTS,
    .block = LLAMA_BLOCK,
    .bias = ROLE_BITS_QKV,
    .defaults = {.vocab = 151936,
                 .hidden = 2048,
                 .ff = 5632,
                 .layers = 24,
                 .heads = 16,
                 .groups = 16,
                 .max_pos = 32768,
                 .eps = 1e-6,
                 .rope_theta = 10000},
    .keys = CONFIG_KEYS("sliding_window", "layer_types", "num_experts", "num_local_experts", "num_experts_per_tok",
                        "moe_intermediate_size", "shared_expert_intermediate_size"),
    .configure = configure,
};
