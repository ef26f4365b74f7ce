/* SPDX-License-Identifier: Apache-2.0
 * The column solver on one tile of GRID_LANES output rows in one precision: included by solver.c with
 * REAL, R(name), FACTOR (the member of solver_factor) and GEMM (cblas_?gemm) defined. Rows do not depend
 * on each other. */

struct R(tile) {
    REAL *x;            /* [in, LANES] weights in processing order, updated as errors arrive */
    REAL *e;            /* [block, LANES] errors of the block's columns, divided by U_jj */
    REAL *scale, *zero; /* [n_groups, LANES] */
    uint8_t *code;      /* [in, LANES] by original column */
};

static void R(tile_init)(struct R(tile) * t, int in, int block, int n_groups)
{
    t->x = MEM_NEW(REAL, (size_t)in * GRID_LANES);
    t->e = MEM_NEW(REAL, (size_t)block * GRID_LANES);
    t->scale = MEM_NEW(REAL, (size_t)n_groups * GRID_LANES);
    t->zero = MEM_NEW(REAL, (size_t)n_groups * GRID_LANES);
    t->code = MEM_NEW(uint8_t, (size_t)in * GRID_LANES);
}

static void R(tile_clear)(struct R(tile) * t)
{
    mem_free(t->x);
    mem_free(t->e);
    mem_free(t->scale);
    mem_free(t->zero);
    mem_free(t->code);
}

/* x[i] = column order[i] (NULL: i) of rows r0 .. r0+rows; dead columns and missing rows are 0. */
static void R(tile_load)(REAL *x, const float *W, int in, int r0, int rows, const int *order,
                         const bool *dead)
{
    for (int i = 0; i < in; i++) {
        int c = order ? order[i] : i;
        REAL *to = x + (size_t)i * GRID_LANES;
        for (int r = 0; r < GRID_LANES; r++)
            to[r] = r < rows && !(dead && dead[c]) ? (REAL)W[(size_t)(r0 + r) * in + c] : 0;
    }
}

/* x[k] -= u[k] e for the n columns after the one that made e. */
CLONES static void R(spread)(REAL *x, const REAL *e, const REAL *u, int n)
{
    for (int k = 0; k < n; k++) {
        REAL f = u[k], *to = x + (size_t)k * GRID_LANES;
        for (int r = 0; r < GRID_LANES; r++) to[r] -= f * e[r];
    }
}

/* Columns in processing order, in blocks: inside a block errors move at once, behind it in one product per
 * block. Adds up e^2, returns the number of scales that do not fit. */
static int R(tile_solve)(const struct solver_factor *f, const struct quant_opts *o, const struct grid_opts *g,
                         int rows, struct R(tile) * t, double *objective)
{
    int in = f->n, group = o->group > 0 && o->group < in ? o->group : in, lost = 0;
    bool fixed = o->static_groups || o->act_order;

    for (int a = 0, b; a < in; a = b) {
        b = solver_block_end(a, in, group, o->block);
        for (int j = a; j < b; j++) {
            int c = f->order[j], gi = c / group;
            const REAL *u = f->FACTOR ? f->FACTOR + (size_t)j * in : NULL;
            REAL *w = t->x + (size_t)j * GRID_LANES, *e = t->e + (size_t)(j - a) * GRID_LANES;
            REAL *scale = t->scale + (size_t)gi * GRID_LANES, *zero = t->zero + (size_t)gi * GRID_LANES;
            REAL value[GRID_LANES];
            if (!fixed && j % group == 0)
                lost += R(grid_find)(g, w, in - j < group ? in - j : group, rows, scale, zero);
            R(grid_code)(o->bits, w, scale, zero, t->code + (size_t)c * GRID_LANES, value);
            for (int r = 0; r < GRID_LANES; r++) e[r] = (w[r] - value[r]) / (u ? u[j] : 1);
            for (int r = 0; r < rows; r++) *objective += (double)e[r] * (double)e[r];
            if (u) R(spread)(w + GRID_LANES, e, u + j + 1, b - j - 1);
        }
        if (b < in && f->FACTOR)
            GEMM(CblasRowMajor, CblasTrans, CblasNoTrans, in - b, GRID_LANES, b - a, -1,
                 f->FACTOR + (size_t)a * in + b, in, t->e, GRID_LANES, 1, t->x + (size_t)b * GRID_LANES,
                 GRID_LANES);
    }
    return lost;
}

/* Scales of all groups from the weights as they are, in original column order. */
static int R(tile_static)(const struct solver_factor *f, const struct grid_opts *g, const float *W, int r0,
                          int rows, int group, struct R(tile) * t)
{
    int lost = 0, in = f->n;
    R(tile_load)(t->x, W, in, r0, rows, NULL, f->dead);
    for (int a = 0, k = 0; a < in; a += group, k++)
        lost += R(grid_find)(g, t->x + (size_t)a * GRID_LANES, in - a < group ? in - a : group, rows,
                             t->scale + (size_t)k * GRID_LANES, t->zero + (size_t)k * GRID_LANES);
    return lost;
}

/* One tile of rows. Returns the number of scales that do not fit their type. */
static int R(solve_rows)(const struct solver_factor *f, const float *W, int r0, int rows,
                         const struct quant_opts *o, struct qtensor *q, double *objective)
{
    struct R(tile) t;
    struct grid_opts g = {o->bits, o->sym, o->clip_mse, q->scale_dtype};
    int in = f->n, group = o->group > 0 && o->group < in ? o->group : in, lost = 0;

    R(tile_init)(&t, in, o->block, q->n_groups);
    *objective = 0;
    if (o->static_groups || o->act_order) lost = R(tile_static)(f, &g, W, r0, rows, group, &t);
    if (!lost) {
        R(tile_load)(t.x, W, in, r0, rows, f->order, f->dead);
        lost = R(tile_solve)(f, o, &g, rows, &t, objective);
    }
    for (int r = 0; r < rows; r++) {
        size_t row = (size_t)(r0 + r);
        for (int i = 0; i < in; i++) q->codes[row * in + i] = t.code[(size_t)i * GRID_LANES + r];
        for (int k = 0; k < q->n_groups; k++) {
            q->scale[row * q->n_groups + k] = (float)t.scale[(size_t)k * GRID_LANES + r];
            if (q->zero) q->zero[row * q->n_groups + k] = (uint8_t)t.zero[(size_t)k * GRID_LANES + r];
        }
    }
    R(tile_clear)(&t);
    return lost;
}
