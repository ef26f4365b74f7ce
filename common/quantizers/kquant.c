/* SPDX-License-Identifier: Apache-2.0
 * GPTQ on the grids of ggml's K types: at the start of every super-block of 256 columns its scales and minima
 * are fitted to the weights as they are by then, weighted by the Hessian's diagonal; then its columns are
 * rounded one by one and the columns to come make up for each error. The codes are those that leave in a
 * GGUF file. -b 2 to 6 are Q2_K to Q6_K; rows that are no multiple of 256 get the block type of 32 that
 * llama.cpp falls back to, or the nearest symmetric one. */
#include <cblas.h>
#include <math.h>
#include <string.h>
#include "common/ggml_kquant.h"
#include "common/mem.h"
#include "common/quantizer.h"
#include "common/solver.h"

enum { ROWS = 16 };

struct prepared {
    struct solver_factor *f;
    float *diagonal;
};

static void *kquant_prepare(const struct site_stats *st, const struct quant_opts *o, json_t *info,
                            struct err *e)
{
    struct quant_opts in_order = *o;
    in_order.act_order = in_order.true_f64 = false; /* a file's super-blocks are columns in order */
    struct solver_factor *f = solver_factor_alloc(st->hessian, st->dim, &in_order, info, e);
    if (!f) return NULL;
    struct prepared *p = MEM_NEW(struct prepared, 1);
    p->f = f;
    p->diagonal = MEM_NEW(float, (size_t)st->dim);
    for (int i = 0; i < st->dim; i++) p->diagonal[i] = st->hessian[(size_t)i * (size_t)st->dim + (size_t)i];
    return p;
}

static void kquant_release(void *prepared)
{
    struct prepared *p = prepared;
    if (!p) return;
    solver_factor_free(p->f);
    mem_free(p->diagonal);
    mem_free(p);
}

/* One row of one super-block: x[256] are the weights by now, e[256] receives the errors over U_jj. */
static void solve_block(const struct kquant_type *k, const struct prepared *p, int first, float *x, float *e,
                        uint8_t *out)
{
    const int n = p->f->n;
    struct kquant_grid g;
    uint8_t codes[KQUANT_BLOCK];
    kquant_fit(k, x, p->diagonal + first, &g);
    for (int j = 0; j < KQUANT_BLOCK; j++) {
        const float *u = p->f->U + (size_t)(first + j) * (size_t)n + (size_t)first;
        float step, offset;
        kquant_line(k, &g, j / k->sub, &step, &offset);
        codes[j] = (uint8_t)kquant_code(k, step, offset, x[j]);
        e[j] = (x[j] - (step * (float)codes[j] + offset)) / u[j];
        for (int i = j + 1; i < KQUANT_BLOCK; i++) x[i] -= e[j] * u[i];
    }
    kquant_pack(k, &g, codes, out);
}

/* Rows r0 .. r0+rows: errors of a super-block reach the columns behind it in one product. */
static void solve_rows(const struct kquant_type *k, const struct prepared *p, const float *W, int r0,
                       int rows, uint8_t *out)
{
    int in = p->f->n;
    size_t bytes = (size_t)dtype_block_bytes(k->t), row = (size_t)in / KQUANT_BLOCK * bytes, n = (size_t)in;
    float *x = MEM_NEW(float, (size_t)rows *n), *e = MEM_NEW(float, (size_t)rows *KQUANT_BLOCK);
    memcpy(x, W + (size_t)r0 * n, (size_t)rows * n * sizeof *x);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < in; i++)
            if (p->f->dead[i]) x[(size_t)r * n + (size_t)i] = 0;
    for (int a = 0; a < in; a += KQUANT_BLOCK) {
        for (int r = 0; r < rows; r++)
            solve_block(k, p, a, x + (size_t)r * n + (size_t)a, e + (size_t)r * KQUANT_BLOCK,
                        out + (size_t)(r0 + r) * row + (size_t)(a / KQUANT_BLOCK) * bytes);
        int b = a + KQUANT_BLOCK;
        if (b < in)
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, in - b, KQUANT_BLOCK, -1, e,
                        KQUANT_BLOCK, p->f->U + (size_t)a * n + (size_t)b, in, 1, x + b, in);
    }
    mem_free(x);
    mem_free(e);
}

/* The other rows: symmetric groups of 32, which Q4_0, Q5_0 and Q8_0 hold as they are. */
static int run_short(const struct prepared *p, const float *W, int out, const struct quant_opts *o,
                     struct qtensor *q, struct err *e)
{
    struct quant_opts s = *o;
    double objective;
    if (p->f->n % 32)
        return err_set(e, NT_EXIT_DATA, "rows of %d columns fit no block type of GGUF (a multiple of 32)",
                       p->f->n);
    s.bits = o->bits <= 3 ? 4 : o->bits <= 5 ? 5 : 8;
    s.group = 32, s.sym = true, s.act_order = s.true_f64 = false, s.scale_dtype = DT_F16;
    if (q->info)
        json_object_set_new(q->info, "kquant_fallback",
                            json_string(s.bits == 4   ? "Q4_0"
                                        : s.bits == 5 ? "Q5_0"
                                                      : "Q8_0"));
    return solver_run(p->f, W, out, &s, q, &objective, e);
}

static int kquant_run(const struct backend *be, const float *W, int out, int in, const struct site_stats *st,
                      const void *prepared, const struct quant_opts *o, struct qtensor *q, struct err *e)
{
    const struct kquant_type *k = kquant_type_of(o->bits);
    const struct prepared *p = prepared;
    (void)be, (void)st;
    if (!k) return err_set(e, NT_EXIT_USAGE, "-q kquant: -b 2, 3, 4, 5 or 6, not %d", o->bits);
    if (in % KQUANT_BLOCK) return run_short(p, W, out, o, q, e);
    q->form = QF_PLAIN, q->out = out, q->in = in;
    q->plain = (struct tensor){.dtype = k->t, .rank = 2, .shape = {(uint64_t)out, (uint64_t)in}};
    if (tensor_nbytes(k->t, 2, q->plain.shape, &q->plain.nbytes, e) < 0) return -1;
    q->plain.data = mem_array(q->plain.nbytes, 1);
#pragma omp parallel for schedule(dynamic)
    for (int r = 0; r < out; r += ROWS)
        solve_rows(k, p, W, r, out - r < ROWS ? out - r : ROWS, q->plain.data);
    if (q->info) json_object_set_new(q->info, "type", json_string(dtype_name(k->t)));
    return 0;
}

const struct quantizer quantizer_kquant = {
    .name = "kquant",
    .summary = "GPTQ on the grids of llama.cpp's Q2_K to Q6_K (-b 2..6), for --format gguf",
    .needs = "hessian",
    .prepare = kquant_prepare,
    .release = kquant_release,
    .run = kquant_run,
};
