/* SPDX-License-Identifier: Apache-2.0
 * What layers of one model may have different: windows and ropes, from the keys that several families share. */
#include <string.h>
#include "common/model.h"
#include "common/model_keys.h"

int config_window(const json_t *j, int otherwise, int *window, struct err *e)
{
    const json_t *v = json_object_get(j, "sliding_window");
    *window = v && json_is_null(v) ? 0 : otherwise;
    return key_int(j, "sliding_window", 1, window, e);
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

int config_local_rope(struct model_config *c, const json_t *j, double theta, struct err *e)
{
    struct rope_defaults d = {.theta = theta, .max_pos = c->max_pos};
    json_t *own = json_pack("{s:O?}", "rope_parameters", json_object_get(j, "rope_parameters"));
    int rc = rope_read(&c->rope[1], own, "sliding_attention", &d, c->block.E, e);
    json_decref(own);
    for (int l = 0; l < c->n_layers; l++) c->layer[l].rope = c->layer[l].window > 0;
    return rc;
}
