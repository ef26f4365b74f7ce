/* SPDX-License-Identifier: Apache-2.0
 * A config.json that says nothing but its model_type means what the class takes by default
 * (tests/data/families/defaults.py). */
#include "common/model.h"
#include "common/model_keys.h"
#include "tests/check.h"

static int integer(const json_t *j, const char *key)
{
    return (int)json_integer_value(json_object_get(j, key));
}

/* As the classes spell it; Gemma's "gelu" is the tanh form there. */
static enum act act_of(const json_t *j, enum act otherwise)
{
    struct err e = {0};
    enum act act = otherwise;
    if (key_act(j, "act", &act, &e)) CHECK(false, "%s", e.text);
    return act;
}

static void one(const json_t *want)
{
    const char *type = json_string_value(json_object_get(want, "model_type"));
    json_t *config = json_pack("{s:s}", "model_type", type);
    struct model_config c;
    struct err e = {0};
    int rc = model_config_read(&c, config, &e);
    json_decref(config);
    if (!CHECK(rc == 0, "%s: %s", type, rc ? e.text : "read")) return;
    const struct block_shape *s = &c.block;
    CHECK(c.n_layers == integer(want, "layers") && c.vocab == integer(want, "vocab") &&
              c.max_pos == integer(want, "max_pos"),
          "%s: %d layers, %d tokens, %d positions", type, c.n_layers, c.vocab, c.max_pos);
    CHECK(s->D == integer(want, "hidden") && s->F == integer(want, "ff") && s->H == integer(want, "heads") &&
              s->G == integer(want, "groups") && s->E == integer(want, "head_dim"),
          "%s: hidden %d, feed-forward %d, heads %d, groups %d, head %d", type, s->D, s->F, s->H, s->G, s->E);
    CHECK(s->rot == integer(want, "rot"), "%s: %d dimensions rotated", type, s->rot);
    double theta = json_number_value(json_object_get(want, "theta"));
    CHECK(!(theta > 0) || c.rope[0].theta == theta, "%s: theta %g", type, c.rope[0].theta);
    CHECK(s->eps == (float)json_number_value(json_object_get(want, "eps")), "%s: eps %g", type, (double)s->eps);
    CHECK(c.tied == json_is_true(json_object_get(want, "tied")), "%s: tied %d", type, c.tied);
    CHECK(s->act == act_of(want, s->act), "%s: activation %d", type, (int)s->act);
    const json_t *bias = json_object_get(want, "attention_bias");
    CHECK(json_is_null(bias) || c.bias[ROLE_Q] == json_is_true(bias), "%s: bias of q %d", type, c.bias[ROLE_Q]);
    model_config_clear(&c);
}

int main(void)
{
    size_t i;
    json_t *all = json_load_file("tests/data/families/defaults.json", 0, NULL), *want;
    CHECK(json_array_size(all) > 20, "%zu classes", json_array_size(all));
    json_array_foreach(all, i, want) one(want);
    json_decref(all);
    return check_done();
}
