/* SPDX-License-Identifier: Apache-2.0
 * Cohere 2 (Command R7B): Cohere whose layers have a window and are rotated, but every fourth, which has neither.
 */
#include "common/families/cohere.h"

static int configure(struct model_config *c, const json_t *j, struct err *e)
{
    double scale = 0.0625;
    int window, pattern = 4;
    if (key_number(j, "logit_scale", &scale, e) || config_window(j, 4096, &window, e) ||
        key_int(j, "sliding_window_pattern", 1, &pattern, e) || config_sliding(c, j, window, pattern, e))
        return -1;
    c->logit_scale = (float)scale;
    for (int l = 0; l < c->n_layers; l++) c->layer[l].rope = c->layer[l].window ? 0 : -1;
    return 0;
}

const struct family family_cohere2 = {
    .model_type = "cohere2",
    .gguf_arch = "cohere2",
    .hf_class = "Cohere2ForCausalLM",
    COHERE_TABLE(10000),
    .keys = CONFIG_KEYS("logit_scale", "sliding_window", "sliding_window_pattern", "layer_types"),
    .configure = configure,
};
