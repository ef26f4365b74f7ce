/* SPDX-License-Identifier: Apache-2.0
 * Acts streams: what is written comes back, boundary by boundary and path by path; what is incomplete or
 * wrong is named. */
#include "common/acts.h"

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/mem.h"
#include "tests/check.h"

static char path_name[] = "/tmp/nt-test-acts-XXXXXX";
enum { T = 3, D = 4 };

static void fill(struct boundary *b, int n, int first, int n_train, float start)
{
    boundary_alloc(b, n, T, D, first, n_train);
    for (int i = 0; i < n * T * D; i++) b->x[i] = start + (float)i / 8;
}

static struct stream_writer *begin(struct err *e)
{
    struct outfile *f = outfile_open(path_name, e);
    json_t *header = json_pack("{s:s, s:{}}", "kind", "acts", "params");
    struct stream_writer *w = f ? stream_create(f, header, e) : NULL;
    json_decref(header);
    return w;
}

/* Writes p as boundaries 1 .. n_layers, each raised by the layer. */
static int write_all(const struct acts_path *p, int n, int n_layers, struct err *e)
{
    struct stream_writer *w = begin(e);
    int rc = w ? 0 : -1;
    for (int l = 1; l <= n_layers && !rc; l++) {
        for (int k = 0; k < n; k++)
            for (int i = 0; i < p[k].b->n * T * D; i++) p[k].b->x[i] += 100;
        rc = acts_write(w, p, n, l, e);
    }
    if (w && rc) stream_abort(w, e);
    return rc ? rc : stream_finish(w, NULL, e);
}

/* Reads boundary `layer` for n sequences from `first` on of a path. */
static int read_one(const char *path, int n, int first, int n_train, int layer, struct boundary *b,
                    struct err *e)
{
    struct stream_reader *r = stream_open(path_name, "acts", e);
    boundary_alloc(b, n, T, D, first, n_train);
    int rc = r ? acts_read(r, &(struct acts_path){path, b}, 1, layer, e) : -1;
    if (!rc) rc = acts_read_rest(r, e);
    stream_close(r);
    return rc;
}

static void test_round_trip(void)
{
    struct boundary train, hold, old, got;
    struct err e = {0};
    fill(&train, 4, 0, 4, 0), fill(&hold, 2, 4, 0, 1000), fill(&old, 2, 4, 0, 2000);
    struct acts_path p[] = {{"q", &train}, {"q", &hold}, {"old", &old}};
    CHECK(write_all(p, 3, 3, &e) == 0, "three boundaries of two paths are written %s", e.text);
    CHECK(read_one("q", 4, 0, 4, 3, &got, &e) == 0 && got.layer == 3, "the last one is read %s", e.text);
    CHECK(!memcmp(got.x, train.x, boundary_bytes(4, T, D)), "its training sequences");
    boundary_clear(&got);
    CHECK(read_one("old", 2, 4, 0, 2, &got, &e) == 0 && got.layer == 2, "one in the middle %s", e.text);
    CHECK(got.x[0] == old.x[0] - 100 && got.x[2 * T * D - 1] == old.x[2 * T * D - 1] - 100,
          "of another path");
    boundary_clear(&got);
    CHECK(read_one("q", 2, 1, 2, 1, &got, &e) == 0 && got.x[0] == train.x[T * D] - 200,
          "some of the sequences %s", e.text);
    boundary_clear(&got);
    struct err none = {0};
    CHECK(read_one("float", 2, 4, 0, 1, &got, &none) < 0 &&
              strstr(none.text, "input of layer 1 lacks sequence 4, path float"),
          "a path that is not there: %s", none.text);
    boundary_clear(&got);
    struct err past = {0};
    CHECK(read_one("q", 2, 4, 0, 4, &got, &past) < 0 && strstr(past.text, "ends before the input of layer 4"),
          "a boundary that is not there: %s", past.text);
    boundary_clear(&got), boundary_clear(&train), boundary_clear(&hold), boundary_clear(&old);
}

/* p as it stands, read as the training sequences 0 and 1. */
static void refuse(const struct acts_path *p, int n, const char *text, const char *what)
{
    struct boundary got;
    struct err e = {0}, why = {0};
    int rc = write_all(p, n, 1, &e);
    CHECK(rc == 0 && read_one("q", 2, 0, 2, 1, &got, &why) < 0 && why.code == NT_EXIT_DATA &&
              strstr(why.text, text),
          "%s: %s%s", what, e.text, why.text);
    boundary_clear(&got);
}

static void test_refusals(void)
{
    struct boundary a, b;
    fill(&a, 1, 0, 1, 0), fill(&b, 2, 0, 2, 0);
    refuse((struct acts_path[]){{"q", &a}}, 1, "lacks sequence 1, path q", "a sequence that is not there");
    refuse((struct acts_path[]){{"q", &a}, {"q", &b}}, 2, "sequence 0 comes twice",
           "one that is there twice");
    b.n_train = 1;
    refuse((struct acts_path[]){{"q", &b}}, 1, "sequence 1 is for training in the tokens",
           "one of another split");
    b.n_train = 2, b.x[T * D + 5] = NAN;
    refuse((struct acts_path[]){{"q", &b}}, 1, "sequence 1: value 5 is not finite",
           "a value that is not finite");
    b.x[T * D + 5] = 0, b.T = T - 1;
    refuse((struct acts_path[]){{"q", &b}}, 1, "not F32 [3, 4]", "another shape");
    boundary_clear(&a), boundary_clear(&b);
}

static void test_params(void)
{
    struct err e = {0}, why = {0}, more = {0};
    struct stream_writer *w = NULL;
    struct outfile *f = outfile_open(path_name, &e);
    json_t *header =
        json_pack("{s:s, s:{s:i, s:{s:f}}}", "kind", "acts", "params", "bits", 3, "tweak", "lr", 0.5);
    if (f) w = stream_create(f, header, &e);
    CHECK(w && stream_finish(w, NULL, &e) == 0, "a stream without boundaries %s", e.text);
    struct stream_reader *r = stream_open(path_name, "acts", &e);
    json_t *same = json_pack("{s:i, s:[i,i], s:{s:f, s:[i,i]}}", "bits", 3, "layers", 2, 3, "tweak", "lr",
                             0.5, "layers", 2, 3);
    json_t *other = json_pack("{s:i, s:{s:f}}", "bits", 3, "tweak", "lr", 0.25);
    json_t *fewer = json_pack("{s:{s:f}}", "tweak", "lr", 0.5);
    CHECK(r && acts_check_params(r, same, &e) == 0, "the same options of other layers %s", e.text);
    CHECK(r && acts_check_params(r, other, &why) < 0 && strstr(why.text, "'lr' differs"),
          "another option: %s", why.text);
    CHECK(r && acts_check_params(r, fewer, &more) < 0 && strstr(more.text, "'bits' differs"), "one more: %s",
          more.text);
    stream_close(r);
    json_decref(header), json_decref(same), json_decref(other), json_decref(fewer);
}

/* A reader that goes away as soon as it came: the ring opens all the same, and does not wait for another. */
static void test_ring_reader(void)
{
    enum { TIMES = 300 };
    struct err e = {0};
    int p[2], bell[2], opened = 0, was = dup(STDIN_FILENO);
    char one = 1;
    unlink(path_name);
    if (!CHECK(was >= 0 && !mkfifo(path_name, 0600) && !pipe(p) && !pipe(bell) &&
                   dup2(p[0], STDIN_FILENO) == STDIN_FILENO,
               "a FIFO, and a pipe as stdin"))
        return;
    pid_t reader = fork();
    if (reader == 0) {
        close(bell[1]);
        while (read(bell[0], &one, 1) == 1) close(open(path_name, O_RDONLY));
        _exit(0);
    }
    alarm(60); /* ends a test that waits for ever */
    for (int i = 0; i < TIMES && write(bell[1], &one, 1) == 1; i++) {
        struct outfile *f = acts_open_ring(path_name, true, &e);
        opened += f != NULL;
        outfile_discard(f);
    }
    alarm(0);
    kill(reader, SIGKILL);
    waitpid(reader, NULL, 0);
    CHECK(opened == TIMES, "opened %d times for readers that left at once %s", opened, e.text);
    dup2(was, STDIN_FILENO);
    close(was), close(p[0]), close(p[1]), close(bell[0]), close(bell[1]);
}

int main(void)
{
    int fd = mkstemp(path_name);
    if (fd < 0) return 1;
    close(fd);
    test_round_trip();
    test_refusals();
    test_params();
    test_ring_reader();
    unlink(path_name);
    return check_done();
}
