/* SPDX-License-Identifier: Apache-2.0
 * The safetensors and GGUF writers: what they make of the tensors of a file by the reference writers must be
 * that file, byte by byte. */
#include "common/checkpoint.h"
#include "common/gguf_write.h"
#include "common/mem.h"
#include "common/safetensors_write.h"
#include "tests/check.h"
#include <unistd.h>

#define DATA "tests/data/checkpoints/"
static char dir[] = "/tmp/nt-test-writers-XXXXXX";

static int same_bytes(const char *a, const char *b)
{
    FILE *f = fopen(a, "rb"), *g = fopen(b, "rb");
    int c = 0, d = 0, n = 0;
    while (f && g && c == d && c != EOF) c = getc(f), d = getc(g), n++;
    if (f) fclose(f);
    if (g) fclose(g);
    return f && g && c == d && n > 100;
}

static void copy_safetensors(void)
{
    struct err e = {0};
    struct checkpoint *c = checkpoint_open(DATA "tiny.safetensors", &e);
    char *path = mem_printf("%s/copy.safetensors", dir);
    struct safetensors_entry list[16] = {0};
    if (!CHECK(c, "source opens: %s", e.text)) return;
    for (int i = 0; i < c->n_tensors; i++) { /* declared backwards: the writer finds the order */
        const struct checkpoint_tensor *t = &c->tensors[c->n_tensors - 1 - i];
        list[i] = (struct safetensors_entry){.name = t->name, .dtype = t->t.dtype, .rank = t->t.rank,
                                             .user = (void *)(uintptr_t)t};
        memcpy(list[i].shape, t->t.shape, sizeof list[i].shape);
    }
    struct outfile *f = outfile_open(path, &e);
    struct safetensors_writer *w = f ? safetensors_begin(f, list, (size_t)c->n_tensors, c->meta, &e) : NULL;
    const struct safetensors_entry *x;
    int rc = w ? 0 : -1;
    while (rc == 0 && (x = safetensors_next(w)) != NULL) {
        const struct checkpoint_tensor *t = x->user;
        uint64_t half = t->t.nbytes / 2; /* in two pieces */
        rc = safetensors_put(w, t->t.data, half, &e);
        if (rc == 0) rc = safetensors_put(w, (char *)t->t.data + half, t->t.nbytes - half, &e);
    }
    if (rc == 0) rc = safetensors_end(w, &e);
    if (rc == 0) rc = outfile_commit(f, &e);
    CHECK(rc == 0, "written: %s", e.text);
    CHECK(same_bytes(path, DATA "tiny.safetensors"), "safetensors copy is the reference writer's file");
    unlink(path);
    mem_free(path);
    checkpoint_close(c);
}

static void refuse_safetensors(void)
{
    struct err e = {0};
    char *path = mem_printf("%s/x.safetensors", dir);
    struct safetensors_entry list[2] = {{.name = "a", .dtype = DT_F32, .rank = 1, .shape = {2}},
                                        {.name = "a", .dtype = DT_F32, .rank = 1, .shape = {2}}};
    struct outfile *f = outfile_open(path, &e);
    CHECK(f && !safetensors_begin(f, list, 2, NULL, &e) && strstr(e.text, "twice"), "a name given twice: %s",
          e.text);
    outfile_discard(f);
    e.code = 0;
    f = outfile_open(path, &e);
    struct safetensors_writer *w = f ? safetensors_begin(f, list, 1, NULL, &e) : NULL;
    float one = 1;
    CHECK(w && safetensors_put_f32(w, &one, 1, &e) == 0 && safetensors_end(w, &e) < 0 &&
              strstr(e.text, "not delivered"),
          "a tensor that is not delivered whole: %s", e.text);
    outfile_discard(f);
    e.code = 0;
    list[0].dtype = DT_Q4_0, list[0].shape[0] = 32;
    f = outfile_open(path, &e);
    CHECK(f && !safetensors_begin(f, list, 1, NULL, &e) && strstr(e.text, "Q4_0"), "a ggml type: %s", e.text);
    outfile_discard(f);
    CHECK(access(path, F_OK) != 0, "nothing is left behind");
    mem_free(path);
}

static void copy_gguf(const char *from)
{
    struct err e = {0};
    struct checkpoint *c = checkpoint_open(from, &e);
    char *path = mem_printf("%s/copy.gguf", dir);
    if (!CHECK(c, "%s opens: %s", from, e.text)) return;
    struct outfile *f = outfile_open(path, &e);
    struct gguf_writer *w = gguf_create(f);
    int n, rc;
    const struct gguf_kv *kv = gguf_kvs(c, &n);
    for (int i = 0; i < n; i++) gguf_put_kv(w, &kv[i]);
    for (int i = 0; i < c->n_tensors; i++) {
        const struct tensor *t = &c->tensors[i].t;
        gguf_tensor(w, c->tensors[i].name, t->dtype, t->rank, t->shape);
    }
    rc = gguf_data(w, &e);
    for (int i = 0; i < c->n_tensors && rc == 0; i++)
        rc = gguf_put(w, c->tensors[i].t.data, c->tensors[i].t.nbytes, &e);
    if (rc == 0) rc = gguf_end(w, &e);
    if (rc == 0) rc = outfile_commit(f, &e);
    CHECK(rc == 0, "written: %s", e.text);
    CHECK(same_bytes(path, from), "the copy of %s is the reference writer's file", from);
    unlink(path);
    mem_free(path);
    checkpoint_close(c);
}

/* The typed setters against the values that the gguf package wrote for the same keys. */
static void set_gguf(void)
{
    static const char *const strs[] = {"a", "", "\xc3\x9f\xc3\x9f"};
    static const char *const keys[] = {"t.u32", "t.f32", "t.bool", "t.str", "t.strs", "t.ints"};
    struct err e = {0};
    char *path = mem_printf("%s/set.gguf", dir);
    struct outfile *f = outfile_open(path, &e);
    struct gguf_writer *w = gguf_create(f);
    gguf_put_u32(w, "t.u32", 7);
    gguf_put_f32(w, "t.f32", 0.1f);
    gguf_put_bool(w, "t.bool", true);
    gguf_put_string(w, "t.str", "gr\xc3\xbc\xc3\x9f Gott\n");
    gguf_put_strings(w, "t.strs", strs, 3);
    gguf_put_array(w, "t.ints", GGUF_I32, (int32_t[]){1, -2, 3}, 3);
    gguf_put_u32(w, "t.u32", 4000000000u); /* replaces the first */
    gguf_tensor(w, "x", DT_F32, 2, (uint64_t[]){2, 3});
    float v[6] = {1, 2, 3, 4, 5, 6};
    int rc = gguf_data(w, &e) < 0 || gguf_put(w, v, 8, &e) < 0 || gguf_put(w, v + 2, 16, &e) < 0 ||
             gguf_end(w, &e) < 0 || outfile_commit(f, &e) < 0;
    struct checkpoint *c = rc ? NULL : checkpoint_open(path, &e), *r = checkpoint_open(DATA "tiny.gguf", &e);
    if (!CHECK(c && r, "written and opened: %s", e.text)) return;
    CHECK(json_object_size(c->meta) == 6, "six keys");
    for (int i = 0; i < 6; i++)
        CHECK(json_equal(json_object_get(c->meta, keys[i]), json_object_get(r->meta, keys[i])), "%s",
              keys[i]);
    const struct checkpoint_tensor *t = checkpoint_find(c, "x");
    CHECK(t && t->t.shape[0] == 2 && t->t.shape[1] == 3 && ((const float *)t->t.data)[5] == 6, "the tensor");
    checkpoint_close(c);
    checkpoint_close(r);
    unlink(path);
    mem_free(path);
}

static void refuse_gguf(void)
{
    struct err e = {0};
    char *path = mem_printf("%s/x.gguf", dir), name[80];
    struct outfile *f = outfile_open(path, &e);
    struct gguf_writer *w = gguf_create(f);
    memset(name, 'n', 64), name[64] = 0;
    gguf_tensor(w, name, DT_F32, 1, (uint64_t[]){4});
    CHECK(gguf_data(w, &e) < 0 && strstr(e.text, "cannot be stored"), "a name of 64 bytes: %s", e.text);
    gguf_drop(w);
    w = gguf_create(f), e.code = 0;
    gguf_tensor(w, "a", DT_Q4_0, 1, (uint64_t[]){40});
    CHECK(gguf_data(w, &e) < 0 && strstr(e.text, "tensor a"), "a row of 40 in Q4_0: %s", e.text);
    gguf_drop(w);
    w = gguf_create(f), e.code = 0;
    gguf_tensor(w, "a", DT_F32, 1, (uint64_t[]){4});
    CHECK(gguf_data(w, &e) == 0 && gguf_end(w, &e) < 0 && strstr(e.text, "not delivered"), "no data: %s",
          e.text);
    outfile_discard(f);
    CHECK(access(path, F_OK) != 0, "nothing is left behind");
    mem_free(path);
}

int main(void)
{
    if (!mkdtemp(dir)) return 99;
    copy_safetensors();
    refuse_safetensors();
    copy_gguf(DATA "tiny.gguf");
    set_gguf();
    refuse_gguf();
    rmdir(dir);
    return check_done();
}
