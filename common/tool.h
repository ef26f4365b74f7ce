/* SPDX-License-Identifier: Apache-2.0
 * What the stage tools share: the option table, usage, messages, signals, progress. Only tools and this file
 * exit. */
#ifndef NT_TOOL_H
#define NT_TOOL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/err.h"
#include "kernels/backend.h"

enum opt_type {
    OPT_FLAG /* bool */,
    OPT_STR /* const char* */,
    OPT_INT /* int64_t */,
    OPT_F64 /* double */,
    OPT_SIZE /* uint64_t, suffixes K M G T = 1024^n */,
    OPT_CHOICE /* const char*, one of arg split at '|' */,
    OPT_RANGE /* int64_t[2], A:B, B excluded, either may be missing */,
    OPT_RATIO /* double, "1/8" or "0.125" */
};

struct opt {
    int letter;       /* 0 = long only */
    const char *name; /* long name; NULL ends the table */
    enum opt_type type;
    void *value;      /* its initial value is the default */
    const char *arg;  /* "FILE", "N", "a|b|c"; NULL for flags. Numbers may give their range: "BITS=2..8",
                         "F=0..1", "N=1.." */
    const char *help; /* one line */
};

/* Options every stage has; tool_start adds them to the table. */
struct tool {
    const char *name;      /* "nt-quant" */
    const char *model;     /* -m MODEL */
    const char *out;       /* -o FILE, default "-" */
    int64_t threads;       /* -j, default all cores */
    int64_t seed;          /* --seed, default 0 */
    const char *device;    /* --device cpu|cuda|auto, default auto */
    const char *precision; /* --precision f32|bf16, default f32 */
    int64_t layers[2];     /* --layers A:B; B excluded, {0, INT64_MAX} by default */
    uint64_t max_mem;      /* --max-mem SIZE, 0 = no limit */
    const char *progress;  /* --progress auto|plain|json|none */
    int argc;              /* operands left */
    char **argv;
};

/* Parses the command line, sees to the BLAS core type (may re-exec), ignores SIGPIPE, catches SIGINT/SIGTERM.
 * -h prints usage on stdout and exits 0; --version likewise; a bad option is one sentence and exit 2.
 * `operands` is the synopsis of what follows the options ("[TOKENS.nts]"), `summary` one line: what it does.
 */
void tool_start(struct tool *t, const char *name, const char *operands, const char *summary,
                const struct opt *opts, int argc, char **argv);

void die(const struct err *e) __attribute__((noreturn)); /* "nt-x: text", exit with e->code */
void die_usage(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
void warn(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* "nt-x: ..." on stderr */
void note(const char *fmt, ...)
    __attribute__((format(printf, 1, 2))); /* as warn, silent with --progress none */

/* True once SIGTERM or SIGINT came: finish the record, stream_abort, tool_exit_signal. */
bool tool_stopping(void);
void tool_exit_signal(void) __attribute__((noreturn)); /* exit 143 (130 for SIGINT), temporaries removed */

/* die() and every other exit send an error trailer down the pipe and remove temporaries: nothing to clean up
 * first. */

/* Closes stdout and checks it (a full disk is an error), then exits with code. */
void tool_finish(int code) __attribute__((noreturn));

/* Opens the backend the common options ask for. */
struct backend *tool_backend(const struct tool *t);

/* Before long work: says predicted memory and disk on stderr and exits 75 if they exceed --max-mem or what is
 * free. disk_path NULL: no disk needed. */
#define TOOL_BASE_BYTES (24u << 20) /* what every stage takes: program, libraries, BLAS, streams */
void tool_predict(uint64_t mem_bytes, uint64_t disk_bytes, const char *disk_path);

/* Progress to stderr: a redrawn line on a terminal, a line every few seconds (plain), JSON lines, or nothing.
 * fmt: free text such as "loss 0.12". done/total in any unit; rate is per second of `unit`. */
void progress_start(const char *stage, const char *unit, double total);
void progress_at(double done, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void progress_end(void);
double now_seconds(void);
#endif
