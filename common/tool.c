/* SPDX-License-Identifier: Apache-2.0
 * The frame of every stage: signals, messages, exits, predictions. Options are in tool_options.c, progress in
 * tool_progress.c. */
#include "common/tool.h"
#include "common/mem.h"
#include "common/outfile.h"
#include "common/tool_priv.h"
#include <errno.h>
#include <omp.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *tool_name = "nt";
static bool tool_quiet;

/* Defined by tool_backend.c, which only tools that compute link. */
extern void (*const tool_early)(char **argv) __attribute__((weak));

static void on_signal(int sig)
{
    if (err_stop_signal) { /* asked twice: leave now */
        outfile_unlink_all();
        _exit(128 + sig);
    }
    err_stop_signal = sig;
    alarm(1);
}

/* A signal may come just before a read that then blocks: knock again until somebody looks at the flag. */
static void on_alarm(int sig)
{
    (void)sig;
    alarm(1);
}

static void catch_signals(void)
{
    struct sigaction act = {.sa_handler = on_signal}; /* no SA_RESTART: blocked reads must notice */
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = on_alarm}, NULL);
    sigaction(SIGINT, &act, NULL);
    if (signal(SIGHUP, SIG_IGN) != SIG_IGN) sigaction(SIGHUP, &act, NULL); /* nohup stays in force */
    signal(SIGPIPE, SIG_IGN); /* EPIPE, and for a file size limit EFBIG, are reported by write() */
    signal(SIGXFSZ, SIG_IGN);
}

static int64_t cores(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
}

void tool_start(struct tool *t, const char *name, const char *operands, const char *summary,
                const struct opt *opts, int argc, char **argv)
{
    tool_name = program_invocation_short_name = (char *)name; /* how streams and messages name the producer */
    if (&tool_early) tool_early(argv);
    catch_signals();
    *t = (struct tool){.name = name,
                       .out = "-",
                       .threads = cores(),
                       .device = "auto",
                       .precision = "f32",
                       .layers = {0, INT64_MAX},
                       .progress = "auto"};
    tool_parse(t, operands, summary, opts, argc, argv);
    omp_set_num_threads((int)t->threads);
    mem_set_limit(t->max_mem);
    tool_quiet = !strcmp(t->progress, "none");
    progress_mode(t->progress);
}

static void say(const char *fmt, va_list ap)
{
    progress_clear_line();
    fprintf(stderr, "%s: ", tool_name);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
}

void warn(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
}

void note(const char *fmt, ...)
{
    va_list ap;
    if (tool_quiet) return;
    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
}

void die(const struct err *e)
{
    /* the reader that went away has the reason; a second message would only hide it */
    if (!(e->code == NT_EXIT_IO && outfile_stdout_gone())) warn("%s", e->text[0] ? e->text : "failed");
    err_last = *e;
    exit(e->code ? e->code : NT_EXIT_DATA);
}

void die_usage(const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    warn("%s (see %s -h)", text, tool_name);
    exit(NT_EXIT_USAGE);
}

bool tool_stopping(void)
{
    return err_stop_signal != 0;
}

void tool_exit_signal(void)
{
    struct err e = {0};
    if (!err_stopped(&e)) err_set(&e, NT_EXIT_TERM, "terminated");
    die(&e);
}

void tool_finish(int code)
{
    bool bad = ferror(stdout);
    errno = 0;
    if (fclose(stdout) || bad) {
        struct err e = {0};
        if (errno == EPIPE) exit(NT_EXIT_IO);
        err_set(&e, NT_EXIT_IO, "<stdout>: %s", errno ? strerror(errno) : "write error");
        die(&e);
    }
    exit(code);
}

static uint64_t read_number(const char *path, const char *format)
{
    FILE *f = fopen(path, "r");
    char line[256];
    unsigned long long v = 0;
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f)) found = sscanf(line, format, &v) == 1;
    if (f) fclose(f);
    return found ? v : UINT64_MAX;
}

/* What the machine and the control group leave. */
static uint64_t memory_free(void)
{
    uint64_t kib = read_number("/proc/meminfo", "MemAvailable: %llu kB");
    uint64_t left = kib == UINT64_MAX ? kib : kib * 1024;
    uint64_t max = read_number("/sys/fs/cgroup/memory.max", "%llu");
    uint64_t now = read_number("/sys/fs/cgroup/memory.current", "%llu");
    uint64_t cache = read_number("/sys/fs/cgroup/memory.stat", "inactive_file %llu");
    if (max != UINT64_MAX && now != UINT64_MAX) {
        if (cache != UINT64_MAX && cache < now) now -= cache;
        if (max - now < left) left = max > now ? max - now : 0;
    }
    return left;
}

static const char *human(uint64_t bytes, char out[32])
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)bytes;
    int u = 0;
    while (v >= 1024 && u < 4) v /= 1024, u++;
    snprintf(out, 32, u ? "%.1f %s" : "%.0f %s", v, unit[u]);
    return out;
}

void tool_predict(uint64_t mem_bytes, uint64_t disk_bytes, const char *disk_path)
{
    char a[32], b[32];
    struct err e = {0};
    uint64_t left = memory_free(), disk = disk_path ? disk_free(disk_path) : UINT64_MAX;
    if (disk_path)
        note("predicted memory %s, disk %s", human(mem_bytes, a), human(disk_bytes, b));
    else
        note("predicted memory %s", human(mem_bytes, a));
    if (mem_limit() && mem_bytes > mem_limit())
        err_set(&e, NT_EXIT_REFUSED, "needs %s of memory, --max-mem allows %s", human(mem_bytes, a),
                human(mem_limit(), b));
    else if (mem_bytes > left)
        err_set(&e, NT_EXIT_REFUSED, "needs %s of memory, %s are free", human(mem_bytes, a), human(left, b));
    else if (disk_path && disk_bytes > disk)
        err_set(&e, NT_EXIT_REFUSED, "%s: needs %s of disk, %s are free", disk_path, human(disk_bytes, a),
                human(disk, b));
    if (e.code) die(&e);
}
