/* SPDX-License-Identifier: Apache-2.0
 * GPT-J: attention and feed-forward beside each other after one norm, rotation of neighbouring dimensions. */
#include "common/model.h"
#include "common/model_keys.h"

static int configure(struct model_config *c, const json_t *j, struct err *e)
{
    int rot = 64;
    if (key_int(j, "rotary_dim", 2, &rot, e)) return -1;
    if (rot > c->block.E || rot % 2)
        return err_set(e, NT_EXIT_DATA, "config key rotary_dim: %d of %d dimensions", rot, c->block.E);
    c->block.rot = c->rope[0].dim = rot;
    c->head_bias = true;
    return 0;
}

const struct family family_gptj = {
    .model_type = "gptj",
    .hf_class = "GPTJForCausalLM",
    .hf = {.role = {"transformer.h.%d.attn.q_proj", "transformer.h.%d.attn.k_proj",
                    "transformer.h.%d.attn.v_proj", "transformer.h.%d.attn.out_proj", NULL,
                    "transformer.h.%d.mlp.fc_in", "transformer.h.%d.mlp.fc_out"},
           .norm = {[NORM_ATTN] = "transformer.h.%d.ln_1"},
           .embed = "transformer.wte",
           .final_norm = "transformer.ln_f",
           .head = "lm_head"},
    .block = {.norm = {[NORM_ATTN] = true}, .rot_pairs = true, .act = ACT_GELU_TANH, .parallel = true},
    .bias = 1u << ROLE_UP | 1u << ROLE_DOWN,
    .spellings =
        CONFIG_KEYS("n_embd", "hidden_size", "n_layer", "num_hidden_layers", "n_head", "num_attention_heads",
                    "n_positions", "max_position_embeddings", "n_inner", "intermediate_size"),
    .eps_key = "layer_norm_epsilon",
    .defaults = {.vocab = 50400,
                 .hidden = 4096,
                 .layers = 28,
                 .heads = 16,
                 .max_pos = 2048,
                 .eps = 1e-5,
                 .rope_theta = 10000},
    .configure = configure,
};
