/* SPDX-License-Identifier: Apache-2.0
 * What can be had from a damaged stream. A first pass over the mapped file finds records whose checksum
 * holds, looking for the next sync mark after every failure; a second pass writes them. Positions may have
 * shifted, so that the padding is not compared with the alignment here. */
#include "common/mem.h"
#include "common/stream_ops.h"
#include "common/stream_priv.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct found {
    uint64_t at;      /* of the record array */
    uint64_t payload; /* of the first segment's padding */
    int64_t layer;
    uint64_t seq;
    bool layer_end;
    bool layer_whole; /* of a LayerEnd: all its records are here */
};

struct salvage {
    const char *path;
    const uint8_t *p;
    uint64_t size;
    json_t *header, *history;
    struct found *f;
    size_t n, cap;
    bool whole_trailer;
    uint64_t streams;
    void (*say)(const char *fmt, ...);
    struct salvage_report *rep;
};

/* ---- parsing in memory ---- */

/* End of the msgpack object at `at`, or 0. */
static uint64_t object_end(const struct salvage *s, uint64_t at, uint64_t limit)
{
    struct nts_extent x = {.depth = 0};
    uint64_t start = at, body, length;
    unsigned more, lenbytes;
    for (int whole = 0; !whole;) {
        if (at >= s->size || nts_head(s->p[at], &more, &lenbytes) || more > s->size - at - 1) return 0;
        length = 0;
        for (unsigned i = 0; i < lenbytes; i++) length = length << 8 | s->p[at + 1 + more - lenbytes + i];
        whole = nts_extent_step(&x, s->p[at], length, &body);
        at += 1 + more;
        if (whole < 0 || body > s->size - at) return 0;
        at += body;
        if (at - start > limit) return 0;
    }
    return at;
}

static json_t *map_at(const struct salvage *s, uint64_t at, uint64_t limit, uint64_t *end)
{
    struct err e = {0};
    *end = object_end(s, at, limit);
    return *end ? nts_unpack_map(s->p + at, *end - at, &e) : NULL;
}

/* The four parts of a record array; meta is a new reference. */
static json_t *record_at(const struct salvage *s, uint64_t at, uint64_t *end, char kind[NTS_KIND_MAX + 1],
                         uint64_t *seq)
{
    msgpack_unpacked u;
    size_t off = 0;
    json_t *meta = NULL;
    struct err e = {0};
    *end = object_end(s, at, NTS_RECORD_MAX);
    if (!*end) return NULL;
    msgpack_unpacked_init(&u);
    if (msgpack_unpack_next(&u, (const char *)s->p + at, *end - at, &off) == MSGPACK_UNPACK_SUCCESS &&
        u.data.type == MSGPACK_OBJECT_ARRAY && u.data.via.array.size == 4) {
        const msgpack_object *a = u.data.via.array.ptr;
        if (a[1].type == MSGPACK_OBJECT_POSITIVE_INTEGER && a[2].type == MSGPACK_OBJECT_STR &&
            a[2].via.str.size && a[2].via.str.size <= NTS_KIND_MAX && a[3].type == MSGPACK_OBJECT_MAP) {
            *seq = a[1].via.u64;
            memcpy(kind, a[2].via.str.ptr, a[2].via.str.size);
            kind[a[2].via.str.size] = 0;
            meta = nts_object_json(&a[3], &e);
        }
    }
    msgpack_unpacked_destroy(&u);
    return meta;
}

/* One segment: skips nil padding and the head; 0 when there is none. */
static uint64_t segment_at(const struct salvage *s, uint64_t at, uint64_t left, uint64_t *n)
{
    for (int i = 0; i < NTS_ALIGN && at < s->size && s->p[at] == 0xc0; i++) at++;
    if (s->size - at < 5 || s->p[at] != 0xc6) return 0;
    *n = (uint64_t)s->p[at + 1] << 24 | (uint64_t)s->p[at + 2] << 16 | (uint64_t)s->p[at + 3] << 8 |
         s->p[at + 4];
    at += 5;
    return *n && *n <= left && *n <= STREAM_SEGMENT_MAX && *n <= s->size - at ? at : 0;
}

static bool meta_tensor(const json_t *meta, struct tensor *t)
{
    struct err e = {0};
    const char *dtype = json_string_value(json_object_get(meta, "dtype"));
    const json_t *shape = json_object_get(meta, "shape");
    *t = (struct tensor){.dtype = dtype ? dtype_parse(dtype) : DT_NONE, .rank = (int)json_array_size(shape)};
    if (!t->dtype || json_array_size(shape) > TENSOR_MAX_RANK) return false;
    for (int i = 0; i < t->rank; i++) {
        json_int_t d = json_integer_value(json_array_get(shape, (size_t)i));
        if (d < 0) return false;
        t->shape[i] = (uint64_t)d;
    }
    return !tensor_nbytes(t->dtype, t->rank, t->shape, &t->nbytes, &e);
}

/* The whole record at `at`: its end, or 0 when it is not intact. */
static uint64_t check_record(const struct salvage *s, uint64_t at, struct found *f)
{
    char kind[NTS_KIND_MAX + 1], hex[17];
    uint64_t end, n;
    struct tensor t = {.nbytes = 0};
    json_t *meta = record_at(s, at, &end, kind, &f->seq), *tail;
    if (!meta) return 0;
    bool ok = !json_object_get(meta, "dtype") || meta_tensor(meta, &t);
    const json_t *layer = json_object_get(meta, "layer");
    *f = (struct found){
        at,   end, json_is_integer(layer) ? json_integer_value(layer) : -1, f->seq, !strcmp(kind, "LayerEnd"),
        false};
    json_decref(meta);
    XXH3_state_t *h = XXH3_createState();
    XXH3_64bits_reset(h);
    XXH3_64bits_update(h, s->p + at, end - at);
    for (uint64_t left = t.nbytes; ok && left; left -= n, end += n) {
        end = segment_at(s, end, left, &n);
        if (!end) {
            ok = false;
            break;
        }
        XXH3_64bits_update(h, s->p + end, n);
    }
    nts_hash_text(XXH3_64bits_digest(h), hex);
    XXH3_freeState(h);
    if (!ok || !(tail = map_at(s, end, NTS_RECORD_MAX, &end))) return 0;
    const char *have = json_string_value(json_object_get(tail, "xxh3"));
    ok = have && !strcmp(have, hex);
    json_decref(tail);
    return ok ? end : 0;
}

/* ---- first pass ---- */

/* A trailer and the end ext, perhaps the head of a further stream. 0: neither. */
static uint64_t between_records(struct salvage *s, uint64_t at)
{
    uint64_t end, header_end;
    json_t *t = map_at(s, at, NTS_HEADER_MAX, &end), *v;
    size_t i;
    if (!t) return 0;
    const char *status = json_string_value(json_object_get(t, "status"));
    bool ok = status && !strcmp(status, "ok") && end + 3 <= s->size && s->p[end] == 0xc7 &&
              s->p[end + 2] == NTS_END_TYPE;
    if (ok) json_array_foreach(json_object_get(t, "history"), i, v) json_array_append(s->history, v);
    json_decref(t);
    if (!ok) return 0;
    end += 3u + s->p[end + 1];
    s->whole_trailer = end == s->size;
    if (end + sizeof nts_magic >= s->size || memcmp(s->p + end, nts_magic, 9)) return end;
    json_t *h = map_at(s, end + sizeof nts_magic, NTS_HEADER_MAX, &header_end);
    json_decref(h);
    s->streams++;
    return h ? header_end : end;
}

static uint64_t next_sync(const struct salvage *s, uint64_t at)
{
    const uint8_t *q = at < s->size ? memmem(s->p + at, s->size - at, nts_sync, NTS_SYNC_SIZE) : NULL;
    return q && q > s->p ? (uint64_t)(q - s->p) - 1 : s->size;
}

static void scan(struct salvage *s, uint64_t at)
{
    while (at < s->size) {
        struct found f;
        uint64_t end = s->p[at] == 0x94 ? check_record(s, at, &f) : 0;
        if (end) {
            s->f = mem_grow(s->f, &s->cap, s->n + 1, sizeof *s->f);
            s->f[s->n++] = f;
        } else {
            end = between_records(s, at);
        }
        if (!end) {
            uint64_t to = next_sync(s, at + 2);
            s->say("%s: bytes %llu to %llu are damaged", s->path, (unsigned long long)at,
                   (unsigned long long)to - 1);
            s->rep->bad_bytes += to - at;
            end = to;
        }
        at = end;
    }
}

/* Does i begin a layer (or the records of a further stream)? */
static bool begins_group(const struct salvage *s, size_t i)
{
    if (!i) return true;
    const struct found *a = &s->f[i - 1], *b = &s->f[i];
    return a->layer_end || b->seq <= a->seq || (a->layer != b->layer && a->layer >= 0 && b->layer >= 0);
}

/* Compares each layer's records with what its LayerEnd says, and counts gaps in sequence numbers where none
 * came. */
static void count_losses(struct salvage *s)
{
    uint64_t have = 0, expect = 0;
    for (size_t i = 0; i < s->n; i++) {
        struct found *f = &s->f[i];
        if (begins_group(s, i)) have = expect = 0;
        uint64_t lost = f->seq - expect;
        if (lost)
            s->say("%s: layer %lld: %llu records are lost", s->path, (long long)f->layer,
                   (unsigned long long)lost);
        s->rep->lost += lost;
        have++;
        expect = f->seq + 1;
        f->layer_whole = f->layer_end && have == expect;
    }
}

/* ---- second pass ---- */

static int write_found(const struct salvage *s, const struct found *f, struct stream_writer *w, struct err *e)
{
    char kind[NTS_KIND_MAX + 1];
    uint64_t end, seq, n = 0;
    struct tensor t = {.nbytes = 0};
    json_t *meta = record_at(s, f->at, &end, kind, &seq);
    assert(meta);
    int bad;
    if (!meta_tensor(meta, &t))
        bad = stream_write(w, kind, meta, NULL, e);
    else
        bad = stream_write_begin(w, kind, meta, t.dtype, t.rank, t.shape, e);
    for (uint64_t left = t.nbytes; !bad && left; left -= n, end += n) {
        end = segment_at(s, end, left, &n);
        bad = stream_write_put(w, s->p + end, n, e);
    }
    json_decref(meta);
    return bad;
}

static int write_all(struct salvage *s, bool whole_layers, struct stream_writer *w, struct err *e)
{
    size_t start = 0;
    for (size_t i = 0; i < s->n; i++) {
        bool end = s->f[i].layer_end;
        if (i + 1 < s->n && !begins_group(s, i + 1)) continue;
        bool keep = !whole_layers || (end && s->f[i].layer_whole) || s->f[i].layer < 0;
        for (; start <= i; start++) {
            if (!keep)
                s->rep->lost++;
            else if (!s->f[start].layer_end && write_found(s, &s->f[start], w, e))
                return -1;
            else
                s->rep->kept++;
        }
        if (keep && s->f[i].layer >= 0 && stream_layer_end(w, (int)s->f[i].layer, e)) return -1;
        if (!keep)
            s->say("%s: layer %lld is left out, it is not whole", s->path, (long long)s->f[i].layer);
        else if (!end && s->f[i].layer >= 0)
            s->say("%s: layer %lld has lost its end", s->path, (long long)s->f[i].layer);
    }
    stream_note_history(w, s->history);
    return 0;
}

static int map_file(struct salvage *s, struct err *e)
{
    struct stat st;
    int fd = open(s->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st)) {
        err_set(e, NT_EXIT_IO, "%s: %s", s->path, strerror(errno));
        if (fd >= 0) close(fd);
        return -1;
    }
    s->size = (uint64_t)st.st_size;
    void *p =
        S_ISREG(st.st_mode) && s->size ? mmap(NULL, s->size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
    close(fd);
    if (p == MAP_FAILED)
        return err_set(e, NT_EXIT_DATA, "%s: salvage needs a file that is not empty", s->path);
    s->p = p;
    return 0;
}

static int salvage(struct salvage *s, bool whole_layers, struct outfile *out, struct err *e)
{
    uint64_t end;
    if (s->size <= sizeof nts_magic || memcmp(s->p, nts_magic, 9)) {
        outfile_discard(out);
        return err_set(e, NT_EXIT_DATA, "%s: is not an NTS stream, or its first ten bytes are damaged",
                       s->path);
    }
    s->header = map_at(s, sizeof nts_magic, NTS_HEADER_MAX, &end);
    if (!s->header || !json_string_value(json_object_get(s->header, "kind"))) {
        outfile_discard(out);
        return err_set(e, NT_EXIT_DATA, "%s: the header is damaged: records without it mean nothing",
                       s->path);
    }
    struct stream_writer *w = stream_create_like(out, s->header, json_pack("{s:s}", "command", "salvage"), e);
    if (!w) return -1;
    scan(s, end);
    count_losses(s);
    if (write_all(s, whole_layers, w, e)) {
        stream_abort(w, e);
        return -1;
    }
    if (!s->whole_trailer) s->say("%s: the trailer is missing or damaged", s->path);
    return stream_finish(w, NULL, e);
}

/* The checked reader has the last word on whether anything was wrong: it covers the header too. */
static bool is_whole(const char *path)
{
    struct err e = {0};
    struct record rec;
    struct stream_reader *r = stream_open(path, NULL, &e);
    int k = -1;
    while (r && (k = stream_next(r, &rec, &e)) > 0) {
    }
    stream_close(r);
    return k == 0;
}

int stream_salvage(const char *path, bool whole_layers, struct outfile *out,
                   void (*say)(const char *fmt, ...), struct salvage_report *rep, struct err *e)
{
    struct salvage s = {.path = path, .say = say, .rep = rep};
    *rep = (struct salvage_report){.kept = 0};
    if (map_file(&s, e)) {
        outfile_discard(out);
        return -1;
    }
    s.history = json_array();
    rep->whole = is_whole(path);
    int bad = salvage(&s, whole_layers, out, e);
    if (!bad && !rep->whole && !rep->lost && !rep->bad_bytes && s.whole_trailer)
        say("%s: header or trailer do not match the records: the header may be damaged", path);
    munmap((void *)s.p, s.size);
    json_decref(s.header);
    json_decref(s.history);
    mem_free(s.f);
    return bad;
}
