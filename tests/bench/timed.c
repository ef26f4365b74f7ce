/* SPDX-License-Identifier: Apache-2.0
 * timed COMMAND..: runs it, then writes "seconds rss_mib" (wall time, largest resident set) to the file TIMED
 * names. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    const char *to = getenv("TIMED");
    struct rusage u;
    int status;
    double t = now();
    pid_t pid;
    FILE *f;
    if (argc < 2 || !to || (pid = fork()) < 0) return 2;
    if (!pid) {
        execvp(argv[1], argv + 1);
        perror(argv[1]);
        _exit(127);
    }
    if (wait4(pid, &status, 0, &u) < 0) return 2;
    t = now() - t;
    f = fopen(to, "w");
    if (!f || fprintf(f, "%.3f %.0f\n", t, (double)u.ru_maxrss / 1024) < 0 || fclose(f)) return 74;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
