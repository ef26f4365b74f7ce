/* SPDX-License-Identifier: Apache-2.0
 * Several streams into one: cat passes records on, merge reduces shards. Both hold a piece of one record per
 * input. */
#include "common/mem.h"
#include "common/stream_ops.h"
#include "common/stream_priv.h"
#include <fnmatch.h>
#include <math.h>
#include <string.h>

#define PIECE (256u << 10)

/* ---- headers that must agree ---- */

/* params without "shard", which is what shards differ in */
static json_t *params_of(const json_t *header)
{
    json_t *p = json_deep_copy(json_object_get(header, "params"));
    if (p) json_object_del(p, "shard");
    return p;
}

static int same_key(const struct stream_reader *a, const struct stream_reader *b, const char *key,
                    struct err *e)
{
    const json_t *x = json_object_get(stream_header(a), key), *y = json_object_get(stream_header(b), key);
    if (x == y || (x && y && json_equal(x, y))) return 0;
    return err_set(e, NT_EXIT_DATA, "%s and %s differ in their header's %s", stream_name(a), stream_name(b),
                   key);
}

static int same_params(const struct stream_reader *a, const struct stream_reader *b, struct err *e)
{
    json_t *x = params_of(stream_header(a)), *y = params_of(stream_header(b));
    int bad = (x || y) && !(x && y && json_equal(x, y));
    json_decref(x);
    json_decref(y);
    return bad ? err_set(e, NT_EXIT_DATA, "%s and %s were made with different parameters", stream_name(a),
                         stream_name(b))
               : 0;
}

/* ---- cat ---- */

static bool selected(const struct stream_select *s, const struct record *rec)
{
    bool all = s->layers[0] == 0 && s->layers[1] == INT64_MAX;
    if (!all && (rec->layer < s->layers[0] || rec->layer >= s->layers[1])) return false;
    if (!strcmp(rec->kind, "LayerEnd")) return true;
    if (s->kind && strcmp(s->kind, rec->kind)) return false;
    return !s->name || !fnmatch(s->name, rec->name, 0);
}

static json_t *cat_params(const struct stream_select *s, int n)
{
    json_t *p = json_pack("{s:s}", "command", "cat");
    if (n > 1) json_object_set_new(p, "streams", json_integer(n));
    if (s->kind) json_object_set_new(p, "kind", json_string(s->kind));
    if (s->name) json_object_set_new(p, "name", json_string(s->name));
    if (s->layers[0] || s->layers[1] != INT64_MAX)
        json_object_set_new(p, "layers",
                            json_pack("[I,I]", (json_int_t)s->layers[0], (json_int_t)s->layers[1]));
    return p;
}

/* The first stream's header; layers that only it covers are not the whole's. */
static json_t *cat_header(const struct stream_reader *first, int n)
{
    json_t *h = json_deep_copy(stream_header(first)), *p = json_object_get(h, "params");
    if (n > 1) {
        json_object_del(p, "layers");
        json_object_del(json_object_get(p, "tweak"), "layers");
    }
    return h;
}

static int cat_one(struct stream_reader *r, const struct stream_select *s, struct stream_writer *w,
                   json_t **verdict, struct err *e)
{
    struct record rec;
    int k;
    while ((k = stream_next(r, &rec, e)) > 0)
        if (selected(s, &rec) && stream_copy(r, &rec, w, e)) return -1;
    if (k) return -1;
    stream_note_input(w, r);
    /* what a stage added to its trailer stays with the records; of several streams the last one's word
     * counts, except for effective bits, which are the whole's only if all agree */
    static const char *const own[] = {"records", "bytes", "xxh3", "inputs", "history", "status", "index"};
    json_t *bits = json_incref(json_object_get(*verdict, "bits"));
    json_decref(*verdict);
    *verdict = json_copy((json_t *)stream_trailer(r));
    if (bits && !json_equal(bits, json_object_get(*verdict, "bits"))) json_object_del(*verdict, "bits");
    json_decref(bits);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) json_object_del(*verdict, own[i]);
    return 0;
}

int stream_cat(char **paths, int n, const struct stream_select *sel, struct outfile *out, struct err *e)
{
    struct stream_writer *w = NULL;
    struct stream_reader *first = NULL;
    json_t *extra = NULL;
    int bad = 0;
    for (int i = 0; i < n && !bad; i++) {
        struct stream_reader *r = stream_open(paths[i], NULL, e);
        bad = !r;
        if (r && !first) {
            first = r;
            json_t *header = cat_header(r, n);
            w = stream_create_like(out, header, cat_params(sel, n), e);
            json_decref(header);
            out = NULL;
            bad = !w;
        } else if (r) {
            bad = same_key(first, r, "kind", e) || same_key(first, r, "model", e);
        }
        bad = bad || cat_one(r, sel, w, &extra, e);
        if (r != first) stream_close(r);
    }
    stream_close(first);
    outfile_discard(out);
    if (w && !bad)
        bad = stream_finish(w, extra, e);
    else if (w)
        stream_abort(w, e);
    json_decref(extra);
    return bad ? -1 : 0;
}

/* ---- merge ---- */

struct shard {
    struct stream_reader *r;
    struct record rec;
    uint8_t *piece;
};

static int read_piece(struct shard *s, uint64_t n, struct err *e)
{
    for (uint64_t have = 0; have < n;) {
        int64_t k = stream_payload_some(s->r, s->piece + have, n - have, e);
        if (k < 0) return -1;
        have += (uint64_t)k;
    }
    return 0;
}

static int add_f32(float *a, const struct shard *s, int n, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        double sum = 0;
        for (int k = 0; k < n; k++) sum += ((const float *)s[k].piece)[i];
        a[i] = (float)sum;
    }
    return f32_first_nonfinite(a, count) < count;
}

static int add_f64(double *a, const struct shard *s, int n, uint64_t count)
{
    int bad = 0;
    for (uint64_t i = 0; i < count; i++) {
        double sum = 0;
        for (int k = 0; k < n; k++) sum += ((const double *)s[k].piece)[i];
        a[i] = sum;
        bad |= !isfinite(sum);
    }
    return bad;
}

static int add_i64(int64_t *a, const struct shard *s, int n, uint64_t count)
{
    int bad = 0;
    for (uint64_t i = 0; i < count; i++) {
        int64_t sum = 0;
        for (int k = 0; k < n; k++)
            bad |= __builtin_add_overflow(sum, ((const int64_t *)s[k].piece)[i], &sum);
        a[i] = sum;
    }
    return bad;
}

#define RAISE(T)                                                                                             \
    for (uint64_t i = 0; i < count; i++) {                                                                   \
        T m = ((const T *)s[0].piece)[i];                                                                    \
        for (int k = 1; k < n; k++) {                                                                        \
            T v = ((const T *)s[k].piece)[i];                                                                \
            m = v > m || v != v ? v : m;                                                                     \
        }                                                                                                    \
        ((T *)a)[i] = m;                                                                                     \
    }

/* Non-zero when a result is not finite or overflows. */
static int reduce(void *a, enum dtype t, bool max, const struct shard *s, int n, uint64_t count)
{
    int bad = 0;
    if (!max)
        return t == DT_F32   ? add_f32(a, s, n, count)
               : t == DT_F64 ? add_f64(a, s, n, count)
                             : add_i64(a, s, n, count);
    if (t == DT_F32) {
        RAISE(float)
        return f32_first_nonfinite(a, count) < count;
    }
    if (t == DT_F64) {
        RAISE(double)
        for (uint64_t i = 0; i < count; i++) bad |= !isfinite(((double *)a)[i]);
        return bad;
    }
    RAISE(int64_t)
    return 0;
}

static int merge_elements(struct shard *s, int n, bool max, struct stream_writer *w, struct err *e)
{
    enum dtype t = s[0].rec.t.dtype;
    uint64_t left = s[0].rec.t.nbytes, size = (uint64_t)dtype_block_bytes(t);
    if (t != DT_F32 && t != DT_F64 && t != DT_I64)
        return stream_err(s[0].r, e, "cannot merge %s", dtype_name(t));
    uint8_t *sum = MEM_NEW(uint8_t, PIECE);
    int bad = 0;
    while (left && !bad) {
        uint64_t k = left < PIECE ? left : PIECE;
        for (int i = 0; i < n && !bad; i++) bad = read_piece(&s[i], k, e);
        if (!bad && reduce(sum, t, max, s, n, k / size))
            bad = stream_err(s[0].r, e, "the merged values are not finite");
        bad = bad || stream_write_put(w, sum, k, e);
        left -= k;
    }
    mem_free(sum);
    return bad;
}

static int append_payloads(struct shard *s, int n, struct stream_writer *w, struct err *e)
{
    for (int i = 0; i < n; i++)
        for (uint64_t left = s[i].rec.t.nbytes; left;) {
            uint64_t k = left < PIECE ? left : PIECE;
            if (read_piece(&s[i], k, e) || stream_write_put(w, s[i].piece, k, e)) return -1;
            left -= k;
        }
    return 0;
}

/* Same record in every shard; concat may differ in the first dimension. */
static int same_record(const struct shard *s, int n, bool concat, struct err *e)
{
    const struct record *a = &s[0].rec;
    for (int i = 1; i < n; i++) {
        const struct record *b = &s[i].rec;
        const json_t *ma = json_object_get(a->meta, "merge"), *mb = json_object_get(b->meta, "merge");
        bool same = !strcmp(a->kind, b->kind) && !strcmp(a->name, b->name) && a->layer == b->layer &&
                    a->seq == b->seq && a->has_payload == b->has_payload && a->t.dtype == b->t.dtype &&
                    a->t.rank == b->t.rank && (ma == mb || (ma && mb && json_equal(ma, mb)));
        for (int d = concat ? 1 : 0; same && d < a->t.rank; d++) same = a->t.shape[d] == b->t.shape[d];
        if (!same)
            return stream_err(s[i].r, e, "is not the record that %s has at this place (%s %.100s)",
                              stream_name(s[0].r), a->kind, a->name);
    }
    return 0;
}

static int sum_counts(const struct shard *s, int n, json_t *meta, struct err *e)
{
    json_int_t sum = 0;
    if (!json_object_get(meta, "count")) return 0;
    for (int i = 0; i < n; i++) {
        const json_t *c = json_object_get(s[i].rec.meta, "count");
        if (!json_is_integer(c) || json_integer_value(c) < 0 ||
            __builtin_add_overflow(sum, json_integer_value(c), &sum))
            return stream_err(s[i].r, e, "a count that is no number");
    }
    json_object_set_new(meta, "count", json_integer(sum));
    return 0;
}

static int merge_record(struct shard *s, int n, struct stream_writer *w, struct err *e)
{
    const struct record *rec = &s[0].rec;
    const char *rule = json_string_value(json_object_get(rec->meta, "merge"));
    bool concat = rule && !strcmp(rule, "concat"), max = rule && !strcmp(rule, "max");
    if (same_record(s, n, concat, e)) return -1;
    if (!strcmp(rec->kind, "LayerEnd")) return stream_layer_end(w, (int)rec->layer, e);
    if (!rule || (!concat && !max && strcmp(rule, "sum")))
        return stream_err(s[0].r, e, "says not how it merges");
    struct tensor t = rec->t;
    if (!rec->has_payload || (concat && !t.rank)) return stream_err(s[0].r, e, "nothing to merge");
    for (int i = 1; concat && i < n; i++)
        if (__builtin_add_overflow(t.shape[0], s[i].rec.t.shape[0], &t.shape[0]))
            return stream_err(s[i].r, e, "the merged shape overflows");
    json_t *meta = json_deep_copy(rec->meta);
    int bad =
        sum_counts(s, n, meta, e) || stream_write_begin(w, rec->kind, meta, t.dtype, t.rank, t.shape, e);
    json_decref(meta);
    if (bad) return -1;
    return concat ? append_payloads(s, n, w, e) : merge_elements(s, n, max, w, e);
}

static int merge_all(struct shard *s, int n, struct stream_writer *w, struct err *e)
{
    for (;;) {
        int k = 0, ended = 0;
        for (int i = 0; i < n; i++) {
            k = stream_next(s[i].r, &s[i].rec, e);
            if (k < 0) return -1;
            ended += !k;
        }
        if (ended == n) break;
        if (ended)
            return err_set(e, NT_EXIT_DATA, "%s: has more or fewer records than the other shards",
                           stream_name(s[0].r));
        if (merge_record(s, n, w, e)) return -1;
    }
    for (int i = 0; i < n; i++) stream_note_input(w, s[i].r);
    return 0;
}

/* Shards that say which they are must be all there, in order: a doubled or forgotten one would go unnoticed.
 */
static int check_shards(const struct shard *s, int n, struct err *e)
{
    for (int i = 1; i < n; i++)
        if (same_key(s[0].r, s[i].r, "kind", e) || same_key(s[0].r, s[i].r, "model", e) ||
            same_key(s[0].r, s[i].r, "tokens", e) || same_params(s[0].r, s[i].r, e))
            return -1;
    for (int i = 0; i < n; i++) {
        const json_t *params = json_object_get(stream_header(s[i].r), "params"),
                     *sh = json_object_get(params, "shard");
        const json_t *at = json_array_get(sh, 0), *of = json_array_get(sh, 1);
        if (sh && (json_integer_value(at) != i || json_integer_value(of) != n))
            return err_set(e, NT_EXIT_DATA, "%s: is shard %lld of %lld; all shards must be given, in order",
                           stream_name(s[i].r), (long long)json_integer_value(at),
                           (long long)json_integer_value(of));
    }
    return 0;
}

static struct stream_writer *merge_writer(const struct stream_reader *first, int n, struct outfile *out,
                                          struct err *e)
{
    json_t *h = json_copy((json_t *)stream_header(first)), *params = params_of(h);
    if (params) json_object_set_new(h, "params", params);
    struct stream_writer *w =
        stream_create_like(out, h, json_pack("{s:s, s:i}", "command", "merge", "streams", n), e);
    json_decref(h);
    return w;
}

int stream_merge(char **paths, int n, struct outfile *out, struct err *e)
{
    struct shard *s = MEM_NEW(struct shard, (size_t)n);
    struct stream_writer *w = NULL;
    int bad = 0;
    for (int i = 0; i < n && !bad; i++) {
        s[i].r = stream_open(paths[i], NULL, e);
        s[i].piece = MEM_NEW(uint8_t, PIECE);
        bad = !s[i].r;
    }
    bad = bad || check_shards(s, n, e);
    if (bad)
        outfile_discard(out);
    else
        w = merge_writer(s[0].r, n, out, e);
    if (w) {
        bad = merge_all(s, n, w, e);
        if (bad)
            stream_abort(w, e);
        else
            bad = stream_finish(w, NULL, e);
    }
    for (int i = 0; i < n; i++) {
        stream_close(s[i].r);
        mem_free(s[i].piece);
    }
    mem_free(s);
    return bad || !w ? -1 : 0;
}
