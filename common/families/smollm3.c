/* SPDX-License-Identifier: Apache-2.0
 * SmolLM3: Llama with every fourth layer unrotated; these may have a window. */
#include "common/families/llama.h"

static int configure(struct model_config *c, const json_t *j, struct err *e)
{
    const json_t *list = json_object_get(j, "no_rope_layers"), *v; /* 1: is rotated, despite the name */
    int interval = 4, window = 0;
    bool sliding = false;
    size_t i;
    if (key_int(j, "no_rope_layer_interval", 1, &interval, e) ||
        key_bool(j, "use_sliding_window", &sliding, e) || config_window(j, 0, &window, e))
        return -1;
    if (!sliding) window = 0;
    if (json_is_array(list) && json_array_size(list) != (size_t)c->n_layers)
        return err_set(e, NT_EXIT_DATA, "config key no_rope_layers is no list of %d numbers", c->n_layers);
    for (int l = 0; l < c->n_layers; l++) c->layer[l].rope = (l + 1) % interval ? 0 : -1;
    json_array_foreach(list, i, v) c->layer[i].rope = json_integer_value(v) ? 0 : -1;
    for (int l = 0; l < c->n_layers; l++) c->layer[l].window = c->layer[l].rope < 0 ? window : 0;
    return config_layer_types(c, j, window, e);
}

const struct family family_smollm3 = {
    .model_type = "smollm3",
    .gguf_arch = "smollm3",
    .hf_class = "SmolLM3ForCausalLM",
    .hf = LLAMA_HF_NAMES,
    .gguf = LLAMA_GGUF_NAMES,
    .gguf_permuted_qk = true,
    .block = LLAMA_BLOCK,
    .defaults = {.vocab = 128256,
                 .hidden = 2048,
                 .ff = 11008,
                 .layers = 36,
                 .heads = 16,
                 .groups = 4,
                 .max_pos = 32768,
                 .eps = 1e-6,
                 .rope_theta = 2e6,
                 .tied = true},
    .keys = CONFIG_KEYS("no_rope_layers", "no_rope_layer_interval", "sliding_window", "layer_types"),
    .configure = configure,
};
