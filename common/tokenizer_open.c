/* SPDX-License-Identifier: Apache-2.0
 * Finds the tokenizer of a MODEL: tokenizer.json of its directory, or the metadata of a GGUF file; and its
 * BOS and EOS. */
#include "common/tokenizer_impl.h"
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "common/checkpoint.h"
#include "common/mem.h"

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

static json_t *read_json(const char *path, struct err *e)
{
    json_error_t je;
    json_t *j = json_load_file(path, JSON_ALLOW_NUL, &je);
    if (!j && !exists(path))
        (void)err_set(e, NT_EXIT_DATA, "%s: no such file", path);
    else if (!j)
        (void)err_set(e, NT_EXIT_DATA, "%s: line %d: %s", path, je.line, je.text);
    return j;
}

/* The id of "bos_token" (a string or an added token) in tokenizer_config.json, -1 if it has none. */
static int32_t named_id(const struct tokenizer *t, const json_t *config, const char *key)
{
    const json_t *v = json_object_get(config, key);
    const char *s = json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
    for (size_t i = 0; s && i < t->n_added; i++)
        if (!strcmp(t->added[i].text, s)) return t->added[i].id;
    return s ? tokenizer_find_raw(t, s, strlen(s)) : -1;
}

/* eos_token_id is a number or a list; all of them end a generation. */
static int32_t config_id(struct tokenizer *t, const json_t *config, const char *key, bool end)
{
    const json_t *v = json_object_get(config, key);
    int32_t first = -1;
    for (size_t i = 0; i < (json_is_array(v) ? json_array_size(v) : 1); i++) {
        const json_t *x = json_is_array(v) ? json_array_get(v, i) : v;
        int64_t id = json_is_integer(x) ? json_integer_value(x) : -1;
        if (id < 0 || id >= t->n) continue;
        if (first < 0) first = (int32_t)id;
        if (end) t->eog[id] = true;
    }
    return first;
}

static void find_bos_eos(struct tokenizer *t, const char *dir)
{
    static const char *const files[] = {"tokenizer_config.json", "config.json", "generation_config.json"};
    for (int i = 0; i < 3; i++) {
        char *path = mem_printf("%s/%s", dir, files[i]);
        json_t *j = json_load_file(path, 0, NULL);
        int32_t bos = i ? config_id(t, j, "bos_token_id", false) : named_id(t, j, "bos_token");
        int32_t eos = i ? config_id(t, j, "eos_token_id", true) : named_id(t, j, "eos_token");
        if (t->bos < 0) t->bos = bos;
        if (t->eos < 0) t->eos = eos;
        json_decref(j);
        mem_free(path);
    }
    if (t->eos >= 0) t->eog[t->eos] = true;
}

static struct tokenizer *open_dir(const char *dir, struct err *e)
{
    struct tokenizer *t = NULL;
    char *path = mem_printf("%s/tokenizer.json", dir), *spm = mem_printf("%s/tokenizer.model", dir);
    if (!exists(path) && exists(spm)) {
        (void)err_set(e, NT_EXIT_DATA,
                      "%s: no tokenizer.json, and tokenizer.model (SentencePiece) is not supported", dir);
    } else {
        json_t *j = read_json(path, e);
        if (j && !tokenizer_from_json(j, path, &t, e)) find_bos_eos(t, dir);
        json_decref(j);
    }
    mem_free(path);
    mem_free(spm);
    return t;
}

static bool is_gguf(const char *path)
{
    char magic[4] = "";
    FILE *f = fopen(path, "rb");
    bool yes = f && fread(magic, 1, 4, f) == 4 && !memcmp(magic, "GGUF", 4);
    if (f) fclose(f);
    return yes;
}

struct tokenizer *tokenizer_open(const char *model_path, struct err *e)
{
    struct stat st;
    struct tokenizer *t = NULL;
    if (stat(model_path, &st)) {
        (void)err_set(e, NT_EXIT_DATA, "%s: no such file or directory", model_path);
        return NULL;
    }
    if (S_ISDIR(st.st_mode)) return open_dir(model_path, e);
    if (!is_gguf(model_path)) { /* config.json or a .safetensors file: its directory */
        char *dir = mem_strdup(model_path), *slash = strrchr(dir, '/');
        if (slash) *slash = 0;
        t = open_dir(slash ? (slash == dir ? "/" : dir) : ".", e);
        mem_free(dir);
        return t;
    }
    struct checkpoint *c = checkpoint_open(model_path, e);
    if (!c) return NULL;
    if (tokenizer_from_gguf(c->meta, model_path, &t, e)) t = NULL;
    checkpoint_close(c);
    return t;
}
