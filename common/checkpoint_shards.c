/* SPDX-License-Identifier: Apache-2.0
 * What Hugging Face directories have in common, whatever the weights are stored in: config.json, and models
 * in several files with an index (weight_map: tensor -> file). */
#include "common/checkpoint_impl.h"
#include "common/mem.h"
#include <stdlib.h>
#include <string.h>

int checkpoint_read_config(struct checkpoint *c, struct err *e)
{
    c->dir = path_is_dir(c->path) ? mem_strdup(c->path) : path_dir(c->path);
    char *config = path_join(c->dir, "config.json");
    bool has = path_exists(config);
    if (has) c->config = checkpoint_load_json(config, e);
    mem_free(config);
    return has && !c->config ? -1 : 0;
}

static int bad(struct err *e, const char *path, const char *name, const char *why)
{
    return err_set(e, NT_EXIT_DATA, "%s: tensor %s: %s", path, show_name(name, strlen(name)), why);
}

static int check_map(const struct checkpoint *c, const char *index, const json_t *map, struct err *e)
{
    const char *key;
    json_t *v;
    size_t found = 0;
    json_object_foreach((json_t *)(uintptr_t)map, key, v) found++;
    if (found != (size_t)c->n_tensors)
        return err_set(e, NT_EXIT_DATA, "%s: lists %zu tensors, the files hold %d", index, found,
                       c->n_tensors);
    for (int i = 0; i < c->n_tensors; i++) {
        const char *name = c->tensors[i].name, *file = json_string_value(json_object_get(map, name));
        const char *real = strrchr(c->files[c->tensors[i].file], '/') + 1;
        if (!file || strcmp(file, real) != 0)
            return bad(e, index, name, "not in the file that the index names");
    }
    return 0;
}

static int by_string(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int read_files(struct checkpoint *c, const char *index, const json_t *map, checkpoint_read_file *read,
                      struct err *e)
{
    const char *key, **names = MEM_NEW(const char *, json_object_size(map));
    json_t *v;
    size_t n = 0;
    int rc = 0;
    json_object_foreach((json_t *)(uintptr_t)map, key, v) {
        const char *f = json_string_value(v);
        if (!f || !*f || strchr(f, '/') || strstr(f, "..")) {
            rc = err_set(e, NT_EXIT_DATA, "%s: tensor %s: the file name %s is not allowed", index,
                         show_name(key, strlen(key)), f ? show_name(f, strlen(f)) : "(none)");
            break;
        }
        names[n++] = f;
    }
    qsort(names, n, sizeof *names, by_string);
    for (size_t i = 0; i < n && rc == 0; i++) {
        if (i && strcmp(names[i], names[i - 1]) == 0) continue;
        char *path = path_join(c->dir, names[i]);
        if (path_exists(path)) rc = read(c, path, e);
        else
            rc = err_set(e, NT_EXIT_DATA, "%s: its file %s is missing", index,
                         show_name(names[i], strlen(names[i])));
        mem_free(path);
    }
    mem_free(names);
    return rc < 0 ? -1 : check_map(c, index, map, e);
}

int checkpoint_read_shards(struct checkpoint *c, const char *index, checkpoint_read_file *read, struct err *e)
{
    json_t *j = checkpoint_load_json(index, e);
    if (!j) return -1;
    const json_t *map = json_object_get(j, "weight_map");
    int rc = json_is_object(map) ? read_files(c, index, map, read, e)
                                 : err_set(e, NT_EXIT_DATA, "%s: no weight_map", index);
    json_decref(j);
    return rc;
}

