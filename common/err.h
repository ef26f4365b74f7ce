/* SPDX-License-Identifier: Apache-2.0
 * One sentence and an exit code. Library functions return -1 and fill a struct err; the first error sticks.
 * Only tools exit. Out of memory and device failures die on the spot (mem.h, backend.h) with NT_EXIT_DEVICE.
 */
#ifndef NT_ERR_H
#define NT_ERR_H
#include <signal.h>

enum {
    NT_EXIT_NEGATIVE = 1, /* negative result where asked for (--require-gain, a comparison that failed) */
    NT_EXIT_USAGE = 2,
    NT_EXIT_DATA = 65,   /* bad data: truncated, corrupt, hostile, unsupported */
    NT_EXIT_DEVICE = 71, /* out of memory or device failure */
    NT_EXIT_IO = 74,
    NT_EXIT_REFUSED = 75, /* would not fit, locked, busy */
    NT_EXIT_TERM = 143
};

#define NT_MUST_CHECK __attribute__((warn_unused_result))

struct err {
    int code;       /* 0 = no error, else one of NT_EXIT_* */
    char text[480]; /* one sentence that names file, record and cause; no tool name, no newline */
};

/* Keeps the first error. Always returns -1, so that `return err_set(e, NT_EXIT_DATA, "...")` works. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "context: " before the text of an error that is already set (a file name, say). Returns -1. */
int err_prefix(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Set by the signal handler of tool.c. Stream readers and writers look at it before every record and in
 * blocked reads, so a stage that simply dies on their error stops in order: error trailer, temporaries
 * removed, exit 143 (130). */
extern volatile sig_atomic_t err_stop_signal;
extern struct err
    err_last; /* what the program ends with: streams still open at exit put it into their error trailer */
int err_stopped(struct err *e) NT_MUST_CHECK; /* 0, or -1 and "terminated" when a signal came */

#endif
