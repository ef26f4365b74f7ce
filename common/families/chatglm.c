/* SPDX-License-Identifier: Apache-2.0
 * ChatGLM2, ChatGLM3 and GLM-4-9B in their authors' own layout: GLM with q, k, v in one tensor and keys of
 * its own. */
#include "common/model.h"
#include "common/model_keys.h"

static int only_true(const json_t *j, const char *key, struct err *e)
{
    bool is = true;
    if (key_bool(j, key, &is, e)) return -1;
    return is ? 0 : err_set(e, NT_EXIT_DATA, "config key %s: only true is supported", key);
}

static int configure(struct model_config *c, const json_t *j, struct err *e)
{
    bool grouped = false, linear_bias = false, qkv_bias = false;
    double ratio = 1;
    int groups = 1;
    if (only_true(j, "rmsnorm", e) || only_true(j, "post_layer_norm", e) || only_true(j, "original_rope", e) ||
        key_bool(j, "multi_query_attention", &grouped, e) ||
        key_int(j, "multi_query_group_num", 1, &groups, e) || key_number(j, "rope_ratio", &ratio, e) ||
        key_bool(j, "add_bias_linear", &linear_bias, e) || key_bool(j, "add_qkv_bias", &qkv_bias, e))
        return -1;
    c->block.G = grouped ? groups : c->block.H;
    if (c->block.G > c->block.H || c->block.H % c->block.G)
        return err_set(e, NT_EXIT_DATA, "config key multi_query_group_num: %d does not divide %d heads",
                       c->block.G, c->block.H);
    c->rope[0].theta = 10000 * ratio;
    if (qkv_bias || linear_bias) config_bias(c, ROLE_BITS_QKV);
    if (linear_bias) config_bias(c, ROLE_BITS_ALL);
    return 0;
}

static void from_gguf(const struct checkpoint *ck, json_t *j)
{
    double theta = json_number_value(json_object_get(j, "rope_theta"));
    json_object_set_new(j, "multi_query_attention", json_true());
    json_object_set(j, "multi_query_group_num", json_object_get(j, "num_key_value_heads"));
    json_object_set_new(j, "add_qkv_bias", json_boolean(model_gguf_has(ck, "blk.%d.attn_qkv", ".bias")));
    json_object_set_new(j, "add_bias_linear", json_boolean(model_gguf_has(ck, "blk.%d.attn_output", ".bias")));
    json_object_set_new(j, "rope_ratio", json_real(theta / 10000));
    json_object_del(j, "attention_bias"), json_object_del(j, "mlp_bias");
}

const struct family family_chatglm = {
    .model_type = "chatglm",
    .gguf_arch = "chatglm",
    .hf_class = "ChatGLMModel",
    .hf = {.role = {"transformer.encoder.layers.%d.self_attention.query_key_value#q",
                    "transformer.encoder.layers.%d.self_attention.query_key_value#k",
                    "transformer.encoder.layers.%d.self_attention.query_key_value#v",
                    "transformer.encoder.layers.%d.self_attention.dense",
                    "transformer.encoder.layers.%d.mlp.dense_h_to_4h#gate",
                    "transformer.encoder.layers.%d.mlp.dense_h_to_4h#up",
                    "transformer.encoder.layers.%d.mlp.dense_4h_to_h"},
           .norm = {[NORM_ATTN] = "transformer.encoder.layers.%d.input_layernorm",
                    [NORM_MLP] = "transformer.encoder.layers.%d.post_attention_layernorm"},
           .embed = "transformer.embedding.word_embeddings",
           .final_norm = "transformer.encoder.final_layernorm",
           .head = "transformer.output_layer"},
    .gguf = {.role = {"blk.%d.attn_qkv#q", "blk.%d.attn_qkv#k", "blk.%d.attn_qkv#v", "blk.%d.attn_output",
                      "blk.%d.ffn_up#gate", "blk.%d.ffn_up#up", "blk.%d.ffn_down"},
             .norm = {[NORM_ATTN] = "blk.%d.attn_norm", [NORM_MLP] = "blk.%d.ffn_norm"},
             .embed = "token_embd",
             .final_norm = "output_norm",
             .head = "output"},
    .block = {.norm = {[NORM_ATTN] = true, [NORM_MLP] = true},
              .rms = true,
              .rot_pairs = true,
              .gated = true,
              .act = ACT_SILU},
    .spellings = CONFIG_KEYS("num_layers", "num_hidden_layers", "padded_vocab_size", "vocab_size",
                             "ffn_hidden_size", "intermediate_size", "kv_channels", "head_dim", "seq_length",
                             "max_position_embeddings", "layernorm_epsilon", "rms_norm_eps"),
    .defaults = {.vocab = 65024,
                 .hidden = 4096,
                 .ff = 13696,
                 .layers = 28,
                 .heads = 32,
                 .head_dim = 128,
                 .max_pos = 2048,
                 .eps = 1e-5,
                 .rope_theta = 10000,
                 .partial_rotary = 0.5},
    .configure = configure,
    .from_gguf = from_gguf,
};
