/* SPDX-License-Identifier: Apache-2.0
 * Boundaries to records and back, and the opening of a ring so that nobody waits for the dead. */
#include "common/acts.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "common/mem.h"

/* ---- header ---- */

static json_t *without_layers(const json_t *params)
{
    json_t *p = json_deep_copy(params);
    json_object_del(p, "layers");
    json_object_del(json_object_get(p, "tweak"), "layers");
    return p;
}

json_t *acts_header(struct model *m, const char *tokens_hash, const json_t *params)
{
    return json_pack("{s:s, s:o, s:o, s:s}", "kind", "acts", "params", without_layers(params), "model",
                     model_identity(m), "tokens", tokens_hash);
}

static int check_tokens(const struct stream_reader *r, const char *hash, struct err *e)
{
    const char *theirs = json_string_value(json_object_get(stream_header(r), "tokens"));
    if (theirs && !strcmp(theirs, hash)) return 0;
    return err_set(e, NT_EXIT_DATA, "%s was made from other tokens (%s) than those given (%s)",
                   stream_name(r), theirs ? theirs : "not named", hash);
}

struct stream_reader *acts_open(const char *path, int watch_fd, struct model *m, const char *tokens_hash,
                                struct err *e)
{
    struct stream_reader *r = stream_open_watch(path, "acts", watch_fd, e);
    if (r && !model_check_identity(m, stream_header(r), stream_name(r), e) &&
        !check_tokens(r, tokens_hash, e))
        return r;
    stream_close(r);
    return NULL;
}

int acts_check_params(const struct stream_reader *r, const json_t *params, struct err *e)
{
    json_t *ours = without_layers(params), *theirs = json_object_get(stream_header(r), "params"), *v;
    const char *key, *which = NULL;
    json_object_foreach(ours, key, v) if (!which && !json_equal(v, json_object_get(theirs, key))) which = key;
    json_object_foreach(theirs, key, v) if (!which && !json_object_get(ours, key)) which = key;
    const json_t *a = json_object_get(theirs, which), *b = json_object_get(ours, which);
    if (which && json_is_object(a) && json_is_object(b)) /* params.tweak: name the option */
        json_object_foreach((json_t *)b, key, v) if (!json_equal(v, json_object_get(a, key)))
        {
            which = key;
            break;
        }
    if (which)
        err_set(e, NT_EXIT_DATA, "%s was made with other options than this run: '%s' differs", stream_name(r),
                which);
    json_decref(ours);
    return which ? -1 : 0;
}

/* ---- writing ---- */

int acts_write(struct stream_writer *w, const struct acts_path *p, int n, int layer, struct err *e)
{
    for (int k = 0; k < n; k++) {
        const struct boundary *b = p[k].b;
        for (int i = 0; i < b->n; i++) {
            json_t *meta = json_pack("{s:i, s:i, s:s, s:s}", "layer", layer, "seq", b->first + i, "split",
                                     i < b->n_train ? "train" : "holdout", "path", p[k].path);
            struct tensor t = {.dtype = DT_F32,
                               .rank = 2,
                               .shape = {(uint64_t)b->T, (uint64_t)b->D},
                               .nbytes = boundary_bytes(1, b->T, b->D),
                               .data = boundary_view(b, i)};
            int rc = stream_write(w, "Acts", meta, &t, e);
            json_decref(meta);
            if (rc < 0) return -1;
        }
    }
    return stream_layer_end(w, layer, e);
}

/* ---- reading ---- */

/* The boundary that wants the record, *i its sequence there; NULL: none. */
static struct boundary *find_place(const struct record *rec, const struct acts_path *p, int n, int *i)
{
    const char *path = json_string_value(json_object_get(rec->meta, "path"));
    int64_t seq = json_integer_value(json_object_get(rec->meta, "seq"));
    for (int k = 0; k < n; k++) {
        struct boundary *b = p[k].b;
        *i = (int)(seq - b->first);
        if (path && !strcmp(path, p[k].path) && seq >= b->first && seq < (int64_t)b->first + b->n) return b;
    }
    return NULL;
}

static int take_sequence(struct stream_reader *r, struct record *rec, struct boundary *b, int i,
                         struct err *e)
{
    const char *split = json_string_value(json_object_get(rec->meta, "split"));
    size_t count = (size_t)b->T * (size_t)b->D;
    if (!rec->has_payload || rec->t.dtype != DT_F32 || rec->t.rank != 2 ||
        rec->t.shape[0] != (uint64_t)b->T || rec->t.shape[1] != (uint64_t)b->D)
        return stream_err(r, e, "not F32 [%d, %d]", b->T, b->D);
    if (!split || strcmp(split, i < b->n_train ? "train" : "holdout"))
        return stream_err(r, e, "sequence %d is %s in the tokens", b->first + i,
                          i < b->n_train ? "for training" : "held out");
    float *x = boundary_view(b, i);
    if (stream_payload(r, rec, x, e) < 0) return -1;
    size_t bad = f32_first_nonfinite(x, count);
    if (bad == count) return 0;
    return stream_err(r, e, "layer %d, sequence %d: value %zu is not finite", (int)rec->layer, b->first + i,
                      bad);
}

/* The first sequence that did not come. */
static int check_all_seen(const struct stream_reader *r, const struct acts_path *p, int n, bool *const *seen,
                          int layer, struct err *e)
{
    for (int k = 0; k < n; k++)
        for (int i = 0; i < p[k].b->n; i++)
            if (!seen[k][i])
                return err_set(e, NT_EXIT_DATA, "%s: the input of layer %d lacks sequence %d, path %s",
                               stream_name(r), layer, p[k].b->first + i, p[k].path);
    return 0;
}

static int read_layer(struct stream_reader *r, const struct acts_path *p, int n, bool *const *seen, int layer,
                      struct err *e)
{
    struct record rec;
    int got, i = 0;
    while ((got = stream_next(r, &rec, e)) > 0) {
        bool end = !strcmp(rec.kind, "LayerEnd");
        if (end && rec.layer == layer) return check_all_seen(r, p, n, seen, layer, e);
        if (end && rec.layer > layer)
            return err_set(e, NT_EXIT_DATA, "%s: the input of layer %d comes where that of layer %d is due",
                           stream_name(r), (int)rec.layer, layer);
        if (end) continue;
        if (strcmp(rec.kind, "Acts")) {
            if (stream_unknown(r, &rec, e) < 0) return -1;
            continue;
        }
        struct boundary *b = rec.layer == layer ? find_place(&rec, p, n, &i) : NULL;
        if (!b) continue;
        int k = 0;
        while (p[k].b != b) k++;
        if (seen[k][i]) return stream_err(r, e, "sequence %d comes twice", b->first + i);
        if (take_sequence(r, &rec, b, i, e) < 0) return -1;
        seen[k][i] = true;
    }
    if (got < 0) return -1;
    return err_set(e, NT_EXIT_DATA, "%s: ends before the input of layer %d", stream_name(r), layer);
}

int acts_read(struct stream_reader *r, const struct acts_path *p, int n, int layer, struct err *e)
{
    bool **seen = MEM_NEW(bool *, (size_t)n);
    for (int k = 0; k < n; k++) seen[k] = MEM_NEW(bool, (size_t)p[k].b->n);
    int rc = read_layer(r, p, n, seen, layer, e);
    for (int k = 0; k < n; k++) {
        p[k].b->layer = layer;
        mem_free(seen[k]);
    }
    mem_free(seen);
    return rc;
}

int acts_read_rest(struct stream_reader *r, struct err *e)
{
    struct record rec;
    int got;
    while ((got = stream_next(r, &rec, e)) > 0) continue;
    return got;
}

/* ---- the ring's opening ---- */

/* The writer of stdin has ended: the rest to memory, checked, and stdin stands for it. At most what the pipe
 * held. */
static int keep_stdin(struct err *e)
{
    char piece[65536];
    ssize_t k;
    int fd = memfd_create("stdin", MFD_CLOEXEC);
    if (fd < 0) return err_set(e, NT_EXIT_IO, "<stdin>: %s", strerror(errno));
    while ((k = read(STDIN_FILENO, piece, sizeof piece)) > 0)
        if (write(fd, piece, (size_t)k) != k) k = -1;
    if (k < 0 || lseek(fd, 0, SEEK_SET) < 0 || dup2(fd, STDIN_FILENO) < 0)
        err_set(e, NT_EXIT_IO, "<stdin>: %s", strerror(errno));
    close(fd);
    if (e->code) return -1;
    struct stream_reader *r = stream_open("-", "qweights", e);
    int rc = r ? acts_read_rest(r, e) : -1;
    stream_close(r);
    if (rc == 0 && lseek(STDIN_FILENO, 0, SEEK_SET) < 0)
        rc = err_set(e, NT_EXIT_IO, "<stdin>: %s", strerror(errno));
    return rc;
}

/* A descriptor of the FIFO once somebody reads it; -1: no hope (an error is set), or a signal came. */
static int wait_reader(const char *path, struct err *e)
{
    for (;;) {
        int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
        if (fd >= 0) return fd;
        if (errno != ENXIO) return err_set(e, NT_EXIT_IO, "%s: %s", path, strerror(errno));
        if (err_stopped(e)) return -1;
        struct pollfd in = {STDIN_FILENO, 0, 0};
        if (poll(&in, 1, 20) > 0 && in.revents & (POLLHUP | POLLERR)) {
            if (keep_stdin(e) < 0) return err_prefix(e, "%s: waiting for its reader", path);
            return open(path, O_WRONLY | O_CLOEXEC);
        }
    }
}

struct outfile *acts_open_ring(const char *path, bool watch_stdin, struct err *e)
{
    struct stat st;
    bool fifo = strcmp(path, "-") && stat(path, &st) == 0 && S_ISFIFO(st.st_mode);
    if (!fifo || !watch_stdin) return outfile_open(path, e);
    int fd = wait_reader(path, e);
    if (fd >= 0) return outfile_adopt(fd, path); /* opened once: the reader may be gone by now, writing will tell */
    if (!e->code && !err_stopped(e)) err_set(e, NT_EXIT_IO, "%s: %s", path, strerror(errno));
    return NULL;
}
