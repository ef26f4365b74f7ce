/* SPDX-License-Identifier: Apache-2.0
 * The block loop of kquant_solve.h, on tiles of GRID_LANES rows side by side: x[step * GRID_LANES + row] in
 * processing order. A block is rounded with scales for its weights as they are; then scales are searched
 * again for its weights as they were when each was rounded, all errors within the block included, and a row
 * keeps what has the smaller error. Rows do not depend on each other, tiles are of fixed size: threads change
 * nothing. */
#include "common/kquant_solve.h"
#include <cblas.h>
#include <string.h>
#include "common/ggml_kquant.h"
#include "common/grid.h"
#include "common/mem.h"

struct job {
    const struct kquant_type *k;
    const struct solver_factor *f; /* NULL: rounding */
    const float *importance, *W;
    int in;
    bool fixed; /* scales are those of W */
    uint8_t *bytes;
};

/* One way to round a block of all rows; columns in processing order. */
struct trial {
    float x[KQUANT_BLOCK * GRID_LANES]; /* the weights, each as it was when it was rounded */
    float e[KQUANT_BLOCK * GRID_LANES]; /* errors over U_jj */
    float step[KQUANT_SUBS * GRID_LANES], offset[KQUANT_SUBS * GRID_LANES];
    uint8_t code[KQUANT_BLOCK * GRID_LANES];
    struct kquant_grid grid[GRID_LANES];
    double error[GRID_LANES]; /* the sum of e^2 */
};

struct tile {
    int r0, rows;
    float *x; /* [in, LANES] */
    struct trial *best, *other;
};

static int column_of(const struct job *j, int i)
{
    return j->f ? j->f->order[i] : i;
}

static void tile_init(struct tile *t, const struct job *j, int r0, int rows)
{
    size_t in = (size_t)j->in;
    *t = (struct tile){.r0 = r0, .rows = rows};
    t->x = MEM_NEW(float, in *GRID_LANES);
    t->best = MEM_NEW(struct trial, 1);
    t->other = MEM_NEW(struct trial, 1);
    for (int i = 0; i < j->in; i++) {
        int c = column_of(j, i);
        for (int r = 0; r < rows; r++)
            if (!j->f || !j->f->dead[c])
                t->x[(size_t)i * GRID_LANES + (size_t)r] = j->W[(size_t)(r0 + r) * in + (size_t)c];
    }
}

static void tile_clear(struct tile *t)
{
    mem_free(t->x);
    mem_free(t->best);
    mem_free(t->other);
}

/* Grids of the block at step a for x[block, LANES], or for W. */
static void fit_block(const struct job *j, const struct tile *t, int a, const float *x, struct trial *to)
{
    const struct kquant_type *k = j->k;
    int first = column_of(j, a) / k->block * k->block;
    float w[KQUANT_BLOCK];
    for (int r = 0; r < t->rows; r++) {
        for (int i = 0; i < k->block; i++) {
            int c = column_of(j, a + i);
            w[c - first] = !j->fixed               ? x[i * GRID_LANES + r]
                           : j->f && j->f->dead[c] ? 0
                                                   : j->W[(size_t)(t->r0 + r) * (size_t)j->in + (size_t)c];
        }
        kquant_fit(k, w, j->importance + first, &to->grid[r]);
        for (int s = 0; s < k->block / k->sub; s++)
            kquant_line(k, &to->grid[r], s, &to->step[s * GRID_LANES + r], &to->offset[s * GRID_LANES + r]);
    }
}

/* Rounds the block at step a on the grids of `to`; within it columns to come make up for errors. */
static void round_block(const struct job *j, const struct tile *t, int a, struct trial *to)
{
    int n = j->k->block;
    memcpy(to->x, t->x + (size_t)a * GRID_LANES, (size_t)n * GRID_LANES * sizeof *to->x);
    memset(to->error, 0, sizeof to->error);
    for (int i = 0; i < n; i++) {
        int s = column_of(j, a + i) % n / j->k->sub * GRID_LANES;
        const float *u = j->f ? j->f->U + (size_t)(a + i) * (size_t)j->in + (size_t)(a + i) : NULL;
        float *x = to->x + i * GRID_LANES, *e = to->e + i * GRID_LANES;
        for (int r = 0; r < t->rows; r++) {
            int code = kquant_code(j->k, to->step[s + r], to->offset[s + r], x[r]);
            to->code[i * GRID_LANES + r] = (uint8_t)code;
            e[r] = (x[r] - (to->step[s + r] * (float)code + to->offset[s + r])) / (u ? *u : 1);
            to->error[r] += (double)e[r] * (double)e[r];
        }
        for (int m = 1; u && m < n - i; m++)
            for (int r = 0; r < GRID_LANES; r++) x[m * GRID_LANES + r] -= u[m] * e[r];
    }
}

/* The rows of `other` that are better. */
static void keep_better(const struct job *j, struct tile *t)
{
    struct trial *b = t->best, *o = t->other;
    for (int r = 0; r < t->rows; r++) {
        if (!(o->error[r] < b->error[r])) continue;
        b->error[r] = o->error[r], b->grid[r] = o->grid[r];
        for (int i = r; i < j->k->block * GRID_LANES; i += GRID_LANES)
            b->x[i] = o->x[i], b->e[i] = o->e[i], b->code[i] = o->code[i];
    }
}

static void pack_block(const struct job *j, const struct tile *t, int a)
{
    int n = j->k->block, first = column_of(j, a) / n * n;
    size_t bytes = (size_t)dtype_block_bytes(j->k->t), row = (size_t)(j->in / n) * bytes;
    uint8_t codes[KQUANT_BLOCK];
    for (int r = 0; r < t->rows; r++) {
        for (int i = 0; i < n; i++) codes[column_of(j, a + i) - first] = t->best->code[i * GRID_LANES + r];
        kquant_pack(j->k, &t->best->grid[r], codes,
                    j->bytes + (size_t)(t->r0 + r) * row + (size_t)(first / n) * bytes);
    }
}

static void solve_tile(const struct job *j, struct tile *t)
{
    int in = j->in, n = j->k->block;
    for (int a = 0, b; a < in; a = b) {
        b = a + n;
        fit_block(j, t, a, t->x + (size_t)a * GRID_LANES, t->best);
        round_block(j, t, a, t->best);
        if (j->f && !j->fixed) {
            fit_block(j, t, a, t->best->x, t->other);
            round_block(j, t, a, t->other);
            keep_better(j, t);
        }
        pack_block(j, t, a);
        if (j->f && b < in)
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, in - b, GRID_LANES, n, -1,
                        j->f->U + (size_t)a * (size_t)in + (size_t)b, in, t->best->e, GRID_LANES, 1,
                        t->x + (size_t)b * GRID_LANES, GRID_LANES);
    }
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
                    .fixed = o->static_groups};
    if (o->bits < 2 || o->bits > 6)
        return err_set(e, NT_EXIT_USAGE, "K types have -b 2, 3, 4, 5 or 6, not %d", o->bits);
    if (!j.k)
        return err_set(e, NT_EXIT_DATA, "rows of %d columns fit no block type of GGUF (a multiple of 32)",
                       in);
    q->form = QF_PLAIN, q->out = out, q->in = in;
    q->plain = (struct tensor){.dtype = j.k->t, .rank = 2, .shape = {(uint64_t)out, (uint64_t)in}};
    if (tensor_nbytes(j.k->t, 2, q->plain.shape, &q->plain.nbytes, e) < 0) return -1;
    j.bytes = q->plain.data = mem_array(q->plain.nbytes, 1);
    openblas_set_num_threads(1);
#pragma omp parallel for schedule(dynamic)
    for (int r = 0; r < out; r += GRID_LANES) {
        struct tile t;
        tile_init(&t, &j, r, out - r < GRID_LANES ? out - r : GRID_LANES);
        solve_tile(&j, &t);
        tile_clear(&t);
    }
    if (q->info) json_object_set_new(q->info, "type", json_string(dtype_name(j.k->t)));
    return 0;
}
