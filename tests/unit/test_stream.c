/* SPDX-License-Identifier: Apache-2.0
 * Writer and reader of NTS/1 against each other; what other programs make of the bytes is in
 * tests/cli/nt-stream. */
#include "common/mem.h"
#include "common/stream.h"
#include "common/tokens.h"
#include "tests/check.h"
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[] = "/tmp/nt-test-XXXXXX";

static char *path_of(const char *name)
{
    static char p[4][256];
    static int i;
    i = (i + 1) % 4;
    snprintf(p[i], sizeof p[i], "%s/%s", dir, name);
    return p[i];
}

static int write_sample(const char *path, struct err *e)
{
    json_t *h = json_pack("{s:s, s:{s:i, s:s}, s:i}", "kind", "stats", "params", "bits", 3, "method", "gptq",
                          "seed", 7);
    struct outfile *o = outfile_open(path, e);
    struct stream_writer *w = o ? stream_create(o, h, e) : NULL;
    json_decref(h);
    if (!w) return -1;
    float x[15];
    for (int i = 0; i < 15; i++) x[i] = (float)i / 4;
    for (int layer = 0; layer < 2; layer++) {
        json_t *m = json_pack("{s:s, s:i, s:s, s:f}", "name", "layers.X.sums", "layer", layer, "merge", "sum",
                              "x", 0.5);
        struct tensor t = {.dtype = DT_F32, .rank = 2, .shape = {3, 5}, .nbytes = 60, .data = x};
        struct tensor none = {.dtype = DT_U8, .rank = 1, .shape = {0}};
        if (stream_write(w, "sums", m, &t, e)) return -1;
        if (stream_write(w, "Empty", m, &none, e)) return -1;
        if (stream_write(w, "note", m, NULL, e)) return -1;
        json_decref(m);
        if (stream_layer_end(w, layer, e)) return -1;
    }
    json_t *extra = json_pack("{s:s}", "verdict", "none");
    int k = stream_finish(w, extra, e);
    json_decref(extra);
    return k;
}

static void round_trip(void)
{
    struct err e = {0};
    struct record rec;
    char *path = path_of("a.nts");
    CHECK(!write_sample(path, &e), "written %s", e.text);
    struct stream_reader *r = stream_open(path, "stats", &e);
    if (!CHECK(r, "opened %s", e.text)) return;
    CHECK(json_integer_value(json_object_get(stream_header(r), "seed")) == 7, "header");
    int n = 0, k, bad = 0;
    while ((k = stream_next(r, &rec, &e)) == 1) {
        bad += rec.layer != n / 4 || rec.seq != (uint64_t)n % 4;
        if (!strcmp(rec.kind, "sums") && rec.layer == 1) { /* layer 0's payload is skipped */
            CHECK(!stream_payload(r, &rec, NULL, &e) && rec.t.nbytes == 60 &&
                      ((float *)rec.t.data)[14] == 3.5,
                  "payload");
            mem_free(rec.t.data);
        }
        if (!strcmp(rec.kind, "Empty"))
            CHECK(rec.has_payload && !stream_payload(r, &rec, NULL, &e), "empty payload"),
                mem_free(rec.t.data);
        if (!strcmp(rec.kind, "note")) CHECK(!rec.has_payload && rec.meta, "no payload");
        n++;
    }
    CHECK(k == 0 && n == 8 && !bad, "eight records, layers and sequence numbers right: %s", e.text);
    CHECK(stream_next(r, &rec, &e) == 0, "the end stays the end");
    CHECK(!strcmp(json_string_value(json_object_get(stream_trailer(r), "verdict")), "none"),
          "extra trailer key");
    CHECK(!strcmp(json_string_value(json_object_get(stream_trailer(r), "xxh3")), stream_hash(r)),
          "hash of the stream");
    struct stat st;
    CHECK(!stat(path, &st) && st.st_size % 64 == 0, "a multiple of 64 bytes");
    stream_close(r);
    CHECK(!stream_open(path, "tokens", &e) && e.code == NT_EXIT_DATA, "wrong kind: %s", e.text);
}

/* Copies every record of a stream twice over and compares the result byte for byte. */
static void copy_is_exact(void)
{
    struct err e = {0};
    struct record rec;
    char *a = path_of("a.nts"), *b = path_of("b.nts");
    struct stream_reader *r = stream_open(a, NULL, &e);
    struct stream_writer *w = stream_create(outfile_open(b, &e), stream_header(r), &e);
    int k;
    while ((k = stream_next(r, &rec, &e)) == 1)
        if (stream_copy(r, &rec, w, &e)) break;
    stream_note_input(w, r);
    CHECK(k == 0 && !stream_finish(w, NULL, &e), "copied: %s", e.text);
    char ha[17];
    strcpy(ha, stream_hash(r));
    stream_close(r);
    r = stream_open(b, NULL, &e);
    while ((k = stream_next(r, &rec, &e)) == 1) {
    }
    CHECK(k == 0 && !strcmp(ha, stream_hash(r)), "same header and records, same hash");
    const json_t *in = json_array_get(json_object_get(stream_trailer(r), "inputs"), 0);
    CHECK(in && !strcmp(json_string_value(json_object_get(in, "xxh3")), ha), "input noted by its hash");
    CHECK(json_array_size(json_object_get(stream_trailer(r), "history")) == 1,
          "equal stages are listed once");
    stream_close(r);
}

static int write_tokens(const char *path, int n, int T, int holdout, int bad_id)
{
    struct err e = {0};
    json_t *h = json_pack("{s:s, s:{s:i, s:i}}", "kind", "tokens", "params", "T", T, "n", n);
    struct stream_writer *w = stream_create(outfile_open(path, &e), h, &e);
    json_decref(h);
    int32_t *ids = MEM_NEW(int32_t, (size_t)T);
    for (int s = 0; s < n; s++) {
        json_t *m = json_pack("{s:i, s:s}", "seq", s, "split", s < n - holdout ? "train" : "holdout");
        struct tensor t = {
            .dtype = DT_I32, .rank = 1, .shape = {(uint64_t)T}, .nbytes = 4 * (uint64_t)T, .data = ids};
        for (int i = 0; i < T; i++) ids[i] = s * 100 + i;
        if (bad_id && s == n - 1) ids[T - 1] = bad_id;
        if (stream_write(w, "Tokens", m, &t, &e)) return -1;
        json_decref(m);
    }
    mem_free(ids);
    return stream_finish(w, NULL, &e);
}

static void tokens(void)
{
    struct err e = {0};
    struct tokens t;
    char *p = path_of("t.nts");
    CHECK(tokens_holdout_count(32, 0.125) == 4 && tokens_holdout_count(3, 0.125) == 1 &&
              tokens_holdout_count(1, 0.5) == 0 && tokens_holdout_count(5, 0) == 0 &&
              tokens_holdout_count(2, 1) == 1,
          "holdout counts");
    write_tokens(p, 5, 7, 1, 0);
    CHECK(!tokens_read(p, 1000, &t, &e) && t.n == 5 && t.T == 7 && t.n_holdout == 1 &&
              t.ids[4 * 7 + 6] == 406,
          "read: %s", e.text);
    CHECK(strlen(t.hash) == 16 && json_is_object(t.header), "hash and header");
    tokens_clear(&t);
    CHECK(tokens_read(p, 400, &t, &e) && e.code == NT_EXIT_DATA, "id beyond the vocabulary: %s", e.text);
    char cmd[600];
    snprintf(cmd, sizeof cmd, "cat %s %s >%s", p, p, path_of("tt.nts"));
    CHECK(!system(cmd) && !tokens_read(path_of("tt.nts"), 0, &t, &e) && t.n == 10 && t.n_holdout == 2 &&
              t.ids[4 * 7] == 0 && t.ids[7 * 7] == 300 && t.ids[8 * 7] == 400 && t.ids[9 * 7] == 400,
          "concatenated: held-out ones go to the end");
    tokens_clear(&t);
    write_tokens(p, 5, 7, 1, -3);
    e.code = 0;
    CHECK(tokens_read(p, 0, &t, &e) && e.code == NT_EXIT_DATA, "negative id: %s", e.text);
    write_tokens(p, 0, 7, 0, 0);
    e.code = 0;
    CHECK(tokens_read(p, 0, &t, &e) && e.code == NT_EXIT_DATA, "no sequences: %s", e.text);
    e.code = 0;
    CHECK(tokens_read(path_of("a.nts"), 0, &t, &e) && e.code == NT_EXIT_DATA, "another kind: %s", e.text);
}

/* The ring: each end waits for the other while watching a pipe that tells of a death. */
static void ring(void)
{
    struct err e = {0};
    struct record rec;
    char *fifo = path_of("ring");
    int p[2], k = -1;
    CHECK(!mkfifo(fifo, 0600) && !pipe(p), "a FIFO and a pipe");
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) { /* the writer comes late */
        close(p[0]);
        usleep(300000);
        struct stream_writer *w = stream_create(outfile_open(fifo, &e), json_pack("{s:s}", "kind", "acts"), &e);
        _exit(!w || stream_write(w, "note", NULL, NULL, &e) || stream_finish(w, NULL, &e));
    }
    struct stream_reader *r = stream_open_watch(fifo, "acts", p[1], &e);
    if (CHECK(r, "the reader waits for the writer %s", e.text))
        while ((k = stream_next(r, &rec, &e)) > 0) {
        }
    CHECK(!k, "and reads what it writes %s", e.text);
    stream_close(r);
    int st;
    CHECK(waitpid(pid, &st, 0) == pid && st == 0, "the writer is content");
    close(p[0]);
    CHECK(!stream_open_watch(fifo, "acts", p[1], &e) && e.code == NT_EXIT_DATA &&
              strstr(e.text, "ring: nobody opened it for writing"),
          "no writer, and our own reader is gone: %s", e.text);
    close(p[1]);
}

int main(void)
{
    if (!mkdtemp(dir)) return 1;
    ring();
    round_trip();
    copy_is_exact();
    tokens();
    char cmd[64];
    snprintf(cmd, sizeof cmd, "rm -r %s", dir);
    CHECK(system(cmd) == 0, "clean");
    return check_done();
}
