/* SPDX-License-Identifier: Apache-2.0
 * LD_PRELOAD for tests/cli/memory/failing.sh: the FAIL_AT-th call of posix_memalign or aligned_alloc, which
 * is how every array of the tools comes, fails. 0: none does, and their number goes to the file FAIL_COUNT at
 * the end. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

static atomic_long calls;
static long fail_at = -1;

static int fails(void)
{
    if (fail_at < 0) fail_at = getenv("FAIL_AT") ? atol(getenv("FAIL_AT")) : 0;
    return ++calls == fail_at;
}

int posix_memalign(void **p, size_t align, size_t n)
{
    static int (*real)(void **, size_t, size_t);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "posix_memalign");
    return fails() ? ENOMEM : real(p, align, n);
}

void *aligned_alloc(size_t align, size_t n)
{
    static void *(*real)(size_t, size_t);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "aligned_alloc");
    if (!fails()) return real(align, n);
    errno = ENOMEM;
    return NULL;
}

static void __attribute__((destructor)) report(void)
{
    const char *path = getenv("FAIL_COUNT");
    FILE *f = path && fail_at == 0 ? fopen(path, "w") : NULL;
    if (f) fprintf(f, "%ld\n", (long)calls);
    if (f) fclose(f);
}
