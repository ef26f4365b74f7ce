/* SPDX-License-Identifier: Apache-2.0
 * PyTorch .bin files: what torch.save wrote (tests/data/checkpoints/make_torch.py) value for value in every
 * layout; attacks refused by name; files cut anywhere refused. */
#include "common/mem.h"
#include "common/model.h"
#include "tests/check.h"
#include "tests/unit/checkpoint_fixture.h"
#include <sys/stat.h>
#include <unistd.h>

#define DATA "tests/data/checkpoints/torch/"

static char dir[] = "/tmp/nt-test-pytorch-XXXXXX";

static int counts(const struct checkpoint *c, const char *name, enum dtype dtype, size_t size)
{
    const struct checkpoint_tensor *t = checkpoint_find(c, name);
    int ok = t && t->t.dtype == dtype && t->t.rank == 1 && t->t.shape[0] == 5 && t->t.nbytes == 5 * size;
    for (size_t i = 0; ok && i < 5; i++) {
        uint64_t v = 0;
        memcpy(&v, (const char *)t->t.data + i * size, size);
        ok = v == i;
    }
    return ok;
}

static void plain(void)
{
    struct err e = {0};
    struct checkpoint *c = checkpoint_open(DATA "plain.bin", &e);
    if (!CHECK(c, "plain.bin opens: %s", e.text)) return;
    CHECK(c->n_tensors == 14 && strcmp(c->format, "pytorch") == 0 && c->n_files == 1,
          "fourteen tensors, in the file itself");
    CHECK(values_equal(c, "f32", 0, DT_F32, SHAPE(3, 5)) && values_equal(c, "f16", 1, DT_F16, SHAPE(7)) &&
              values_equal(c, "bf16", 2, DT_BF16, SHAPE(2, 3, 4)) &&
              values_equal(c, "f64", 3, DT_F64, SHAPE(2, 2)),
          "float types");
    const struct checkpoint_tensor *t = checkpoint_find(c, "f8");
    CHECK(t && t->t.dtype == DT_F8_E4M3 && memcmp(t->t.data, "\0\x38\x40\x44\x48", 5) == 0,
          "8-bit floats, which have no storage type of their own");
    CHECK(counts(c, "i64", DT_I64, 8) && counts(c, "i32", DT_I32, 4) && counts(c, "i16", DT_I16, 2) &&
              counts(c, "i8", DT_I8, 1) && counts(c, "u8", DT_U8, 1),
          "integer types");
    t = checkpoint_find(c, "bool");
    CHECK(t && t->t.dtype == DT_BOOL && memcmp(t->t.data, "\1\0", 2) == 0, "booleans");
    CHECK(values_equal(c, "scalar", 4, DT_F32, 0, NULL, 1) &&
              values_equal(c, "param", 5, DT_F32, SHAPE(4, 2)),
          "a scalar, a Parameter");
    t = checkpoint_find(c, "empty");
    CHECK(t && t->t.nbytes == 0 && t->t.shape[0] == 0 && t->t.shape[1] == 4, "an empty tensor");
    CHECK(!checkpoint_find(c, "steps") && !checkpoint_find(c, "name"), "what is no tensor is left out");
    checkpoint_close(c);
}

static void views(const char *file, int files)
{
    struct err e = {0};
    struct checkpoint *c = checkpoint_open(file, &e);
    if (!CHECK(c, "%s opens: %s", file, e.text)) return;
    CHECK(c->n_tensors == 8 && c->n_files == files, "eight tensors, %d mappings", c->n_files);
    CHECK(values_equal(c, "slice", 0, DT_F32, SHAPE(3, 5)), "a slice with an offset");
    CHECK(values_equal(c, "columns", 1, DT_F32, SHAPE(4, 5)), "columns of a wider matrix");
    CHECK(values_equal(c, "transposed", 2, DT_F32, SHAPE(6, 4)) &&
              values_equal(c, "half", 5, DT_F16, SHAPE(3, 3)),
          "transposed");
    CHECK(values_equal(c, "permuted", 4, DT_F32, SHAPE(2, 3, 4)), "permuted");
    CHECK(values_equal(c, "expanded", 3, DT_F32, 2, (const uint64_t[]){3, 3}, 9), "expanded, stride 0");
    const struct checkpoint_tensor *a = checkpoint_find(c, "tied.a"), *b = checkpoint_find(c, "tied.b"),
                                   *s = checkpoint_find(c, "slice");
    CHECK(a && b && s && a->t.data == b->t.data && (char *)s->t.data == (char *)a->t.data + 40,
          "shared storage is shared");
    char sha[65];
    snprintf(sha, sizeof sha, "%s", checkpoint_sha256(c));
    checkpoint_close(c);
    c = checkpoint_open(DATA "views.bin", &e);
    CHECK(c && strcmp(sha, checkpoint_sha256(c)) == 0, "the same identity in every layout");
    checkpoint_close(c);
}

static void big_endian(void)
{
    struct err e = {0};
    struct checkpoint *c = checkpoint_open(DATA "big.bin", &e);
    CHECK(c && values_equal(c, "a", 0, DT_F32, SHAPE(3, 5)) && values_equal(c, "b", 1, DT_F32, SHAPE(4, 3)),
          "big-endian: %s", e.text);
    checkpoint_close(c);
}

/* The same weights as the safetensors directory: the model's identity says so. */
static void sharded_model(void)
{
    static const char *const ways[] = {DATA "model", DATA "model/config.json",
                                       DATA "model/pytorch_model.bin.index.json"};
    struct err e = {0};
    struct model *ref = model_open("tests/data/pack/tiny", NULL, &e);
    json_t *want = ref ? model_identity(ref) : NULL;
    for (int i = 0; i < 3; i++) {
        struct model *m = model_open(ways[i], NULL, &e);
        json_t *is = m ? model_identity(m) : NULL;
        CHECK(want && json_equal(want, is), "%s is the model of tests/data/pack/tiny: %s", ways[i], e.text);
        json_decref(is);
        model_close(m);
    }
    json_decref(want);
    model_close(ref);
}

/* ---- hostile ---- */

static void refused(const char *file, const char *want, const char *what)
{
    struct err e = {0};
    CHECK(refuses(file, want, &e), "%s: %s", what, e.text);
}

/* The old form needs no zip: magic, version, sys_info, the pickle at hand, the keys ["0"], one storage of two
 * floats. */
static void pickle_case(const char *body, size_t n, const char *want, const char *what)
{
    static const char head[] = "\x80\2\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
                               "\x80\2M\xe9\3.\x80\2}.\x80\2",
                      tail[] = ".\x80\2]X\1\0\0\0""0a.\2\0\0\0\0\0\0\0\0\0\x80\x3f\0\0\0\x40";
    char *file = mem_printf("%s/x.bin", dir), *p = mem_array(sizeof head + sizeof tail + n, 1);
    size_t at = sizeof head - 1;
    memcpy(p, head, at);
    memcpy(p + at, body, n), at += n;
    memcpy(p + at, tail, sizeof tail - 1), at += sizeof tail - 1;
    file_store(file, p, at);
    if (want) {
        refused(file, want, what);
    } else {
        struct err e = {0};
        struct checkpoint *c = checkpoint_open(file, &e);
        const struct checkpoint_tensor *t = c ? checkpoint_find(c, "w") : NULL;
        CHECK(t && t->t.rank == 1 && t->t.shape[0] == 2 &&
                  memcmp(t->t.data, "\0\0\x80\x3f\0\0\0\x40", 8) == 0,
              "%s: %s", what, e.text);
        checkpoint_close(c);
    }
    unlink(file);
    mem_free(p), mem_free(file);
}
#define PICKLE(s, want, what) pickle_case(s, sizeof(s) - 1, want, what)

/* {"w": _rebuild_tensor_v2(storage "0" of 2 floats, OFFSET, (SIZE,), (STRIDE,), False, OrderedDict())} */
#define STORAGE(count) "((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0""0X\3\0\0\0cpuK" count "NtQ"
#define TENSOR(count, offset, size, stride) \
    "}X\1\0\0\0wctorch._utils\n_rebuild_tensor_v2\n" STORAGE(count) \
    offset size "\x85" stride "\x85\x89" "ccollections\nOrderedDict\n)RtRs"

static void attacks(void)
{
    PICKLE(TENSOR("\2", "K\0", "K\2", "K\1"), NULL, "the frame of these cases");
    PICKLE("cos\nsystem\nX\2\0\0\0id\x85R", "asks for os.system", "os.system");
    PICKLE("cbuiltins\neval\nX\1\0\0\0""1\x85R", "asks for builtins.eval", "eval");
    PICKLE("X\5\0\0\0posixX\6\0\0\0system\x93)R", "asks for posix.system", "a global from the stack");
    PICKLE("ctorch.storage\n_load_from_bytes\n)R", "asks for torch.storage._load_from_bytes",
           "a pickle in a pickle");
    PICKLE("ctorch._utils\n_rebuild_tensor_v2\n)R", "something else than a storage", "a tensor of nothing");
    PICKLE("(ios\nsystem\n", "opcode 0x69", "INST");
    PICKLE("ctorch\nFloatStorage\n)R", "a call of a type", "a storage that is made");
    PICKLE("}ccollections\nOrderedDict\n)b}b", "attributes for something else", "state of a global");
    PICKLE("h\5", "a memo that was never made", "a memo");
    PICKLE("Nr\xff\xff\xff\x7f", "a memo out of order", "a memo of 2^31 entries");
    PICKLE("0", "the stack is empty", "an empty stack");
    PICKLE("t", "no mark", "no mark");
    PICKLE("}K\1u", "no mark", "items without a mark");
    PICKLE("}(K\1u", "a key without a value", "an odd dictionary");
    PICKLE("X\xff\xff\xff\x7fz", "truncated", "a string of 2 GiB");
    PICKLE("]", "no tensor uses", "a list");
    PICKLE("}", "no tensor", "an empty dictionary");
    PICKLE(TENSOR("\2", "K\1", "K\2", "K\1"), "tensor w: reaches beyond", "an offset too far");
    PICKLE(TENSOR("\2", "K\0", "K\3", "K\1"), "tensor w: reaches beyond", "a shape too large");
    PICKLE(TENSOR("\2", "K\0", "K\2", "K\2"), "tensor w: reaches beyond", "a stride too large");
    PICKLE(TENSOR("\2", "K\0", "K\2", "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"), "tensor w: reaches beyond",
           "a stride of 2^63 - 1");
    PICKLE(TENSOR("\2", "K\0", "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", "K\0"), "tensor w: the shape",
           "a stride of 0 over 2^63 - 1 elements");
    PICKLE(TENSOR("\2", "K\0", "\x8a\x05\0\0\0\0\x01", "K\0"), "far more than its own size",
           "a stride of 0 over 2^32 elements");
    PICKLE(TENSOR("\2", "K\0", "J\xff\xff\xff\xff", "K\1"), "a bad dimension", "a negative size");
}

static void cut(const char *from)
{
    char *to = mem_printf("%s/cut.bin", dir);
    struct cuts n = cut_everywhere(from, to, SIZE_MAX, 0);
    CHECK(n.tried > 100 && !n.opened && !n.silent, "%s cut at %zu places: %zu opened, %zu without a sentence",
          from, n.tried, n.opened, n.silent);
    mem_free(to);
}

static void hostile_directories(void)
{
    char *index = mem_printf("%s/pytorch_model.bin.index.json", dir),
         text[] = "{\"weight_map\":{\"a\":\"b.bin\"}}", up[] = "{\"weight_map\":{\"a\":\"../b.bin\"}}";
    file_store(index, text, strlen(text));
    struct err e = {0};
    struct checkpoint *c = checkpoint_open(dir, &e);
    CHECK(!c && e.code == NT_EXIT_DATA && strstr(e.text, "its file b.bin is missing"),
          "a shard is missing: %s", e.text);
    checkpoint_close(c);
    file_store(index, up, strlen(up));
    e = (struct err){0};
    c = checkpoint_open(dir, &e);
    CHECK(!c && e.code == NT_EXIT_DATA && strstr(e.text, "not allowed"), "a shard elsewhere: %s", e.text);
    checkpoint_close(c);
    unlink(index);
    mem_free(index);
}

int main(void)
{
    if (!mkdtemp(dir)) return 99;
    plain();
    views(DATA "views.bin", 2);
    views(DATA "legacy.bin", 2);
    views(DATA "deflated.bin", 3);
    big_endian();
    sharded_model();
    attacks();
    cut(DATA "views.bin");
    cut(DATA "legacy.bin");
    hostile_directories();
    rmdir(dir);
    return check_done();
}
