/* SPDX-License-Identifier: Apache-2.0
 * Progress on stderr: a line redrawn on a terminal, a plain line every few seconds, or JSON lines for other
 * programs. */
#include "common/tool_priv.h"
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct {
    enum { NONE, TTY, PLAIN, JSON } mode;
    const char *stage, *unit;
    double total, start, shown, done;
    char text[160];
    bool running, line_open;
} p;

double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void progress_mode(const char *mode)
{
    p.mode = !strcmp(mode, "none")                  ? NONE
             : !strcmp(mode, "json")                ? JSON
             : !strcmp(mode, "plain") || !isatty(2) ? PLAIN
                                                    : TTY;
}

void progress_clear_line(void)
{
    if (p.line_open) fputs("\r\033[K", stderr);
    p.line_open = false;
}

static const char *clock_text(double s, char out[32])
{
    long t = lround(s);
    if (t >= 3600)
        snprintf(out, 32, "%ldh%02ldm", t / 3600, t / 60 % 60);
    else if (t >= 60)
        snprintf(out, 32, "%ldm%02lds", t / 60, t % 60);
    else
        snprintf(out, 32, "%lds", t);
    return out;
}

static void show_json(double now, double rate, double eta, bool end)
{
    json_t *j = json_pack("{s:s, s:s, s:f, s:f, s:s, s:f, s:f, s:s, s:b}", "tool", tool_name, "stage",
                          p.stage, "done", p.done, "total", p.total, "unit", p.unit, "elapsed_s",
                          now - p.start, "rate", rate, "text", p.text, "end", end);
    if (j && !end) json_object_set_new(j, "eta_s", json_real(eta));
    char *s = j ? json_dumps(j, JSON_COMPACT | JSON_REAL_PRECISION(7)) : NULL;
    if (s) fprintf(stderr, "%s\n", s);
    free(s);
    json_decref(j);
}

static void show(double now, bool end)
{
    char a[32], b[32];
    double t = now - p.start, rate = t > 0 ? p.done / t : 0, eta = rate > 0 ? (p.total - p.done) / rate : 0;
    p.shown = now;
    if (p.mode == JSON) {
        show_json(now, rate, eta, end);
        return;
    }
    progress_clear_line();
    fprintf(stderr, "%s: %s: %.6g/%.6g %s, %.3g %s/s, %s%s%s%s%s", tool_name, p.stage, p.done, p.total,
            p.unit, rate, p.unit, p.text, p.text[0] ? ", " : "", clock_text(t, a), end ? "" : ", ETA ",
            end ? "" : clock_text(eta, b));
    p.line_open = p.mode == TTY && !end;
    if (!p.line_open) fputc('\n', stderr);
    fflush(stderr);
}

void progress_start(const char *stage, const char *unit, double total)
{
    p.stage = stage, p.unit = unit, p.total = total, p.done = 0, p.text[0] = 0;
    p.start = p.shown = now_seconds();
    p.running = true;
    if (p.mode == JSON) show(p.start, false);
}

void progress_at(double done, const char *fmt, ...)
{
    static const double every[] = {[NONE] = INFINITY, [TTY] = 0.2, [PLAIN] = 5, [JSON] = 1};
    double now = now_seconds();
    if (!p.running) return;
    p.done = done;
    if (fmt) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(p.text, sizeof p.text, fmt, ap);
        va_end(ap);
    }
    if (now - p.shown >= every[p.mode]) show(now, false);
}

void progress_end(void)
{
    double now = now_seconds();
    if (!p.running) return;
    p.running = false;
    /* short work is not worth a line where lines stay */
    if (p.mode == JSON || (p.mode != NONE && (p.mode == TTY || now - p.start >= 2))) show(now, true);
}
