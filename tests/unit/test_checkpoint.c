/* SPDX-License-Identifier: Apache-2.0
 * Checkpoint readers: files by the reference writers (tests/data/checkpoints/make.py) value for value;
 * hostile files refused with a sentence; files cut at every byte refused. */
#include "common/gguf.h"
#include "common/mem.h"
#include "tests/check.h"
#include "tests/unit/checkpoint_fixture.h"
#include <sys/stat.h>
#include <unistd.h>

#define DATA "tests/data/checkpoints/"

static char dir[] = "/tmp/nt-test-checkpoint-XXXXXX";
static char *path; /* a scratch file in it */

/* ---- reference files ---- */

static void reference_safetensors(void)
{
    struct err e = {0};
    struct checkpoint *c = checkpoint_open(DATA "tiny.safetensors", &e);
    if (!CHECK(c, "tiny.safetensors opens: %s", e.text)) return;
    CHECK(c->n_tensors == 9 && strcmp(c->format, "safetensors") == 0 && c->n_files == 1, "nine tensors");
    CHECK(values_equal(c, "a.f32", 0, DT_F32, SHAPE(3, 5)), "F32 values");
    CHECK(values_equal(c, "b.f16", 1, DT_F16, SHAPE(7)), "F16 values");
    CHECK(values_equal(c, "c.bf16", 2, DT_BF16, SHAPE(2, 3, 4)), "BF16 values");
    CHECK(values_equal(c, "e.scalar", 4, DT_F32, 0, NULL, 1), "rank 0");
    CHECK(values_equal(c,
                       "g.\xc3\xbcn\xc3\xaf"
                       "code",
                       6, DT_F64, SHAPE(1, 1)),
          "F64, a name that is not ASCII");
    const struct checkpoint_tensor *t = checkpoint_find(c, "f.empty");
    CHECK(t && t->t.nbytes == 0 && t->t.shape[0] == 0 && t->t.shape[1] == 4, "an empty tensor");
    t = checkpoint_find(c, "d.i64");
    CHECK(t && t->t.dtype == DT_I64 && ((const int64_t *)t->t.data)[4] == 4, "I64 values");
    CHECK(!checkpoint_find(c, "a.f3") && !checkpoint_find(c, ""), "names that are not there");
    CHECK(strcmp(json_string_value(json_object_get(c->meta, "note")), "tiny") == 0, "__metadata__");
    checkpoint_release(c, checkpoint_find(c, "a.f32"));
    CHECK(values_equal(c, "a.f32", 0, DT_F32, SHAPE(3, 5)), "values after release");
    checkpoint_close(c);
}

static void reference_sharded(void)
{
    static const char *const ways[] = {DATA "sharded", DATA "sharded/config.json",
                                       DATA "sharded/model.safetensors.index.json"};
    char sha[65] = "";
    for (int i = 0; i < 3; i++) {
        struct err e = {0};
        struct checkpoint *c = checkpoint_open(ways[i], &e);
        if (!CHECK(c, "%s opens: %s", ways[i], e.text)) continue;
        CHECK(c->n_files == 2 && c->n_tensors == 3, "two files, three tensors");
        CHECK(json_integer_value(json_object_get(c->config, "hidden_size")) == 4, "config.json");
        CHECK(values_equal(c, "model.norm.weight", 2, DT_BF16, SHAPE(4)) &&
                  values_equal(c, "model.layers.0.x.weight", 1, DT_F32, SHAPE(4, 4)) && c->dir,
              "values of both shards");
        CHECK(!*sha || strcmp(sha, checkpoint_sha256(c)) == 0, "same identity");
        snprintf(sha, sizeof sha, "%s", checkpoint_sha256(c));
        checkpoint_close(c);
    }
    CHECK(strlen(sha) == 64 && strspn(sha, "0123456789abcdef") == 64, "identity is lower-case hex");
}

static int64_t meta_int(const struct checkpoint *c, const char *key)
{
    return json_integer_value(json_object_get(c->meta, key));
}

static int blocks_equal(const struct checkpoint *c, const char *type)
{
    char *name = mem_printf("blk.%s", type), *file = mem_printf("tests/data/ggml/%s.blocks", type);
    const struct checkpoint_tensor *t = checkpoint_find(c, name);
    FILE *f = fopen(file, "rb");
    char b[4096];
    size_t n = f ? fread(b, 1, sizeof b, f) : 0;
    if (f) fclose(f);
    mem_free(name);
    mem_free(file);
    return t && n && t->t.dtype == dtype_parse(type) && t->t.nbytes == n && memcmp(b, t->t.data, n) == 0 &&
           t->t.rank == 2 && t->t.shape[0] == 1 &&
           tensor_count(&t->t) % (uint64_t)dtype_block(t->t.dtype) == 0;
}

static void reference_gguf(void)
{
    static const char *const types[] = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0",
                                        "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"};
    struct err e = {0};
    struct checkpoint *c = checkpoint_open(DATA "tiny.gguf", &e);
    if (!CHECK(c, "tiny.gguf opens: %s", e.text)) return;
    CHECK(values_equal(c, "f32", 0, DT_F32, SHAPE(3, 5)), "F32 values, shape the right way round");
    CHECK(values_equal(c, "f16", 1, DT_F16, SHAPE(7)), "F16 values");
    CHECK(values_equal(c, "bf16", 2, DT_BF16, SHAPE(2, 3, 4)), "BF16 values");
    for (int i = 0; i < 10; i++) CHECK(blocks_equal(c, types[i]), "%s blocks", types[i]);
    CHECK(meta_int(c, "t.u8") == 200 && meta_int(c, "t.i8") == -100 && meta_int(c, "t.u16") == 60000 &&
              meta_int(c, "t.i16") == -30000 && meta_int(c, "t.u32") == 4000000000 &&
              meta_int(c, "t.i32") == -2000000000 && meta_int(c, "t.i64") == -((int64_t)1 << 62),
          "integers of every size");
    CHECK(json_real_value(json_object_get(c->meta, "t.f32")) == (double)0.1f &&
          json_real_value(json_object_get(c->meta, "t.f64")) == 0.1, "floats");
    CHECK(json_real_value(json_object_get(c->meta, "t.u64")) == 18446744073709551615.0,
          "u64 above 2^63 as a real");
    CHECK(json_is_true(json_object_get(c->meta, "t.bool")) &&
              strcmp(json_string_value(json_object_get(c->meta, "t.str")), "gr\xc3\xbc\xc3\x9f Gott\n") == 0,
          "boolean, string");
    const json_t *a = json_object_get(c->meta, "t.strs");
    CHECK(json_array_size(a) == 3 &&
              strcmp(json_string_value(json_array_get(a, 2)), "\xc3\x9f\xc3\x9f") == 0 &&
              json_integer_value(json_array_get(json_object_get(c->meta, "t.ints"), 1)) == -2 &&
              json_real_value(json_array_get(json_object_get(c->meta, "t.reals"), 1)) == -0.25,
          "arrays");
    int n;
    const struct gguf_kv *kv = gguf_kvs(c, &n);
    CHECK(n == (int)json_object_size(c->meta) && strcmp(kv[0].key, "general.architecture") == 0 &&
              kv[0].type == GGUF_STRING && memcmp(kv[0].value + 8, "tiny", 4) == 0 &&
              kv[0].n_raw == 8 + 20 + 4 + 8 + 4,
          "raw key-values");
    checkpoint_close(c);

    c = checkpoint_open(DATA "split-00001-of-00002.gguf", &e);
    if (!CHECK(c, "split file opens: %s", e.text)) return;
    CHECK(c->n_files == 2 && c->n_tensors == 3 && values_equal(c, "third", 2, DT_F32, SHAPE(4)) &&
          values_equal(c, "f16", 1, DT_F16, SHAPE(7)), "values of both parts");
    checkpoint_close(c);
}

/* ---- hostile files ---- */

static void refused(const char *file, const char *want, const char *what)
{
    struct err e = {0};
    CHECK(refuses(file, want, &e), "%s: %s", what, e.text);
}

static void refused_bytes(const char *suffix, const void *p, size_t n, const char *want, const char *what)
{
    char *file = mem_printf("%s/x%s", dir, suffix);
    file_store(file, p, n);
    refused(file, want, what);
    unlink(file);
    mem_free(file);
}

static void cut(const char *file, const char *suffix, size_t dense, size_t padding)
{
    char *to = mem_printf("%s/cut%s", dir, suffix);
    struct cuts n = cut_everywhere(file, to, dense, padding);
    CHECK(n.tried > 100 && !n.opened && !n.silent, "%s cut at %zu places: %zu opened, %zu without a sentence",
          file, n.tried, n.opened, n.silent);
    mem_free(to);
}

/* Single bytes changed: never a crash; whatever opens has tensors inside the file. */
static void flip_everywhere(const char *file, const char *suffix, size_t upto)
{
    static const uint8_t masks[] = {0x01, 0x80, 0xFF};
    size_t n, outside = 0, opened = 0;
    uint8_t *p = file_load(file, &n);
    char *to = mem_printf("%s/flip%s", dir, suffix);
    for (size_t k = 0; k < upto && k < n; k++) {
        struct err e = {0};
        p[k] ^= masks[k % 3];
        file_store(to, p, n);
        p[k] ^= masks[k % 3];
        struct checkpoint *c = checkpoint_open(to, &e);
        for (int i = 0; c && i < c->n_tensors; i++)
            outside += c->tensors[i].offset + c->tensors[i].t.nbytes > n;
        opened += c != NULL;
        checkpoint_close(c);
    }
    CHECK(!outside && opened < upto, "%s with single bytes changed: %zu of %zu still open, none outside",
          file, opened, upto);
    unlink(to);
    mem_free(to);
    mem_free(p);
}

static void safetensors_text(const char *json, size_t data, const char *want, const char *what)
{
    size_t n = strlen(json);
    uint8_t *p = mem_array(8 + n + data, 1);
    for (int i = 0; i < 8; i++) p[i] = (uint8_t)((uint64_t)n >> 8 * i);
    memcpy(p + 8, json, n);
    refused_bytes(".safetensors", p, 8 + n + data, want, what);
    mem_free(p);
}

static void hostile_safetensors(void)
{
    static const char lfs[] = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
    refused_bytes(".safetensors", lfs, sizeof lfs - 1, "Git LFS", "an LFS pointer");
    refused_bytes(".safetensors", "", 0, "empty", "an empty file");
    refused_bytes(".safetensors", "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10, "no header", "a huge header");
    safetensors_text("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"a\":{\"dtype\":"
                     "\"F32\",\"shape\":[0],"
                     "\"data_offsets\":[8,8]}}",
                     8, "uplicate", "a duplicate key");
    safetensors_text("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 9, "after the last",
                     "bytes left over");
    safetensors_text("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12, "hole",
                     "a hole at the start");
    safetensors_text("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":"
                     "\"U8\",\"shape\":[4],"
                     "\"data_offsets\":[6,10]}}",
                     10, "overlap", "an overlap");
    safetensors_text("{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, "do not fit",
                     "a wrong shape");
    safetensors_text("{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}",
                     0, "tensor a", "a product of 2^64");
    safetensors_text("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "dimension",
                     "a negative dimension");
    safetensors_text("{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, "dimension",
                     "a real dimension");
    safetensors_text("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "data_offsets",
                     "offsets backwards");
    safetensors_text("{\"a\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "F33",
                     "an unknown type");
    safetensors_text("{\"a\":{\"dtype\":\"Q4_0\",\"shape\":[32],\"data_offsets\":[0,18]}}", 18, "Q4_0",
                     "a ggml type");
    safetensors_text("{\"a\":7}", 0, "tensor a", "a number for a tensor");
    safetensors_text("{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4,
                     "dimensions", "rank 9");
    safetensors_text("{\"__metadata__\":{\"a\":1}}", 0, "__metadata__", "metadata that is no string");
    safetensors_text("{\"a\":{\"dtype\":\"F32\"", 0, "header", "broken JSON");
    safetensors_text(
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[9223372036854775807],\"data_offsets\":[0,9223372036854775807]}}",
        4, "truncated", "a tensor of 2^63 - 1 bytes");
}

static void index_case(const char *json, const char *want, const char *what)
{
    char *index = mem_printf("%s/model.safetensors.index.json", dir);
    struct err e = {0};
    file_store(index, json, strlen(json));
    struct checkpoint *c = checkpoint_open(dir, &e);
    CHECK(!c && strstr(e.text, want) && (e.code == NT_EXIT_DATA || e.code == NT_EXIT_IO), "%s: %s", what,
          c ? "opened" : e.text);
    checkpoint_close(c);
    unlink(index);
    mem_free(index);
}

static void hostile_index(void)
{
    size_t n;
    void *p = file_load(DATA "tiny.safetensors", &n);
    char *shard = mem_printf("%s/s.safetensors", dir);
    file_store(shard, p, n);
    index_case("{\"weight_map\":{\"a\":\"../s.safetensors\"}}", "not allowed",
               "a shard in another directory");
    index_case("{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "not allowed", "an absolute shard");
    index_case("{\"weight_map\":{\"a\":\"..\"}}", "not allowed", "a shard called ..");
    index_case("{\"weight_map\":{\"a\":7}}", "not allowed", "a shard that is a number");
    index_case("{\"weight_map\":{\"a\":\"gone.safetensors\"}}", "gone.safetensors", "a missing shard");
    index_case("{\"weight_map\":{\"a.f32\":\"s.safetensors\"}}", "lists 1 tensors", "too few names");
    index_case("{\"weight_map\":[]}", "weight_map", "no map");
    index_case("{\"weight_map\":{},\"weight_map\":{}}", "uplicate", "a duplicate key in the index");
    unlink(shard);
    struct err e = {0};
    CHECK(!checkpoint_open(dir, &e) && strstr(e.text, "neither model.safetensors"), "an empty directory: %s",
          e.text);
    mem_free(shard);
    mem_free(p);
}

/* ---- a GGUF file built by hand ---- */

struct buf {
    uint8_t b[4096];
    size_t n;
};
static void put(struct buf *b, const void *p, size_t n)
{
    memcpy(b->b + b->n, p, n);
    b->n += n;
}
static void u32(struct buf *b, uint32_t v) { put(b, &v, 4); }
static void u64(struct buf *b, uint64_t v) { put(b, &v, 8); }
static void str(struct buf *b, const char *s)
{
    u64(b, strlen(s));
    put(b, s, strlen(s));
}
static void head(struct buf *b, uint32_t version, uint64_t tensors, uint64_t kvs)
{
    b->n = 0;
    put(b, "GGUF", 4);
    u32(b, version);
    u64(b, tensors);
    u64(b, kvs);
}
static void tensor(struct buf *b, const char *name, uint64_t ne, uint32_t type, uint64_t offset)
{
    str(b, name);
    u32(b, 1);
    u64(b, ne);
    u32(b, type);
    u64(b, offset);
}
static void pad(struct buf *b, size_t data)
{
    static const uint8_t zero[1024];
    put(b, zero, (32 - b->n % 32) % 32 + data);
}

static void hostile_gguf_header(void)
{
    struct buf b;
    head(&b, 1, 0, 0), refused_bytes(".gguf", b.b, b.n, "version 1", "version 1");
    head(&b, 4, 0, 0), refused_bytes(".gguf", b.b, b.n, "version 4", "version 4");
    head(&b, 3u << 24, 0, 0), refused_bytes(".gguf", b.b, b.n, "big-endian", "a byte-swapped file");
    head(&b, 3, UINT64_MAX, 0), refused_bytes(".gguf", b.b, b.n, "tensors cannot fit", "2^64 - 1 tensors");
    head(&b, 3, 0, (uint64_t)1 << 60), refused_bytes(".gguf", b.b, b.n, "keys cannot fit", "2^60 keys");
    refused_bytes(".gguf", "GGML\3\0\0\0aaaaaaaaaaaaaaaa", 24, "not a GGUF", "another magic");
    head(&b, 3, 0, 1), str(&b, "k"), u32(&b, 13), u64(&b, 0);
    refused_bytes(".gguf", b.b, b.n, "type 13", "an unknown value type");
    head(&b, 3, 0, 1), str(&b, "k"), u32(&b, 8), u64(&b, UINT64_MAX);
    refused_bytes(".gguf", b.b, b.n, "k: a string", "a string of 2^64 - 1 bytes");
    head(&b, 3, 0, 1), str(&b, "k"), u32(&b, 9), u32(&b, 10), u64(&b, (uint64_t)1 << 61);
    refused_bytes(".gguf", b.b, b.n, "ends in k", "an array of 2^61 items");
    head(&b, 3, 0, 1), str(&b, "k"), u32(&b, 9), u32(&b, 9), u64(&b, 1), u32(&b, 0), u64(&b, 0);
    refused_bytes(".gguf", b.b, b.n, "array of type 9", "an array of arrays");
    head(&b, 3, 0, 2), str(&b, "k"), u32(&b, 4), u32(&b, 1), str(&b, "k"), u32(&b, 4), u32(&b, 1);
    refused_bytes(".gguf", b.b, b.n, "k is there twice", "a duplicate key");
    head(&b, 3, 0, 1), str(&b, "general.alignment"), u32(&b, 4), u32(&b, 24);
    refused_bytes(".gguf", b.b, b.n, "power of two", "alignment 24");
    head(&b, 3, 0, 1), str(&b, "general.alignment"), u32(&b, 4), u32(&b, 0);
    refused_bytes(".gguf", b.b, b.n, "power of two", "alignment 0");
    head(&b, 3, 0, 1), str(&b, "b"), u32(&b, 7), put(&b, "\2", 1), u64(&b, 0);
    refused_bytes(".gguf", b.b, b.n, "boolean", "a boolean of 2");
    head(&b, 3, 0, 1), str(&b, "\xff\xfe"), u32(&b, 4), u32(&b, 1);
    refused_bytes(".gguf", b.b, b.n, "not readable", "a key that is not UTF-8");
}

static void hostile_gguf_tensors(void)
{
    struct buf b;
    char name[65];
    head(&b, 3, 2, 0), tensor(&b, "a", 4, 0, 0), tensor(&b, "b", 4, 0, 16), pad(&b, 64);
    refused_bytes(".gguf", b.b, b.n, "tensor b: offset 16, expected 32",
                  "an offset that is not the running sum");
    head(&b, 3, 2, 0), tensor(&b, "a", 4, 0, 0), tensor(&b, "a", 4, 0, 32), pad(&b, 64);
    refused_bytes(".gguf", b.b, b.n, "a is there twice", "a duplicate name");
    head(&b, 3, 1, 0), tensor(&b, "a", 33, 2, 0), pad(&b, 64);
    refused_bytes(".gguf", b.b, b.n, "tensor a", "a row of 33 in Q4_0");
    head(&b, 3, 1, 0), tensor(&b, "a", 256, 15, 0), pad(&b, 512);
    refused_bytes(".gguf", b.b, b.n, "15 Q8_K", "a type that is not supported");
    head(&b, 3, 1, 0), tensor(&b, "a", 32, 1000, 0), pad(&b, 64);
    refused_bytes(".gguf", b.b, b.n, "type 1000", "an unknown type");
    head(&b, 3, 1, 0), tensor(&b, "a", UINT64_MAX, 0, 0), pad(&b, 64);
    refused_bytes(".gguf", b.b, b.n, "tensor a", "2^64 - 1 elements");
    head(&b, 3, 1, 0), tensor(&b, "a", (uint64_t)1 << 61, 0, 0), pad(&b, 64);
    refused_bytes(".gguf", b.b, b.n, "tensor a", "2^63 bytes");
    head(&b, 3, 1, 0), tensor(&b, "a", 17, 0, 0), pad(&b, 64);
    refused_bytes(".gguf", b.b, b.n, "truncated: tensor a", "data cut");
    memset(name, 'n', 64), name[64] = 0;
    head(&b, 3, 1, 0), tensor(&b, name, 4, 0, 0), pad(&b, 64);
    refused_bytes(".gguf", b.b, b.n, "longer than 63", "a name of 64 bytes");
    head(&b, 3, 1, 0), str(&b, "a"), u32(&b, 5), u64(&b, 1), u64(&b, 1), u64(&b, 1), u64(&b, 1), u64(&b, 1),
        u32(&b, 0), u64(&b, 0);
    refused_bytes(".gguf", b.b, b.n, "5 dimensions", "rank 5");
    head(&b, 3, 1, 0), tensor(&b, "a\nb", 17, 0, 0), pad(&b, 64);
    refused_bytes(".gguf", b.b, b.n, "a?b", "a newline in a name stays out of the message");
    head(&b, 3, 0, 2), str(&b, "split.no"), u32(&b, 4), u32(&b, 1), str(&b, "split.count"), u32(&b, 4),
        u32(&b, 3);
    refused_bytes(".gguf", b.b, b.n, "part 2", "a later part");
    head(&b, 3, 0, 2), str(&b, "split.no"), u32(&b, 4), u32(&b, 0), str(&b, "split.count"), u32(&b, 4),
        u32(&b, 3);
    refused_bytes(".gguf", b.b, b.n, "first of 3 parts", "a first part with another name");
}

static void odd_strings(void)
{
    static const char raw[] = "ok \xff\xc3 \xc3\xbc \xf4\x8f\xbc\x81 \xed\xa0\x80 end";
    struct buf b;
    struct err e = {0};
    size_t n;
    head(&b, 3, 0, 2), str(&b, "s"), u32(&b, 8), str(&b, raw), str(&b, "nan"), u32(&b, 6),
        u32(&b, 0x7FC00000);
    file_store(path, b.b, b.n);
    struct checkpoint *c = checkpoint_open(path, &e);
    if (!CHECK(c, "strings that are not UTF-8: %s", e.text)) return;
    char *back = gguf_unescape(json_string_value(json_object_get(c->meta, "s")), &n);
    CHECK(n == sizeof raw - 1 && memcmp(back, raw, n) == 0, "come back from the escape");
    CHECK(json_is_null(json_object_get(c->meta, "nan")), "a NaN becomes null");
    mem_free(back);
    checkpoint_close(c);
}

static void odd_paths(void)
{
    struct err e = {0};
    CHECK(!checkpoint_open("/nonexistent/model", &e) && e.code == NT_EXIT_DATA, "a missing file: %s", e.text);
    char *fifo = mem_printf("%s/fifo.gguf", dir);
    if (mkfifo(fifo, 0600) == 0) refused(fifo, "no model", "a FIFO");
    unlink(fifo);
    mem_free(fifo);
    file_store(path, "hello, this is no model at all", 30);
    char *txt = mem_printf("%s/x.txt", dir);
    file_store(txt, "hello, this is no model at all", 30);
    refused(txt, "no model", "a text file");
    unlink(txt);
    mem_free(txt);
}

static void real_model(void)
{
    const char *file = getenv("NT_SMOLLM2");
    if (!file) { SKIP("NT_SMOLLM2 unset: no real model"); return; }
    struct err e = {0};
    struct checkpoint *c = checkpoint_open(file, &e);
    if (!CHECK(c, "SmolLM2 opens: %s", e.text)) return;
    const struct checkpoint_tensor *t = checkpoint_find(c, "blk.29.ffn_down.weight");
    CHECK(c->n_tensors == 272 && t && t->t.dtype == DT_Q4_1 && t->t.shape[0] == 576 &&
              t->t.shape[1] == 1536 &&
              json_array_size(json_object_get(c->meta, "tokenizer.ggml.tokens")) == 49152,
          "its tensors and tokens");
    checkpoint_close(c);
}

int main(void)
{
    if (!mkdtemp(dir)) return 99;
    path = mem_printf("%s/scratch.gguf", dir);
    reference_safetensors();
    reference_sharded();
    reference_gguf();
    hostile_safetensors();
    hostile_index();
    hostile_gguf_header();
    hostile_gguf_tensors();
    odd_strings();
    odd_paths();
    cut(DATA "tiny.gguf", ".gguf", 1900, 10); /* 10: padding after the last tensor */
    cut(DATA "tiny.safetensors", ".safetensors", 1000, 0);
    flip_everywhere(DATA "tiny.gguf", ".gguf", 1900);
    flip_everywhere(DATA "tiny.safetensors", ".safetensors", 1000);
    real_model();
    unlink(path);
    mem_free(path);
    rmdir(dir);
    return check_done();
}
