/* SPDX-License-Identifier: Apache-2.0
 * The CPU backend: its table, memory, and the choice of instruction set. */
#include "kernels/cpu.h"
#include <cblas.h>
#include <errno.h>
#include <omp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20, HUGE_FROM = HUGE_PAGE, COPY_PART = 256 << 10 };

const struct vec_ops *vec = &vec_base;
static float *scratch;
static size_t scratch_floats;

void cpu_die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "%s: ", program_invocation_short_name);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(71);
}

void *cpu_bytes(size_t n)
{
    size_t align = n >= HUGE_FROM ? HUGE_PAGE : CPU_ALIGN, padded = (n + align - 1) / align * align;
    void *p;
    if (padded < n) cpu_die("out of memory: %zu bytes", n);
    p = aligned_alloc(align, padded ? padded : align);
    if (!p) cpu_die("out of memory: %zu bytes", n);
    if (align == HUGE_PAGE)
        madvise(p, padded, MADV_HUGEPAGE); /* fewer misses of the address cache; may fail */
    return p;
}

float *cpu_scratch(size_t floats)
{
    if (floats > scratch_floats) {
        if (floats > SIZE_MAX / sizeof(float)) cpu_die("out of memory");
        free(scratch);
        scratch = cpu_bytes(floats * sizeof(float));
        scratch_floats = floats;
    }
    return scratch;
}

void cpu_scratch_free(void)
{
    free(scratch);
    scratch = NULL;
    scratch_floats = 0;
}

static dev alloc_zeroed(size_t bytes)
{
    dev p = {(uintptr_t)cpu_bytes(bytes)};
    memset((void *)p.at, 0, bytes);
    return p;
}

static void release(dev p)
{
    free((void *)p.at);
}

/* memmove in parts that all threads share; src and dst may only overlap when the part is the whole. */
static void move(void *dst, const void *src, size_t bytes)
{
    size_t part =
        bytes < COPY_PART || ((char *)dst < (char *)src + bytes && (char *)src < (char *)dst + bytes)
            ? bytes
            : COPY_PART;
#pragma omp parallel for schedule(static) if (bytes > part)
    for (size_t i = 0; i < bytes; i += part)
        memmove((char *)dst + i, (const char *)src + i, bytes - i < part ? bytes - i : part);
}

static void put(dev dst, const void *src, size_t bytes)
{
    move((void *)dst.at, src, bytes);
}
static void get(void *dst, dev src, size_t bytes)
{
    move(dst, (const void *)src.at, bytes);
}
static void copy(dev dst, dev src, size_t bytes)
{
    move((void *)dst.at, (const void *)src.at, bytes);
}

static void fill(dev dst, float value, size_t n)
{
    float *p = cpu_f(dst);
#pragma omp parallel for schedule(static) if (n > COPY_PART)
    for (size_t i = 0; i < n; i++) p[i] = value;
}

static void hold(dev p, size_t n) /* products read weights where they lie */
{
    (void)p, (void)n;
}

static void close_cpu(struct backend *be)
{
    cpu_scratch_free();
    free(be);
}

char *openblas_get_corename(void);
const char *cpu_blas_core(void)
{
    return openblas_get_corename();
}

const struct vec_ops *vec_choose(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return &vec_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &vec_avx2;
#endif
    return &vec_base;
}

/* OpenBLAS maps a buffer for every thread that is inside it, and tries for ever when the system refuses. So it is asked
 * here, once, whether there is room, and every thread makes a product, so that the buffers are there from now on. */
static void blas_reserve(int threads)
{
    enum { N = 192, BUFFER = 128 << 20 };
    size_t bytes = (size_t)threads * BUFFER, n = (size_t)N * N; /* one more it has mapped when it was loaded */
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        cpu_die("out of memory: OpenBLAS reserves %zu MiB for %d threads, more than the limit leaves", bytes >> 20,
                threads);
    munmap(p, bytes);
    float *m = cpu_bytes(2 * n * sizeof *m * (size_t)threads);
    memset(m, 0, 2 * n * sizeof *m * (size_t)threads);
#pragma omp parallel num_threads(threads)
    {
        float *a = m + 2 * n * (size_t)omp_get_thread_num(), *c = a + n;
#pragma omp barrier
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, N, N, N, 1, a, N, a, N, 0, c, N);
    }
    free(m);
}

struct backend *cpu_open(int threads)
{
    static const struct backend table = {
        "cpu",
        "",
        0,
        false,
        alloc_zeroed,
        release,
        put,
        get,
        copy,
        fill,
        hold,
        cpu_gemm,
        cpu_gemm,
        cpu_gram,
        cpu_add,
        cpu_axpy,
        cpu_add_bias,
        cpu_sum_rows,
        cpu_scale_rows,
        cpu_dot_rows,
        cpu_act,
        cpu_act_back,
        cpu_softcap,
        cpu_softcap_back,
        cpu_clamp,
        cpu_clamp_back,
        cpu_norm,
        cpu_norm_back,
        cpu_rope,
        cpu_attention,
        cpu_attention_back,
        cpu_attention_step,
        cpu_embed,
        cpu_embed_back,
        cpu_head_init,
        cpu_head_fold,
        cpu_kl_init,
        cpu_kl_fold,
        cpu_ce_back,
        cpu_kl_back,
        cpu_channel_stats,
        cpu_channel_moments,
        cpu_channel_affine,
        cpu_channel_diff,
        cpu_adam,
        close_cpu,
    };
    struct backend *be = cpu_bytes(sizeof *be);
    if (threads <= 0) threads = omp_get_num_procs();
    *be = table;
    be->core = cpu_blas_core();
    be->threads = threads;
    vec = vec_choose();
    openblas_set_num_threads(
        1); /* threads are ours: OpenBLAS's own would make results depend on their number */
    omp_set_dynamic(0);
    omp_set_num_threads(threads);
    blas_reserve(threads);
    return be;
}
