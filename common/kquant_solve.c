/* SPDX-License-Identifier: Apache-2.0
 * The column loop of kquant_solve.h, on tiles of GRID_LANES rows side by side: x[step * GRID_LANES + row] in
 * processing order. Rows do not depend on each other, tiles are of fixed size: threads change nothing. */
#include "common/kquant_solve.h"
#include <cblas.h>
#include <math.h>
#include <string.h>
#include "common/ggml_kquant.h"
#include "common/grid.h"
#include "common/mem.h"

enum { LAZY = 128 }; /* columns per product, where blocks are shorter */

struct job {
    const struct kquant_type *k;
    const struct solver_factor *f; /* NULL: rounding */
    const float *importance, *W;
    const int *place; /* where each column stands in the factor's order; NULL: in its own place */
    int in;
    bool fixed; /* scales are those of W */
    uint8_t *bytes;
};

struct tile {
    int r0, rows;
    float *x, *e;             /* [in, LANES], [columns per product, LANES] */
    float *step, *offset;     /* [sub-blocks of a row, LANES] */
    struct kquant_grid *grid; /* [LANES, blocks of a row] */
    uint8_t *code;            /* [LANES, in] */
};

static void tile_init(struct tile *t, const struct job *j, int r0, int rows)
{
    size_t in = (size_t)j->in, subs = in / (size_t)j->k->sub;
    t->r0 = r0, t->rows = rows;
    t->x = MEM_NEW(float, in *GRID_LANES);
    t->e = MEM_NEW(float, (size_t)KQUANT_BLOCK *GRID_LANES);
    t->step = MEM_NEW(float, subs *GRID_LANES);
    t->offset = MEM_NEW(float, subs *GRID_LANES);
    t->grid = MEM_NEW(struct kquant_grid, in / (size_t)j->k->block * GRID_LANES);
    t->code = MEM_NEW(uint8_t, in * GRID_LANES);
    for (int i = 0; i < j->in; i++) {
        int c = j->f ? j->f->order[i] : i;
        for (int r = 0; r < rows; r++)
            if (!j->f || !j->f->dead[c])
                t->x[(size_t)i * GRID_LANES + (size_t)r] = j->W[(size_t)(r0 + r) * in + (size_t)c];
    }
}

static void tile_clear(struct tile *t)
{
    mem_free(t->x), mem_free(t->e);
    mem_free(t->step), mem_free(t->offset);
    mem_free(t->grid), mem_free(t->code);
}

/* The grids of block b of all rows, for the columns as they are. */
static void fit_block(const struct job *j, struct tile *t, int b)
{
    const struct kquant_type *k = j->k;
    int first = b * k->block, blocks = j->in / k->block;
    float w[KQUANT_BLOCK];
    for (int r = 0; r < t->rows; r++) {
        struct kquant_grid *g = &t->grid[(size_t)r * (size_t)blocks + (size_t)b];
        for (int i = 0; i < k->block; i++)
            w[i] = t->x[(size_t)(j->place ? j->place[first + i] : first + i) * GRID_LANES + (size_t)r];
        kquant_fit(k, w, j->importance + first, g);
        for (int s = 0; s < k->block / k->sub; s++) {
            size_t at = (size_t)(first / k->sub + s) * GRID_LANES + (size_t)r;
            kquant_line(k, g, s, &t->step[at], &t->offset[at]);
        }
    }
}

/* Codes of column c, whose weights are w; e receives the errors over u. */
static void round_column(const struct job *j, struct tile *t, int c, const float *w, float u, float *e)
{
    const float *step = t->step + (size_t)(c / j->k->sub) * GRID_LANES,
                *offset = t->offset + (size_t)(c / j->k->sub) * GRID_LANES;
    for (int r = 0; r < t->rows; r++) {
        int code = kquant_code(j->k, step[r], offset[r], w[r]);
        t->code[(size_t)r * (size_t)j->in + (size_t)c] = (uint8_t)code;
        e[r] = (w[r] - (step[r] * (float)code + offset[r])) / u;
    }
}

/* x[k] -= u[k] e for the n columns that follow. */
static void spread(float *x, const float *e, const float *u, int n)
{
    for (int k = 0; k < n; k++)
        for (int r = 0; r < GRID_LANES; r++) x[(size_t)k * GRID_LANES + (size_t)r] -= u[k] * e[r];
}

static void solve_columns(const struct job *j, struct tile *t)
{
    int in = j->in, lazy = j->k->block > LAZY ? j->k->block : LAZY;
    for (int a = 0, b; a < in; a = b) {
        b = a + lazy < in ? a + lazy : in;
        for (int i = a; i < b; i++) {
            float *x = t->x + (size_t)i * GRID_LANES, *e = t->e + (size_t)(i - a) * GRID_LANES;
            const float *u = j->f->U + (size_t)i * (size_t)in + (size_t)i;
            if (!j->fixed && i % j->k->block == 0) fit_block(j, t, j->f->order[i] / j->k->block);
            round_column(j, t, j->f->order[i], x, *u, e);
            spread(x + GRID_LANES, e, u + 1, b - i - 1);
        }
        if (b < in)
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, in - b, GRID_LANES, b - a, -1,
                        j->f->U + (size_t)a * (size_t)in + (size_t)b, in, t->e, GRID_LANES, 1,
                        t->x + (size_t)b * GRID_LANES, GRID_LANES);
    }
}

static void round_columns(const struct job *j, struct tile *t)
{
    for (int i = 0; i < j->in; i++) round_column(j, t, i, t->x + (size_t)i * GRID_LANES, 1, t->e);
}

static void pack_rows(const struct job *j, const struct tile *t)
{
    size_t block = (size_t)j->k->block, blocks = (size_t)j->in / block,
           bytes = (size_t)dtype_block_bytes(j->k->t);
    for (size_t r = 0; r < (size_t)t->rows; r++)
        for (size_t b = 0; b < blocks; b++)
            kquant_pack(j->k, &t->grid[r * blocks + b], t->code + r * (size_t)j->in + b * block,
                        j->bytes + (((size_t)t->r0 + r) * blocks + b) * bytes);
}

int kquant_block(int in)
{
    return kquant_type_of(2, in) ? kquant_type_of(2, in)->block : 0;
}

int kquant_solve(const struct solver_factor *f, const float *importance, const float *W, int out, int in,
                 const struct quant_opts *o, struct qtensor *q, struct err *e)
{
    struct job j = {.k = kquant_type_of(o->bits, in),
                    .f = f,
                    .importance = importance,
                    .W = W,
                    .in = in,
                    .fixed = !f || o->static_groups};
    if (o->bits < 2 || o->bits > 6)
        return err_set(e, NT_EXIT_USAGE, "K types have -b 2, 3, 4, 5 or 6, not %d", o->bits);
    if (!j.k)
        return err_set(e, NT_EXIT_DATA, "rows of %d columns fit no block type of GGUF (a multiple of 32)",
                       in);
    q->form = QF_PLAIN, q->out = out, q->in = in;
    q->plain = (struct tensor){.dtype = j.k->t, .rank = 2, .shape = {(uint64_t)out, (uint64_t)in}};
    if (tensor_nbytes(j.k->t, 2, q->plain.shape, &q->plain.nbytes, e) < 0) return -1;
    j.bytes = q->plain.data = mem_array(q->plain.nbytes, 1);
    int *place = f ? MEM_NEW(int, (size_t)in) : NULL;
    for (int i = 0; f && i < in; i++) place[f->order[i]] = i;
    j.place = place;
    openblas_set_num_threads(1);
#pragma omp parallel for schedule(dynamic)
    for (int r = 0; r < out; r += GRID_LANES) {
        struct tile t;
        tile_init(&t, &j, r, out - r < GRID_LANES ? out - r : GRID_LANES);
        for (int b = 0; j.fixed && b < in / j.k->block; b++) fit_block(&j, &t, b);
        f ? solve_columns(&j, &t) : round_columns(&j, &t);
        pack_rows(&j, &t);
        tile_clear(&t);
    }
    mem_free(place);
    if (q->info) json_object_set_new(q->info, "type", json_string(dtype_name(j.k->t)));
    return 0;
}
