/* SPDX-License-Identifier: Apache-2.0
 * Part of vec_ops.h: what attention does with a tile of scores [n keys, PANEL queries] between its products.
 * A query is a column, so everything runs along the panel: no sums across a vector, and the tile is at once
 * the panel of the next product. */

/* Scores of keys key .. key + n - 1 that a query does not see, those before first and after last, become
 * -infinity. */
static void vec_panel_mask(float *s, int n, int key, const int32_t *first, const int32_t *last)
{
    for (int j = key; j < key + n; j++, s += PANEL) {
#pragma omp simd
        for (int i = 0; i < PANEL; i++) s[i] = j >= first[i] && j <= last[i] ? s[i] : -INFINITY;
    }
}

/* Products become logits: cap tanh(scale s / cap) when there is a cap, else scale s, plus slope times the
 * distance from the query, a number that is not positive for keys it sees. slope NULL: none. */
static void vec_panel_logits(float *s, int n, int key, float scale, float cap, const float *slope,
                             const int32_t *at)
{
    float inv = cap > 0 ? scale / cap : 0;
    for (int j = key; j < key + n; j++, s += PANEL) {
        if (cap > 0) {
#pragma omp simd
            for (int i = 0; i < PANEL; i++) s[i] = cap * vtanh(inv * s[i]);
        } else {
#pragma omp simd
            for (int i = 0; i < PANEL; i++) s[i] *= scale;
        }
        if (!slope) continue;
#pragma omp simd
        for (int i = 0; i < PANEL; i++) s[i] = VEC_FMA(slope[i], (float)(j - at[i]), s[i]);
    }
}

/* What the gradient of vec_panel_logits' output is to be multiplied with, from its products s. */
static void vec_panel_slopes(float *d, const float *s, int n, float scale, float cap)
{
    float inv = cap > 0 ? scale / cap : 0;
    for (int j = 0; j < n; j++, s += PANEL, d += PANEL) {
#pragma omp simd
        for (int i = 0; i < PANEL; i++) {
            float t = vtanh(inv * s[i]);
            d[i] *= scale * (1.0f - t * t);
        }
    }
}

/* s = exp(scale s - max), where max, the running maximum of scale s, is raised first, the running sum
 * follows, and factor is what earlier results are to be multiplied with. A query that saw no number yet has
 * the maximum -infinity, which must not be subtracted: then a NaN spreads, and nothing else does. */
static void vec_panel_softmax(float *s, int n, float scale, float *max, float *sum, float *factor)
{
    float top[PANEL], sub[PANEL], total[PANEL];
    for (int i = 0; i < PANEL; i++) top[i] = -INFINITY;
    for (int j = 0; j < n; j++) {
#pragma omp simd
        for (int i = 0; i < PANEL; i++)
            top[i] = s[(size_t)j * PANEL + i] > top[i] ? s[(size_t)j * PANEL + i] : top[i];
    }
#pragma omp simd
    for (int i = 0; i < PANEL; i++) {
        float m = scale * top[i] > max[i] ? scale * top[i] : max[i];
        sub[i] = m == -INFINITY ? 0 : m;
        factor[i] = vexp(max[i] - sub[i]);
        max[i] = m;
        total[i] = 0;
    }
    for (int j = 0; j < n; j++, s += PANEL) {
#pragma omp simd
        for (int i = 0; i < PANEL; i++) {
            float p = vexp(VEC_FMA(scale, s[i], -sub[i]));
            s[i] = p;
            total[i] += p;
        }
    }
#pragma omp simd
    for (int i = 0; i < PANEL; i++) sum[i] = VEC_FMA(sum[i], factor[i], total[i]);
}

/* s: scores, becomes probabilities; ds: gradient of the probabilities, becomes that of the scores. */
static void vec_panel_softmax_back(float *s, float *ds, int n, float scale, const float *lse,
                                   const float *delta)
{
    for (int j = 0; j < n; j++, s += PANEL, ds += PANEL) {
#pragma omp simd
        for (int i = 0; i < PANEL; i++) {
            float p = vexp(VEC_FMA(scale, s[i], -lse[i]));
            s[i] = p;
            ds[i] = p * (ds[i] - delta[i]) * scale;
        }
    }
}

static void vec_panel_scale(float *s, int n, const float *factor)
{
    for (int j = 0; j < n; j++, s += PANEL) {
#pragma omp simd
        for (int i = 0; i < PANEL; i++) s[i] *= factor[i];
    }
}
