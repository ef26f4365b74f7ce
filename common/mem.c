/* SPDX-License-Identifier: Apache-2.0
 * Aligned, zeroed, overflow-checked memory. Lack of memory ends the program: no caller could do better. */
#include "common/mem.h"
#include "common/err.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN 64

static uint64_t limit;

static void out_of_memory(size_t n, size_t size)
{
    fprintf(stderr, "%s: out of memory: %zu x %zu bytes asked for\n", program_invocation_short_name, n, size);
    exit(NT_EXIT_DEVICE);
}

static void *aligned(size_t n, size_t size)
{
    size_t bytes;
    void *p = NULL;
    if (__builtin_mul_overflow(n, size, &bytes) || posix_memalign(&p, ALIGN, bytes ? bytes : 1))
        out_of_memory(n, size);
    return p;
}

void *mem_array(size_t n, size_t size)
{
    void *p = aligned(n, size);
    return memset(p, 0, n * size);
}

void *mem_grow(void *p, size_t *cap, size_t want, size_t size)
{
    if (p && *cap >= want) return p;
    size_t have = p ? *cap : 0, n = have + have / 2 < want ? want : have + have / 2;
    char *q = aligned(n, size);
    if (have) memcpy(q, p, have * size);
    memset(q + have * size, 0, (n - have) * size);
    mem_free(p);
    *cap = n;
    return q;
}

void mem_free(void *p)
{
    free(p);
}

char *mem_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(aligned(n, 1), s, n);
}

char *mem_printf(const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) n = 0;
    char *s = aligned((size_t)n + 1, 1);
    s[0] = 0;
    vsnprintf(s, (size_t)n + 1, fmt, again);
    va_end(again);
    return s;
}

void mem_set_limit(uint64_t bytes)
{
    limit = bytes;
}
uint64_t mem_limit(void)
{
    return limit;
}
