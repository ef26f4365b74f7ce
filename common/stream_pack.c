/* SPDX-License-Identifier: Apache-2.0
 * The maps of a stream: between jansson objects and msgpack (by msgpack-c), and the extent of an object on
 * the wire. */
#include "common/stream_priv.h"
#include <assert.h>
#include <math.h>
#include <string.h>

const uint8_t nts_magic[10] = {0xd7, 0x4e, 'N', 'T', 'S', 'T', 'R', 'M', NTS_MAJOR, NTS_MINOR};
const uint8_t nts_sync[NTS_SYNC_SIZE] = {0xd8, NTS_SYNC_TYPE, 0x8e, 0xf2, 0x4c, 0x29, 0x50, 0x43, 0x9c,
                                         0xad, 0x03,          0x01, 0xe0, 0xb2, 0x7b, 0x6d, 0x2d, 0xe1};

void nts_hash_text(uint64_t h, char out[17])
{
    for (int i = 0; i < 16; i++) out[i] = "0123456789abcdef"[h >> (60 - 4 * i) & 15];
    out[16] = 0;
}

static void pack_text(msgpack_packer *p, const char *s, size_t n)
{
    msgpack_pack_str(p, n);
    msgpack_pack_str_body(p, s, n);
}

void nts_pack_json(msgpack_packer *p, const json_t *j)
{
    const char *key;
    json_t *v;
    size_t i;
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        msgpack_pack_map(p, json_object_size(j));
        json_object_foreach((json_t *)j, key, v)
        {
            pack_text(p, key, strlen(key));
            nts_pack_json(p, v);
        }
        break;
    case JSON_ARRAY:
        msgpack_pack_array(p, json_array_size(j));
        json_array_foreach(j, i, v) nts_pack_json(p, v);
        break;
    case JSON_STRING:
        pack_text(p, json_string_value(j), json_string_length(j));
        break;
    case JSON_INTEGER:
        msgpack_pack_int64(p, json_integer_value(j));
        break;
    case JSON_REAL:
        msgpack_pack_double(p, json_real_value(j));
        break;
    case JSON_TRUE:
        msgpack_pack_true(p);
        break;
    case JSON_FALSE:
        msgpack_pack_false(p);
        break;
    default:
        msgpack_pack_nil(p);
    }
}

static json_t *refuse(struct err *e, const char *why)
{
    err_set(e, NT_EXIT_DATA, "%s", why);
    return NULL;
}

static json_t *map_json(const msgpack_object_map *m, struct err *e)
{
    json_t *j = json_object();
    for (uint32_t i = 0; i < m->size; i++) {
        const msgpack_object *k = &m->ptr[i].key;
        char key[256];
        if (k->type != MSGPACK_OBJECT_STR || !k->via.str.size || k->via.str.size >= sizeof key ||
            memchr(k->via.str.ptr, 0, k->via.str.size)) {
            json_decref(j);
            return refuse(e, "a map key that is no string of 1 to 255 bytes");
        }
        memcpy(key, k->via.str.ptr, k->via.str.size);
        key[k->via.str.size] = 0;
        if (json_object_get(j, key)) {
            json_decref(j);
            err_set(e, NT_EXIT_DATA, "a map that has the key '%s' twice", key);
            return NULL;
        }
        json_t *v = nts_object_json(&m->ptr[i].val, e);
        if (!v || json_object_set_new(j, key, v)) {
            json_decref(j);
            return refuse(e, "a map key that is not UTF-8");
        }
    }
    return j;
}

static json_t *array_json(const msgpack_object_array *a, struct err *e)
{
    json_t *j = json_array();
    for (uint32_t i = 0; i < a->size; i++) {
        json_t *v = nts_object_json(&a->ptr[i], e);
        if (!v || json_array_append_new(j, v)) {
            json_decref(j);
            return NULL;
        }
    }
    return j;
}

json_t *nts_object_json(const msgpack_object *o, struct err *e)
{
    json_t *j = NULL;
    switch (o->type) {
    case MSGPACK_OBJECT_NIL:
        return json_null();
    case MSGPACK_OBJECT_BOOLEAN:
        return json_boolean(o->via.boolean);
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        if (o->via.u64 > INT64_MAX) return refuse(e, "an integer above 2^63 - 1");
        return json_integer((json_int_t)o->via.u64);
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        return json_integer(o->via.i64);
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        return isfinite(o->via.f64) ? json_real(o->via.f64) : refuse(e, "a map with a non-finite number");
    case MSGPACK_OBJECT_STR:
        j = json_stringn(o->via.str.ptr ? o->via.str.ptr : "", o->via.str.size);
        return j ? j : refuse(e, "a string that is not UTF-8");
    case MSGPACK_OBJECT_ARRAY:
        return array_json(&o->via.array, e);
    case MSGPACK_OBJECT_MAP:
        return map_json(&o->via.map, e);
    default:
        return refuse(e, "binary data inside a map");
    }
}

json_t *nts_unpack_map(const void *p, size_t n, struct err *e)
{
    msgpack_unpacked u;
    size_t off = 0;
    json_t *j = NULL;
    msgpack_unpacked_init(&u);
    if (msgpack_unpack_next(&u, p, n, &off) != MSGPACK_UNPACK_SUCCESS || off != n)
        refuse(e, "not a msgpack map");
    else if (u.data.type != MSGPACK_OBJECT_MAP)
        refuse(e, "not a msgpack map");
    else
        j = nts_object_json(&u.data, e);
    msgpack_unpacked_destroy(&u);
    return j;
}

int nts_head(uint8_t h, unsigned *more, unsigned *lenbytes)
{
    /* for 0xc0..0xdf: bytes of length field, and further fixed bytes (ext type, number, fixext type + data)
     */
    static const uint8_t len[32] = {0, 0, 0, 0, 1, 2, 4, 1, 2, 4, 0, 0, 0, 0, 0, 0,
                                    0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 2, 4, 2, 4};
    static const uint8_t fixed[32] = {0, 0, 0, 0, 0, 0, 0, 0, 0,  0, 4, 8, 1, 2, 4, 8,
                                      1, 2, 4, 8, 2, 3, 5, 9, 17, 0, 0, 0, 0, 0, 0, 0};
    *more = *lenbytes = 0;
    if (h == 0xc1) return -1;
    if (h < 0xc0 || h >= 0xe0) return 0;
    *lenbytes = len[h - 0xc0];
    *more = *lenbytes + fixed[h - 0xc0];
    return 0;
}

int nts_extent_step(struct nts_extent *x, uint8_t h, uint64_t length, uint64_t *body)
{
    uint64_t children = 0;
    bool container = false;
    *body = 0;
    if (h >= 0x80 && h < 0x90)
        children = 2u * (h & 15u), container = true;
    else if (h >= 0x90 && h < 0xa0)
        children = h & 15u, container = true;
    else if (h >= 0xa0 && h < 0xc0)
        *body = h & 31u;
    else if (h == 0xdc || h == 0xdd)
        children = length, container = true;
    else if (h == 0xde || h == 0xdf)
        children = 2 * length, container = true;
    else if (h >= 0xc4 && h <= 0xc6)
        *body = length;
    else if (h >= 0xc7 && h <= 0xc9)
        *body = length + 1;
    else if (h >= 0xd9 && h <= 0xdb)
        *body = length;
    if (container && children) {
        if (x->depth == NTS_DEPTH_MAX) return -1;
        x->left[x->depth++] = children;
        return 0;
    }
    /* a finished value finishes every container whose last child it is */
    while (x->depth) {
        if (--x->left[x->depth - 1]) return 0;
        x->depth--;
    }
    return 1;
}
