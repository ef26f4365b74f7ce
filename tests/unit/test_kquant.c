/* SPDX-License-Identifier: Apache-2.0
 * Blocks of ggml's K types and of those that short rows fall back to: bytes decode to what was meant, grids
 * beat plain rounding by the range, kquant beats rounding on the same grids once inputs are correlated, and
 * krtn knows which matter. */
#include "common/ggml_kquant.h"
#include "common/ggml_types.h"
#include "common/mem.h"
#include "common/quantizer.h"
#include "common/rng.h"
#include "common/solver.h"
#include "tests/check.h"

enum { B = KQUANT_BLOCK }; /* the largest block */

static double uniform(uint64_t i)
{
    return (double)rng_below(3, 9, i, 1u << 24) / (1 << 24);
}

/* About normal, with a few that stand out. */
static float weight(uint64_t i)
{
    double s = 0;
    for (int k = 0; k < 4; k++) s += uniform(8 * i + (uint64_t)k) - 0.5;
    return (float)(0.05 * s * (uniform(8 * i + 5) < 0.02 ? 4 : 1));
}

/* Any grid and codes, not only fitted ones: packed bytes mean exactly these numbers. */
static void check_bytes(const struct kquant_type *k)
{
    int bad = 0;
    for (uint64_t t = 0; t < 50; t++) {
        struct kquant_grid g = {.d = f32_to_f16((float)(uniform(t) - 0.5)),
                                .dmin = k->mn_hi ? f32_to_f16((float)uniform(t + 99)) : 0};
        uint8_t codes[B], bytes[210];
        float y[B];
        for (int s = 0; s < k->block / k->sub; s++) {
            g.sc[s] =
                (int8_t)(k->sc_lo + (int)rng_below(1, t, (uint64_t)s, (uint64_t)(k->sc_hi - k->sc_lo + 1)));
            g.mn[s] = k->mn_hi ? (uint8_t)rng_below(2, t, (uint64_t)s, (uint64_t)k->mn_hi + 1) : 0;
        }
        for (int i = 0; i < k->block; i++) codes[i] = (uint8_t)rng_below(4, t, (uint64_t)i, 1u << k->bits);
        kquant_pack(k, &g, codes, bytes);
        ggml_to_f32(y, k->t, bytes, k->block);
        for (int i = 0; i < k->block; i++) {
            int s = i / k->sub;
            float dl = f16_to_f32(g.d) * (float)g.sc[s], ml = f16_to_f32(g.dmin) * (float)g.mn[s];
            bad += y[i] != (k->mn_hi ? dl * (float)codes[i] - ml : dl * (float)(codes[i] - k->zero));
        }
    }
    CHECK(!bad, "%s: 50 blocks read back as they were meant, %d values differ", dtype_name(k->t), bad);
}

/* Sum of h (x - value)^2, from the bytes. */
static double error_of(const struct kquant_type *k, const float *x, const float *h,
                       const struct kquant_grid *g)
{
    uint8_t codes[B], bytes[210];
    float y[B], step, offset;
    double sum = 0;
    for (int i = 0; i < k->block; i++) {
        kquant_line(k, g, i / k->sub, &step, &offset);
        codes[i] = (uint8_t)kquant_code(k, step, offset, x[i]);
    }
    kquant_pack(k, g, codes, bytes);
    ggml_to_f32(y, k->t, bytes, k->block);
    for (int i = 0; i < k->block; i++) sum += h[i] * ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
    return sum;
}

/* Real scales by the range of each sub-block, no search, no integers: what a float grid of the same bits
 * would do by rounding. */
static double range_error(const struct kquant_type *k, const float *x, const float *h)
{
    double sum = 0, top = (1 << k->bits) - 1;
    for (int a = 0; a < k->block; a += k->sub) {
        double lo = 0, hi = 0;
        for (int i = a; i < a + k->sub; i++) lo = fmin(lo, x[i]), hi = fmax(hi, x[i]);
        double s = k->mn_hi ? (hi - lo) / top : fmax(hi, -lo) / k->zero, m = k->mn_hi ? lo : -s * k->zero;
        for (int i = a; i < a + k->sub; i++) {
            double c = fmin(top, fmax(0, round((x[i] - m) / s))), d = x[i] - (s * c + m);
            sum += h[i] * d * d;
        }
    }
    return sum;
}

static void check_fit(const struct kquant_type *k)
{
    double ours = 0, range = 0, plain = 0;
    for (uint64_t t = 0; t < 40; t++) {
        float x[B], h[B];
        struct kquant_grid g, flat;
        for (int i = 0; i < k->block; i++) {
            x[i] = weight(t * B + (uint64_t)i);
            h[i] = (float)pow(uniform(7777 + t * B + (uint64_t)i), 3);
        }
        kquant_fit(k, x, h, &g);
        kquant_fit(k, x, NULL, &flat);
        ours += error_of(k, x, h, &g);
        plain += error_of(k, x, h, &flat);
        range += range_error(k, x, h);
    }
    CHECK(ours < 0.9 * range, "%s: weighted error %.3g, of float scales by range %.3g", dtype_name(k->t),
          ours, range);
    CHECK(ours < plain, "%s: fitted without the weights it is %.3g", dtype_name(k->t), plain);
}

static void check_odd(const struct kquant_type *k)
{
    float zero[B] = {0}, one[B] = {0}, h[B] = {0};
    struct kquant_grid g;
    one[k->block - 5] = -0.25f;
    for (int i = 0; i < k->block; i++) h[i] = 1;
    kquant_fit(k, zero, h, &g);
    CHECK(error_of(k, zero, h, &g) == 0, "%s: zeros stay zeros", dtype_name(k->t));
    kquant_fit(k, one, h, &g);
    double e = error_of(k, one, h, &g);
    CHECK(e < 1e-4 * 0.0625, "%s: a single weight is kept (error %.3g)", dtype_name(k->t), e);
    memset(h, 0, sizeof h);
    kquant_fit(k, one, h, &g);
    CHECK(error_of(k, one, zero, &g) == 0 && isfinite(f16_to_f32(g.d)), "%s: no importance at all",
          dtype_name(k->t));
}

/* H of inputs that share a few directions. */
static void make_hessian(float *H, int n)
{
    double *v = MEM_NEW(double, 6 * (size_t)n);
    for (int i = 0; i < 6 * n; i++) v[i] = uniform(50000 + (uint64_t)i) - 0.5;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            double s = i == j ? 0.05 * (1 + uniform((uint64_t)i)) : 0;
            for (int k = 0; k < 6; k++) s += v[k * n + i] * v[k * n + j];
            H[(size_t)i * (size_t)n + (size_t)j] = (float)s;
        }
    mem_free(v);
}

static double objective(const float *W, const struct qtensor *q, const float *H)
{
    int n = q->in;
    float *y = MEM_NEW(float, (size_t)q->out *(size_t)n);
    double sum = 0;
    qtensor_dequant(q, y);
    for (int r = 0; r < q->out; r++)
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++)
                sum += ((double)W[r * n + i] - y[r * n + i]) * H[i * n + j] *
                       ((double)W[r * n + j] - y[r * n + j]);
    mem_free(y);
    return sum;
}

struct setting {
    const char *method;
    int bits;
    bool act_order, static_groups;
};

static void run(const float *W, int out, int in, float *H, struct setting how, struct qtensor *q,
                struct err *e)
{
    struct quantizer_cache *c = quantizer_cache_alloc();
    struct site_stats st = {.dim = in, .count = 1000, .hessian = H};
    struct quant_opts o;
    quant_opts_init(&o);
    o.bits = how.bits, o.act_order = how.act_order, o.static_groups = how.static_groups;
    *e = (struct err){0};
    *q = (struct qtensor){.name = "t"};
    if (quantizer_run(quantizer_find(how.method), c, NULL, W, out, in, &st, &o, q, e)) qtensor_clear(q);
    quantizer_cache_free(c);
}

/* The error at the output, and the type and size that leave. */
static double run_error(const float *W, int out, int in, float *H, const float *judge, struct setting how)
{
    const struct kquant_type *k = kquant_type_of(how.bits, in);
    struct qtensor q;
    struct err e;
    run(W, out, in, H, how, &q, &e);
    bool good = q.form == QF_PLAIN && q.plain.dtype == k->t &&
                fabs(qtensor_bits(&q) - 8.0 * dtype_block_bytes(k->t) / k->block) < 1e-9;
    double error = good ? objective(W, &q, judge) : INFINITY;
    qtensor_clear(&q);
    return error;
}

static void check_quantizer(int bits, int in)
{
    enum { OUT = 70 };
    const char *type = dtype_name(kquant_type_of(bits, in)->t);
    size_t n = (size_t)in;
    float *W = MEM_NEW(float, OUT *n), *H = MEM_NEW(float, n *n), *D = MEM_NEW(float, n *n),
          *I = MEM_NEW(float, n *n);
    for (size_t i = 0; i < OUT * n; i++) W[i] = weight(90000 + i);
    make_hessian(H, in);
    for (size_t i = 0; i < n; i++) D[i * n + i] = H[i * n + i], I[i * n + i] = 1;
    double gptq = run_error(W, OUT, in, H, H, (struct setting){"kquant", bits, false, false}),
           order = run_error(W, OUT, in, H, H, (struct setting){"kquant", bits, true, false}),
           fixed = run_error(W, OUT, in, H, H, (struct setting){"kquant", bits, false, true}),
           round = run_error(W, OUT, in, H, H, (struct setting){"krtn", bits, false, false}),
           plain = run_error(W, OUT, in, I, H, (struct setting){"krtn", bits, false, false}),
           weighted = run_error(W, OUT, in, H, D, (struct setting){"krtn", bits, false, false}),
           flat = run_error(W, OUT, in, I, D, (struct setting){"krtn", bits, false, false});
    CHECK(gptq < 0.7 * round && order < 0.7 * round && fixed < 0.7 * round,
          "%s: GPTQ %.4g, by activation %.4g, with fixed scales %.4g, rounded %.4g (without importance %.4g)",
          type, gptq, order, fixed, round, plain);
    CHECK(weighted < flat, "%s: rounding weighs errors by importance: %.4g, without %.4g", type, weighted,
          flat);
    mem_free(W), mem_free(H), mem_free(D), mem_free(I);
}

/* Columns that no input ever reached become 0, wherever they stand. */
static void check_dead(void)
{
    enum { OUT = 3, IN = 512 };
    float *W = MEM_NEW(float, OUT *IN), *H = MEM_NEW(float, IN *IN), *y = MEM_NEW(float, OUT *IN);
    struct qtensor q;
    struct err e;
    double left = 0;
    for (int i = 0; i < OUT * IN; i++) W[i] = weight(70000 + (uint64_t)i);
    make_hessian(H, IN);
    for (int i = 0; i < IN; i++) H[7 * IN + i] = H[i * IN + 7] = H[300 * IN + i] = H[i * IN + 300] = 0;
    for (int order = 0; order < 2; order++) {
        run(W, OUT, IN, H, (struct setting){"kquant", 3, order, false}, &q, &e);
        qtensor_dequant(&q, y);
        for (int r = 0; r < OUT; r++) left = fmax(left, fmax(fabs(y[r * IN + 7]), fabs(y[r * IN + 300])));
        qtensor_clear(&q);
    }
    CHECK(left == 0, "dead columns become 0 where the grid has it, in any order (%.3g)", left);
    mem_free(W), mem_free(H), mem_free(y);
}

/* The order of activation by blocks: each whole, by its sum; columns within it by their own diagonal. */
static void check_order(void)
{
    enum { IN = 160, BLOCK = 32 };
    float *H = MEM_NEW(float, IN *IN);
    double sum[IN / BLOCK] = {0};
    struct quant_opts o;
    struct err e = {0};
    bool whole = true, falling = true;
    quant_opts_init(&o);
    o.act_order = true, o.order_block = BLOCK;
    make_hessian(H, IN);
    for (int i = 0; i < IN; i++) sum[i / BLOCK] += (double)H[i * IN + i];
    struct solver_factor *f = solver_factor_alloc(H, IN, &o, NULL, &e);
    for (int i = 1; f && i < IN; i++) {
        int a = f->order[i - 1], b = f->order[i];
        whole &= i % BLOCK == 0 || a / BLOCK == b / BLOCK;
        falling &= i % BLOCK ? H[a * IN + a] >= H[b * IN + b] : sum[a / BLOCK] >= sum[b / BLOCK];
    }
    CHECK(f && whole && falling, "the order of activation leaves blocks whole and goes by what comes in");
    solver_factor_free(f);
    mem_free(H);
}

int main(void)
{
    for (int in = 96; in <= 512; in += 416)
        for (int bits = 2; bits <= 6; bits++) {
            const struct kquant_type *k = kquant_type_of(bits, in);
            check_bytes(k);
            check_fit(k);
            check_odd(k);
            check_quantizer(bits, in);
        }
    check_dead();
    check_order();
    struct qtensor q;
    struct err e;
    float W[512] = {1}, *H = MEM_NEW(float, 512 * 512);
    make_hessian(H, 512);
    run(W, 1, 512, H, (struct setting){"kquant", 8, false, false}, &q, &e);
    CHECK(e.code == NT_EXIT_USAGE, "8 bits: %s", e.text);
    make_hessian(H, 40);
    run(W, 1, 40, H, (struct setting){"krtn", 4, false, false}, &q, &e);
    CHECK(e.code == NT_EXIT_DATA, "rows of 40: %s", e.text);
    mem_free(H);
    return check_done();
}
