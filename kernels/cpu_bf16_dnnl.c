/* SPDX-License-Identifier: Apache-2.0
 * oneDNN 2.x behind cpu_bf16.h. Its primitives are made while OpenMP is told to use one thread, so that how
 * they cut a product cannot depend on the number of threads; threads are ours, each runs its own tile. */
#include "kernels/cpu_bf16.h"
#include <oneapi/dnnl/dnnl.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { MIN_CHUNK = 64, CHUNKS = 16, USUAL_ROWS = 64 };

/* What bf16_run hands over: kept per thread, only the addresses change. */
struct lane {
    dnnl_memory_t a, b, c, work; /* b: only of pairs */
};
struct bf16_plan {
    struct bf16_plan *next;
    int m, n, k, N; /* N: columns of the matrix it was made for; 0: pairs */
    bool add;
    dnnl_primitive_t run;
    struct lane *lane;
    void *space; /* oneDNN's scratchpads */
};
struct bf16_matrix {
    int n, k, chunk;
    dnnl_memory_desc_t layout;
    char *data;
    size_t bytes;
    dnnl_memory_t whole, part[CHUNKS];
    int n_parts;
};

static dnnl_engine_t engine;
static dnnl_stream_t *streams; /* one per thread */
static int n_threads;
static struct bf16_plan *plans;

static void must(dnnl_status_t s, const char *what)
{
    if (s == dnnl_out_of_memory) cpu_die("out of memory in oneDNN");
    if (s != dnnl_success) cpu_die("precision bf16: oneDNN: %s failed (status %d)", what, (int)s);
}

static dnnl_memory_desc_t plain(int rows, int cols, dnnl_data_type_t t)
{
    dnnl_memory_desc_t d;
    must(dnnl_memory_desc_init_by_tag(&d, 2, (dnnl_dims_t){rows, cols}, t, dnnl_ab), "a description");
    return d;
}

/* NULL when this CPU has no such product. b.format_kind may be "any". */
static dnnl_primitive_desc_t describe(int m, int n, int k, const dnnl_memory_desc_t *b, bool add)
{
    dnnl_memory_desc_t a = plain(m, k, dnnl_bf16), c = plain(m, n, dnnl_f32);
    dnnl_matmul_desc_t op;
    dnnl_primitive_attr_t attr;
    dnnl_post_ops_t post;
    dnnl_primitive_desc_t pd = NULL;
    must(dnnl_matmul_desc_init(&op, &a, b, NULL, &c), "a product's description");
    must(dnnl_primitive_attr_create(&attr), "attributes");
    must(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user), "attributes");
    if (add) {
        must(dnnl_post_ops_create(&post), "attributes");
        must(dnnl_post_ops_append_sum(post, 1), "attributes");
        must(dnnl_primitive_attr_set_post_ops(attr, post), "attributes");
        dnnl_post_ops_destroy(post);
    }
    omp_set_num_threads(1);
    dnnl_status_t s = dnnl_primitive_desc_create(&pd, &op, attr, engine, NULL);
    omp_set_num_threads(n_threads);
    dnnl_primitive_attr_destroy(attr);
    if (s == dnnl_unimplemented) return NULL;
    must(s, "a product's description");
    return pd;
}

/* ---- rounding ---- */

static void narrow_plain(uint16_t *to, const float *from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, from + i, sizeof u);
        to[i] = (u & 0x7fffffff) > 0x7f800000 ? (uint16_t)(u >> 16 | 0x40) /* NaN stays one */
                                              : (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
    }
}

#if defined(__x86_64__)
__attribute__((target("avx512f,avx512bw,avx512bf16"))) static void narrow_avx512(uint16_t *to,
                                                                                 const float *from, size_t n)
{
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m512bh v = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + i + 16), _mm512_loadu_ps(from + i));
        memcpy(to + i, &v, sizeof v);
    }
    if (i < n) { /* the same rounding of subnormal numbers for the rest */
        __mmask16 low = (__mmask16)(n - i < 16 ? (1u << (n - i)) - 1 : 0xffff),
                  high = (__mmask16)(n - i > 16 ? (1u << (n - i - 16)) - 1 : 0);
        __m512bh v = _mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(high, from + i + 16),
                                         _mm512_maskz_loadu_ps(low, from + i));
        memcpy(to + i, &v, (n - i) * sizeof *to);
    }
}
#endif

void bf16_narrow(uint16_t *to, const float *from, size_t n)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw")) {
        narrow_avx512(to, from, n);
        return;
    }
#endif
    narrow_plain(to, from, n);
}

/* ---- matrices ---- */

/* Columns in one innermost block, 0 when columns do not come in blocks that lie one behind the other. */
static int block_columns(const dnnl_memory_desc_t *d)
{
    const dnnl_blocking_desc_t *b = &d->format_desc.blocking;
    int cols = 1;
    if (d->format_kind != dnnl_blocked || b->inner_nblks == 0 || b->strides[1] < b->strides[0]) return 0;
    for (int i = 0; i < b->inner_nblks; i++)
        if (b->inner_idxs[i] == 1) cols *= (int)b->inner_blks[i];
    return cols;
}

/* Chunks have the whole's strides; so a chunk's address is all there is to say about where it begins. */
static void cut(struct bf16_matrix *b)
{
    int block = block_columns(&b->layout);
    b->chunk = b->n;
    if (block) {
        int unit = (MIN_CHUNK + block - 1) / block * block, each = (b->n + CHUNKS - 1) / CHUNKS;
        b->chunk = (each + unit - 1) / unit * unit;
    }
    b->n_parts = (b->n + b->chunk - 1) / b->chunk;
    for (int i = 0; i < b->n_parts && b->n_parts > 1; i++) {
        int from = i * b->chunk, n = b->n - from < b->chunk ? b->n - from : b->chunk;
        dnnl_memory_desc_t part;
        must(dnnl_memory_desc_init_submemory(&part, &b->layout, (dnnl_dims_t){b->k, n},
                                             (dnnl_dims_t){0, from}),
             "a part of a matrix");
        size_t at = (size_t)part.offset0 * sizeof(uint16_t);
        part.offset0 = 0;
        must(dnnl_memory_create(&b->part[i], &part, engine, b->data + at), "a part of a matrix");
    }
}

struct bf16_matrix *bf16_matrix_alloc(int n, int k)
{
    struct bf16_matrix *b = cpu_bytes(sizeof *b);
    dnnl_memory_desc_t any;
    memset(b, 0, sizeof *b);
    b->n = n, b->k = k;
    must(dnnl_memory_desc_init_by_tag(&any, 2, (dnnl_dims_t){k, n}, dnnl_bf16, dnnl_format_tag_any),
         "a description");
    dnnl_primitive_desc_t pd = describe(USUAL_ROWS, n, k, &any, false);
    if (!pd) cpu_die("precision bf16: oneDNN has no bf16 products for this CPU; use --precision f32");
    b->layout = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    dnnl_primitive_desc_destroy(pd);
    b->bytes = dnnl_memory_desc_get_size(&b->layout);
    b->data = cpu_bytes(b->bytes);
    memset(b->data, 0, b->bytes);
    must(dnnl_memory_create(&b->whole, &b->layout, engine, b->data), "a matrix");
    cut(b);
    return b;
}

void bf16_matrix_free(struct bf16_matrix *b)
{
    if (!b) return;
    for (int i = 0; i < CHUNKS; i++)
        if (b->part[i]) dnnl_memory_destroy(b->part[i]);
    dnnl_memory_destroy(b->whole);
    free(b->data);
    free(b);
}

/* oneDNN shares the work out to all threads; every number is rounded on its own, so it does not matter how.
 */
void bf16_matrix_fill(struct bf16_matrix *b, const float *from, bool transposed, int ld)
{
    dnnl_memory_desc_t d;
    dnnl_memory_t source;
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t reorder;
    must(dnnl_memory_desc_init_by_strides(&d, 2, (dnnl_dims_t){b->k, b->n}, dnnl_f32,
                                          (dnnl_dims_t){transposed ? 1 : ld, transposed ? ld : 1}),
         "a description");
    must(dnnl_memory_create(&source, &d, engine, (void *)(uintptr_t)from), "a matrix");
    must(dnnl_reorder_primitive_desc_create(&pd, &d, engine, &b->layout, engine, NULL), "a conversion");
    must(dnnl_primitive_create(&reorder, pd), "a conversion");
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, source}, {DNNL_ARG_TO, b->whole}};
    must(dnnl_primitive_execute(reorder, streams[0], 2, args), "a conversion");
    dnnl_primitive_destroy(reorder);
    dnnl_primitive_desc_destroy(pd);
    dnnl_memory_destroy(source);
}

int bf16_chunks(const struct bf16_matrix *b)
{
    return b->n_parts;
}

int bf16_chunk_width(const struct bf16_matrix *b)
{
    return b->chunk;
}

/* ---- products ---- */

static void make_lanes(struct bf16_plan *p, const dnnl_primitive_desc_t pd, const dnnl_memory_desc_t *b)
{
    dnnl_memory_desc_t a = plain(p->m, p->k, dnnl_bf16), c = plain(p->m, p->n, dnnl_f32);
    const dnnl_memory_desc_t *work = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    size_t each = (dnnl_memory_desc_get_size(work) + 4095) / 4096 * 4096;
    p->lane = cpu_bytes(sizeof *p->lane * (size_t)n_threads);
    p->space = each ? cpu_bytes(each * (size_t)n_threads) : NULL;
    for (int t = 0; t < n_threads; t++) {
        void *at = each ? (char *)p->space + each * (size_t)t : DNNL_MEMORY_NONE;
        must(dnnl_memory_create(&p->lane[t].a, &a, engine, DNNL_MEMORY_NONE), "a matrix");
        must(dnnl_memory_create(&p->lane[t].b, b, engine, DNNL_MEMORY_NONE), "a matrix");
        must(dnnl_memory_create(&p->lane[t].c, &c, engine, DNNL_MEMORY_NONE), "a matrix");
        must(dnnl_memory_create(&p->lane[t].work, work, engine, at), "a scratchpad");
    }
}

/* NULL: this CPU has no such product, or pd asks for another layout than d. */
static struct bf16_plan *new_plan(const dnnl_memory_desc_t *d, int m, int n, int k, int N, bool add)
{
    dnnl_primitive_desc_t pd = describe(m, n, k, d, add);
    if (!pd) return NULL;
    struct bf16_plan *p = cpu_bytes(sizeof *p);
    *p = (struct bf16_plan){.m = m, .n = n, .k = k, .N = N, .add = add};
    omp_set_num_threads(1);
    must(dnnl_primitive_create(&p->run, pd), "a product");
    omp_set_num_threads(n_threads);
    make_lanes(p, pd, d);
    dnnl_primitive_desc_destroy(pd);
    return p;
}

/* Moves the plan to the front, where the same few are found again and again; NULL: there is none yet. */
static struct bf16_plan *find_plan(int m, int n, int k, int N, bool add)
{
    struct bf16_plan **at = &plans, *p;
    while ((p = *at) && (p->m != m || p->n != n || p->k != k || p->N != N || p->add != add)) at = &p->next;
    if (!p) return NULL;
    *at = p->next;
    p->next = plans;
    return plans = p;
}

static struct bf16_plan *keep(struct bf16_plan *p)
{
    if (!p) return NULL;
    p->next = plans;
    return plans = p;
}

const struct bf16_plan *bf16_plan(const struct bf16_matrix *b, int chunk, int m, bool add)
{
    int n = chunk < 0 ? b->n : b->n - chunk * b->chunk < b->chunk ? b->n - chunk * b->chunk : b->chunk;
    const dnnl_memory_desc_t *d;
    struct bf16_plan *p = find_plan(m, n, b->k, b->n, add);
    if (p) return p;
    must(dnnl_memory_get_memory_desc(chunk < 0 ? b->whole : b->part[chunk], &d), "a description");
    p = keep(new_plan(d, m, n, b->k, b->n, add));
    if (!p) cpu_die("precision bf16: oneDNN has no bf16 products for this CPU; use --precision f32");
    return p;
}

/* The layout that oneDNN asks for. */
static bool ask(int m, int n, int k, dnnl_memory_desc_t *d)
{
    must(dnnl_memory_desc_init_by_tag(d, 2, (dnnl_dims_t){k, n}, dnnl_bf16, dnnl_format_tag_any),
         "a description");
    dnnl_primitive_desc_t pd = describe(m, n, k, d, false);
    if (!pd) return false;
    *d = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    dnnl_primitive_desc_destroy(pd);
    return true;
}

/* Blocks [.., columns, 2] along k, so that the whole is [n / columns][k / 2][columns][2] without padding. */
static int pair_columns(const dnnl_memory_desc_t *d)
{
    const dnnl_blocking_desc_t *b = &d->format_desc.blocking;
    int last = b->inner_nblks - 1;
    if (!block_columns(d) || d->padded_dims[0] != d->dims[0] || d->padded_dims[1] != d->dims[1]) return 0;
    if (b->inner_nblks != 3 || b->inner_idxs[0] != 0 || b->inner_idxs[1] != 1 || b->inner_idxs[2] != 0)
        return 0;
    int columns = (int)b->inner_blks[1];
    if (b->inner_blks[last] != 2 || b->strides[0] != b->inner_blks[0] * columns * 2) return 0;
    return d->dims[1] == columns || b->strides[1] == d->dims[0] * columns ? columns : 0;
}

int bf16_pair_columns(int n, int k)
{
    dnnl_memory_desc_t d;
    return ask(USUAL_ROWS, n, k, &d) ? pair_columns(&d) : 0;
}

const struct bf16_plan *bf16_plan_pairs(int m, int n, int k, int columns, bool add)
{
    dnnl_memory_desc_t d;
    struct bf16_plan *p = find_plan(m, n, k, 0, add);
    if (p) return p;
    return ask(m, n, k, &d) && pair_columns(&d) == columns ? keep(new_plan(&d, m, n, k, 0, add)) : NULL;
}

static void run(const struct bf16_plan *p, const struct lane *l, dnnl_memory_t b, const uint16_t *a, float *c)
{
    dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, l->a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, l->c}, {DNNL_ARG_SCRATCHPAD, l->work}};
    must(dnnl_memory_set_data_handle(l->a, (void *)(uintptr_t)a), "an address");
    must(dnnl_memory_set_data_handle(l->c, c), "an address");
    must(dnnl_primitive_execute(p->run, streams[omp_get_thread_num()], 4, args), "a product");
}

void bf16_run(const struct bf16_plan *p, const struct bf16_matrix *b, int chunk, const uint16_t *a, float *c)
{
    run(p, &p->lane[omp_get_thread_num()], chunk < 0 ? b->whole : b->part[chunk], a, c);
}

void bf16_run_at(const struct bf16_plan *p, const uint16_t *a, const uint16_t *b, float *c)
{
    const struct lane *l = &p->lane[omp_get_thread_num()];
    must(dnnl_memory_set_data_handle(l->b, (void *)(uintptr_t)b), "an address");
    run(p, l, l->b, a, c);
}

static void free_plans(void)
{
    while (plans) {
        struct bf16_plan *p = plans;
        plans = p->next;
        for (int t = 0; t < n_threads; t++) {
            dnnl_memory_destroy(p->lane[t].a);
            dnnl_memory_destroy(p->lane[t].b);
            dnnl_memory_destroy(p->lane[t].c);
            dnnl_memory_destroy(p->lane[t].work);
        }
        dnnl_primitive_destroy(p->run);
        free(p->lane);
        free(p->space);
        free(p);
    }
}

/* ---- the whole ---- */

void bf16_start(int threads)
{
    n_threads = threads;
    must(dnnl_engine_create(&engine, dnnl_cpu, 0), "the engine");
    streams = cpu_bytes(sizeof *streams * (size_t)threads);
    for (int t = 0; t < threads; t++)
        must(dnnl_stream_create(&streams[t], engine, dnnl_stream_default_flags), "a stream");
    bf16_matrix_free(
        bf16_matrix_alloc(USUAL_ROWS, USUAL_ROWS)); /* refuses at once what would be refused later */
}

void bf16_end(void)
{
    free_plans();
    for (int t = 0; t < n_threads; t++) dnnl_stream_destroy(streams[t]);
    free(streams);
    dnnl_engine_destroy(engine);
}
