/* SPDX-License-Identifier: Apache-2.0
 * The first error sticks; texts are cut, never overrun, and hold no newline. */
#include "common/err.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

volatile sig_atomic_t err_stop_signal;
struct err err_last;

/* Messages quote file names and metadata: control characters in them must not reach a terminal. */
static void make_printable(char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f) *s = '?';
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
    va_list ap;
    if (!e || e->code) return -1;
    e->code = code;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    make_printable(e->text);
    return -1;
}

int err_prefix(struct err *e, const char *fmt, ...)
{
    char head[240], old[sizeof e->text], both[sizeof head + sizeof old + 2];
    va_list ap;
    if (!e || !e->code) return -1;
    va_start(ap, fmt);
    vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    make_printable(head);
    memcpy(old, e->text, sizeof old);
    snprintf(both, sizeof both, "%s: %s", head, old);
    both[sizeof e->text - 1] = 0;
    strcpy(e->text, both);
    return -1;
}

int err_stopped(struct err *e)
{
    if (!err_stop_signal) return 0;
    return err_set(e, 128 + err_stop_signal, "%s", err_stop_signal == SIGINT ? "interrupted" : "terminated");
}
