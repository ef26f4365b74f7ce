/* SPDX-License-Identifier: Apache-2.0
 * Writing NTS/1. Maps go through msgpack-c; the heads of payload segments are made by hand, because their
 * length must not depend on the payload's (alignment) and no library should ever hold a whole payload. */
#include "common/mem.h"
#include "common/stream_priv.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct stream_writer {
    struct outfile *out;
    XXH3_state_t *all, *one;                 /* header and tails; the current record */
    json_t *header, *inputs, *history, *own; /* own: this stage's history entry */
    uint64_t pos;                            /* since the magic */
    uint64_t seq, layer_records, records, payload;
    bool in_record;
    uint64_t nbytes, left; /* of the current payload */
    uint64_t seg_max, seg_left;
    struct stream_writer *next;
};

static struct stream_writer *open_writers;

/* Whatever ends the program, the next stage gets the reason. */
static void abort_open_writers(void)
{
    struct err e = err_last;
    if (!e.code) err_set(&e, NT_EXIT_DATA, "stopped before the end of its work");
    while (open_writers) stream_abort(open_writers, &e);
}

static int put(struct stream_writer *w, const void *p, size_t n, struct err *e)
{
    w->pos += n;
    return outfile_write(w->out, p, n, e);
}

static void writer_free(struct stream_writer *w)
{
    for (struct stream_writer **p = &open_writers; *p; p = &(*p)->next)
        if (*p == w) {
            *p = w->next;
            break;
        }
    XXH3_freeState(w->all);
    XXH3_freeState(w->one);
    json_decref(w->header);
    json_decref(w->inputs);
    json_decref(w->history);
    json_decref(w->own);
    mem_free(w);
}

/* {kind, producer, what the caller gave, align} */
static json_t *make_header(const json_t *given)
{
    json_t *h = json_object(), *v;
    const char *key;
    json_object_set(h, "kind", json_object_get(given, "kind"));
    json_object_set_new(
        h, "producer", json_pack("{s:s, s:s}", "tool", program_invocation_short_name, "version", NT_VERSION));
    json_object_foreach((json_t *)given, key, v) if (strcmp(key, "kind") && strcmp(key, "producer") &&
                                                     strcmp(key, "align")) json_object_set(h, key, v);
    json_object_set_new(h, "align", json_integer(NTS_ALIGN));
    return h;
}

/* Takes over header and params (its history entry's, may be NULL). */
static struct stream_writer *create(struct outfile *out, json_t *header, json_t *params, struct err *e)
{
    static bool registered;
    assert(json_string_value(json_object_get(header, "kind")));
    if (!registered) atexit(abort_open_writers);
    registered = true;
    struct stream_writer *w = MEM_NEW(struct stream_writer, 1);
    w->out = out;
    w->all = XXH3_createState();
    w->one = XXH3_createState();
    XXH3_64bits_reset(w->all);
    w->header = header;
    w->own = json_pack("{s:s, s:s, s:o*}", "tool", program_invocation_short_name, "version", NT_VERSION,
                       "params", params);
    w->inputs = json_array();
    w->history = json_array();

    msgpack_sbuffer b;
    msgpack_packer p;
    msgpack_sbuffer_init(&b);
    msgpack_packer_init(&p, &b, msgpack_sbuffer_write);
    nts_pack_json(&p, w->header);
    XXH3_64bits_update(w->all, b.data, b.size);
    int bad = b.size > NTS_HEADER_MAX ? err_set(e, NT_EXIT_DATA, "%s: the header has %zu bytes (at most %u)",
                                                outfile_name(out), b.size, NTS_HEADER_MAX)
                                      : 0;
    bad = bad || put(w, nts_magic, sizeof nts_magic, e) || put(w, b.data, b.size, e) || outfile_flush(out, e);
    msgpack_sbuffer_destroy(&b);
    if (bad) {
        outfile_discard(out);
        writer_free(w);
        return NULL;
    }
    w->next = open_writers;
    open_writers = w;
    return w;
}

struct stream_writer *stream_create(struct outfile *out, const json_t *header, struct err *e)
{
    return create(out, make_header(header), json_incref(json_object_get(header, "params")), e);
}

struct stream_writer *stream_create_like(struct outfile *out, const json_t *header, json_t *params,
                                         struct err *e)
{
    return create(out, json_deep_copy(header), params, e);
}

static int end_record(struct stream_writer *w, struct err *e)
{
    char hex[17];
    XXH64_canonical_t c;
    uint64_t h = XXH3_64bits_digest(w->one);
    nts_hash_text(h, hex);
    XXH64_canonicalFromHash(&c, h);
    XXH3_64bits_update(w->all, &c, sizeof c);
    w->in_record = false;
    w->seq++;
    w->layer_records++;
    w->records++;
    w->payload += w->nbytes;

    msgpack_sbuffer b;
    msgpack_packer p;
    msgpack_sbuffer_init(&b);
    msgpack_packer_init(&p, &b, msgpack_sbuffer_write);
    msgpack_pack_map(&p, 2);
    msgpack_pack_str_with_body(&p, "xxh3", 4);
    msgpack_pack_str_with_body(&p, hex, 16);
    msgpack_pack_str_with_body(&p, "n", 1);
    msgpack_pack_uint64(&p, w->nbytes);
    int bad = put(w, b.data, b.size, e);
    msgpack_sbuffer_destroy(&b);
    return bad;
}

/* The array [sync, seq, kind, meta]. */
static int put_record(struct stream_writer *w, const char *kind, const json_t *meta, struct err *e)
{
    msgpack_sbuffer b;
    msgpack_packer p;
    msgpack_sbuffer_init(&b);
    msgpack_packer_init(&p, &b, msgpack_sbuffer_write);
    msgpack_pack_array(&p, 4);
    msgpack_sbuffer_write(&b, (const char *)nts_sync, sizeof nts_sync);
    msgpack_pack_uint64(&p, w->seq);
    msgpack_pack_str_with_body(&p, kind, strlen(kind));
    nts_pack_json(&p, meta);
    XXH3_64bits_reset(w->one);
    XXH3_64bits_update(w->one, b.data, b.size);
    int bad = b.size > NTS_RECORD_MAX
                  ? err_set(e, NT_EXIT_DATA, "%s: the map of a %s record has %zu bytes (at most %u)",
                            outfile_name(w->out), kind, b.size, NTS_RECORD_MAX)
                  : put(w, b.data, b.size, e);
    msgpack_sbuffer_destroy(&b);
    return bad;
}

/* Whole rows where they fit into a segment. */
static uint64_t segment_size(uint64_t nbytes, int rank, const uint64_t *shape)
{
    uint64_t rows = 1;
    for (int i = 0; i + 1 < rank; i++) rows *= shape[i];
    uint64_t row = nbytes / rows;
    return row && row <= STREAM_SEGMENT_MAX ? STREAM_SEGMENT_MAX / row * row : STREAM_SEGMENT_MAX;
}

/* Starts the record; nothing is left to do when it has no payload. */
static int begin(struct stream_writer *w, const char *kind, const json_t *meta, const struct tensor *t,
                 struct err *e)
{
    static const char *const own[] = {"dtype", "shape", "nbytes", "segs"};
    assert(!w->in_record && strlen(kind) <= NTS_KIND_MAX);
    if (err_stopped(e)) return -1;
    json_t *m = meta ? json_copy((json_t *)meta) : json_object();
    w->nbytes = w->left = w->seg_left = 0;
    if (t) {
        json_t *shape = json_array();
        for (int i = 0; i < t->rank; i++) json_array_append_new(shape, json_integer((json_int_t)t->shape[i]));
        w->nbytes = w->left = t->nbytes;
        w->seg_max = t->nbytes ? segment_size(t->nbytes, t->rank, t->shape) : 0;
        uint64_t segs = t->nbytes ? (t->nbytes + w->seg_max - 1) / w->seg_max : 0;
        json_object_set_new(m, "dtype", json_string(dtype_name(t->dtype)));
        json_object_set_new(m, "shape", shape);
        json_object_set_new(m, "nbytes", json_integer((json_int_t)t->nbytes));
        json_object_set_new(m, "segs", json_integer((json_int_t)segs));
    } else {
        for (size_t i = 0; i < sizeof own / sizeof *own; i++) json_object_del(m, own[i]);
    }
    w->in_record = true;
    int bad = put_record(w, kind, m, e);
    json_decref(m);
    if (!bad && !w->left) bad = end_record(w, e);
    return bad;
}

int stream_write_begin(struct stream_writer *w, const char *kind, const json_t *meta, enum dtype dtype,
                       int rank, const uint64_t *shape, struct err *e)
{
    struct tensor t = {.dtype = dtype, .rank = rank};
    if (tensor_nbytes(dtype, rank, shape, &t.nbytes, e))
        return err_prefix(e, "%s: %s record", outfile_name(w->out), kind);
    for (int i = 0; i < rank; i++) t.shape[i] = shape[i];
    return begin(w, kind, meta, &t, e);
}

static int begin_segment(struct stream_writer *w, struct err *e)
{
    uint8_t head[NTS_ALIGN + 5];
    unsigned pad = nts_pad(w->pos);
    w->seg_left = w->left < w->seg_max ? w->left : w->seg_max;
    memset(head, 0xc0, pad);
    head[pad] = 0xc6;
    for (int i = 0; i < 4; i++) head[pad + 1 + i] = (uint8_t)(w->seg_left >> (24 - 8 * i));
    return put(w, head, pad + 5, e);
}

int stream_write_put(struct stream_writer *w, const void *data, uint64_t n, struct err *e)
{
    const char *p = data;
    assert(n <= w->left);
    while (n) {
        if (!w->seg_left && begin_segment(w, e)) return -1;
        /* pieces that stay in the cache between hashing and copying */
        size_t k = n < w->seg_left ? n : w->seg_left;
        if (k > 256u << 10) k = 256u << 10;
        XXH3_64bits_update(w->one, p, k);
        if (put(w, p, k, e)) return -1;
        p += k;
        n -= k;
        w->left -= k;
        w->seg_left -= k;
        if (!w->left) return end_record(w, e);
    }
    return 0;
}

int stream_write(struct stream_writer *w, const char *kind, const json_t *meta, const struct tensor *t,
                 struct err *e)
{
    if (!t) return begin(w, kind, meta, NULL, e);
    if (stream_write_begin(w, kind, meta, t->dtype, t->rank, t->shape, e)) return -1;
    assert(t->nbytes == w->nbytes);
    return stream_write_put(w, t->data, t->nbytes, e);
}

int stream_layer_end(struct stream_writer *w, int layer, struct err *e)
{
    json_t *meta = json_pack("{s:i, s:I}", "layer", layer, "records", (json_int_t)w->layer_records);
    int bad = begin(w, "LayerEnd", meta, NULL, e) || outfile_flush(w->out, e);
    json_decref(meta);
    w->seq = w->layer_records = 0;
    return bad ? -1 : 0;
}

static void append_once(json_t *list, json_t *entry)
{
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v) if (json_equal(v, entry)) return;
    json_array_append(list, entry);
}

void stream_note_history(struct stream_writer *w, const json_t *history)
{
    size_t i;
    json_t *v;
    json_array_foreach(history, i, v) append_once(w->history, v);
}

void stream_note_input(struct stream_writer *w, const struct stream_reader *r)
{
    json_t *p = stream_provenance(r);
    stream_note_provenance(w, p);
    json_decref(p);
}

json_t *stream_provenance(const struct stream_reader *r)
{
    return json_pack("{s:o, s:O}", "input", stream_identity(r), "history", stream_history(r));
}

void stream_note_provenance(struct stream_writer *w, const json_t *provenance)
{
    json_array_append(w->inputs, json_object_get(provenance, "input"));
    stream_note_history(w, json_object_get(provenance, "history"));
}

void stream_note_file(struct stream_writer *w, const char *name, const char *hash_key, const char *hash,
                      uint64_t bytes)
{
    json_array_append_new(
        w->inputs, json_pack("{s:s, s:s, s:I}", "name", name, hash_key, hash, "bytes", (json_int_t)bytes));
}

/* Trailer and end ext. */
static int put_trailer(struct stream_writer *w, const char *error, const json_t *extra, struct err *e)
{
    char hex[17];
    nts_hash_text(XXH3_64bits_digest(w->all), hex);
    append_once(w->history, w->own);
    json_t *t = json_pack("{s:I, s:I, s:s, s:O, s:O, s:s}", "records", (json_int_t)w->records, "bytes",
                          (json_int_t)w->payload, "xxh3", hex, "inputs", w->inputs, "history", w->history,
                          "status", error ? "error" : "ok");
    if (error) {
        json_t *s = json_string(error);
        json_object_set_new(t, "error", s ? s : json_string("failed (the reason is not UTF-8)"));
    }
    if (extra) json_object_update_missing(t, (json_t *)extra);

    msgpack_sbuffer b;
    msgpack_packer p;
    msgpack_sbuffer_init(&b);
    msgpack_packer_init(&p, &b, msgpack_sbuffer_write);
    nts_pack_json(&p, t);
    json_decref(t);
    uint8_t end[3 + 8 + NTS_ALIGN] = {0xc7, (uint8_t)nts_end_size(w->pos + b.size), NTS_END_TYPE};
    XXH64_canonicalFromHash((XXH64_canonical_t *)(end + 3), XXH3_64bits(b.data, b.size));
    int bad = put(w, b.data, b.size, e) || put(w, end, 3u + end[1], e);
    msgpack_sbuffer_destroy(&b);
    return bad ? -1 : 0;
}

int stream_finish(struct stream_writer *w, const json_t *extra, struct err *e)
{
    assert(!w->in_record);
    int bad = err_stopped(e) ? -1 : put_trailer(w, NULL, extra, e);
    if (bad) {
        stream_abort(w, e);
        return -1;
    }
    bad = outfile_commit(w->out, e);
    writer_free(w);
    return bad;
}

/* A record that cannot be completed is cut at the end of its segment (filled with zeros), where readers look
 * for either more payload or a trailer. */
static int fill_segment(struct stream_writer *w)
{
    static const char zeros[65536];
    struct err e = {0};
    while (w->seg_left) {
        size_t k = w->seg_left < sizeof zeros ? w->seg_left : sizeof zeros;
        if (put(w, zeros, k, &e)) return -1;
        w->seg_left -= k;
    }
    return 0;
}

void stream_abort(struct stream_writer *w, const struct err *why)
{
    static const char mark[] = "upstream error: ";
    struct err e = {0};
    const char *text = why && why->text[0] ? why->text : "failed", *origin = strstr(text, mark);
    if (!outfile_is_temporary(w->out) && !(why && why->code == NT_EXIT_IO && outfile_stdout_gone())) {
        /* the stage that failed first is the one to name */
        char *s = origin ? mem_strdup(origin + strlen(mark))
                         : mem_printf("%s: %s", program_invocation_short_name, text);
        sig_atomic_t sig = err_stop_signal;
        err_stop_signal = 0; /* this write must get through in spite of the signal that caused it */
        /* when even this cannot be written there is nobody left to tell */
        if (fill_segment(w) || put_trailer(w, s, NULL, &e))
            outfile_discard(w->out);
        else if (outfile_commit(w->out, &e))
            e.code = 0;
        err_stop_signal = sig;
        mem_free(s);
    } else {
        outfile_discard(w->out);
    }
    writer_free(w);
}
