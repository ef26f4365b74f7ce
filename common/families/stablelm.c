/* SPDX-License-Identifier: Apache-2.0
 * StableLM: LayerNorm, rotation of a part of each head, serial or parallel sublayers (then with one norm), and
 * maybe a norm of each head's query and key. */
#include "common/families/llama.h"

static int configure(struct model_config *c, const json_t *j, struct err *e)
{
    bool bias = false, qk = false;
    if (key_bool(j, "use_parallel_residual", &c->block.parallel, e) || key_bool(j, "use_qkv_bias", &bias, e) ||
        key_bool(j, "qk_layernorm", &qk, e))
        return -1;
    if (c->block.parallel) c->block.norm[NORM_MLP] = false;
    if (bias) config_bias(c, ROLE_BITS_QKV);
    c->block.norm[NORM_Q] = c->block.norm[NORM_K] = qk;
    c->block.qk_norm = qk ? QK_NORM_HEADS : QK_NORM_NONE;
    return 0;
}

static void from_gguf(const struct checkpoint *ck, json_t *j)
{
    bool serial = model_gguf_has(ck, "blk.%d.ffn_norm", ".weight"); /* llama.cpp looks at this, not at its key */
    json_object_set_new(j, "use_parallel_residual", json_boolean(!serial));
    json_object_set_new(j, "use_qkv_bias", json_boolean(model_gguf_has(ck, "blk.%d.attn_q", ".bias")));
    json_object_set_new(j, "qk_layernorm", json_boolean(model_gguf_has(ck, "blk.%d.attn_q_norm", ".weight")));
    json_object_del(j, "attention_bias");
}

const struct family family_stablelm = {
    .model_type = "stablelm",
    .gguf_arch = "stablelm",
    .hf_class = "StableLmForCausalLM",
    .hf = {.role = {"model.layers.%d.self_attn.q_proj", "model.layers.%d.self_attn.k_proj",
                    "model.layers.%d.self_attn.v_proj", "model.layers.%d.self_attn.o_proj",
                    "model.layers.%d.mlp.gate_proj", "model.layers.%d.mlp.up_proj",
                    "model.layers.%d.mlp.down_proj"},
           .norm = {[NORM_ATTN] = "model.layers.%d.input_layernorm",
                    [NORM_MLP] = "model.layers.%d.post_attention_layernorm",
                    [NORM_Q] = "model.layers.%d.self_attn.q_layernorm.norms.*",
                    [NORM_K] = "model.layers.%d.self_attn.k_layernorm.norms.*"},
           .embed = "model.embed_tokens",
           .final_norm = "model.norm",
           .head = "lm_head"},
    .gguf = LLAMA_GGUF_NAMES,
    .block = {.norm = {[NORM_ATTN] = true, [NORM_MLP] = true}, .gated = true, .act = ACT_SILU},
    .no_qk_norm_bias = true,
    .defaults = {.vocab = 50304,
                 .hidden = 2560,
                 .ff = 6912,
                 .layers = 32,
                 .heads = 32,
                 .groups = 32,
                 .max_pos = 4096,
                 .eps = 1e-5,
                 .rope_theta = 10000,
                 .partial_rotary = 0.25},
    .keys = CONFIG_KEYS("use_parallel_residual", "qk_layernorm", "use_qkv_bias", "partial_rotary_factor"),
    .configure = configure,
    .from_gguf = from_gguf,
};
