/* SPDX-License-Identifier: Apache-2.0
 * Files and directories that appear whole or not at all; err and mem on the way. */
#include "common/mem.h"
#include "common/outfile.h"
#include "tests/check.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[] = "/tmp/nt-test-XXXXXX";

static char *in_dir(const char *name)
{
    return mem_printf("%s/%s", dir, name);
}

static int entries(void)
{
    char cmd[128];
    int n = -1;
    snprintf(cmd, sizeof cmd, "ls -A %s | wc -l", dir);
    FILE *f = popen(cmd, "r");
    if (f && fscanf(f, "%d", &n) != 1) n = -1;
    if (f) pclose(f);
    return n;
}

static bool holds(const char *path, const char *text)
{
    char buf[64] = "";
    FILE *f = fopen(path, "r");
    if (!f) return false;
    size_t n = fread(buf, 1, sizeof buf - 1, f);
    fclose(f);
    return n == strlen(text) && !strcmp(buf, text);
}

static void files(void)
{
    struct err e = {0};
    char *a = in_dir("a");
    struct outfile *f = outfile_open(a, &e);
    CHECK(f && outfile_is_temporary(f) && !outfile_write(f, "hello ", 6, &e) && outfile_pos(f) == 6,
          "written");
    CHECK(access(a, F_OK) != 0 && entries() == 1, "not there before commit");
    CHECK(!outfile_write(f, "world", 5, &e) && !outfile_commit(f, &e),
          "committed");
    CHECK(holds(a, "hello world") && entries() == 1, "whole, no temporary left");
    f = outfile_open(a, &e);
    CHECK(f && !outfile_write(f, "x", 1, &e), "again");
    outfile_discard(f);
    CHECK(holds(a, "hello world") && entries() == 1, "discarded: the old file stays");
    outfile_discard(NULL);

    size_t n = 3000000;
    char *big = MEM_NEW(char, n);
    memset(big, 7, n);
    f = outfile_open(a, &e);
    CHECK(f && !outfile_write(f, "12345", 5, &e) && !outfile_write(f, big, n, &e) &&
              !outfile_write(f, "6", 1, &e) && !outfile_commit(f, &e),
          "more than the buffer");
    struct stat st;
    CHECK(!stat(a, &st) && st.st_size == (off_t)n + 6, "has its size");
    mem_free(big);
    unlink(a);
    mem_free(a);
}

static void failures(void)
{
    struct err e = {0};
    struct outfile *f = outfile_open("/dev/full", &e);
    CHECK(f && !outfile_is_temporary(f) && !outfile_write(f, "x", 1, &e), "/dev/full is written directly");
    CHECK(outfile_commit(f, &e) == -1 && e.code == NT_EXIT_IO && strstr(e.text, "/dev/full: No space left"),
          "%s", e.text);
    e.code = 0;
    CHECK(!outfile_open("/nonexistent/x", &e) && e.code == NT_EXIT_IO, "%s", e.text);
    e.code = 0;
    CHECK(!outfile_open(dir, &e) && e.code == NT_EXIT_IO && strstr(e.text, "is a directory"), "%s", e.text);
}

static void directories(void)
{
    struct err e = {0};
    char *d = in_dir("model"), *in;
    struct outdir *o = outdir_open(d, &e);
    if (!CHECK(o && access(d, F_OK), "a directory is built beside its place")) return;
    in = mem_printf("%s/config.json", outdir_tmp(o));
    struct outfile *f = outfile_open(in, &e);
    CHECK(f && !outfile_write(f, "{}", 2, &e) && !outfile_commit(f, &e), "a file in it");
    mem_free(in);
    CHECK(!outdir_commit(o, &e), "committed");
    in = mem_printf("%s/config.json", d);
    CHECK(holds(in, "{}") && entries() == 1, "there, with its file");
    mem_free(in);
    CHECK(!outdir_open(d, &e) && e.code == NT_EXIT_IO, "refused when it exists: %s", e.text);
    mem_free(d);
    e.code = 0;
    d = in_dir("other/");
    o = outdir_open(d, &e);
    if (!CHECK(o, "a trailing slash")) return;
    in = mem_printf("%s/x", outdir_tmp(o));
    fclose(fopen(in, "w"));
    outdir_discard(o);
    CHECK(entries() == 1, "discarded with its files");
    mem_free(in);
    mem_free(d);
}

/* A process that ends in the middle leaves nothing. */
static void ends(void)
{
    for (int how = 0; how < 2; how++) {
        fflush(stdout);
        pid_t pid = fork();
        if (!pid) {
            struct err e = {0};
            char *a = in_dir("half"), *b = in_dir("halfdir");
            struct outfile *f = outfile_open(a, &e);
            struct outdir *d = outdir_open(b, &e);
            mem_free(a);
            mem_free(b);
            if (!f || !d || outfile_write(f, "x", 1, &e)) _exit(9);
            if (how) mem_array(SIZE_MAX / 2, 4);
            exit(3);
        }
        int st;
        waitpid(pid, &st, 0);
        CHECK(WIFEXITED(st) && WEXITSTATUS(st) == (how ? NT_EXIT_DEVICE : 3),
              how ? "out of memory is exit 71" : "exit 3");
        CHECK(entries() == 1, "temporaries are gone");
    }
}

static void errors(void)
{
    struct err e = {0};
    char longest[600];
    memset(longest, 'y', sizeof longest);
    longest[599] = 0;
    CHECK(err_set(&e, 65, "a %s\033[1m", "b\nc") == -1 && !strcmp(e.text, "a b?c?[1m"),
          "control characters go");
    CHECK(err_set(&e, 74, "second") == -1 && e.code == 65, "the first error stays");
    CHECK(err_prefix(&e, "file %d", 3) == -1 && !strcmp(e.text, "file 3: a b?c?[1m"), "prefix");
    err_prefix(&e, "%s", longest);
    err_prefix(&e, "%s", longest);
    CHECK(strlen(e.text) == sizeof e.text - 1, "cut, not overrun");
    CHECK(err_set(NULL, 65, "nobody listens") == -1, "no struct");
}

static void memory(void)
{
    size_t cap = 0;
    int32_t *p = NULL;
    for (int i = 0; i < 5000; i++) {
        p = mem_grow(p, &cap, (size_t)i + 1, sizeof *p);
        p[i] = i;
    }
    CHECK(p[4999] == 4999 && p[0] == 0 && cap >= 5000 && cap < 10000 && !((uintptr_t)p % 64),
          "grows, keeps, aligned");
    mem_free(p);
    double *z = mem_array(1000, sizeof *z);
    int bad = 0;
    for (int i = 0; i < 1000; i++) bad += z[i] != 0;
    CHECK(!bad, "zeroed");
    mem_free(z);
    void *none = mem_array(0, 8);
    CHECK(none, "nothing is a valid pointer");
    mem_free(none);
    CHECK(disk_free("/tmp/does/not/exist") == disk_free("/tmp") || disk_free("/tmp") != UINT64_MAX,
          "free disk of a place to be");
}

int main(void)
{
    if (!mkdtemp(dir)) return 1;
    signal(SIGPIPE, SIG_IGN);
    errors();
    memory();
    files();
    failures();
    directories();
    ends();
    char cmd[64];
    snprintf(cmd, sizeof cmd, "rm -r %s", dir);
    CHECK(!system(cmd), "clean");
    return check_done();
}
