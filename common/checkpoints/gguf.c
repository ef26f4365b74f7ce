/* SPDX-License-Identifier: Apache-2.0
 * GGUF v2 and v3, single and split files. The file is hostile until every length, offset and sum has been
 * checked against its size; the rules are those of llama.cpp's loader, which are stricter than the format's
 * document. */
#include "common/checkpoint_impl.h"
#include "common/gguf.h"
#include "common/ggml_types.h"
#include "common/mem.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ITEMS_MAX (1u << 24)       /* array items of a whole file: JSON values cost some 40 bytes each */
#define STRING_MAX (1u << 30)

struct cursor {
    const char *file;
    const uint8_t *at, *p, *end;
    uint64_t items;                /* array items read so far */
    struct err *e;
};

struct gguf_state {
    struct gguf_kv *kv;
    size_t kv_cap;
    int n_kv;
};

/* ---- small reads: all little-endian, all checked ---- */

static int short_file(const struct cursor *c, const char *what)
{
    return err_set(c->e, NT_EXIT_DATA, "%s: truncated: the file ends in %s (byte %zu)", c->file, what,
                   (size_t)(c->end - c->at));
}

static int get(struct cursor *c, void *out, size_t n, const char *what)
{
    if ((size_t)(c->end - c->p) < n) return short_file(c, what);
    memcpy(out, c->p, n);
    c->p += n;
    return 0;
}

static int get_string(struct cursor *c, const char **s, uint64_t *len, const char *what)
{
    if (get(c, len, 8, what) < 0) return -1;
    if (*len > STRING_MAX) return err_set(c->e, NT_EXIT_DATA, "%s: %s: a string of %llu bytes", c->file, what,
                                          (unsigned long long)*len);
    if ((uint64_t)(c->end - c->p) < *len) return short_file(c, what);
    *s = (const char *)c->p;
    c->p += *len;
    return 0;
}

static const uint8_t type_size[GGUF_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

/* ---- values as JSON ---- */

static char *put_utf8(char *o, uint32_t c) /* 4-byte form only */
{
    *o++ = (char)(0xF0 | c >> 18);
    *o++ = (char)(0x80 | (c >> 12 & 63));
    *o++ = (char)(0x80 | (c >> 6 & 63));
    *o++ = (char)(0x80 | (c & 63));
    return o;
}

static size_t utf8_prefix(const uint8_t *p, size_t n) /* bytes of the character at p, 0 = to be escaped */
{
    size_t k = *p < 0x80 ? 1 : *p < 0xE0 ? 2 : *p < 0xF0 ? 3 : 4;
    if (k > n || !utf8_valid((const char *)p, k)) return 0;
    return k == 4 && p[0] == 0xF4 && p[1] == 0x8F && p[2] >= 0xBC ? 0 : k; /* U+10FF00 and above */
}

static json_t *string_json(const char *s, size_t n)
{
    const uint8_t *p = (const uint8_t *)s;
    size_t ok = 0;
    for (size_t k; ok < n && (k = utf8_prefix(p + ok, n - ok)) != 0;) ok += k;
    if (ok == n) return json_stringn_nocheck(s, n);
    char *out = mem_array(4 * n + 1, 1), *o = out;
    for (size_t i = 0; i < n;) {
        size_t k = utf8_prefix(p + i, n - i);
        if (k) memcpy(o, p + i, k), o += k, i += k;
        else o = put_utf8(o, 0x10FF00u + p[i++]);
    }
    json_t *j = json_stringn_nocheck(out, (size_t)(o - out));
    mem_free(out);
    return j;
}

char *gguf_unescape(const char *s, size_t *n)
{
    const uint8_t *p = (const uint8_t *)s;
    char *out = mem_array(strlen(s) + 1, 1), *o = out;
    while (*p) {
        if (p[0] == 0xF4 && p[1] == 0x8F && p[2] >= 0xBC && p[3]) {
            *o++ = (char)((p[2] & 3) << 6 | (p[3] & 63));
            p += 4;
        } else {
            *o++ = (char)*p++;
        }
    }
    *n = (size_t)(o - out);
    return out;
}

static json_t *real_json(double v) { return isfinite(v) ? json_real(v) : json_null(); }

/* One value of a fixed-size type that is known to be there. */
static json_t *scalar_json(uint32_t type, const uint8_t *p)
{
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        float f32;
        uint64_t u64;
        int64_t i64;
        double f64;
    } v;
    memcpy(&v, p, type_size[type]);
    switch (type) {
    case GGUF_U8: return json_integer(v.u8);
    case GGUF_I8: return json_integer(v.i8);
    case GGUF_U16: return json_integer(v.u16);
    case GGUF_I16: return json_integer(v.i16);
    case GGUF_U32: return json_integer(v.u32);
    case GGUF_I32: return json_integer(v.i32);
    case GGUF_F32: return real_json((double)v.f32);
    case GGUF_BOOL: return json_boolean(v.u8);
    case GGUF_U64: return v.u64 >> 63 ? json_real((double)v.u64) : json_integer((json_int_t)v.u64);
    case GGUF_I64: return json_integer(v.i64);
    default: return real_json(v.f64);
    }
}

static json_t *read_value(struct cursor *c, uint32_t type, const char *key);

static json_t *read_array(struct cursor *c, const char *key)
{
    uint32_t type = 0;
    uint64_t n = 0;
    if (get(c, &type, 4, key) < 0 || get(c, &n, 8, key) < 0) return NULL;
    if (type >= GGUF_TYPES || type == GGUF_ARRAY)
        return err_set(c->e, NT_EXIT_DATA, "%s: %s: an array of type %u", c->file, key, type), NULL;
    uint64_t left = (uint64_t)(c->end - c->p), least = type == GGUF_STRING ? 8 : type_size[type];
    if (n > left / least) return short_file(c, key), NULL;
    c->items += n;
    if (c->items > ITEMS_MAX)
        return err_set(c->e, NT_EXIT_DATA, "%s: %s: more than %u array items", c->file, key, ITEMS_MAX), NULL;
    json_t *a = json_array();
    for (uint64_t i = 0; i < n; i++) {
        json_t *v = read_value(c, type, key);
        if (!v) return json_decref(a), NULL;
        json_array_append_new(a, v);
    }
    return a;
}

static json_t *read_value(struct cursor *c, uint32_t type, const char *key)
{
    const char *s = NULL;
    uint64_t len = 0;
    if (type >= GGUF_TYPES)
        return err_set(c->e, NT_EXIT_DATA, "%s: %s: unknown value type %u", c->file, key, type), NULL;
    if (type == GGUF_ARRAY) return read_array(c, key);
    if (type == GGUF_STRING) return get_string(c, &s, &len, key) < 0 ? NULL : string_json(s, (size_t)len);
    if ((size_t)(c->end - c->p) < type_size[type]) return short_file(c, key), NULL;
    json_t *j = scalar_json(type, c->p);
    if (type == GGUF_BOOL && *c->p > 1)
        return json_decref(j),
               err_set(c->e, NT_EXIT_DATA, "%s: %s: a boolean of value %d", c->file, key, *c->p), NULL;
    c->p += type_size[type];
    return j;
}

/* ---- header ---- */

static int read_counts(struct cursor *c, uint64_t *n_tensors, uint64_t *n_kv)
{
    char magic[4];
    uint32_t version = 0;
    if (get(c, magic, 4, "the magic") < 0) return -1;
    if (memcmp(magic, "GGUF", 4) != 0) return err_set(c->e, NT_EXIT_DATA, "%s: not a GGUF file", c->file);
    if (get(c, &version, 4, "the version") < 0) return -1;
    if ((version & 0xFFFF) == 0 && version)
        return err_set(c->e, NT_EXIT_DATA, "%s: a big-endian GGUF file, which is not supported", c->file);
    if (version != 2 && version != 3)
        return err_set(c->e, NT_EXIT_DATA, "%s: GGUF version %u is not supported (2 and 3 are)", c->file,
                       version);
    if (get(c, n_tensors, 8, "the number of tensors") < 0 || get(c, n_kv, 8, "the number of keys") < 0)
        return -1;
    uint64_t left = (uint64_t)(c->end - c->p);
    if (*n_kv > left / 13) /* a key takes 13 bytes at least, a tensor 24 */
        return err_set(c->e, NT_EXIT_DATA, "%s: truncated or corrupt: %llu keys cannot fit", c->file,
                       (unsigned long long)*n_kv);
    if (*n_tensors > left / 24)
        return err_set(c->e, NT_EXIT_DATA, "%s: truncated or corrupt: %llu tensors cannot fit", c->file,
                       (unsigned long long)*n_tensors);
    return 0;
}

/* Key-values into meta; those of the first part are kept as raw ranges too. */
static int read_kvs(struct cursor *c, uint64_t n, json_t *meta, struct gguf_state *keep)
{
    for (uint64_t i = 0; i < n; i++) {
        const uint8_t *start = c->p;
        const char *s = NULL;
        uint64_t len = 0;
        uint32_t type = 0;
        if (get_string(c, &s, &len, "a key") < 0) return -1;
        if (len > 65535 || !utf8_valid(s, (size_t)len))
            return err_set(c->e, NT_EXIT_DATA, "%s: key %llu is not readable text", c->file,
                           (unsigned long long)i);
        char *key = mem_printf("%.*s", (int)len, s);
        const char *shown = show_name(key, (size_t)len);
        json_t *v = NULL;
        const uint8_t *value = NULL;
        if (json_object_get(meta, key)) {
            err_set(c->e, NT_EXIT_DATA, "%s: key %s is there twice", c->file, shown);
        } else if (get(c, &type, 4, shown) == 0) {
            value = c->p;
            v = read_value(c, type, shown);
        }
        if (v) json_object_set_new_nocheck(meta, key, v);
        if (!v || !keep) mem_free(key);
        if (!v) return -1;
        if (!keep) continue;
        keep->kv = mem_grow(keep->kv, &keep->kv_cap, (size_t)keep->n_kv + 1, sizeof *keep->kv);
        keep->kv[keep->n_kv++] = (struct gguf_kv){key, start, (uint64_t)(c->p - start), type, value};
    }
    return 0;
}

static int read_alignment(struct cursor *c, const json_t *meta, uint64_t *align)
{
    const json_t *a = json_object_get(meta, "general.alignment");
    json_int_t v = a ? json_integer_value(a) : GGUF_ALIGNMENT;
    if (v < 1 || v > 1 << 30 || (v & (v - 1)))
        return err_set(c->e, NT_EXIT_DATA, "%s: general.alignment is no power of two", c->file);
    *align = (uint64_t)v;
    return 0;
}

struct info {
    const char *name;
    uint64_t len, offset;
    struct tensor t;
};

static int read_info(struct cursor *c, struct info *i)
{
    uint32_t rank = 0, type = 0;
    uint64_t ne[4];
    memset(i, 0, sizeof *i);
    if (get_string(c, &i->name, &i->len, "a tensor name") < 0) return -1;
    const char *shown = show_name(i->name, (size_t)i->len);
    if (i->len > GGUF_NAME_MAX)
        return err_set(c->e, NT_EXIT_DATA, "%s: tensor %s: a name longer than %d bytes", c->file, shown,
                       GGUF_NAME_MAX);
    if (get(c, &rank, 4, shown) < 0) return -1;
    if (rank > 4) return err_set(c->e, NT_EXIT_DATA, "%s: tensor %s: %u dimensions", c->file, shown, rank);
    for (uint32_t k = 0; k < rank; k++)
        if (get(c, &ne[k], 8, shown) < 0) return -1;
    if (get(c, &type, 4, shown) < 0 || get(c, &i->offset, 8, shown) < 0) return -1;
    i->t.dtype = ggml_type_dtype(type);
    if (i->t.dtype == DT_NONE)
        return err_set(c->e, NT_EXIT_DATA, "%s: tensor %s: type %u%s%s is not supported", c->file, shown,
                       type, *ggml_type_name(type) ? " " : "", ggml_type_name(type));
    i->t.rank = (int)rank;
    for (uint32_t k = 0; k < rank; k++) i->t.shape[k] = ne[rank - 1 - k];
    if (tensor_nbytes(i->t.dtype, i->t.rank, i->t.shape, &i->t.nbytes, c->e) < 0)
        return err_prefix(c->e, "%s: tensor %s", c->file, shown);
    return 0;
}

/* Each tensor must lie at the running sum of the padded sizes, as llama.cpp demands: no holes, no overlap. */
static int read_tensors(struct cursor *c, uint64_t n, uint64_t align, struct checkpoint *ck, int file)
{
    struct info *list = MEM_NEW(struct info, (size_t)n);
    uint64_t size = (uint64_t)(c->end - c->at), sum = 0;
    int rc = 0;
    for (uint64_t i = 0; i < n && rc == 0; i++) rc = read_info(c, &list[i]);
    uint64_t data = ((uint64_t)(c->p - c->at) + align - 1) / align * align;
    for (uint64_t i = 0; i < n && rc == 0; i++) {
        const char *shown = show_name(list[i].name, (size_t)list[i].len);
        uint64_t bytes = list[i].t.nbytes;
        if (list[i].offset != sum)
            rc = err_set(c->e, NT_EXIT_DATA, "%s: tensor %s: offset %llu, expected %llu", c->file, shown,
                         (unsigned long long)list[i].offset, (unsigned long long)sum);
        else if (data > size || sum > size - data || bytes > size - data - sum)
            rc = err_set(c->e, NT_EXIT_DATA,
                         "%s: truncated: tensor %s needs bytes %llu to %llu, the file has %llu", c->file,
                         shown, (unsigned long long)(data + sum), (unsigned long long)(data + sum + bytes),
                         (unsigned long long)size);
        else rc = checkpoint_add(ck, list[i].name, (size_t)list[i].len, &list[i].t, file, data + sum, c->e);
        sum += (bytes + align - 1) / align * align;
    }
    mem_free(list);
    return rc;
}

static int read_file(struct checkpoint *ck, const char *path, json_t *meta, struct gguf_state *keep,
                     struct err *e)
{
    int file = checkpoint_map(ck, path, e);
    if (file < 0) return -1;
    struct mapping m = checkpoint_mapping(ck, file);
    struct cursor c = {.file = path, .at = m.at, .p = m.at, .end = m.at + m.size, .e = e};
    uint64_t n_tensors = 0, n_kv = 0, align = 1;
    if (read_counts(&c, &n_tensors, &n_kv) < 0 || read_kvs(&c, n_kv, meta, keep) < 0) return -1;
    if (read_alignment(&c, meta, &align) < 0) return -1;
    return read_tensors(&c, n_tensors, align, ck, file);
}

/* ---- split files: NAME-00001-of-0000N.gguf ---- */

static int read_parts(struct checkpoint *ck, int parts, struct err *e)
{
    int n = (int)strlen(ck->path), tail = (int)strlen("-00001-of-00000.gguf");
    char *want = mem_printf("-00001-of-%05d.gguf", parts);
    bool named = n > tail && strcmp(ck->path + n - tail, want) == 0;
    mem_free(want);
    if (!named)
        return err_set(e, NT_EXIT_DATA, "%s: the first of %d parts must be called ...-00001-of-%05d.gguf",
                       ck->path, parts, parts);
    for (int i = 2; i <= parts; i++) {
        char *path = mem_printf("%.*s-%05d-of-%05d.gguf", n - tail, ck->path, i, parts);
        json_t *meta = json_object();
        int rc = read_file(ck, path, meta, NULL, e);
        if (rc == 0 && (json_integer_value(json_object_get(meta, "split.no")) != i - 1 ||
                        json_integer_value(json_object_get(meta, "split.count")) != parts))
            rc = err_set(e, NT_EXIT_DATA, "%s: does not say that it is part %d of %d", path, i, parts);
        json_decref(meta);
        mem_free(path);
        if (rc < 0) return -1;
    }
    return 0;
}

static int gguf_open(struct checkpoint *ck, struct err *e)
{
    struct gguf_state *s = MEM_NEW(struct gguf_state, 1);
    ck->state = s;
    ck->meta = json_object();
    if (read_file(ck, ck->path, ck->meta, s, e) < 0) return -1;
    json_int_t parts = json_integer_value(json_object_get(ck->meta, "split.count"));
    if (parts <= 1) return 0;
    json_int_t no = json_integer_value(json_object_get(ck->meta, "split.no"));
    if (no != 0)
        return err_set(e, NT_EXIT_DATA, "%s: part %lld of a split model: give the first part", ck->path,
                       (long long)no + 1);
    if (parts > 99999) return err_set(e, NT_EXIT_DATA, "%s: split.count is %lld", ck->path, (long long)parts);
    if (read_parts(ck, (int)parts, e) < 0) return -1;
    const json_t *total = json_object_get(ck->meta, "split.tensors.count");
    if (total && json_integer_value(total) != ck->n_tensors)
        return err_set(e, NT_EXIT_DATA, "%s: the parts hold %d tensors, the first says %lld", ck->path,
                       ck->n_tensors, (long long)json_integer_value(total));
    return 0;
}

static void gguf_close(struct checkpoint *ck)
{
    struct gguf_state *s = ck->state;
    if (!s) return;
    for (int i = 0; i < s->n_kv; i++) mem_free((void *)(uintptr_t)s->kv[i].key);
    mem_free(s->kv);
    mem_free(s);
}

const struct gguf_kv *gguf_kvs(const struct checkpoint *c, int *n)
{
    const struct gguf_state *s = c->state;
    *n = s->n_kv;
    return s->kv;
}

static int gguf_probe(const char *path)
{
    char magic[4];
    if (path_is_dir(path)) return 0;
    if (path_ends(path, ".gguf")) return 1;
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(magic, 1, 4, f) : 0;
    if (f) fclose(f);
    return n == 4 && memcmp(magic, "GGUF", 4) == 0;
}

const struct checkpoint_format checkpoint_format_gguf = {
    .name = "gguf", .probe = gguf_probe, .open = gguf_open, .close = gguf_close};
