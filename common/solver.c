/* SPDX-License-Identifier: Apache-2.0
 * The column solver (solver.h): factorisation of the Hessian here, the column loop in solver_real.h. BLAS
 * is called with one thread on tiles of fixed size inside an OpenMP loop over output rows, so results do
 * not depend on threads. */
#include "common/solver.h"
#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/grid.h"
#include "common/mem.h"
#include "common/triangle.h"

#define DAMP_LIMIT 1e3

#if defined __x86_64__ && !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

/* Where the lazy update after column a happens: at a group's end when groups are long, after whole groups
 * when they are short, so that a group's scales always see fully updated weights. */
static int solver_block_end(int a, int in, int group, int block)
{
    int end;
    if (group <= block) {
        end = a + block / group * group;
    } else {
        int next = a - a % group + group;
        end = a + block < next ? a + block : next;
    }
    return end < in ? end : in;
}

#define REAL float
#define R(name) name##_f32
#define FACTOR U
#define GEMM cblas_sgemm
#include "common/solver_real.h"
#undef REAL
#undef R
#undef FACTOR
#undef GEMM

#define REAL double
#define R(name) name##_f64
#define FACTOR U64
#define GEMM cblas_dgemm
#include "common/solver_real.h"

/* ---- the factor ---- */

struct by_diag {
    double block, d; /* sum of its block, 0 without blocks */
    int i;
};

static int larger_first(const void *a, const void *b)
{
    const struct by_diag *x = a, *y = b;
    if (x->block != y->block) return x->block < y->block ? 1 : -1;
    return x->d != y->d ? (x->d < y->d ? 1 : -1) : (x->i > y->i) - (x->i < y->i);
}

/* Marks dead columns, returns the mean of the live diagonal (0 when nothing is live), -1 on error. */
static double scan_diagonal(struct solver_factor *f, const float *H, struct err *e)
{
    double sum = 0;
    int n = f->n;
    if (f32_first_nonfinite(H, (size_t)n * n) < (size_t)n * n)
        return err_set(e, NT_EXIT_DATA, "Hessian is not finite");
    for (int i = 0; i < n; i++) {
        float d = H[(size_t)i * n + i];
        if (d < 0) return err_set(e, NT_EXIT_DATA, "Hessian has a negative diagonal at column %d", i);
        f->dead[i] = d == 0;
        f->n_dead += f->dead[i];
        sum += d;
    }
    if (f->n_dead == n)
        return err_set(e, NT_EXIT_DATA, "Hessian is all zero: no input ever reached this linear");
    return sum / (n - f->n_dead);
}

/* Blocks of equal sums would mix: each is made a little less than the one before. */
static void sum_blocks(struct by_diag *v, int n, int block)
{
    for (int a = 0, b; a < n; a = b) {
        double sum = 0;
        b = a + block < n ? a + block : n;
        for (int i = a; i < b; i++) sum += v[i].d;
        for (int i = a; i < b; i++) v[i].block = sum * (1 - 1e-9 * a / n);
    }
}

static void order_columns(struct solver_factor *f, const float *H, double mean, const struct quant_opts *o)
{
    struct by_diag *v = MEM_NEW(struct by_diag, (size_t)f->n);
    for (int i = 0; i < f->n; i++) {
        v[i].d = f->dead[i] ? mean : H[(size_t)i * f->n + i];
        v[i].i = i;
    }
    if (o->act_order && o->order_block) sum_blocks(v, f->n, o->order_block);
    if (o->act_order) qsort(v, (size_t)f->n, sizeof *v, larger_first);
    for (int i = 0; i < f->n; i++) f->order[i] = v[i].i;
    mem_free(v);
}

/* A = damped H in reversed processing order: the ordinary Cholesky factor of the reversed matrix is the
 * factor from the last column to the first. */
static void load_tile(const struct solver_factor *f, const float *H, double mean, double *A, int row, int col)
{
    int n = f->n, i0 = row * TRIANGLE_TILE, j0 = col * TRIANGLE_TILE;
    double *t = triangle_tile(A, n, row, col);
    memset(t, 0, sizeof *t * TRIANGLE_TILE * TRIANGLE_TILE);
    for (int j = j0; j < n && j < j0 + TRIANGLE_TILE; j++) {
        int cj = f->order[n - 1 - j];
        for (int i = i0 > j ? i0 : j; i < n && i < i0 + TRIANGLE_TILE; i++) {
            int ci = f->order[n - 1 - i];
            double h = i == j && f->dead[ci] ? mean : (double)H[(size_t)cj * n + ci];
            t[(size_t)(j - j0) * TRIANGLE_TILE + (i - i0)] = i == j                       ? h + f->damp * mean
                                                             : f->dead[ci] || f->dead[cj] ? 0
                                                                                          : h;
        }
    }
}

static void load_reversed(const struct solver_factor *f, const float *H, double mean, double *A)
{
    int tiles = triangle_tiles(f->n);
#pragma omp parallel for schedule(dynamic)
    for (int p = 0; p < tiles * tiles; p++)
        if (p / tiles >= p % tiles) load_tile(f, H, mean, A, p / tiles, p % tiles);
}

/* U[a][b] = inverse(L)[n-1-a][n-1-b] for b >= a, 0 elsewhere. Returns the number of values that are not
 * finite. */
static int store_tile(struct solver_factor *f, double *A, int row, int col)
{
    int n = f->n, i0 = row * TRIANGLE_TILE, j0 = col * TRIANGLE_TILE, bad = 0;
    const double *t = triangle_tile(A, n, row, col);
    for (int i = i0; i < n && i < i0 + TRIANGLE_TILE; i++)
        for (int j = j0; j <= i && j < j0 + TRIANGLE_TILE; j++) {
            size_t to = (size_t)(n - 1 - i) * n + (size_t)(n - 1 - j);
            double u = t[(size_t)(j - j0) * TRIANGLE_TILE + (i - i0)];
            bad += !isfinite(u);
            if (f->U64)
                f->U64[to] = u;
            else
                f->U[to] = (float)u;
        }
    return bad;
}

static int store_inverse(struct solver_factor *f, bool f64, double *A)
{
    int tiles = triangle_tiles(f->n), bad = 0;
    size_t square = (size_t)f->n * f->n;
    if (f64 && !f->U64) f->U64 = MEM_NEW(double, square);
    if (!f64 && !f->U) f->U = MEM_NEW(float, square);
#pragma omp parallel for schedule(dynamic) reduction(+ : bad)
    for (int p = 0; p < tiles * tiles; p++)
        if (p / tiles >= p % tiles) bad += store_tile(f, A, p / tiles, p % tiles);
    return bad > 0;
}

static int factor_once(struct solver_factor *f, const float *H, double mean, bool f64, double *A)
{
    load_reversed(f, H, mean, A);
    if (triangle_factor(A, f->n)) return 1;
    triangle_invert(A, f->n);
    return store_inverse(f, f64, A);
}

struct solver_factor *solver_factor_alloc(const float *H, int n, const struct quant_opts *o, json_t *info,
                                          struct err *e)
{
    struct solver_factor *f = MEM_NEW(struct solver_factor, 1);
    double *A = NULL;
    f->n = n;
    f->order = MEM_NEW(int, (size_t)n);
    f->dead = MEM_NEW(bool, (size_t)n);
    double mean = scan_diagonal(f, H, e);
    if (!(mean > 0)) goto fail;
    order_columns(f, H, mean, o);
    A = MEM_NEW(double, triangle_doubles(n));
    openblas_set_num_threads(1);
    int raised = 0;
    f->damp = o->damp;
    while (factor_once(f, H, mean, o->true_f64, A)) {
        f->damp = f->damp > 0 ? f->damp * 10 : 1e-6;
        raised++;
        if (f->damp > DAMP_LIMIT) {
            err_set(e, NT_EXIT_DATA, "Hessian cannot be factored even with damping %g", f->damp);
            goto fail;
        }
    }
    mem_free(A);
    if (info && raised) json_object_set_new(info, "damp_raised_to", json_real(f->damp));
    if (info && f->n_dead) json_object_set_new(info, "dead_columns", json_integer(f->n_dead));
    return f;
fail:
    mem_free(A);
    solver_factor_free(f);
    return NULL;
}

struct solver_factor *solver_factor_none(int n)
{
    struct solver_factor *f = MEM_NEW(struct solver_factor, 1);
    f->n = n;
    f->order = MEM_NEW(int, (size_t)n);
    f->dead = MEM_NEW(bool, (size_t)n);
    for (int i = 0; i < n; i++) f->order[i] = i;
    return f;
}

void solver_factor_free(struct solver_factor *f)
{
    if (!f) return;
    mem_free(f->order);
    mem_free(f->dead);
    mem_free(f->U);
    mem_free(f->U64);
    mem_free(f);
}

/* ---- the rows ---- */

/* Returns the number of scales that do not fit; *objective is summed in tile order. */
static int solve_all(const struct solver_factor *f, const float *W, int out, const struct quant_opts *o,
                     struct qtensor *q, double *objective)
{
    int tiles = (out + GRID_LANES - 1) / GRID_LANES, lost = 0;
    double *obj = MEM_NEW(double, (size_t)tiles);
#pragma omp parallel for schedule(dynamic) reduction(+ : lost)
    for (int t = 0; t < tiles; t++) {
        int r0 = t * GRID_LANES, rows = out - r0 < GRID_LANES ? out - r0 : GRID_LANES;
        lost += o->true_f64 ? solve_rows_f64(f, W, r0, rows, o, q, &obj[t])
                            : solve_rows_f32(f, W, r0, rows, o, q, &obj[t]);
    }
    *objective = 0;
    for (int t = 0; t < tiles; t++) *objective += obj[t];
    mem_free(obj);
    return lost;
}

int solver_run(const struct solver_factor *f, const float *W, int out, const struct quant_opts *o,
               struct qtensor *q, double *objective, struct err *e)
{
    qtensor_init_uniform(q, out, f->n, o->bits, o->group, o->sym, o->scale_dtype);
    int lost = solve_all(f, W, out, o, q, objective);
    if (lost && o->scale_dtype != DT_F32) {
        if (q->info) json_object_set_new(q->info, "scale_dtype_raised", json_string("F32"));
        q->scale_dtype = DT_F32;
        lost = solve_all(f, W, out, o, q, objective);
    }
    if (lost) return err_set(e, NT_EXIT_DATA, "weights are too large for F32 scales");
    if (!isfinite(*objective))
        return err_set(e, NT_EXIT_DATA, "the error of a column is not finite (Hessian ill-conditioned?)");
    return 0;
}
