/* SPDX-License-Identifier: Apache-2.0
 * Rotary frequencies and tables against those of transformers (tests/data/families/rope.py); bad keys. */
#include "common/rope.h"
#include <math.h>
#include <string.h>
#include "common/mem.h"
#include "tests/check.h"

/* What the families' tables give. */
static struct rope_defaults defaults_of(const json_t *config)
{
    const char *type = json_string_value(json_object_get(config, "model_type"));
    struct rope_defaults d = {.theta = 10000, .max_pos = 64};
    if (!strcmp(type, "stablelm")) d.partial = 0.25;
    if (!strcmp(type, "phi3")) d.partial = 1, d.orig = 4096, d.yarn_is_longrope = true;
    if (!strcmp(type, "gemma3_text")) d.theta = 1e6;
    return d;
}

/* Largest relative difference of n values; single precision resolves 6e-8. */
static double worst(const float *got, const json_t *want, size_t n)
{
    double d = json_array_size(want) == n ? 0 : INFINITY;
    for (size_t i = 0; i < n && i < json_array_size(want); i++) {
        double w = json_number_value(json_array_get(want, i));
        d = fmax(d, fabs((double)got[i] - w) / fmax(fabs(w), 1e-3));
    }
    return d;
}

static void test_case(const json_t *c)
{
    struct rope r;
    struct err e = {0};
    const char *name = json_string_value(json_object_get(c, "name"));
    const json_t *config = json_object_get(c, "config");
    struct rope_defaults d = defaults_of(config);
    int length = (int)json_integer_value(json_object_get(c, "length"));
    int rc = rope_read(&r, config, json_string_value(json_object_get(c, "layer_type")), &d,
                       (int)json_integer_value(json_object_get(c, "head")), &e);
    CHECK(!rc, "%s is read: %s", name, e.text);
    if (rc) return;
    float *freq = MEM_NEW(float, r.dim / 2), *table = MEM_NEW(float, length *r.dim);
    rope_frequencies(&r, length, freq);
    rope_cossin(&r, length, table);
    double off = worst(freq, json_object_get(c, "freq"), (size_t)r.dim / 2);
    CHECK(off < 3e-7, "%s: frequencies differ by %.1e", name, off);
    off = fabs(r.attention - json_number_value(json_object_get(c, "attention")));
    CHECK(off < 1e-12, "%s: the factor on cosine and sine differs by %.1e", name, off);
    off = worst(table + (size_t)(length - 1) * (size_t)r.dim, json_object_get(c, "last"), (size_t)r.dim);
    CHECK(off < 1e-4, "%s: the last row of the table differs by %.1e", name, off);
    mem_free(freq), mem_free(table);
}

static void refused(const char *keys, const char *says)
{
    struct rope r;
    struct err e = {0};
    struct rope_defaults d = {.theta = 10000, .max_pos = 64};
    json_t *config = json_loads(keys, 0, NULL);
    CHECK(config && rope_read(&r, config, NULL, &d, 16, &e) && e.code == NT_EXIT_DATA && strstr(e.text, says),
          "%s: %s", says, e.text);
    json_decref(config);
}

int main(void)
{
    json_t *cases = json_load_file("tests/data/families/rope.json", 0, NULL), *c;
    size_t i;
    CHECK(json_array_size(cases) > 20, "tests/data/families/rope.json");
    json_array_foreach(cases, i, c) test_case(c);
    json_decref(cases);
    refused("{\"rope_scaling\":{\"type\":\"spiral\",\"factor\":2}}", "spiral is not supported");
    refused("{\"rope_scaling\":{\"type\":\"linear\"}}", "needs a factor");
    refused("{\"rope_scaling\":{\"type\":\"linear\",\"factor\":\"two\"}}", "factor");
    refused("{\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1],\"long_factor\":[1]}}",
            "short_factor");
    refused("{\"rope_scaling\":{\"type\":\"llama3\",\"factor\":2,\"low_freq_factor\":4}}", "high_freq_factor");
    refused("{\"partial_rotary_factor\":0.5}", "partial_rotary_factor");
    refused("{\"rope_parameters\":{\"full_attention\":{\"rope_theta\":5.0}}}", "full_attention");
    return check_done();
}
