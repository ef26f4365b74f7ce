/* SPDX-License-Identifier: Apache-2.0
 * What the libraries themselves reach, all cores at once, in GFLOP/s: the ceilings that figures stand beside.
 * One large single-threaded product per core; f32 by OpenBLAS, bf16 by oneDNN at the shapes of SmolLM2-135M's
 * feed-forward, weights in oneDNN's own layout. */
#ifndef NT_BENCH_CEILING_H
#define NT_BENCH_CEILING_H
#include <cblas.h>
#include <stdlib.h>
#include <string.h>
#ifdef NT_ONEDNN
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#endif

enum { CEILING = 1536 };
static double now(void);

static double ceiling_f32(int threads)
{
    static float *m[2];
    double t;
    int n = CEILING;
    for (int i = 0; i < 2 && !m[i]; i++) {
        m[i] = malloc(sizeof(float) * n * n);
        for (int j = 0; j < n * n; j++) m[i][j] = (float)(j % 13) - 6;
    }
    t = now();
#pragma omp parallel
    {
        float *c = malloc(sizeof(float) * n * n);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, n, 1, m[0], n, m[1], n, 0, c, n);
        free(c);
    }
    return 2e-9 * n * n * n * threads / (now() - t);
}

#ifdef NT_ONEDNN
static void fail_on(dnnl_status_t s)
{
    if (s != dnnl_success) abort();
}

static dnnl_memory_t filled(dnnl_engine_t engine, const dnnl_memory_desc_t *d)
{
    size_t bytes = dnnl_memory_desc_get_size(d);
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    dnnl_memory_t m;
    memset(p, 0x3c, bytes); /* bf16 0x3c3c = 0.0115 */
    fail_on(dnnl_memory_create(&m, d, engine, p));
    return m;
}

/* GFLOP/s of `threads` copies of C[M,N] = A[M,K] B[K,N]. */
static double ceiling_shape(int threads, int M, int N, int K)
{
    dnnl_engine_t engine;
    dnnl_matmul_desc_t op;
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t run;
    dnnl_memory_desc_t a, b, c;
    double t = 0;
    omp_set_num_threads(1); /* while oneDNN decides how to cut it */
    fail_on(dnnl_engine_create(&engine, dnnl_cpu, 0));
    fail_on(dnnl_memory_desc_init_by_tag(&a, 2, (dnnl_dims_t){M, K}, dnnl_bf16, dnnl_ab));
    fail_on(dnnl_memory_desc_init_by_tag(&b, 2, (dnnl_dims_t){K, N}, dnnl_bf16, dnnl_format_tag_any));
    fail_on(dnnl_memory_desc_init_by_tag(&c, 2, (dnnl_dims_t){M, N}, dnnl_f32, dnnl_ab));
    fail_on(dnnl_matmul_desc_init(&op, &a, &b, NULL, &c));
    fail_on(dnnl_primitive_desc_create(&pd, &op, NULL, engine, NULL));
    fail_on(dnnl_primitive_create(&run, pd));
    omp_set_num_threads(threads);
#pragma omp parallel
    {
        dnnl_stream_t stream;
        fail_on(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags));
        dnnl_exec_arg_t args[] = {
            {DNNL_ARG_SRC, filled(engine, &a)},
            {DNNL_ARG_WEIGHTS, filled(engine, dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0))},
            {DNNL_ARG_DST, filled(engine, &c)}};
        for (int i = 0; i < 3; i++) { /* the first two warm the caches */
#pragma omp barrier
#pragma omp master
            t = now();
            fail_on(dnnl_primitive_execute(run, stream, 3, args));
#pragma omp barrier
#pragma omp master
            t = now() - t;
        }
        for (int i = 0; i < 3; i++) {
            void *p;
            dnnl_memory_get_data_handle(args[i].memory, &p);
            dnnl_memory_destroy(args[i].memory);
            free(p);
        }
        dnnl_stream_destroy(stream);
    }
    dnnl_primitive_destroy(run);
    dnnl_primitive_desc_destroy(pd);
    dnnl_engine_destroy(engine);
    return 2e-9 * M * N * K * threads / t;
}

static double ceiling_bf16(int threads)
{
    double up = ceiling_shape(threads, 512, 1536, 576), down = ceiling_shape(threads, 512, 576, 1536);
    return up > down ? up : down;
}
#else
static double ceiling_bf16(int threads)
{
    (void)threads;
    return 0;
}
#endif
#endif
