/* SPDX-License-Identifier: Apache-2.0
 * Reading NTS/1 from files and pipes that may be cut, damaged or hostile. Lengths are believed only as far as
 * bytes have arrived; every byte is covered by a check (magic, hashes, nil padding, end ext) before the end
 * is reported. */
#include "common/mem.h"
#include "common/stream_priv.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUFFER (256u << 10)

struct stream_reader {
    int fd, watch_fd;
    bool eof;
    char *name;
    uint8_t *buf;
    size_t at, fill;
    uint64_t pos;       /* in the current stream, from its magic */
    uint64_t total;     /* bytes of all streams that ended */
    uint64_t file_left; /* bytes a regular file had when opened; UINT64_MAX for pipes */
    uint8_t *obj;       /* the msgpack object read last */
    size_t obj_n, obj_cap;
    XXH3_state_t *all, *one, *joined;
    int streams; /* that ended */
    json_t *header, *trailer, *history, *meta;
    char kind[NTS_KIND_MAX + 1];
    char hash[17];
    uint64_t number; /* of the current record, from 1 */
    uint64_t seq, layer_records, records, payload;
    bool in_record, at_end;
    uint64_t nbytes, left, segs, seg_left;
    struct stream_writer *tee;
    const char *tee_except;
    bool tee_record; /* the present one goes there */
    struct err failed;
};

/* ---- bytes ---- */

static int truncated(struct stream_reader *r, struct err *e)
{
    if (!r->pos)
        return err_set(e, NT_EXIT_DATA,
                       "empty: the program that should have written it died or wrote nothing");
    return err_set(e, NT_EXIT_DATA,
                   "truncated after %llu bytes: the program that wrote it died, or the copy is incomplete",
                   (unsigned long long)(r->total + r->pos));
}

/* Waits until there is something to read; -1: nobody is left to work for. */
static int wait_input(const struct stream_reader *r, struct err *e)
{
    struct pollfd w[2] = {{r->fd, POLLIN, 0}, {r->watch_fd, 0, 0}};
    while (r->watch_fd >= 0 && !err_stop_signal && (poll(w, 2, -1) < 0 || !w[0].revents))
        if (w[1].revents & (POLLERR | POLLHUP))
            return err_set(e, NT_EXIT_IO, "given up: the program that reads the output went away");
    return 0;
}

static ssize_t read_some(struct stream_reader *r, void *p, size_t n, struct err *e)
{
    for (;;) {
        if (wait_input(r, e) || err_stopped(e)) return -1;
        ssize_t k = read(r->fd, p, n < (1u << 30) ? n : 1u << 30);
        if (k >= 0) return k;
        if (errno == EAGAIN) {
            struct pollfd w = {r->fd, POLLIN, 0};
            poll(&w, 1, -1);
        } else if (errno != EINTR) {
            return err_set(e, NT_EXIT_IO, "%s", strerror(errno));
        }
    }
}

/* At least one byte in the buffer: 1; end of file: 0. */
static int fill(struct stream_reader *r, struct err *e)
{
    if (r->at < r->fill) return 1;
    if (r->eof) return 0;
    ssize_t k = read_some(r, r->buf, BUFFER, e);
    if (k < 0) return -1;
    r->at = 0;
    r->fill = (size_t)k;
    r->eof = !k;
    return k > 0;
}

static int get(struct stream_reader *r, void *dst, uint64_t n, struct err *e)
{
    uint8_t *p = dst;
    while (n) {
        if (r->at == r->fill && n >= 65536 && !r->eof) { /* large payloads need no second copy */
            ssize_t k = read_some(r, p, n, e);
            if (k < 0) return -1;
            if (!k) r->eof = true;
            p += k, n -= (uint64_t)k, r->pos += (uint64_t)k;
            continue;
        }
        int more = fill(r, e);
        if (more < 0) return -1;
        if (!more) return truncated(r, e);
        size_t k = r->fill - r->at;
        if (k > n) k = (size_t)n;
        memcpy(p, r->buf + r->at, k);
        r->at += k, r->pos += k;
        p += k, n -= k;
    }
    return 0;
}

static int peek(struct stream_reader *r, uint8_t *b, struct err *e)
{
    int more = fill(r, e);
    if (more < 0) return -1;
    if (!more) return truncated(r, e);
    *b = r->buf[r->at];
    return 0;
}

static int obj_get(struct stream_reader *r, uint64_t n, uint64_t limit, struct err *e)
{
    if (r->obj_n + n > limit)
        return err_set(e, NT_EXIT_DATA, "a map of more than %llu bytes", (unsigned long long)limit);
    while (n) { /* grows with what arrives */
        size_t k = n < 65536 ? (size_t)n : 65536;
        r->obj = mem_grow(r->obj, &r->obj_cap, r->obj_n + k, 1);
        if (get(r, r->obj + r->obj_n, k, e)) return -1;
        r->obj_n += k;
        n -= k;
    }
    return 0;
}

/* One whole msgpack object to r->obj. */
static int get_object(struct stream_reader *r, uint64_t limit, struct err *e)
{
    struct nts_extent x = {.depth = 0};
    int whole = 0;
    r->obj_n = 0;
    while (!whole) {
        unsigned more, lenbytes;
        uint64_t length = 0, body;
        size_t at = r->obj_n;
        if (obj_get(r, 1, limit, e)) return -1;
        uint8_t head = r->obj[at];
        if (nts_head(head, &more, &lenbytes))
            return err_set(e, NT_EXIT_DATA, "not msgpack (byte 0x%02x)", head);
        if (obj_get(r, more, limit, e)) return -1;
        for (unsigned i = 0; i < lenbytes; i++) length = length << 8 | r->obj[at + 1 + more - lenbytes + i];
        whole = nts_extent_step(&x, head, length, &body);
        if (whole < 0) return err_set(e, NT_EXIT_DATA, "a map nested more than %d deep", NTS_DEPTH_MAX);
        if (obj_get(r, body, limit, e)) return -1;
    }
    return 0;
}

/* ---- header, trailer ---- */

static int check_magic(struct stream_reader *r, struct err *e)
{
    static const uint8_t zstd[4] = {0x28, 0xb5, 0x2f, 0xfd};
    uint8_t m[10];
    for (int i = 0; i < 10; i++) {
        if (i == 4 && !memcmp(m, zstd, 4))
            return err_set(e, NT_EXIT_DATA, "is compressed with zstd: unpack it first (zstd -dc FILE | ...)");
        if (i && i <= 8 && memcmp(m, nts_magic, (size_t)i) && !(i < 4 && !memcmp(m, zstd, (size_t)i)))
            return err_set(e, NT_EXIT_DATA, "is not an NTS stream (wrong magic)");
        if (get(r, m + i, 1, e)) return -1;
    }
    if (m[8] != NTS_MAJOR)
        return err_set(e, NT_EXIT_DATA, "is NTS version %d, this program reads version %d", m[8], NTS_MAJOR);
    return 0;
}

/* A header may name features without whose knowledge its records would be misread; none exist so far. */
static int check_need(const json_t *header, struct err *e)
{
    const json_t *need = json_object_get(header, "need");
    const char *first = json_string_value(json_array_get(need, 0));
    if (!need || (json_is_array(need) && !json_array_size(need))) return 0;
    return err_set(e, NT_EXIT_DATA, "needs the feature '%s', which this program does not know",
                   first ? first : "?");
}

static int get_header(struct stream_reader *r, const char *kind, struct err *e)
{
    if (check_magic(r, e)) return -1;
    if (get_object(r, NTS_HEADER_MAX, e)) return err_prefix(e, "header");
    json_t *h = nts_unpack_map(r->obj, r->obj_n, e);
    if (!h) return err_prefix(e, "header");
    json_decref(r->header);
    r->header = h;
    const char *have = json_string_value(json_object_get(h, "kind"));
    if (!have) return err_set(e, NT_EXIT_DATA, "header: no kind");
    if (kind && strcmp(kind, have))
        return err_set(e, NT_EXIT_DATA, "holds %.64s where %s are wanted", have, kind);
    const json_t *align = json_object_get(h, "align");
    if (json_integer_value(align) != NTS_ALIGN)
        return err_set(e, NT_EXIT_DATA, "header: align is not %d", NTS_ALIGN);
    XXH3_64bits_reset(r->all);
    XXH3_64bits_update(r->all, r->obj, r->obj_n);
    r->seq = r->layer_records = r->records = r->payload = 0;
    return check_need(h, e);
}

static int get_end(struct stream_reader *r, uint64_t trailer_hash, struct err *e)
{
    uint8_t want[3 + 8 + NTS_ALIGN] = {0xc7, (uint8_t)nts_end_size(r->pos), NTS_END_TYPE}, have[sizeof want];
    size_t n = 3u + want[1];
    XXH64_canonicalFromHash((XXH64_canonical_t *)(want + 3), trailer_hash);
    if (get(r, have, n, e)) return -1;
    return memcmp(have, want, n) ? err_set(e, NT_EXIT_DATA, "the end mark does not match the trailer") : 0;
}

/* strict: a key that is missing is no zero */
static bool is_count(const json_t *j, uint64_t n)
{
    return json_is_integer(j) && (uint64_t)json_integer_value(j) == n;
}

static int check_trailer(struct stream_reader *r, const json_t *t, const char *hex, struct err *e)
{
    const char *status = json_string_value(json_object_get(t, "status"));
    const char *error = json_string_value(json_object_get(t, "error"));
    const char *xxh3 = json_string_value(json_object_get(t, "xxh3"));
    if (status && !strcmp(status, "error"))
        return err_set(e, NT_EXIT_DATA, "upstream error: %s", error ? error : "no reason given");
    if (!status || strcmp(status, "ok") || !xxh3) return err_set(e, NT_EXIT_DATA, "trailer: no status");
    if (r->in_record) return err_set(e, NT_EXIT_DATA, "a trailer inside a record");
    if (!is_count(json_object_get(t, "records"), r->records) ||
        !is_count(json_object_get(t, "bytes"), r->payload))
        return err_set(e, NT_EXIT_DATA, "the trailer counts other records or bytes than there are");
    if (strcmp(xxh3, hex)) return err_set(e, NT_EXIT_DATA, "the trailer's hash does not match");
    return 0;
}

/* Trailer and end ext; r->obj holds the trailer's bytes. */
static int end_stream(struct stream_reader *r, struct err *e)
{
    uint64_t all = XXH3_64bits_digest(r->all);
    char hex[17];
    nts_hash_text(all, hex);
    json_t *t = nts_unpack_map(r->obj, r->obj_n, e), *v;
    size_t i;
    if (!t) return err_prefix(e, "trailer");
    if (get_end(r, XXH3_64bits(r->obj, r->obj_n), e) || check_trailer(r, t, hex, e)) {
        json_decref(t);
        return -1;
    }
    json_decref(r->trailer);
    r->trailer = t;
    json_array_foreach(json_object_get(t, "history"), i, v) json_array_append(r->history, v);
    /* concatenated streams: the hash over all of theirs */
    XXH64_canonical_t c;
    XXH64_canonicalFromHash(&c, all);
    XXH3_64bits_update(r->joined, &c, sizeof c);
    memcpy(r->hash, hex, sizeof hex);
    if (r->streams++) nts_hash_text(XXH3_64bits_digest(r->joined), r->hash);
    r->total += r->pos;
    r->pos = 0;
    return 0;
}

/* ---- records ---- */

static int get_tail(struct stream_reader *r, struct err *e)
{
    XXH64_canonical_t c;
    char hex[17];
    uint64_t h = XXH3_64bits_digest(r->one);
    nts_hash_text(h, hex);
    if (get_object(r, NTS_HEADER_MAX, e)) return -1;
    json_t *t = nts_unpack_map(r->obj, r->obj_n, e);
    if (!t) return -1;
    if (json_object_get(t, "status")) { /* the writer gave the record up */
        json_decref(t);
        return end_stream(r, e) ? -1 : err_set(e, NT_EXIT_DATA, "a trailer inside a record");
    }
    const char *have = json_string_value(json_object_get(t, "xxh3"));
    bool ok = have && !strcmp(have, hex) && is_count(json_object_get(t, "n"), r->nbytes);
    json_decref(t);
    if (!ok) return err_set(e, NT_EXIT_DATA, "damaged: the checksum does not match");
    XXH64_canonicalFromHash(&c, h);
    XXH3_64bits_update(r->all, &c, sizeof c);
    r->in_record = false;
    r->seq++;
    r->layer_records++;
    r->records++;
    r->payload += r->nbytes;
    return 0;
}

static int get_segment_head(struct stream_reader *r, struct err *e)
{
    uint8_t b = 0, head[NTS_ALIGN + 5];
    unsigned pad = nts_pad(r->pos);
    if (peek(r, &b, e)) return -1;
    if ((b >= 0x80 && b < 0x90) || b == 0xde ||
        b == 0xdf) /* not a segment but a trailer: the record was given up */
        return get_tail(r, e) ? -1 : err_set(e, NT_EXIT_DATA, "the payload is missing");
    if (get(r, head, pad + 5, e)) return -1;
    for (unsigned i = 0; i < pad; i++)
        if (head[i] != 0xc0)
            return err_set(e, NT_EXIT_DATA, "damaged: padding before the payload is not nil");
    if (head[pad] != 0xc6)
        return err_set(e, NT_EXIT_DATA, "damaged: no bin32 where the payload should start");
    r->seg_left = 0;
    for (int i = 1; i <= 4; i++) r->seg_left = r->seg_left << 8 | head[pad + i];
    if (!r->seg_left || r->seg_left > STREAM_SEGMENT_MAX || r->seg_left > r->left || !r->segs)
        return err_set(e, NT_EXIT_DATA, "damaged: a segment of %llu bytes", (unsigned long long)r->seg_left);
    r->segs--;
    if (!r->segs && r->seg_left != r->left)
        return err_set(e, NT_EXIT_DATA, "damaged: the segments do not add up");
    return 0;
}

/* Up to n payload bytes to dst, or (dst NULL) only hashed. */
static int64_t some(struct stream_reader *r, void *dst, uint64_t n, struct err *e)
{
    if (!r->left) return 0;
    if (!r->seg_left && get_segment_head(r, e)) return -1;
    if (n > r->seg_left) n = r->seg_left;
    if (dst) {
        if (n > BUFFER) n = BUFFER; /* hash while it is in the cache */
        if (get(r, dst, n, e)) return -1;
        XXH3_64bits_update(r->one, dst, n);
    } else {
        int more = fill(r, e);
        if (more <= 0) return more ? -1 : truncated(r, e);
        if (n > r->fill - r->at) n = r->fill - r->at;
        XXH3_64bits_update(r->one, r->buf + r->at, n);
        r->at += n, r->pos += n;
    }
    r->left -= n;
    r->seg_left -= n;
    if (!r->left && get_tail(r, e)) return -1;
    return (int64_t)n;
}

static int parse_shape(const json_t *meta, struct record *rec, struct err *e)
{
    const char *dtype = json_string_value(json_object_get(meta, "dtype"));
    const json_t *shape = json_object_get(meta, "shape"), *nbytes = json_object_get(meta, "nbytes");
    rec->t.dtype = dtype ? dtype_parse(dtype) : DT_NONE;
    if (!rec->t.dtype) return err_set(e, NT_EXIT_DATA, "unknown dtype '%.32s'", dtype ? dtype : "");
    if (!json_is_array(shape) || json_array_size(shape) > TENSOR_MAX_RANK || !json_is_integer(nbytes))
        return err_set(e, NT_EXIT_DATA, "no shape of at most %d dimensions, or no nbytes", TENSOR_MAX_RANK);
    rec->t.rank = (int)json_array_size(shape);
    for (int i = 0; i < rec->t.rank; i++) {
        const json_t *d = json_array_get(shape, (size_t)i);
        if (!json_is_integer(d) || json_integer_value(d) < 0)
            return err_set(e, NT_EXIT_DATA, "a shape that is not made of sizes");
        rec->t.shape[i] = (uint64_t)json_integer_value(d);
    }
    if (tensor_nbytes(rec->t.dtype, rec->t.rank, rec->t.shape, &rec->t.nbytes, e)) return -1;
    if ((uint64_t)json_integer_value(nbytes) != rec->t.nbytes)
        return err_set(e, NT_EXIT_DATA, "nbytes is not what dtype and shape make");
    return 0;
}

static int parse_meta(struct stream_reader *r, struct record *rec, struct err *e)
{
    const json_t *name = json_object_get(r->meta, "name"), *layer = json_object_get(r->meta, "layer");
    const json_t *segs = json_object_get(r->meta, "segs");
    *rec = (struct record){.kind = r->kind, .meta = r->meta, .name = "", .layer = -1, .seq = r->seq};
    if (name && (!json_is_string(name) || json_string_length(name) > NTS_NAME_MAX ||
                 strlen(json_string_value(name)) != json_string_length(name)))
        return err_set(e, NT_EXIT_DATA, "a name that is no string of at most %d bytes", NTS_NAME_MAX);
    if (name) rec->name = json_string_value(name);
    if (layer &&
        (!json_is_integer(layer) || json_integer_value(layer) < -1 || json_integer_value(layer) > INT32_MAX))
        return err_set(e, NT_EXIT_DATA, "a layer that is no number");
    if (layer) rec->layer = json_integer_value(layer);
    rec->has_payload = json_object_get(r->meta, "dtype") != NULL;
    if (!rec->has_payload) return 0;
    if (parse_shape(r->meta, rec, e)) return -1;
    uint64_t nbytes = rec->t.nbytes,
             n = json_is_integer(segs) ? (uint64_t)json_integer_value(segs) : UINT64_MAX;
    if (n > nbytes || (n == 0) != (nbytes == 0)) return err_set(e, NT_EXIT_DATA, "segs does not fit nbytes");
    r->nbytes = r->left = nbytes;
    r->segs = n;
    return 0;
}

static int parse_record(struct stream_reader *r, struct record *rec, struct err *e)
{
    msgpack_unpacked u;
    size_t off = 0;
    int bad = -1;
    msgpack_unpacked_init(&u);
    const msgpack_object *o = &u.data, *a;
    if (msgpack_unpack_next(&u, (char *)r->obj, r->obj_n, &off) != MSGPACK_UNPACK_SUCCESS ||
        off != r->obj_n || o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size != 4) {
        err_set(e, NT_EXIT_DATA, "not an array of four");
    } else if (a = o->via.array.ptr, a[0].type != MSGPACK_OBJECT_EXT || a[0].via.ext.type != NTS_SYNC_TYPE ||
                                         a[0].via.ext.size != 16 ||
                                         memcmp(a[0].via.ext.ptr, nts_sync + 2, 16)) {
        err_set(e, NT_EXIT_DATA, "no sync mark");
    } else if (a[1].type != MSGPACK_OBJECT_POSITIVE_INTEGER || a[1].via.u64 != r->seq) {
        err_set(e, NT_EXIT_DATA, "out of sequence: a record is missing or doubled");
    } else if (a[2].type != MSGPACK_OBJECT_STR || !a[2].via.str.size || a[2].via.str.size > NTS_KIND_MAX ||
               memchr(a[2].via.str.ptr, 0, a[2].via.str.size)) {
        err_set(e, NT_EXIT_DATA, "no kind");
    } else if (a[3].type != MSGPACK_OBJECT_MAP) {
        err_set(e, NT_EXIT_DATA, "no map");
    } else {
        memcpy(r->kind, a[2].via.str.ptr, a[2].via.str.size);
        r->kind[a[2].via.str.size] = 0;
        r->meta = nts_object_json(&a[3], e);
        bad = r->meta ? parse_meta(r, rec, e) : -1;
    }
    msgpack_unpacked_destroy(&u);
    return bad;
}

static int get_record(struct stream_reader *r, struct record *rec, struct err *e)
{
    if (parse_record(r, rec, e)) return -1;
    XXH3_64bits_reset(r->one);
    XXH3_64bits_update(r->one, r->obj, r->obj_n);
    r->in_record = true;
    r->seg_left = 0;
    bool layer_end = !strcmp(r->kind, "LayerEnd");
    if (layer_end && (rec->has_payload || rec->layer < 0 ||
                      !is_count(json_object_get(r->meta, "records"), r->layer_records)))
        return err_set(e, NT_EXIT_DATA, "the layer has other records than its end says");
    if (!r->left && get_tail(r, e)) return -1;
    if (layer_end) r->seq = r->layer_records = 0;
    return 1;
}

/* Finishes the record before, then the next one, or the end. */
static int next(struct stream_reader *r, struct record *rec, struct err *e)
{
    uint8_t b = 0;
    while (r->left)
        if (some(r, NULL, UINT64_MAX, e) < 0) return -1;
    r->number++;
    json_decref(r->meta);
    r->meta = NULL;
    r->kind[0] = 0;
    r->nbytes = r->left = r->segs = r->seg_left = 0;
    for (;;) {
        if (peek(r, &b, e)) return -1;
        bool map = (b >= 0x80 && b < 0x90) || b == 0xde || b == 0xdf;
        if (get_object(r, map ? NTS_HEADER_MAX : NTS_RECORD_MAX, e)) return -1;
        if (!map) return get_record(r, rec, e);
        if (end_stream(r, e)) return -1;
        int more = fill(r, e);
        if (more <= 0) {
            r->at_end = !more;
            return more;
        }
        char kind[NTS_NAME_MAX];
        snprintf(kind, sizeof kind, "%s", json_string_value(json_object_get(r->header, "kind")));
        if (get_header(r, kind, e)) return err_prefix(e, "after the end of a stream");
    }
}

/* The first failure stays: everything after it would be guesswork. */
static int fail(struct stream_reader *r, struct err *e)
{
    if (e != &r->failed && !e->code) err_set(e, r->failed.code, "%s", r->failed.text);
    return -1;
}

int stream_err(const struct stream_reader *r, struct err *e, const char *fmt, ...)
{
    char text[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    const char *name = r->meta ? json_string_value(json_object_get(r->meta, "name")) : NULL;
    if (!r->kind[0])
        return err_set(e, NT_EXIT_DATA, "%s: record %llu: %s", r->name, (unsigned long long)r->number, text);
    return err_set(e, NT_EXIT_DATA, "%s: record %llu (%s%s%.100s): %s", r->name,
                   (unsigned long long)r->number, r->kind, name ? " " : "", name ? name : "", text);
}

/* Puts file and record before a failure of this reader and keeps it. */
static int explain(struct stream_reader *r, struct err *why, struct err *e)
{
    bool upstream = !strncmp(why->text, "upstream error: ", 16);
    if (why->code == NT_EXIT_DATA && r->number && !upstream)
        stream_err(r, &r->failed, "%s", why->text);
    else if (why->code == NT_EXIT_DATA || why->code == NT_EXIT_IO)
        err_set(&r->failed, why->code, "%s: %s", r->name, why->text);
    else
        r->failed = *why;
    return fail(r, e);
}

void stream_tee(struct stream_reader *r, struct stream_writer *w, const char *except)
{
    r->tee = w, r->tee_except = except, r->tee_record = false;
}

/* What the caller left of the payload still has to go through. */
static int tee_rest(struct stream_reader *r, struct err *e)
{
    uint8_t piece[4096];
    while (r->left)
        if (stream_payload_some(r, piece, sizeof piece, e) < 0) return -1;
    return 0;
}

static int tee_begin(struct stream_reader *r, struct record *rec, struct err *e)
{
    r->tee_record = strcmp(rec->kind, "LayerEnd") && (!r->tee_except || strcmp(rec->kind, r->tee_except));
    if (!r->tee_record) return 0;
    if (!rec->has_payload) return stream_write(r->tee, rec->kind, rec->meta, NULL, e);
    return stream_write_begin(r->tee, rec->kind, rec->meta, rec->t.dtype, rec->t.rank, rec->t.shape, e);
}

int stream_next(struct stream_reader *r, struct record *rec, struct err *e)
{
    struct err why = {0};
    if (r->failed.code) return fail(r, e);
    if (r->at_end) return 0;
    if (r->tee && tee_rest(r, e)) return -1;
    int k = err_stopped(&why) ? -1 : next(r, rec, &why);
    if (k < 0) return explain(r, &why, e);
    return k > 0 && r->tee && tee_begin(r, rec, e) ? -1 : k;
}

int64_t stream_payload_some(struct stream_reader *r, void *dst, uint64_t n, struct err *e)
{
    struct err why = {0};
    if (r->failed.code) return fail(r, e);
    int64_t k = some(r, dst, n, &why);
    if (k < 0) return explain(r, &why, e);
    return k > 0 && r->tee && r->tee_record && stream_write_put(r->tee, dst, (uint64_t)k, e) ? -1 : k;
}

/* Bytes that may be allocated before they have been seen: what a file still holds, else eight times what
 * came. */
static uint64_t believable(const struct stream_reader *r, uint64_t have, uint64_t nbytes)
{
    uint64_t trust = have * 8 > STREAM_SEGMENT_MAX ? have * 8 : STREAM_SEGMENT_MAX;
    if (r->file_left != UINT64_MAX && nbytes <= r->file_left) trust = nbytes;
    return nbytes < trust ? nbytes : trust;
}

int stream_payload(struct stream_reader *r, struct record *rec, void *dst, struct err *e)
{
    uint64_t have = 0, nbytes = rec->t.nbytes;
    uint8_t *p = dst;
    size_t cap = 0;
    if (r->failed.code) return fail(r, e);
    assert(r->left == nbytes && rec->has_payload);
    if (!dst && mem_limit() && nbytes > mem_limit())
        return err_set(e, NT_EXIT_REFUSED, "%s: %s has %llu bytes, more than --max-mem", r->name,
                       rec->name[0] ? rec->name : rec->kind, (unsigned long long)nbytes);
    if (!dst && !nbytes) p = mem_array(0, 1);
    while (have < nbytes) {
        if (!dst && have == cap) {
            uint64_t want = believable(r, have, nbytes);
            p = mem_grow(p, &cap, want > have ? want : nbytes, 1);
        }
        int64_t k = stream_payload_some(r, p + have, dst ? nbytes - have : cap - have, e);
        if (k < 0) {
            if (!dst) mem_free(p);
            return -1;
        }
        have += (uint64_t)k;
    }
    rec->t.data = p;
    return 0;
}

/* ---- opening and the rest ---- */

/* Waits until a FIFO has data (or had a writer), or the reader of watch_fd is gone. */
static int wait_fifo(int fd, int watch_fd, struct err *e)
{
    for (;;) {
        struct pollfd w[2] = {{fd, POLLIN, 0}, {watch_fd, 0, 0}};
        int k = poll(w, 2, 200);
        if (k > 0 && w[0].revents) break;
        if (k > 0 && w[1].revents & (POLLERR | POLLHUP | POLLNVAL))
            return err_set(e, NT_EXIT_DATA,
                           "nobody opened it for writing before the other end of the pipe closed");
        if (err_stopped(e)) return -1;
    }
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    return 0;
}

static int open_input(struct stream_reader *r, const char *path, int watch_fd, struct err *e)
{
    struct stat st;
    if (!strcmp(path, "-")) {
        r->fd = STDIN_FILENO;
        if (isatty(r->fd))
            return err_set(e, NT_EXIT_USAGE,
                           "standard input is a terminal: give a stream as argument or by a pipe");
    } else {
        bool fifo = watch_fd >= 0 && !stat(path, &st) && S_ISFIFO(st.st_mode);
        r->fd = open(path, O_RDONLY | O_CLOEXEC | (fifo ? O_NONBLOCK : 0));
        if (r->fd < 0 && errno == EINTR && err_stopped(e)) return -1; /* a FIFO whose writer never came */
        if (r->fd < 0) { /* a FIFO that nobody opened yet lets a signal through */
            int no = errno;
            return err_stopped(e) ? -1 : err_set(e, NT_EXIT_IO, "%s: %s", path, strerror(no));
        }
        if (fifo && wait_fifo(r->fd, watch_fd, e)) return err_prefix(e, "%s", path);
    }
    r->file_left = UINT64_MAX;
    if (!fstat(r->fd, &st) && S_ISREG(st.st_mode)) r->file_left = (uint64_t)st.st_size;
    return 0;
}

struct stream_reader *stream_open_watch(const char *path, const char *kind, int watch_fd, struct err *e)
{
    struct err why = {0};
    struct stream_reader *r = MEM_NEW(struct stream_reader, 1);
    r->name = mem_strdup(strcmp(path, "-") ? path : "<stdin>");
    r->fd = r->watch_fd = -1;
    r->buf = MEM_NEW(uint8_t, BUFFER);
    r->all = XXH3_createState();
    r->one = XXH3_createState();
    r->joined = XXH3_createState();
    XXH3_64bits_reset(r->joined);
    r->history = json_array();
    if (open_input(r, path, watch_fd, e)) {
        stream_close(r);
        return NULL;
    }
    r->watch_fd = watch_fd;
    if (get_header(r, kind, &why)) {
        explain(r, &why, e);
        stream_close(r);
        return NULL;
    }
    return r;
}

struct stream_reader *stream_open(const char *path, const char *kind, struct err *e)
{
    return stream_open_watch(path, kind, -1, e);
}

void stream_close(struct stream_reader *r)
{
    if (!r) return;
    if (r->fd > STDIN_FILENO) close(r->fd);
    XXH3_freeState(r->all);
    XXH3_freeState(r->one);
    XXH3_freeState(r->joined);
    json_decref(r->header);
    json_decref(r->trailer);
    json_decref(r->history);
    json_decref(r->meta);
    mem_free(r->name);
    mem_free(r->buf);
    mem_free(r->obj);
    mem_free(r);
}

void stream_watch(struct stream_reader *r, int fd)
{
    r->watch_fd = fd;
}
const json_t *stream_header(const struct stream_reader *r)
{
    return r->header;
}
const json_t *stream_trailer(const struct stream_reader *r)
{
    return r->trailer;
}
const char *stream_name(const struct stream_reader *r)
{
    return r->name;
}
const char *stream_hash(const struct stream_reader *r)
{
    return r->hash;
}
json_t *stream_history(const struct stream_reader *r)
{
    return r->history;
}

json_t *stream_identity(const struct stream_reader *r)
{
    /* the kind, not the path: a file and a pipe with the same bytes must lead to the same bytes */
    return json_pack("{s:O, s:s, s:I}", "name", json_object_get(r->header, "kind"), "xxh3",
                     r->at_end ? r->hash : "partial", "bytes", (json_int_t)(r->total + r->pos));
}

int stream_unknown(const struct stream_reader *r, const struct record *rec, struct err *e)
{
    if (rec->kind[0] >= 'a' && rec->kind[0] <= 'z') return 0;
    return stream_err(r, e, "a kind of record that this program must know and does not");
}

int stream_copy(struct stream_reader *r, struct record *rec, struct stream_writer *w, struct err *e)
{
    if (!strcmp(rec->kind, "LayerEnd")) return stream_layer_end(w, (int)rec->layer, e);
    if (!rec->has_payload) return stream_write(w, rec->kind, rec->meta, NULL, e);
    if (stream_write_begin(w, rec->kind, rec->meta, rec->t.dtype, rec->t.rank, rec->t.shape, e)) return -1;
    uint8_t *piece = MEM_NEW(uint8_t, 256u << 10);
    int64_t k;
    while ((k = stream_payload_some(r, piece, 256u << 10, e)) > 0)
        if (stream_write_put(w, piece, (uint64_t)k, e)) {
            k = -1;
            break;
        }
    mem_free(piece);
    return (int)k;
}
