/* SPDX-License-Identifier: Apache-2.0
 * Temporary files leave no name behind and say what went wrong; input that is read more than once. */
#include "common/tempfile.h"
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/check.h"

static char dir[] = "/tmp/nt-tempfile-XXXXXX";

static int entries(void)
{
    DIR *d = opendir(dir);
    int n = 0;
    while (d && readdir(d)) n++;
    if (d) closedir(d);
    return n - 2;
}

static void test_file(void)
{
    struct err e = {0};
    char back[8] = "";
    struct tempfile *t = tempfile_open(&e);
    CHECK(t && entries() == 0, "open, and no name in the directory");
    CHECK(!strcmp(tempfile_dir(), dir), "it lies in TMPDIR");
    CHECK(!tempfile_append(t, "abcd", 4, &e) && !tempfile_append(t, "efgh", 4, &e) && tempfile_size(t) == 8,
          "two pieces");
    CHECK(!tempfile_read(t, back, 4, 2, &e) && !memcmp(back, "cdef", 4), "read across them");
    CHECK(!tempfile_append(t, "ijkl", 4, &e) && !tempfile_read(t, back, 4, 8, &e) && !memcmp(back, "ijkl", 4),
          "reading does not move the end");
    CHECK(tempfile_read(t, back, 4, 10, &e) && e.code == NT_EXIT_IO && strstr(e.text, "shorter"),
          "past the end: %s", e.text);
    tempfile_close(t);
    tempfile_close(NULL);
}

static void test_errors(void)
{
    struct err e = {0};
    struct rlimit full = {4096, RLIM_INFINITY}, old;
    char page[8192] = "";
    struct tempfile *t = tempfile_open(&e);
    getrlimit(RLIMIT_FSIZE, &old);
    full.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_FSIZE, &full);
    signal(SIGXFSZ, SIG_IGN);
    CHECK(tempfile_append(t, page, sizeof page, &e) && e.code == NT_EXIT_IO && strstr(e.text, dir),
          "no room: %s", e.text);
    setrlimit(RLIMIT_FSIZE, &old);
    tempfile_close(t);

    e.code = 0;
    setenv("TMPDIR", "/nonexistent", 1);
    CHECK(!tempfile_open(&e) && e.code == NT_EXIT_IO && strstr(e.text, "/nonexistent"), "no directory: %s",
          e.text);
    setenv("TMPDIR", dir, 1);
}

static int holds(const struct respool *s, const char *want)
{
    char got[64] = "";
    int fd = open(s->path, O_RDONLY);
    ssize_t n = read(fd, got, sizeof got - 1);
    close(fd);
    return n == (ssize_t)strlen(want) && !strcmp(got, want);
}

static void test_input(void)
{
    struct err e = {0};
    struct respool s;
    char path[64], fifo[64];
    snprintf(path, sizeof path, "%s/file", dir);
    snprintf(fifo, sizeof fifo, "%s/fifo", dir);
    FILE *f = fopen(path, "w");
    fputs("in a file", f);
    fclose(f);
    CHECK(!respool_open(&s, path, &e) && !s.copy && holds(&s, "in a file") && !strcmp(s.path, path),
          "a file is read where it lies");
    respool_clear(&s);

    int ends[2], saved = dup(STDIN_FILENO);
    CHECK(!pipe(ends) && write(ends[1], "through a pipe", 14) == 14, "a pipe");
    close(ends[1]);
    dup2(ends[0], STDIN_FILENO);
    CHECK(!respool_open(&s, "-", &e) && s.copy && !strcmp(s.given, "<stdin>"), "stdin is copied");
    CHECK(holds(&s, "through a pipe") && holds(&s, "through a pipe"), "and read twice");
    respool_clear(&s);
    dup2(saved, STDIN_FILENO);
    close(saved);
    close(ends[0]);

    CHECK(!mkfifo(fifo, 0600), "a FIFO");
    pid_t child = fork();
    if (!child) _exit(write(open(fifo, O_WRONLY), "fifo", 4) != 4);
    CHECK(!respool_open(&s, fifo, &e) && s.copy && holds(&s, "fifo"), "is copied");
    waitpid(child, NULL, 0);
    respool_clear(&s);

    CHECK(respool_open(&s, dir, &e) && e.code == NT_EXIT_IO && strstr(e.text, dir), "a directory: %s",
          e.text);
    respool_clear(&s);
    e.code = 0;
    CHECK(respool_open(&s, "/nonexistent/x", &e) && e.code == NT_EXIT_IO, "no such file: %s", e.text);
    respool_clear(&s);
    unlink(path);
    unlink(fifo);
}

int main(void)
{
    if (!mkdtemp(dir)) return 1;
    setenv("TMPDIR", dir, 1);
    test_file();
    test_errors();
    test_input();
    CHECK(entries() == 0, "nothing is left");
    rmdir(dir);
    return check_done();
}
