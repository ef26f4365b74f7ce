/* SPDX-License-Identifier: Apache-2.0
 * A test harness: TAP lines on stdout, the seed printed, non-zero exit on any failure. */
#ifndef NT_CHECK_H
#define NT_CHECK_H
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check_n, check_failed;

__attribute__((format(printf, 3, 4))) static inline int check_at(int ok, const char *where, const char *fmt, ...)
{
    va_list ap;
    check_n++;
    if (!ok) check_failed++;
    printf("%s %d - ", ok ? "ok" : "not ok", check_n);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf(ok ? "\n" : " (%s)\n", where);
    fflush(stdout);
    return ok;
}
#define CHECK_STR2(x) #x
#define CHECK_STR(x) CHECK_STR2(x)
#define CHECK(cond, ...) check_at(!!(cond), __FILE__ ":" CHECK_STR(__LINE__) ": " #cond, __VA_ARGS__)
#define SKIP(...) (check_n++, printf("ok %d # SKIP ", check_n), printf(__VA_ARGS__), printf("\n"))

/* Largest |a - b| relative to the largest |b|. NaN anywhere gives infinity. */
static inline double check_rel(const float *a, const double *b, size_t n)
{
    double d = 0, m = 0;
    for (size_t i = 0; i < n; i++) {
        if (!(fabs(a[i] - b[i]) <= 1e300)) return INFINITY;
        if (fabs(a[i] - b[i]) > d) d = fabs(a[i] - b[i]);
        if (fabs(b[i]) > m) m = fabs(b[i]);
    }
    return m > 0 ? d / m : d;
}
static inline int check_done(void)
{
    printf("1..%d\n", check_n);
    return check_failed || !check_n;
}
#endif
