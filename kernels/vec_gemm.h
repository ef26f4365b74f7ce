/* SPDX-License-Identifier: Apache-2.0
 * Part of vec_ops.h: the inner product of our own gemm. Rows of A lie transposed in panels [K, PANEL]; B is
 * read where it lies, one number spread over a vector at a time, so only one of the two is packed. */
enum { LANES = VEC_BYTES / 4, PANEL = 2 * LANES };
typedef float vf __attribute__((vector_size(VEC_BYTES)));
typedef float vf_loose
    __attribute__((vector_size(VEC_BYTES), aligned(4), may_alias)); /* anywhere in an array */
typedef int32_t vi __attribute__((vector_size(VEC_BYTES)));
#define LOAD(p) (*(const vf_loose *)(p))
#define STORE(p, v) (*(vf_loose *)(p) = (v))
#define SPREAD(x) ((x) - (vf){0}) /* x - 0 is x: no addition is left */
#define INLINE static inline __attribute__((always_inline))

/* Transposes LANES vectors: each step interleaves vector i with vector i + LANES/2. */
INLINE void transpose(vf *r)
{
    vi low;
    for (int i = 0; i < LANES; i++) low[i] = i / 2 + i % 2 * LANES;
#pragma GCC unroll 4
    for (int step = 1; step < LANES; step *= 2) {
        vf n[LANES];
#pragma GCC unroll 8
        for (int i = 0; i < LANES / 2; i++) {
            n[2 * i] = __builtin_shuffle(r[i], r[i + LANES / 2], low);
            n[2 * i + 1] = __builtin_shuffle(r[i], r[i + LANES / 2], low + LANES / 2);
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) r[i] = n[i];
    }
}

/* acc[j] = sum_k xt[k] w[j wj + k wk] for `cols` columns, PANEL rows each. cols is constant where this is
 * inlined, so that the sums stay in registers. `ahead`: the next packed strip is asked for; of rows (wk 1)
 * the machine sees to that itself. */
INLINE void panel_sums(vf acc[][2], const float *xt, const float *w, size_t wj, size_t wk, int K, int cols,
                       bool ahead)
{
#pragma GCC unroll 12
    for (int j = 0; j < cols; j++) acc[j][0] = acc[j][1] = SPREAD(0.0f);
    for (int k = 0; k < K; k++, xt += PANEL) {
        vf x0 = LOAD(xt), x1 = LOAD(xt + LANES);
        if (ahead) __builtin_prefetch(w + (K + k) * wk);
#pragma GCC unroll 12
        for (int j = 0; j < cols; j++) {
            vf b = SPREAD(w[j * wj + k * wk]);
            acc[j][0] = VEC_VFMA(x0, b, acc[j][0]);
            acc[j][1] = VEC_VFMA(x1, b, acc[j][1]);
        }
    }
}

/* Rows of a whole block of columns, VEC_COLS <= LANES: c = alpha acc^T + beta c. */
INLINE void store_block(float *c, size_t ldc, float alpha, float beta, vf acc[][2], int m)
{
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        vf r[LANES], old = SPREAD(0.0f);
#pragma GCC unroll 16
        for (int j = 0; j < LANES; j++) r[j] = j < VEC_COLS ? acc[j < VEC_COLS ? j : 0][half] : SPREAD(0.0f);
        transpose(r);
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) {
            float *to = c + (size_t)(half * LANES + i) * ldc;
            vf v = r[i] * alpha;
            if (half * LANES + i >= m) break;
            if (beta != 0) {
                memcpy(&old, to, VEC_COLS * sizeof(float));
                v += old * beta;
            }
            memcpy(to, &v, VEC_COLS * sizeof(float));
        }
    }
}

/* c[m, cols] = alpha X W^T + beta c for one panel; cols <= VEC_COLS. */
static void vec_panel_product(float *c, size_t ldc, float alpha, float beta, int m, const float *xt,
                              const float *w, size_t wj, size_t wk, int K, int cols, bool ahead)
{
    vf acc[VEC_COLS][2];
    if (cols == VEC_COLS) {
        if (ahead)
            panel_sums(acc, xt, w, 1, wk, K, VEC_COLS, true);
        else
            panel_sums(acc, xt, w, wj, wk, K, VEC_COLS, false);
        store_block(c, ldc, alpha, beta, acc, m);
        return;
    }
    for (int j = 0; j < cols; j++) {
        float t[PANEL];
        panel_sums(acc, xt, w + j * wj, wj, wk, K, 1, false);
        STORE(t, acc[0][0]);
        STORE(t + LANES, acc[0][1]);
        for (int i = 0; i < m; i++) {
            float *to = c + i * ldc + j;
            *to = alpha * t[i] + (beta == 0 ? 0 : beta * *to);
        }
    }
}

/* Rows of c that lie along the panel: c[j, m] = alpha acc[j] + beta c. */
INLINE void store_rows(float *c, size_t ldc, float alpha, float beta, vf acc[][2], int rows, int m)
{
#pragma GCC unroll 12
    for (int j = 0; j < rows; j++, c += ldc) {
        vf v[2] = {acc[j][0] * alpha, acc[j][1] * alpha}, old[2];
        size_t bytes = m < PANEL ? (size_t)m * sizeof(float) : sizeof v;
        if (beta != 0) {
            memcpy(old, c, bytes);
            v[0] += old[0] * beta;
            v[1] += old[1] * beta;
        }
        memcpy(c, v, bytes);
    }
}

/* One block of panel_rows. */
INLINE void rows_block(float *c, size_t ldc, float alpha, float beta, int m, const float *xt, const float *w,
                       size_t wj, size_t wk, int K, int rows)
{
    vf acc[VEC_COLS][2];
    panel_sums(acc, xt, w, wj, wk, K, rows, false);
    if (m == PANEL && beta == 0) /* constants, so that the sums stay in registers */
        store_rows(c, ldc, alpha, 0, acc, rows, PANEL);
    else if (m == PANEL)
        store_rows(c, ldc, alpha, beta, acc, rows, PANEL);
    else
        store_rows(c, ldc, alpha, beta, acc, rows, m);
}

/* The same product seen from the other side: the panel holds m columns of the result, w its rows.
 * c[rows, m] = alpha W X^T + beta c, any number of rows; w[j, k] is at j wj + k wk. */
static void vec_panel_rows(float *c, size_t ldc, float alpha, float beta, int m, const float *xt,
                           const float *w, size_t wj, size_t wk, int K, int rows)
{
    enum {
        PART = VEC_COLS / 3 > 1 ? VEC_COLS / 3 : 1
    }; /* what is left is done in blocks of this, then one by one */
    int j = 0;
    for (; j + VEC_COLS <= rows; j += VEC_COLS)
        rows_block(c + j * ldc, ldc, alpha, beta, m, xt, w + j * wj, wj, wk, K, VEC_COLS);
    for (; j + 2 * PART <= rows; j += 2 * PART)
        rows_block(c + j * ldc, ldc, alpha, beta, m, xt, w + j * wj, wj, wk, K, 2 * PART);
    for (; j + PART <= rows; j += PART)
        rows_block(c + j * ldc, ldc, alpha, beta, m, xt, w + j * wj, wj, wk, K, PART);
    for (; j < rows; j++) rows_block(c + j * ldc, ldc, alpha, beta, m, xt, w + j * wj, wj, wk, K, 1);
}

static void vec_copy_strip(float *to, const float *w, size_t wk, int K)
{
    for (int k = 0; k < K; k++)
        memcpy(to + (size_t)k * VEC_COLS, w + (size_t)k * wk, VEC_COLS * sizeof(float));
}

/* xt[k][i] = row i of the panel, i < m, else 0; x is [m, K], or [K, m] when transposed */
static void vec_pack_panel(float *xt, const float *x, size_t ldx, bool transposed, int m, int K)
{
    int k = 0;
    for (; !transposed && k + LANES <= K; k += LANES)
        for (int half = 0; half < 2; half++) {
            vf r[LANES];
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++)
                r[i] =
                    half * LANES + i < m ? (vf)LOAD(x + (size_t)(half * LANES + i) * ldx + k) : SPREAD(0.0f);
            transpose(r);
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++) STORE(xt + (size_t)(k + i) * PANEL + half * LANES, r[i]);
        }
    for (; transposed && m == PANEL && k < K; k++) {
        STORE(xt + (size_t)k * PANEL, LOAD(x + (size_t)k * ldx));
        STORE(xt + (size_t)k * PANEL + LANES, LOAD(x + (size_t)k * ldx + LANES));
    }
    for (; k < K; k++)
        for (int i = 0; i < PANEL; i++)
            xt[(size_t)k * PANEL + i] = i >= m       ? 0
                                        : transposed ? x[(size_t)k * ldx + i]
                                                     : x[(size_t)i * ldx + k];
}
