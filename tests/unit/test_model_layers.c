/* SPDX-License-Identifier: Apache-2.0
 * Keys that several families share: what a missing, null or wrong one means for the layers; configurations of
 * multimodal models. What the keys make a model compute is checked by tests/cli/families. */
#include <string.h>
#include "common/mem.h"
#include "common/model.h"
#include "tests/check.h"

#define SIZES                                                                                                \
    "\"hidden_size\":24,\"num_attention_heads\":3,\"num_key_value_heads\":1,\"num_hidden_layers\":4,"        \
    "\"intermediate_size\":40,\"vocab_size\":43"

static int read_config(const char *type, const char *extra, struct model_config *c, struct err *e)
{
    char *text = mem_printf("{\"model_type\":\"%s\"," SIZES "%s}", type, extra);
    json_t *j = json_loads(text, 0, NULL);
    if (!j) abort();
    int rc = model_config_read(c, j, e);
    json_decref(j);
    mem_free(text);
    return rc;
}

/* Windows and ropes of the four layers, as "4/0 0/-1 ...". */
static void layers(const char *type, const char *extra, const char *want)
{
    struct model_config c;
    struct err e = {0};
    char got[120] = "";
    if (!read_config(type, extra, &c, &e)) {
        for (int l = 0, n = 0; l < c.n_layers; l++)
            n += snprintf(got + n, sizeof got - (size_t)n, "%s%d/%d", l ? " " : "", c.layer[l].window,
                          c.layer[l].rope);
        model_config_clear(&c);
    }
    CHECK(!strcmp(got, want), "%s%s: %s %s", type, extra, got, e.text);
}

static void refused(const char *type, const char *extra, const char *key)
{
    struct model_config c;
    struct err e = {0};
    CHECK(read_config(type, extra, &c, &e) && e.code == NT_EXIT_DATA && strstr(e.text, key), "%s%s: %s", type,
          extra, e.text);
}

static void test_windows(void)
{
    layers("mistral", "", "4096/0 4096/0 4096/0 4096/0");
    layers("mistral", ",\"sliding_window\":null", "0/0 0/0 0/0 0/0");
    layers("qwen2", "", "0/0 0/0 0/0 0/0");
    layers("qwen2", ",\"use_sliding_window\":true", "0/0 0/0 0/0 0/0"); /* max_window_layers is 28 */
    layers("qwen3", ",\"use_sliding_window\":true,\"sliding_window\":9,\"max_window_layers\":3",
           "0/0 0/0 0/0 9/0");
    layers("gemma2", ",\"sliding_window\":9", "9/0 0/0 9/0 0/0");
    layers("gemma3_text", ",\"sliding_window\":9", "9/1 9/1 9/1 9/1");
    layers("gemma3_text", ",\"sliding_window\":9,\"sliding_window_pattern\":3", "9/1 9/1 0/0 9/1");
    layers("cohere2", ",\"sliding_window\":9", "9/0 9/0 9/0 0/-1");
    layers("smollm3", "", "0/0 0/0 0/0 0/-1");
    layers("smollm3", ",\"use_sliding_window\":true,\"sliding_window\":9", "0/0 0/0 0/0 9/-1");
    layers("phi3", "", "0/0 0/0 0/0 0/0");
}

static void test_refused(void)
{
    refused("mistral", ",\"sliding_window\":\"wide\"", "sliding_window");
    refused("gemma2", ",\"sliding_window\":null", "sliding_window");
    refused("gemma2", ",\"layer_types\":[\"full_attention\"]", "layer_types");
    refused("gemma2",
            ",\"layer_types\":[\"full_attention\",\"chunked_attention\",\"full_attention\",\"full_attention\"]",
            "chunked_attention");
    refused("qwen2",
            ",\"layer_types\":[\"full_attention\",\"sliding_attention\",\"full_attention\",\"full_attention\"]",
            "layer_types");
    refused("gemma2", ",\"attn_logit_softcapping\":-1", "attn_logit_softcapping");
    refused("gemma2", ",\"hidden_activation\":\"mish\"", "hidden_activation");
    refused("gemma3_text", ",\"use_bidirectional_attention\":true", "use_bidirectional_attention");
    refused("gemma3_text", ",\"rope_local_base_freq\":0", "rope_local_base_freq");
    refused("smollm3", ",\"no_rope_layers\":[1,0]", "no_rope_layers");
    refused("olmo2", ",\"clip_qkv\":8.0", "clip_qkv");
    refused("granite", ",\"residual_multiplier\":\"x\"", "residual_multiplier");
    refused("cohere", ",\"use_qk_norm\":1", "use_qk_norm");
    refused("stablelm", ",\"partial_rotary_factor\":0.1", "partial_rotary_factor");
    refused("phi3", ",\"rope_scaling\":{\"type\":\"longrope\",\"long_factor\":[1],\"short_factor\":[1]}",
            "short_factor");
    refused("perceiver", "", "gemma3_text");
}

static void test_nested(void)
{
    json_t *j = json_loads("{\"model_type\":\"gemma3\",\"tie_word_embeddings\":false,\"eos_token_id\":[1,106],"
                           "\"text_config\":{\"model_type\":\"gemma3_text\",\"num_hidden_layers\":6},"
                           "\"vision_config\":{\"num_hidden_layers\":27}}",
                           0, NULL);
    struct model_config c;
    struct err e = {0};
    json_t *text = model_config_text(j);
    int rc = model_config_read(&c, text, &e);
    CHECK(!rc, "the text model of a multimodal configuration %s", e.text);
    CHECK(!rc && c.n_layers == 6 && c.eos == 1 && !c.tied && c.block.D == 2304,
          "has its own keys, the outer ones, and defaults");
    if (!rc) model_config_clear(&c);
    json_decref(text), json_decref(j);
}

int main(void)
{
    test_windows();
    test_refused();
    test_nested();
    return check_done();
}
