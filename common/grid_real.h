/* SPDX-License-Identifier: Apache-2.0
 * The grid in one precision: included by grid.c with REAL, R(name), MAGIC (adding and subtracting it
 * rounds to the nearest integer, halves to even, which vectorises on every CPU) and POW24 defined. */

static inline __attribute__((always_inline)) REAL R(round)(REAL x)
{
    return (x + MAGIC) - MAGIC;
}

/* Clamping before rounding is the same as after it, the bounds being integers, and keeps MAGIC exact. */
static inline __attribute__((always_inline)) REAL R(level)(REAL w, REAL scale, REAL zero, REAL top)
{
    REAL t = w / scale, lo = -zero, hi = top - zero;
    t = t > lo ? t : lo;
    t = t < hi ? t : hi;
    return R(round)(t);
}

CLONES void R(grid_code)(int bits, const REAL *w, const REAL *scale, const REAL *zero, uint8_t *code,
                         REAL *value)
{
    REAL top = (REAL)((1 << bits) - 1);
    for (int r = 0; r < GRID_LANES; r++) {
        REAL l = R(level)(w[r], scale[r], zero[r], top);
        value[r] = scale[r] * l;
        code[r] = (uint8_t)(int)(l + zero[r]);
    }
}

/* lo <= 0 <= hi of each lane. */
CLONES static void R(range)(const REAL *x, int len, REAL *lo, REAL *hi)
{
    for (int r = 0; r < GRID_LANES; r++) lo[r] = hi[r] = 0;
    for (int i = 0; i < len; i++) {
        const REAL *c = x + (size_t)i * GRID_LANES;
        for (int r = 0; r < GRID_LANES; r++) {
            lo[r] = c[r] < lo[r] ? c[r] : lo[r];
            hi[r] = c[r] > hi[r] ? c[r] : hi[r];
        }
    }
}

/* Returns how many of `rows` lanes lose their scale to the storage type. */
static int R(params)(const struct grid_opts *g, int rows, REAL p, const REAL *lo, const REAL *hi, REAL *scale,
                     REAL *zero)
{
    REAL top = (REAL)((1 << g->bits) - 1);
    int lost = 0;
    for (int r = 0; r < GRID_LANES; r++) {
        REAL a = -lo[r] > hi[r] ? -lo[r] : hi[r];
        REAL exact = g->sym ? 2 * (p * a) / top : (p * hi[r] - p * lo[r]) / top;
        if (exact < (REAL)1e-35) { /* nothing that any of the types could tell from zero */
            scale[r] = 1;
            zero[r] = g->sym ? (REAL)(1 << (g->bits - 1)) : 0;
            continue;
        }
        REAL s = grid_round_scale((float)exact, g->scale_dtype);
        REAL off = s > exact ? s - exact : exact - s;
        if (!(off <= exact / 256)) {
            if (r < rows) lost++;
            s = s > 0 && s <= (REAL)65504 ? s : 1;
        }
        scale[r] = s;
        zero[r] = (REAL)(1 << (g->bits - 1));
        if (!g->sym) {
            REAL z = R(round)(-(p * lo[r]) / s < top ? -(p * lo[r]) / s : top);
            zero[r] = z;
        }
    }
    return lost;
}

CLONES static void R(clip_error)(int bits, const REAL *restrict x, int len, const REAL *restrict scale,
                                 const REAL *restrict zero, double *restrict error)
{
    REAL top = (REAL)((1 << bits) - 1), power[GRID_LANES];
    for (int r = 0; r < GRID_LANES; r++) error[r] = 0;
    for (int i = 0; i < len; i++) {
        const REAL *c = x + (size_t)i * GRID_LANES;
        for (int r = 0; r < GRID_LANES; r++) {
            REAL d = scale[r] * R(level)(c[r], scale[r], zero[r], top) - c[r];
            power[r] = POW24(d);
        }
        for (int r = 0; r < GRID_LANES; r++) error[r] += power[r];
    }
}

int R(grid_find)(const struct grid_opts *g, const REAL *x, int len, int rows, REAL *scale, REAL *zero)
{
    REAL lo[GRID_LANES], hi[GRID_LANES], s[GRID_LANES], z[GRID_LANES];
    double best[GRID_LANES], error[GRID_LANES];

    R(range)(x, len, lo, hi);
    int lost = R(params)(g, rows, 1, lo, hi, scale, zero);
    if (!g->clip_mse || lost) return lost;
    R(clip_error)(g->bits, x, len, scale, zero, best);
    for (int i = 1; i < GRID_CLIP_STEPS; i++) {
        REAL p = 1 - (REAL)i / GRID_CLIP_DIVISOR;
        lost += R(params)(g, rows, p, lo, hi, s, z);
        if (lost) return lost;
        R(clip_error)(g->bits, x, len, s, z, error);
        for (int r = 0; r < GRID_LANES; r++) {
            if (error[r] >= best[r]) continue;
            best[r] = error[r];
            scale[r] = s[r];
            zero[r] = z[r];
        }
    }
    return 0;
}
