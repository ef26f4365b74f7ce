/* SPDX-License-Identifier: Apache-2.0
 * Keys of a config.json, checked one by one. */
#include "common/model_keys.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>

int key_int(const json_t *c, const char *key, int lo, int *v, struct err *e)
{
    const json_t *j = json_object_get(c, key);
    if (!j || json_is_null(j)) return 0;
    if (!json_is_integer(j) || json_integer_value(j) < lo || json_integer_value(j) > INT_MAX / 4)
        return err_set(e, NT_EXIT_DATA, "config key %s is not an integer in range", key);
    *v = (int)json_integer_value(j);
    return 0;
}

int key_number(const json_t *c, const char *key, double *v, struct err *e)
{
    const json_t *j = json_object_get(c, key);
    if (!j || json_is_null(j)) return 0;
    if (!json_is_number(j) || !(json_number_value(j) > 0) || json_number_value(j) > 1e30)
        return err_set(e, NT_EXIT_DATA, "config key %s is not a positive number", key);
    *v = json_number_value(j);
    return 0;
}

int key_bool(const json_t *c, const char *key, bool *v, struct err *e)
{
    const json_t *j = json_object_get(c, key);
    if (!j || json_is_null(j)) return 0;
    if (!json_is_boolean(j)) return err_set(e, NT_EXIT_DATA, "config key %s is not true or false", key);
    *v = json_is_true(j);
    return 0;
}

int key_act(const json_t *c, const char *key, enum act *v, struct err *e)
{
    static const struct {
        const char *name;
        enum act act;
    } known[] = {
        {"silu", ACT_SILU},
        {"swish", ACT_SILU},
        {"gelu", ACT_GELU},
        {"gelu_python", ACT_GELU},
        {"gelu_new", ACT_GELU_TANH},
        {"gelu_fast", ACT_GELU_TANH},
        {"gelu_pytorch_tanh", ACT_GELU_TANH},
        {"gelu_python_tanh", ACT_GELU_TANH},
        {"relu", ACT_RELU},
        {"quick_gelu", ACT_QUICK_GELU},
        {"relu2", ACT_RELU2},
    };
    const json_t *j = json_object_get(c, key);
    if (!j || json_is_null(j)) return 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (json_is_string(j) && !strcmp(known[i].name, json_string_value(j))) return *v = known[i].act, 0;
    return err_set(e, NT_EXIT_DATA, "config key %s: %.40s is not supported", key,
                   json_is_string(j) ? json_string_value(j) : "no name");
}

int key_token(const json_t *c, const char *key)
{
    const json_t *j = json_object_get(c, key);
    if (json_is_array(j)) j = json_array_get(j, 0);
    return json_is_integer(j) && json_integer_value(j) >= 0 && json_integer_value(j) < INT_MAX
               ? (int)json_integer_value(j)
               : -1;
}

bool key_is_neutral(const json_t *j, const char *neutral)
{
    if (!j || json_is_null(j) || json_is_false(j)) return true;
    if (json_is_number(j))
        return neutral[0] != 'n' && neutral[0] != 'f' && json_number_value(j) == atof(neutral);
    return json_is_array(j) && json_array_size(j) == 0;
}
