/* SPDX-License-Identifier: Apache-2.0
 * Token ids of all calibration sequences, read whole: a few MiB at most. */
#include "common/tokens.h"
#include "common/mem.h"
#include <math.h>
#include <string.h>

int tokens_holdout_count(int n, double ratio)
{
    if (n < 2 || ratio <= 0) return 0;
    int k = (int)lround(n * ratio);
    return k < 1 ? 1 : k >= n ? n - 1 : k;
}

static int check_ids(const struct stream_reader *r, const int32_t *ids, int T, int vocab, struct err *e)
{
    for (int i = 0; i < T; i++)
        if (ids[i] < 0 || (vocab && ids[i] >= vocab))
            return stream_err(r, e, "token %d of the sequence is %d, the vocabulary has %d", i, ids[i],
                              vocab);
    return 0;
}

/* Adds one sequence: train ones first, held-out ones last, each in the order of the stream (shards may be
 * concatenated). */
static int add_sequence(struct stream_reader *r, struct record *rec, int vocab, struct tokens *t, size_t *cap,
                        struct err *e)
{
    const char *split = json_string_value(json_object_get(rec->meta, "split"));
    bool holdout = split && !strcmp(split, "holdout");
    if (!rec->has_payload || rec->t.dtype != DT_I32 || rec->t.rank != 1 || !rec->t.shape[0] ||
        rec->t.shape[0] > INT32_MAX)
        return stream_err(r, e, "a sequence is not I32 of one dimension");
    if (t->n && rec->t.shape[0] != (uint64_t)t->T)
        return stream_err(r, e, "a sequence of %llu tokens among sequences of %d",
                          (unsigned long long)rec->t.shape[0], t->T);
    if (!split || (strcmp(split, "train") && !holdout))
        return stream_err(r, e, "split is neither train nor holdout");
    if (t->n == INT32_MAX) return stream_err(r, e, "too many sequences");
    t->T = (int)rec->t.shape[0];
    if (stream_payload(r, rec, NULL, e)) return -1;
    size_t T = (size_t)t->T, n = (size_t)t->n, at = holdout ? n : n - (size_t)t->n_holdout;
    t->ids = mem_grow(t->ids, cap, (n + 1) * T, sizeof *t->ids);
    memmove(t->ids + (at + 1) * T, t->ids + at * T, (n - at) * T * sizeof *t->ids);
    memcpy(t->ids + at * T, rec->t.data, rec->t.nbytes);
    mem_free(rec->t.data);
    t->n++;
    t->n_holdout += holdout;
    return check_ids(r, t->ids + at * T, t->T, vocab, e);
}

int tokens_read(const char *path, int vocab, struct tokens *t, struct err *e)
{
    struct record rec;
    size_t cap = 0;
    int k;
    memset(t, 0, sizeof *t);
    struct stream_reader *r = stream_open(path, "tokens", e);
    if (!r) return -1;
    while ((k = stream_next(r, &rec, e)) > 0) {
        k = strcmp(rec.kind, "Tokens") ? stream_unknown(r, &rec, e)
                                       : add_sequence(r, &rec, vocab, t, &cap, e);
        if (k < 0) break;
    }
    if (!k && !t->n) k = err_set(e, NT_EXIT_DATA, "%s: holds no token sequences", stream_name(r));
    if (!k) {
        memcpy(t->hash, stream_hash(r), sizeof t->hash);
        t->header = json_deep_copy(stream_header(r));
        t->provenance = stream_provenance(r);
    }
    stream_close(r);
    if (k) tokens_clear(t);
    return k;
}

void tokens_clear(struct tokens *t)
{
    mem_free(t->ids);
    json_decref(t->header);
    json_decref(t->provenance);
    memset(t, 0, sizeof *t);
}
