/* SPDX-License-Identifier: Apache-2.0
 * Which backends are built in, and the step before any BLAS call: OpenBLAS chooses its kernels when it is
 * loaded, and under some hypervisors takes a CPU with AVX-512 for a Haswell or Zen. Only its environment can
 * tell it better, so the program is executed again with that set. */
#include "kernels/cpu_bf16.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* OpenBLAS's x86-64 core names by what their kernels use: 2 = AVX-512, 1 = AVX2, 0 = less. */
static int core_rank(const char *core)
{
    static const char *const avx512[] = {"SkylakeX", "Cooperlake", "SapphireRapids", "Zen4", "Zen5"};
    static const char *const avx2[] = {"Haswell", "Zen"};
    for (size_t i = 0; i < sizeof avx512 / sizeof *avx512; i++)
        if (!strcasecmp(core, avx512[i])) return 2;
    for (size_t i = 0; i < sizeof avx2 / sizeof *avx2; i++)
        if (!strcasecmp(core, avx2[i])) return 1;
    return 0;
}

const char *backend_better_core(const char *core)
{
#if defined(__x86_64__)
    int rank = core_rank(core);
    __builtin_cpu_init();
    if (rank < 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return "SkylakeX";
    if (rank < 1 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "Haswell";
#else
    (void)core;
#endif
    return NULL;
}

/* Threads that wait for the others spin, by default for milliseconds: in a pipe, at the cost of the stages
 * beside this one, which share its cores. 1000 rounds, some ten microseconds, is what libgomp itself takes
 * when there are more threads than cores. */
#define SPIN_COUNT "1000"

void backend_early(char **argv)
{
    bool again = false;
    /* what is set is the user's choice, or ours in the first life of this program */
    if (!getenv("OMP_WAIT_POLICY") && !getenv("GOMP_SPINCOUNT"))
        again = !setenv("GOMP_SPINCOUNT", SPIN_COUNT, 1);
    if (!getenv("OPENBLAS_CORETYPE")) {
        const char *better = backend_better_core(cpu_blas_core());
        if (better && !setenv("OPENBLAS_CORETYPE", better, 1)) again = true;
    }
    /* its own threads would never work, but take a buffer of 128 MiB each when it is loaded */
    if (!getenv("OPENBLAS_NUM_THREADS") && !setenv("OPENBLAS_NUM_THREADS", "1", 1)) again = true;
    if (!again) return;
    char path[4096]; /* by its name, so that ps and top do not call it "exe"; no /proc: go on with the slower
                        kernels */
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0) return;
    path[n] = 0;
    execv(path, argv);
}

struct backend *backend_open(const char *name, int threads, bool bf16)
{
    if (!strcmp(name, "cuda")) cpu_die("device cuda: not built in; use --device cpu");
    if (strcmp(name, "cpu") && strcmp(name, "auto")) cpu_die("no such device: %s", name);
#ifdef NT_ONEDNN
    struct backend *be = cpu_open(threads);
    if (bf16) cpu_bf16_open(be);
    return be;
#else
    if (bf16)
        cpu_die(
            "precision bf16 on the CPU: built without oneDNN (libdnnl-dev, make deps); use --precision f32");
    return cpu_open(threads);
#endif
}
