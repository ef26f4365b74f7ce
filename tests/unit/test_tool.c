/* SPDX-License-Identifier: Apache-2.0
 * The frame of the tools: each case runs in a child process whose exit status, stdout and stderr are looked
 * at. */
#include "common/mem.h"
#include "common/stream.h"
#include "common/tool.h"
#include "tests/check.h"
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char out[8192], errs[8192];

static void drain(int fd, char *buf, size_t cap)
{
    size_t n = 0;
    ssize_t k;
    while (n + 1 < cap && (k = read(fd, buf + n, cap - 1 - n)) > 0) n += (size_t)k;
    buf[n] = 0;
    close(fd);
}

/* Runs body in a child with the words of line as its arguments; returns its exit status. */
static int run(void (*body)(int, char **), const char *line)
{
    int o[2], e[2], st;
    if (pipe(o) || pipe(e)) abort();
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        char *copy = mem_strdup(line), *argv[32] = {copy};
        int argc = 0;
        for (char *w = strtok(copy, " "); w && argc < 31; w = strtok(NULL, " ")) argv[argc++] = w;
        argv[argc] = NULL;
        dup2(o[1], 1);
        dup2(e[1], 2);
        close(o[0]), close(o[1]), close(e[0]), close(e[1]);
        body(argc, argv);
        mem_free(copy);
        exit(99);
    }
    close(o[1]), close(e[1]);
    drain(o[0], out, sizeof out);
    drain(e[0], errs, sizeof errs);
    waitpid(pid, &st, 0);
    return WIFEXITED(st) ? WEXITSTATUS(st) : 1000 + WTERMSIG(st);
}

static void options(int argc, char **argv)
{
    static struct tool t;
    static int64_t bits = 4, threads = 5;
    static double damp = 0.01, holdout = 0.125;
    static bool sym;
    static const char *name = "rtn";
    const struct opt o[] = {
        {'q', "quantizer", OPT_STR, &name, "NAME", "method"},
        {'b', "bits", OPT_INT, &bits, "BITS=2..8", "bits"},
        {0, "damp", OPT_F64, &damp, "F=0..", "damping"},
        {0, "sym", OPT_FLAG, &sym, NULL, "symmetric"},
        {0, "holdout", OPT_RATIO, &holdout, "R=0..1", "held out"},
        {'j', "threads", OPT_INT, &threads, "N=1..9", "our own threads"},
        {0},
    };
    tool_start(&t, "nt-foo", "[STATS]", "Does foo.", o, argc, argv);
    printf("%s %d %g %d %g %lld %lld:%lld %llu %d %s %s\n", name, (int)bits, damp, sym, holdout,
           (long long)threads, (long long)t.layers[0], (long long)t.layers[1], (unsigned long long)t.max_mem,
           t.argc, t.argc ? t.argv[0] : "none", t.out);
    tool_finish(0);
}

static void parsing(void)
{
    static const struct {
        const char *line, *want;
    } good[] = {
        {"x", "rtn 4 0.01 0 0.125 5 0:9223372036854775807 0 0 none -\n"},
        {"x a -b 3 --sym b", "rtn 3 0.01 1 0.125 5 0:9223372036854775807 0 2 a -\n"},
        {"x -qgptq --damp=1e-3 --holdout 1/4 -j 9 --layers 2:5 --max-mem 2G -o f",
         "gptq 4 0.001 0 0.25 9 2:5 2147483648 0 none f\n"},
        {"x --layers :7 --max-mem 1.5K -- -b", "rtn 4 0.01 0 0.125 5 0:7 1536 1 -b -\n"},
        {"x --layers 3: --max-mem 10 -", "rtn 4 0.01 0 0.125 5 3:9223372036854775807 10 1 - -\n"},
    };
    static const char *const bad[] = {
        "x -b 9",         "x -b 1",         "x -b",           "x -b 3x",        "x -b 99999999999999999999",
        "x --damp -1",    "x --damp nan",   "x --damp 1e999", "x --holdout 2",  "x --holdout 1/0",
        "x --holdout 1/", "x -j 0",         "x --layers 3",   "x --layers 5:5", "x --layers -1:2",
        "x --layers a:b", "x --max-mem -1", "x --max-mem 5Q", "x --device tpu", "x --device cp",
        "x --seed -1",    "x --nope",       "x -z",           "x --sym=1",      "x --precision"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        int rc = run(options, good[i].line);
        CHECK(rc == 0 && !strcmp(out, good[i].want) && !errs[0], "%s: exit %d %s", good[i].line, rc,
              strcmp(out, good[i].want) ? out : "");
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int rc = run(options, bad[i]);
        char *nl = strchr(errs, '\n');
        CHECK(rc == 2 && !out[0] && nl && !nl[1] && !strncmp(errs, "nt-foo: ", 8), "%s: exit %d, %.*s",
              bad[i], rc, nl ? (int)(nl - errs) : 0, errs);
    }
    CHECK(run(options, "x --help") == 0 && strstr(out, "usage: nt-foo [-q NAME] [-b BITS] [--damp F]") &&
              strstr(out, "(default 0.01)") && strstr(out, "[2..8]") && !strstr(out, "THREADS"),
          "-h: synopsis, defaults, ranges; a tool's option replaces a common one");
    CHECK(run(options, "x --version") == 0 && !strncmp(out, "nt-foo ", 7), "--version");
}

static void predict(int argc, char **argv)
{
    static struct tool t;
    tool_start(&t, "nt-foo", "", "Does foo.", NULL, argc, argv);
    uint64_t mem = strtoull(t.argv[0], NULL, 10), disk = strtoull(t.argv[1], NULL, 10);
    tool_predict(mem, disk, disk ? "/tmp/file" : NULL);
    tool_finish(0);
}

static void predictions(void)
{
    CHECK(run(predict, "x 1000000 1000") == 0 &&
              !strcmp(errs, "nt-foo: predicted memory 976.6 KiB, disk 1000 B\n"),
          "said: %s", errs);
    CHECK(run(predict, "x 1000 0 --progress none") == 0 && !errs[0], "not with --progress none");
    CHECK(run(predict, "x 3000000000 0 --max-mem 2G --progress none") == 75 &&
              strstr(errs, "--max-mem allows 2.0 GiB"),
          "%s", errs);
    CHECK(run(predict, "x 4000000000000000 0 --progress none") == 75 && strstr(errs, "are free"), "%s", errs);
    CHECK(run(predict, "x 1000 4000000000000000000 --progress none") == 75 &&
              strstr(errs, "/tmp/file: needs"),
          "%s", errs);
}

/* The clock of progress lines instead of libc's: a test that stands still for a second must not see one pass. */
static double seconds_now = 1000;

int clock_gettime(clockid_t id, struct timespec *t)
{
    (void)id;
    *t = (struct timespec){(time_t)seconds_now, (long)(1e9 * (seconds_now - floor(seconds_now)))};
    return 0;
}

static void progress(int argc, char **argv)
{
    static struct tool t;
    tool_start(&t, "nt-foo", "", "Does foo.", NULL, argc, argv);
    progress_start("gptq", "layers", 30);
    progress_at(1, "loss %.2f", 0.5);
    if (!t.argc) seconds_now += 1.25;
    progress_at(15, NULL);
    progress_end();
    progress_end();
    tool_finish(0);
}

static void progresses(void)
{
    CHECK(run(progress, "x --progress none") == 0 && !errs[0], "none");
    CHECK(run(progress, "x --progress plain quick") == 0 && !errs[0], "plain: short work is silent");
    CHECK(run(progress, "x --progress json") == 0, "json");
    int lines = 0, ok = 0;
    for (char *p = strtok(errs, "\n"); p; p = strtok(NULL, "\n"), lines++) {
        json_t *j = json_loads(p, 0, NULL);
        ok += j && !strcmp(json_string_value(json_object_get(j, "stage")), "gptq") &&
              json_object_get(j, "rate") &&
              (json_is_true(json_object_get(j, "end")) || json_object_get(j, "eta_s"));
        double eta = json_real_value(json_object_get(j, "eta_s")),
               spent = json_real_value(json_object_get(j, "elapsed_s"));
        if (lines == 1)
            CHECK(fabs(eta - 1.25) < 0.01 && fabs(spent - 1.25) < 0.01 &&
                      !strcmp(json_string_value(json_object_get(j, "text")), "loss 0.50"),
                  "half done: as long again; text");
        json_decref(j);
    }
    CHECK(lines == 3 && ok == 3, "json: start, one a second, end (%d lines)", lines);
}

static void piped(int argc, char **argv)
{
    static struct tool t;
    struct err e = {0};
    tool_start(&t, "nt-foo", "", "Does foo.", NULL, argc, argv);
    json_t *h = json_pack("{s:s}", "kind", "stats");
    struct stream_writer *w = stream_create(outfile_open("-", &e), h, &e);
    json_decref(h);
    uint64_t shape[] = {100};
    if (!w || stream_write(w, "note", NULL, NULL, &e)) die(&e);
    if (t.argc && !strcmp(t.argv[0], "half") &&
        (stream_write_begin(w, "rows", NULL, DT_U8, 1, shape, &e) || stream_write_put(w, "x", 1, &e)))
        die(&e);
    if (t.argc && !strcmp(t.argv[0], "signal")) {
        raise(SIGTERM);
        if (tool_stopping() && stream_write(w, "note", NULL, NULL, &e)) die(&e);
    }
    if (t.argc && !strcmp(t.argv[0], "exit")) exit(7);
    err_set(&e, NT_EXIT_DATA, "layer 3 is missing");
    die(&e);
}

/* What the next stage reads from a stage that died. */
static void dying(const char *line, int code, const char *why)
{
    int p[2], st;
    struct err e = {0};
    struct record rec;
    if (pipe(p)) abort();
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        char *argv[] = {(char *)"x", (char *)line, NULL};
        dup2(p[1], 1);
        close(p[0]), close(p[1]);
        if (!freopen("/dev/null", "w", stderr)) _exit(98);
        piped(2, argv);
    }
    close(p[1]);
    char path[32];
    snprintf(path, sizeof path, "/dev/fd/%d", p[0]);
    struct stream_reader *r = stream_open(path, "stats", &e);
    while (r && stream_next(r, &rec, &e) > 0) {
    }
    stream_close(r);
    close(p[0]);
    waitpid(pid, &st, 0);
    CHECK(WIFEXITED(st) && WEXITSTATUS(st) == code && e.code == NT_EXIT_DATA && strstr(e.text, why),
          "%s: exit %d, downstream: %s", line, WEXITSTATUS(st), e.text);
}

static void full(int argc, char **argv)
{
    static struct tool t;
    tool_start(&t, "nt-foo", "", "Does foo.", NULL, argc, argv);
    if (!freopen("/dev/full", "w", stdout)) exit(98);
    for (int i = 0; i < 100000; i++) puts("text");
    tool_finish(0);
}

int main(void)
{
    parsing();
    predictions();
    progresses();
    dying("die", 65, "upstream error: nt-foo: layer 3 is missing");
    dying("half", 65, "upstream error: nt-foo: layer 3 is missing");
    dying("exit", 7, "upstream error: nt-foo: stopped before the end");
    dying("signal", 143, "upstream error: nt-foo: terminated");
    CHECK(run(full, "x") == 74 && strstr(errs, "nt-foo: <stdout>: "), "text to a full disk: %s", errs);
    return check_done();
}
