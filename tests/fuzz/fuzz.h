/* SPDX-License-Identifier: Apache-2.0
 * The frame of a fuzz target. The target includes this, defines
 *     int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)   one input: must neither crash nor hang
 *     bool fuzz_seed(int i, uint8_t **data, size_t *size)            valid input i (malloc), false when there
 * are no more and gets a main() that replays the seeds, then mutates them with a fixed seed for about two
 * seconds (-runs=N: so many times), and prints TAP. Files given as arguments are replayed instead. With
 * -DNT_LIBFUZZER main() is libFuzzer's. */
#ifndef NT_FUZZ_H
#define NT_FUZZ_H
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "common/rng.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
bool fuzz_seed(int i, uint8_t **data, size_t *size);

#ifndef NT_LIBFUZZER
#define FUZZ_MAX_SEEDS 64

static struct {
    uint8_t *p;
    size_t n;
} fuzz_seeds[FUZZ_MAX_SEEDS];
static int fuzz_n;
static volatile sig_atomic_t fuzz_run;

static uint32_t fuzz_random(uint32_t n)
{
    static uint64_t counter;
    return (uint32_t)rng_below(20260, 1, counter++, n ? n : 1);
}

static void fuzz_died(int sig)
{
    char line[96];
    int k = snprintf(line, sizeof line, "not ok - %s on mutation %d\n", sig == SIGALRM ? "hangs" : "crashes",
                     (int)fuzz_run);
    if (write(1, line, (size_t)k) == k) signal(sig, SIG_DFL);
    if (sig == SIGALRM) _exit(1);
    raise(sig);
}

/* One change: bits, bytes, telling numbers, pieces cut out, doubled, or taken from another seed. Returns the
 * new size. */
static size_t fuzz_mutate(uint8_t *p, size_t n, size_t cap)
{
    static const uint8_t telling[] = {0,    1,    0x7f, 0x80, 0xff, 0xc0, 0xc1,
                                      0xc6, 0xdb, 0xdd, 0xdf, '{',  '"',  '['};
    size_t at = n ? fuzz_random((uint32_t)n) : 0,
           len = 1 + fuzz_random(n - at < 64 ? (uint32_t)(n - at) : 64);
    if (len > n - at) len = n - at;
    switch (n ? fuzz_random(8) : 7) {
    case 0:
        p[at] ^= (uint8_t)(1u << fuzz_random(8));
        return n;
    case 1:
        p[at] = (uint8_t)fuzz_random(256);
        return n;
    case 2:
        p[at] = telling[fuzz_random(sizeof telling)];
        return n;
    case 3:
        memset(p + at, telling[fuzz_random(5)], len < 8 ? len : 8);
        return n;
    case 4:
        memmove(p + at, p + at + len, n - at - len);
        return n - len;
    case 5:
        if (n + len > cap) return n;
        memmove(p + at + len, p + at, n - at);
        return n + len;
    case 6:
        return at; /* cut */
    default: {
        int s = (int)fuzz_random((uint32_t)fuzz_n);
        size_t from = fuzz_random((uint32_t)fuzz_seeds[s].n);
        if (len > fuzz_seeds[s].n - from) len = fuzz_seeds[s].n - from;
        if (at + len > cap) return n;
        memcpy(p + at, fuzz_seeds[s].p + from, len);
        return at + len > n ? at + len : n;
    }
    }
}

static int fuzz_replay(const char *path)
{
    FILE *f = fopen(path, "rb");
    static uint8_t buf[1 << 24];
    if (!f) return perror(path), 1;
    size_t n = fread(buf, 1, sizeof buf, f);
    fclose(f);
    LLVMFuzzerTestOneInput(buf, n);
    return printf("ok - %s\n", path) < 0;
}

static void fuzz_mutations(long runs)
{
    time_t end = time(NULL) + 2;
    size_t cap = 0;
    for (int i = 0; i < fuzz_n; i++) cap = fuzz_seeds[i].n > cap ? fuzz_seeds[i].n : cap;
    cap += 4096;
    uint8_t *buf = malloc(cap);
    for (fuzz_run = 0; buf && (runs ? fuzz_run < runs : fuzz_run < 200 || time(NULL) <= end); fuzz_run++) {
        int s = (int)fuzz_random((uint32_t)fuzz_n);
        size_t n = fuzz_seeds[s].n;
        memcpy(buf, fuzz_seeds[s].p, n);
        for (uint32_t k = 1 + fuzz_random(4); k; k--) n = fuzz_mutate(buf, n, cap);
        uint8_t *exact = malloc(n ? n : 1); /* its end is where the sanitizer looks */
        memcpy(exact, buf, n);
        alarm(120);
        LLVMFuzzerTestOneInput(exact, n);
        free(exact);
    }
    alarm(0);
    free(buf);
}

int main(int argc, char **argv)
{
    long runs = 0;
    int files = 0, bad = 0;
    signal(SIGALRM, fuzz_died);
    signal(SIGABRT, fuzz_died);
#ifndef __SANITIZE_ADDRESS__
    signal(SIGSEGV, fuzz_died);
#endif
    for (int i = 1; i < argc; i++)
        if (!strncmp(argv[i], "-runs=", 6))
            runs = atol(argv[i] + 6);
        else
            bad |= fuzz_replay(argv[i]), files++;
    if (files) return bad;
    while (fuzz_n < FUZZ_MAX_SEEDS && fuzz_seed(fuzz_n, &fuzz_seeds[fuzz_n].p, &fuzz_seeds[fuzz_n].n)) {
        fuzz_run = -1 - fuzz_n;
        LLVMFuzzerTestOneInput(fuzz_seeds[fuzz_n].p, fuzz_seeds[fuzz_n].n);
        fuzz_n++;
    }
    if (!fuzz_n) return puts("not ok 1 - no seeds"), 1;
    printf("ok 1 - %d seeds replayed\n", fuzz_n);
    fflush(stdout);
    fuzz_mutations(runs);
    printf("ok 2 - %d mutations neither crash nor hang\n1..2\n", (int)fuzz_run);
    for (int i = 0; i < fuzz_n; i++) free(fuzz_seeds[i].p);
    return 0;
}
#endif
#endif
