/* SPDX-License-Identifier: Apache-2.0
 * RTN and GPTQ against tests/data/quant (NumPy, f64, plain loops; see make.py there) and by their own
 * laws: H = identity is rounding, GPTQ is never worse than RTN, damping grows, threads do not matter. */
#include "common/quantizer.h"
#include <omp.h>
#include "common/mem.h"
#include "common/rng.h"
#include "common/solver.h"
#include "tests/check.h"

#define DATA "tests/data/quant/"

struct matrix {
    int out, in;
    float *W, *H;
};
static struct matrix mats[2] = {{48, 96, NULL, NULL}, {64, 160, NULL, NULL}};

static void read_matrices(void)
{
    FILE *f = fopen(DATA "matrices.bin", "rb");
    size_t got = 0, want = 0;
    for (int i = 0; f && i < 2; i++) {
        size_t nw = (size_t)mats[i].out * mats[i].in, nh = (size_t)mats[i].in * mats[i].in;
        mats[i].W = MEM_NEW(float, nw);
        mats[i].H = MEM_NEW(float, nh);
        got += fread(mats[i].W, sizeof(float), nw, f) + fread(mats[i].H, sizeof(float), nh, f);
        want += nw + nh;
    }
    if (f) fclose(f);
    if (!CHECK(f && got == want, "read %smatrices.bin", DATA)) exit(1);
}

static struct site_stats stats_of(float *H, int in)
{
    return (struct site_stats){.dim = in, .count = 1000, .hessian = H};
}

static int quantize(const char *method, const float *W, int out, int in, float *H, const struct quant_opts *o,
                    struct qtensor *q, struct err *e)
{
    struct quantizer_cache *c = quantizer_cache_alloc();
    struct site_stats st = stats_of(H, in);
    const struct quantizer *qz = quantizer_find(method);
    qtensor_clear(q);
    strcpy(q->name, "t");
    memset(e, 0, sizeof *e);
    int rc = quantizer_run(qz, c, NULL, W, out, in, H ? &st : NULL, o, q, e);
    quantizer_cache_free(c);
    return rc;
}

/* tr((W-Q)H(W-Q)') in f64 throughout. */
static double objective(const float *W, const struct qtensor *q, const float *H)
{
    size_t n = (size_t)q->out * q->in;
    float *d = MEM_NEW(float, n);
    double sum = 0;
    qtensor_dequant(q, d);
    for (size_t i = 0; i < n; i++) d[i] = W[i] - d[i];
    for (int o = 0; o < q->out; o++)
        for (int i = 0; i < q->in; i++)
            for (int j = 0; j < q->in; j++)
                sum += (double)d[o * q->in + i] * (double)H[i * q->in + j] * (double)d[o * q->in + j];
    mem_free(d);
    return sum;
}

/* ---- the oracle's cases ---- */

struct totals {
    long codes, equal32;
    double worst_objective;
};

static long equal_codes(const struct qtensor *q, const uint8_t *codes)
{
    long same = 0;
    for (size_t i = 0; i < (size_t)q->out * q->in; i++) same += q->codes[i] == codes[i];
    return same;
}

static void one_case(FILE *bin, const char *method, int m, const struct quant_opts *o, struct totals *t)
{
    struct matrix *x = &mats[m];
    size_t n = (size_t)x->out * x->in, g = (size_t)x->out * qtensor_groups(x->in, o->group);
    uint8_t *codes = MEM_NEW(uint8_t, n), *zero = MEM_NEW(uint8_t, g);
    float *scale = MEM_NEW(float, g);
    struct qtensor q = {.layer = -1}, q32 = {.layer = -1};
    struct quant_opts o32 = *o;
    struct err e;
    int ok = fread(codes, 1, n, bin) == n && fread(scale, 4, g, bin) == g && fread(zero, 1, g, bin) == g;

    ok = ok && !quantize(method, x->W, x->out, x->in, x->H, o, &q, &e);
    ok = ok && equal_codes(&q, codes) == (long)n && !memcmp(q.scale, scale, 4 * g) &&
         q.scale_dtype == o->scale_dtype;
    for (size_t i = 0; ok && i < g; i++) ok = zero[i] == (q.zero ? q.zero[i] : 1 << (o->bits - 1));
    CHECK(ok, "%s matrix %d W%d g%d%s%s%s%s %s: codes, scales and zeros of the f64 mode equal NumPy's",
          method, m, o->bits, o->group, o->sym ? " sym" : "", o->act_order ? " act-order" : "",
          o->static_groups ? " static" : "", o->clip_mse ? " clip" : "", dtype_name(o->scale_dtype));
    o32.true_f64 = false;
    if (ok && !quantize(method, x->W, x->out, x->in, x->H, &o32, &q32, &e)) {
        double a = objective(x->W, &q, x->H), b = objective(x->W, &q32, x->H), rel = fabs(a - b) / a;
        t->codes += (long)n;
        t->equal32 += equal_codes(&q32, codes);
        t->worst_objective = rel > t->worst_objective ? rel : t->worst_objective;
    }
    qtensor_clear(&q);
    qtensor_clear(&q32);
    mem_free(codes);
    mem_free(zero);
    mem_free(scale);
}

static void test_oracle(void)
{
    FILE *list = fopen(DATA "cases.txt", "r"), *bin = fopen(DATA "cases.bin", "rb");
    char method[16], scale[8];
    int m, bits, group, sym, act, fixed, clip, n = 0;
    double damp;
    struct totals t = {0, 0, 0};
    while (list && bin &&
           fscanf(list, "%15s %d %d %d %d %d %d %d %lf %7s", method, &m, &bits, &group, &sym, &act, &fixed,
                  &clip, &damp, scale) == 10) {
        struct quant_opts o;
        quant_opts_init(&o);
        o.bits = bits;
        o.group = group;
        o.sym = sym;
        o.act_order = act;
        o.static_groups = fixed;
        o.clip_mse = clip;
        o.damp = damp;
        o.true_f64 = true;
        o.scale_dtype = dtype_parse(scale);
        one_case(bin, method, m, &o, &t);
        n++;
    }
    CHECK(n == 17 && bin && fgetc(bin) == EOF, "all of the oracle's %d cases were read", n);
    if (list) fclose(list);
    if (bin) fclose(bin);
    CHECK(t.codes > 0 && (double)t.equal32 >= 0.999 * (double)t.codes,
          "f32 mode: %ld of %ld codes equal NumPy's", t.equal32, t.codes);
    CHECK(t.worst_objective <= 1e-4, "f32 mode: objective within %.2g of f64's, relative", t.worst_objective);
}

/* ---- laws ---- */

/* A seeded problem: W ~ uniform, H = X'X of correlated inputs with a few loud channels. */
static struct matrix problem(int out, int in, int tokens, uint64_t seed)
{
    struct matrix p = {out, in, MEM_NEW(float, (size_t)out *in), MEM_NEW(float, (size_t)in *in)};
    float *X = MEM_NEW(float, (size_t)tokens *in);
    for (int i = 0; i < out * in; i++)
        p.W[i] = (float)(rng_uniform(seed, 0, (uint64_t)i) - rng_uniform(seed, 1, (uint64_t)i)) * 0.1f;
    for (int t = 0; t < tokens; t++)
        for (int i = 0; i < in; i++) {
            double u = rng_uniform(seed, 2, (uint64_t)(t * in + i)) - 0.5,
                   c = rng_uniform(seed, 3, (uint64_t)(t * 7 + i % 7)) - 0.5;
            X[t * in + i] = (float)((u + c) * (i % 41 == 3 ? 20 : 1 + i % 5));
        }
    for (int t = 0; t < tokens; t++)
        for (int i = 0; i < in; i++)
            for (int j = 0; j <= i; j++) p.H[i * in + j] += X[t * in + i] * X[t * in + j];
    for (int i = 0; i < in; i++)
        for (int j = 0; j < i; j++) p.H[j * in + i] = p.H[i * in + j];
    mem_free(X);
    return p;
}

static void problem_clear(struct matrix *p)
{
    mem_free(p->W);
    mem_free(p->H);
}

static void test_laws(void)
{
    struct matrix p = problem(150, 320, 500, 11);
    struct qtensor a = {.layer = -1}, b = {.layer = -1};
    struct quant_opts o;
    struct err e;
    float *I = MEM_NEW(float, 320 * 320);

    for (int i = 0; i < 320; i++) I[i * 320 + i] = 3;
    for (int kind = 0; kind < 4; kind++) {
        quant_opts_init(&o);
        o.bits = 3;
        o.group = kind == 1 ? 0 : 64;
        o.sym = kind == 2;
        o.act_order = kind == 3;
        int ok = !quantize("rtn", p.W, p.out, p.in, NULL, &o, &a, &e) &&
                 !quantize("gptq", p.W, p.out, p.in, I, &o, &b, &e);
        CHECK(ok && equal_codes(&a, b.codes) == (long)p.out * p.in,
              "H = identity gives the codes of rtn (%d)", kind);
        ok = ok && !quantize("gptq", p.W, p.out, p.in, p.H, &o, &b, &e);
        double r = ok ? objective(p.W, &a, p.H) : 0, g = ok ? objective(p.W, &b, p.H) : 1;
        CHECK(g < 0.7 * r, "GPTQ's objective is %.3f of RTN's (%d)", g / r, kind);
        CHECK(ok && json_object_get(b.info, "rel_objective") && !json_object_get(a.info, "rel_objective"),
              "the objective is reported where there is a Hessian (%d)", kind);
        double told = json_real_value(json_object_get(b.info, "rel_objective")) *
                      quantizer_objective(p.W, p.out, p.in, p.H);
        CHECK(fabs(told - g) <= 1e-3 * g, "and is right (%d)", kind);
    }
    o.bits = 8;
    int ok = !quantize("gptq", p.W, p.out, p.in, p.H, &o, &b, &e);
    double rel = json_real_value(json_object_get(b.info, "rel_weights"));
    CHECK(ok && rel > 0 && rel < 0.01, "8 bits are nearly lossless: %.4f", rel);
    mem_free(I);
    qtensor_clear(&a);
    qtensor_clear(&b);
    problem_clear(&p);
}

static void test_precision_and_threads(void)
{
    struct matrix p = problem(300, 400, 700, 5);
    struct qtensor a = {.layer = -1}, b = {.layer = -1};
    struct quant_opts o;
    struct err e;
    for (int act = 0; act < 4; act++) {
        quant_opts_init(&o);
        o.bits = 3;
        o.act_order = act & 1;
        o.clip_mse = act & 2;
        omp_set_num_threads(1);
        int ok = !quantize("gptq", p.W, p.out, p.in, p.H, &o, &a, &e);
        omp_set_num_threads(5);
        ok = ok && !quantize("gptq", p.W, p.out, p.in, p.H, &o, &b, &e);
        CHECK(ok && equal_codes(&a, b.codes) == 120000 &&
                  !memcmp(a.scale, b.scale, sizeof(float) * 300 * 4) && !memcmp(a.zero, b.zero, 300 * 4),
              "1 and 5 threads: the same codes, scales and zeros (%d)", act);
        o.true_f64 = true;
        ok = ok && !quantize("gptq", p.W, p.out, p.in, p.H, &o, &b, &e);
        long same = ok ? equal_codes(&a, b.codes) : 0;
        double x = ok ? objective(p.W, &a, p.H) : 0, y = ok ? objective(p.W, &b, p.H) : 1;
        CHECK(same >= 119880, "f32 and f64 agree in %ld of 120000 codes (%d)", same, act);
        CHECK(fabs(x - y) <= 1e-4 * y, "f32 and f64 objectives differ by %.2g (%d)", fabs(x - y) / y, act);
    }
    qtensor_clear(&a);
    qtensor_clear(&b);
    problem_clear(&p);
}

/* U A U' = I, and the sum of e^2 is tr((W-Q) A (W-Q)'), A being the damped Hessian in processing order. */
static void test_factor(void)
{
    enum { IN = 300 }; /* more than two tiles, the last one short */
    struct matrix p = problem(70, IN, 500, 21);
    struct qtensor q = {.layer = -1};
    struct quant_opts o;
    struct err e = {0};
    double trace = 0, live = 0, told, *T = MEM_NEW(double, IN *IN);
    quant_opts_init(&o);
    for (int i = 0; i < IN; i++) trace += p.H[i * IN + i];
    live = trace / IN;
    for (int mode = 0; mode < 4; mode++) {
        o.true_f64 = mode & 1;
        o.act_order = mode & 2;
        struct solver_factor *f = solver_factor_alloc(p.H, IN, &o, NULL, &e);
        double worst = 0;
        if (!CHECK(f && f->n_dead == 0 && f->damp == 0.01, "a factor%s", e.text)) return;
        for (int a = 0; a < IN; a++)
            for (int j = 0; j < IN; j++) {
                T[a * IN + j] = 0;
                for (int k = a; k < IN; k++) {
                    double u = f->U64 ? f->U64[a * IN + k] : (double)f->U[a * IN + k];
                    T[a * IN + j] +=
                        u * ((double)p.H[f->order[k] * IN + f->order[j]] + (k == j ? 0.01 * live : 0));
                }
            }
        for (int a = 0; a < IN; a++)
            for (int b = 0; b < IN; b++) {
                double sum = a == b ? -1 : 0;
                for (int j = b; j < IN; j++)
                    sum += T[a * IN + j] * (f->U64 ? f->U64[b * IN + j] : (double)f->U[b * IN + j]);
                worst = fabs(sum) > worst ? fabs(sum) : worst;
            }
        CHECK(worst < (f->U64 ? 1e-10 : 1e-3), "U A U' is the identity within %.2g (%d)", worst, mode);
        int ok = !solver_run(f, p.W, p.out, &o, &q, &told, &e);
        double want = ok ? objective(p.W, &q, p.H) : 0;
        float *d = MEM_NEW(float, (size_t)70 * IN);
        if (ok) qtensor_dequant(&q, d);
        for (int i = 0; i < 70 * IN; i++) want += 0.01 * live * pow((double)p.W[i] - (double)d[i], 2);
        CHECK(ok && fabs(told - want) < 1e-4 * want, "the errors add up to the objective (%d)", mode);
        mem_free(d);
        solver_factor_free(f);
    }
    mem_free(T);
    qtensor_clear(&q);
    problem_clear(&p);
}

static void test_clip(void)
{
    /* one loud weight per group: the full range wastes levels */
    struct matrix p = problem(64, 128, 10, 3);
    struct qtensor a = {.layer = -1}, b = {.layer = -1};
    struct quant_opts o;
    struct err e;
    for (int r = 0; r < 64; r++)
        for (int i = r % 32; i < 128; i += 32) p.W[r * 128 + i] = 0.25f;
    for (int sym = 0; sym < 2; sym++) {
        quant_opts_init(&o);
        o.bits = 3;
        o.group = 32;
        o.sym = sym;
        int ok = !quantize("rtn", p.W, 64, 128, NULL, &o, &a, &e);
        o.clip_mse = true;
        ok = ok && !quantize("rtn", p.W, 64, 128, NULL, &o, &b, &e);
        double full = json_real_value(json_object_get(a.info, "rel_weights"));
        double clip = json_real_value(json_object_get(b.info, "rel_weights"));
        CHECK(ok && clip < full, "clip search lowers the error of weights with outliers: %.3f to %.3f", full,
              clip);
    }
    qtensor_clear(&a);
    qtensor_clear(&b);
    problem_clear(&p);
}

static void test_scales(void)
{
    struct matrix p = problem(8, 64, 10, 4);
    struct qtensor q = {.layer = -1};
    struct quant_opts o;
    struct err e;
    static const float factor[] = {1, 1e-6f, 1e13f};
    for (int k = 0; k < 3; k++) {
        for (int i = 0; i < 64; i++) p.W[3 * 64 + i] *= factor[k];
        quant_opts_init(&o);
        int ok = !quantize("gptq", p.W, 8, 64, p.H, &o, &q, &e);
        const char *raised = json_string_value(json_object_get(q.info, "scale_dtype_raised"));
        CHECK(ok && q.scale_dtype == (k ? DT_F32 : DT_F16) && !raised == !k,
              "a row times %g: scales are stored as %s", (double)factor[k],
              ok ? dtype_name(q.scale_dtype) : "?");
    }
    memset(p.W, 0, 8 * 64 * sizeof(float));
    int ok = !quantize("rtn", p.W, 8, 64, NULL, &o, &q, &e);
    qtensor_dequant(&q, p.W);
    for (int i = 0; i < 8 * 64; i++) ok &= p.W[i] == 0;
    CHECK(ok && q.scale_dtype == DT_F16, "weights that are all zero stay zero");
    qtensor_clear(&q);
    problem_clear(&p);
}

static void test_hessians(void)
{
    enum { IN = 64 };
    struct matrix p = problem(16, IN, 20, 9);
    struct qtensor q = {.layer = -1};
    struct quant_opts o;
    struct err e;
    float w[16 * IN];

    quant_opts_init(&o);
    for (int i = 0; i < IN; i++) p.H[i * IN + 7] = p.H[7 * IN + i] = 0;
    int ok = !quantize("gptq", p.W, 16, IN, p.H, &o, &q, &e);
    qtensor_dequant(&q, w);
    for (int r = 0; ok && r < 16; r++) ok = w[r * IN + 7] == 0;
    CHECK(ok && json_integer_value(json_object_get(q.info, "dead_columns")) == 1,
          "a dead column is reported, its weights are 0");

    o.damp = 0;
    ok = !quantize("gptq", p.W, 16, IN, p.H, &o, &q, &e); /* 20 tokens, 64 columns: singular */
    double damp = json_real_value(json_object_get(q.info, "damp_raised_to"));
    CHECK(ok && damp > 0 && damp < 1, "a singular Hessian raises the damping to %g and says so", damp);

    o.damp = 0.01;
    for (int i = 0; i < IN; i++) p.H[i * IN + i] *= 0.05f; /* indefinite */
    ok = !quantize("gptq", p.W, 16, IN, p.H, &o, &q, &e);
    damp = json_real_value(json_object_get(q.info, "damp_raised_to"));
    CHECK(ok && damp >= 0.1, "an indefinite Hessian raises it further: %g", damp);

    p.H[5] = NAN;
    ok = quantize("gptq", p.W, 16, IN, p.H, &o, &q, &e) == -1 && e.code == NT_EXIT_DATA &&
         strstr(e.text, "not finite");
    CHECK(ok, "a Hessian with NaN is refused: %s", e.text);
    p.H[5] = 0;
    p.H[3 * IN + 3] = -1;
    ok = quantize("gptq", p.W, 16, IN, p.H, &o, &q, &e) == -1 && strstr(e.text, "negative diagonal");
    CHECK(ok, "a negative diagonal is refused: %s", e.text);
    memset(p.H, 0, IN * IN * sizeof(float));
    ok = quantize("gptq", p.W, 16, IN, p.H, &o, &q, &e) == -1 && strstr(e.text, "all zero");
    CHECK(ok, "an all-zero Hessian is refused: %s", e.text);
    p.W[70] = INFINITY;
    ok = quantize("rtn", p.W, 16, IN, NULL, &o, &q, &e) == -1 && e.code == NT_EXIT_DATA &&
         strstr(e.text, "[1, 6]");
    CHECK(ok, "an infinite weight is refused: %s", e.text);
    p.W[70] = 0;
    ok = quantize("gptq", p.W, 16, IN, NULL, &o, &q, &e) == -1 && strstr(e.text, "hessian");
    CHECK(ok, "no statistics where they are needed: %s", e.text);
    o.bits = 9;
    ok = quantize("rtn", p.W, 16, IN, NULL, &o, &q, &e) == -1 && e.code == NT_EXIT_USAGE;
    CHECK(ok, "9 bits are refused: %s", e.text);
    qtensor_clear(&q);
    problem_clear(&p);
}

static void test_registry(void)
{
    int sorted = 1, n = 0;
    for (const struct quantizer *z; (z = quantizer_at(n)); n++) {
        sorted &= quantizer_find(z->name) == z && z->summary[0] && z->run;
        if (n) sorted &= strcmp(quantizer_at(n - 1)->name, z->name) < 0;
    }
    struct matrix p = problem(20, 64, 100, 8);
    struct qtensor q = {.layer = -1};
    struct quant_opts o;
    struct err e;
    quant_opts_init(&o);
    for (int i = 0; i < n; i++) {
        int ok = !quantize(quantizer_at(i)->name, p.W, 20, 64, p.H, &o, &q, &e);
        double rel = json_real_value(json_object_get(q.info, "rel_weights")); /* kquant: rows of 64 are Q5_0 */
        CHECK(ok && rel > 0 && rel < 0.2 && qtensor_bits(&q) < 6, "%s at 4 bits: error %.3f",
              quantizer_at(i)->name, rel);
    }
    qtensor_clear(&q);
    problem_clear(&p);
    CHECK(n >= 2 && sorted && !quantizer_find("none"), "%d methods, sorted, each found by its name", n);
}

int main(void)
{
    read_matrices();
    test_registry();
    test_oracle();
    test_laws();
    test_precision_and_threads();
    test_factor();
    test_clip();
    test_scales();
    test_hessians();
    for (int i = 0; i < 2; i++) problem_clear(&mats[i]);
    return check_done();
}
