/* SPDX-License-Identifier: Apache-2.0
 * What layers of one model may have different: windows and ropes, from the keys that several families share. */
#include <string.h>
#include "common/model.h"
#include "common/model_keys.h"

int config_window(const json_t *j, int otherwise, int *window, struct err *e)
{
    const json_t *v = json_object_get(j, "sliding_window");
    bool off = json_is_false(json_object_get(j, "use_sliding_window")); /* Qwen2-MoE's class then writes 0 */
    *window = v && json_is_null(v) ? 0 : otherwise;
    return key_int(j, "sliding_window", off ? 0 : 1, window, e);
}

int config_softcap(const json_t *j, const char *key, double *cap, struct err *e)
{
    const json_t *v = json_object_get(j, key);
    if (v && json_is_null(v)) *cap = 0;
    return key_number(j, key, cap, e);
}

int config_layer_types(struct model_config *c, const json_t *j, int window, struct err *e)
{
    const json_t *types = json_object_get(j, "layer_types"), *t;
    size_t i;
    if (types && !json_is_null(types) && json_array_size(types) != (size_t)c->n_layers)
        return err_set(e, NT_EXIT_DATA, "config key layer_types is no list of %d names", c->n_layers);
    json_array_foreach(types, i, t) {
        const char *name = json_is_string(t) ? json_string_value(t) : "?";
        bool sliding = !strcmp(name, "sliding_attention");
        if (!sliding && strcmp(name, "full_attention"))
            return err_set(e, NT_EXIT_DATA, "config key layer_types: %.40s is not supported", name);
        if (sliding && !window)
            return err_set(e, NT_EXIT_DATA, "config key layer_types: sliding_attention without a window");
        c->layer[i].window = sliding ? window : 0;
    }
    return 0;
}

int config_sliding(struct model_config *c, const json_t *j, int window, int period, struct err *e)
{
    for (int l = 0; l < c->n_layers; l++) {
        c->layer[l].window = (l + 1) % period ? window : 0;
        if ((l + 1) % period && !window)
            return err_set(e, NT_EXIT_DATA, "config key sliding_window: null, but layers need one");
    }
    return config_layer_types(c, j, window, e);
}

int config_qwen_windows(struct model_config *c, const json_t *j, struct err *e)
{
    bool use = false;
    int window, from = 28;
    if (key_bool(j, "use_sliding_window", &use, e) || config_window(j, 4096, &window, e) ||
        key_int(j, "max_window_layers", 0, &from, e))
        return -1;
    if (!use) window = 0;
    for (int l = 0; l < c->n_layers; l++) c->layer[l].window = l >= from ? window : 0;
    return config_layer_types(c, j, window, e);
}

/* Which layers have no experts: returns how many, or -1. */
static int dense_layers(struct model_config *c, const json_t *j, struct err *e)
{
    const json_t *list = json_object_get(j, "mlp_only_layers"), *v;
    int step = 1, n = 0;
    size_t i;
    if (key_int(j, "decoder_sparse_step", 1, &step, e)) return -1;
    if (list && !json_is_null(list) && !json_is_array(list))
        return err_set(e, NT_EXIT_DATA, "config key mlp_only_layers is no list of layers");
    for (int l = 0; l < c->n_layers; l++) c->layer[l].dense = (l + 1) % step != 0;
    json_array_foreach(list, i, v) {
        json_int_t l = json_is_integer(v) ? json_integer_value(v) : -1;
        if (l < 0) return err_set(e, NT_EXIT_DATA, "config key mlp_only_layers is no list of layers");
        if (l < c->n_layers) c->layer[l].dense = true; /* as the class: others say nothing */
    }
    for (int l = 0; l < c->n_layers; l++) n += c->layer[l].dense;
    return n;
}

int config_experts(struct model_config *c, const json_t *j, int experts, int per_token, bool sparse, struct err *e)
{
    struct block_shape *s = &c->block;
    int dense = 0;
    s->experts = experts, s->per_token = per_token;
    if (key_int(j, "num_experts", sparse ? 0 : 1, &s->experts, e) ||
        key_int(j, "num_experts_per_tok", 1, &s->per_token, e) || key_bool(j, "norm_topk_prob", &s->norm_topk, e))
        return -1;
    if (s->experts >= EXPERTS_MAX)
        return err_set(e, NT_EXIT_DATA, "config key num_experts: %d, at most %d are supported", s->experts,
                       EXPERTS_MAX - 1);
    if (s->experts && s->per_token > s->experts)
        return err_set(e, NT_EXIT_DATA, "config key num_experts_per_tok: %d of %d experts", s->per_token, s->experts);
    if (sparse && (dense = dense_layers(c, j, e)) < 0) return -1;
    if (s->experts && !dense) s->F = 0;
    if (s->experts && dense < c->n_layers) return 0;
    s->experts = s->per_token = s->expert_F = s->shared_F = 0; /* all layers are plain */
    s->norm_topk = false;
    for (int l = 0; l < c->n_layers; l++) c->layer[l].dense = false;
    return 0;
}

int config_local_rope(struct model_config *c, const json_t *j, double theta, struct err *e)
{
    struct rope_defaults d = {.theta = theta, .max_pos = c->max_pos};
    json_t *own = json_pack("{s:O?}", "rope_parameters", json_object_get(j, "rope_parameters"));
    int rc = rope_read(&c->rope[1], own, "sliding_attention", &d, c->block.E, e);
    json_decref(own);
    for (int l = 0; l < c->n_layers; l++) c->layer[l].rope = c->layer[l].window > 0;
    return rc;
}
