/* SPDX-License-Identifier: Apache-2.0
 * Times the operations of kernels/backend.h and a whole block at SmolLM2-135M's shapes, each beside the sgemm
 * ceiling of the same run: one large single-threaded BLAS call per core, all cores at once (with -p bf16,
 * oneDNN's). Prints rows of build/bench.tsv.
 *   ops [-j THREADS] [-p f32|bf16] [-c] [-r REPEATS] [PATTERN]     -c: CPU seconds instead of wall time (for
 * a busy machine, -j 1) A round times the ceiling and every case once; a case's figure is its best round. */
#include "common/block.h"
#include "tests/bench/ceiling.h"
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { D = 576, H = 9, G = 3, E = 64, F = 1536, V = 49152, KV = G * E, MAX_T = 2048 };
static struct backend *be;
static bool cpu_time;
static dev x, y, big, wide, w, stat, gain, ids, st, best, cs;

static double now(void)
{
    struct timespec t;
    clock_gettime(cpu_time ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double rss_mib(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)u.ru_maxrss / 1024;
}

static dev random_array(size_t n)
{
    dev p = be->alloc(n * sizeof(float));
    float *buf = malloc(n * sizeof(float));
    uint32_t s = 1;
    for (size_t i = 0; i < n; i++) {
        s = s * 1664525u + 1013904223u;
        buf[i] = (float)(s >> 8) * 0x1p-23f - 1.0f;
    }
    be->put(p, buf, n * sizeof(float));
    free(buf);
    return p;
}

struct op {
    const char *name;
    int R;                             /* rows, tokens */
    int a, b;                          /* out and in of a gemm; T of attention */
    double (*run)(const struct op *o); /* returns GFLOP */
    double best;
};

static double linear(const struct op *o)
{
    be->gemm(false, true, o->R, o->a, o->b, 1, x, o->b, w, o->b, 0, big, o->a);
    return 2e-9 * o->R * o->a * o->b;
}
static double linear_dx(const struct op *o)
{
    be->gemm(false, false, o->R, o->b, o->a, 1, big, o->a, w, o->b, 0, x, o->b);
    return 2e-9 * o->R * o->a * o->b;
}
static double linear_dw(const struct op *o)
{
    be->gemm(true, false, o->a, o->b, o->R, 1, wide, o->a, x, o->b, 1, y, o->b);
    return 2e-9 * o->R * o->a * o->b;
}
static double gram(const struct op *o)
{
    be->gram(o->R, o->a, x, big);
    return 1e-9 * o->R * o->a * o->a;
}
static double attention(const struct op *o)
{
    int B = o->R / o->a, T = o->a;
    struct attention a = {.B = B, .T = T, .H = H, .G = G, .E = E, .scale = 0.125f};
    be->attention(y, stat, x, big, dev_at(big, (size_t)o->R * KV), &a);
    return 2e-9 * B * H * E * T * (T + 1);
}
static double attention_back(const struct op *o)
{
    int B = o->R / o->a, T = o->a;
    dev v = dev_at(big, (size_t)o->R * KV);
    struct attention a = {.B = B, .T = T, .H = H, .G = G, .E = E, .scale = 0.125f};
    be->attention_back(wide, dev_at(v, (size_t)o->R * KV), dev_at(v, 2 * (size_t)o->R * KV), x, y, stat, x,
                       big, v, &a);
    return 4e-9 * B * H * E * T *
           (T + 1); /* twice the forward: what must be computed, without recomputation */
}
static double step(const struct op *o)
{
    struct attention a = {.B = o->R, .H = H, .G = G, .E = E, .scale = 0.125f};
    be->attention_step(y, x, big, dev_at(big, (size_t)o->R * o->a * KV), o->a, o->a, &a);
    return 4e-9 * o->R * H * E * o->a;
}
static double norm(const struct op *o)
{
    be->norm(true, y, stat, x, gain, DEV_NONE, 1, o->R, D, 1e-5f);
    return 4e-9 * o->R * D;
}
static double norm_back(const struct op *o)
{
    be->norm_back(true, y, gain, DEV_NONE, big, x, stat, gain, 1, o->R, D);
    return 10e-9 * o->R * D;
}
static double swiglu(const struct op *o)
{
    be->act(ACT_SILU, wide, x, big, (size_t)o->R * F);
    return 4e-9 * o->R * F;
}
static double swiglu_back(const struct op *o)
{
    be->act_back(ACT_SILU, y, wide, big, x, big, (size_t)o->R * F);
    return 10e-9 * o->R * F;
}
static double add(const struct op *o)
{
    be->add(y, x, y, (size_t)o->R * D);
    return 1e-9 * o->R * D;
}
static double rope(const struct op *o)
{
    be->rope(x, o->R, MAX_T, H, E, E, false, cs, 0, 1);
    return 3e-9 * o->R * D;
}
static double fold(const struct op *o)
{
    be->head_fold(st, best, big, ids, o->R, o->a, 0);
    return 4e-9 * o->R * o->a;
}
static double stats(const struct op *o)
{
    be->channel_stats(wide, x, o->R, o->a);
    return 10e-9 * o->R * o->a;
}

/* A block with random weights; its forward and backward (inputs and norms only) as nt-collect and nt-tweak
 * run them. */
static struct block blk;
static struct block_work *work;

static void make_block(void)
{
    blk.s = BLOCK_SHAPE_PLAIN;
    blk.s.D = D, blk.s.H = H, blk.s.G = G, blk.s.E = E, blk.s.F = F, blk.s.rot = E;
    blk.s.eps = 1e-5f, blk.s.scale = 0.125f;
    for (int r = 0; r < ROLE_COUNT; r++) {
        int out, in;
        role_dims(&blk.s, r, &out, &in);
        blk.w[r] = dev_at(w, (size_t)r * F * D);
    }
    for (int n = 0; n <= NORM_MLP; n++) blk.gain[n] = gain;
    blk.cossin = cs;
    work = block_work_alloc(be, &blk.s, MAX_T, true);
}
static double block_gflop(int R, int T)
{
    return 2e-9 * R * ((double)D * (2 * D + 2 * KV + 3 * F) + (double)D * (T + 1));
}
static double forward(const struct op *o)
{
    block_forward(be, &blk, work, o->R / o->a, o->a, 0, x, y, NULL, NULL);
    return block_gflop(o->R, o->a);
}
static double backward(const struct op *o)
{
    struct block_grads g = {.gain = {stat, stat}};
    block_backward(be, &blk, work, o->R / o->a, o->a, 0, x, y, wide, &g, NULL, NULL);
    return block_gflop(o->R, o->a) + 2e-9 * o->R * D * (o->a + 1);
}

static struct op ops[] = {
    {"gemm-q-o", 2048, D, D, linear, 0},
    {"gemm-k-v", 2048, KV, D, linear, 0},
    {"gemm-gate-up", 2048, F, D, linear, 0},
    {"gemm-down", 2048, D, F, linear, 0},
    {"gemm-512-q-o", 512, D, D, linear, 0},
    {"gemm-512-gate-up", 512, F, D, linear, 0},
    {"gemm-head-tile", 2048, 2048, D, linear, 0},
    {"gemm-dx-gate-up", 2048, F, D, linear_dx, 0},
    {"gemm-dx-down", 2048, D, F, linear_dx, 0},
    {"gemm-dw-gate-up", 2048, F, D, linear_dw, 0},
    {"gemm-32-q-o", 32, D, D, linear, 0},
    {"gemm-32-gate-up", 32, F, D, linear, 0},
    {"gemm-32-down", 32, D, F, linear, 0},
    {"gemm-32-head", 32, V, D, linear, 0},
    {"gram-576", 2048, D, 0, gram, 0},
    {"gram-1536", 2048, F, 0, gram, 0},
    {"attention-2048", 2048, 2048, 0, attention, 0},
    {"attention-512", 2048, 512, 0, attention, 0},
    {"attention-back-2048", 2048, 2048, 0, attention_back, 0},
    {"attention-back-512", 2048, 512, 0, attention_back, 0},
    {"attention-step-512", 32, 512, 0, step, 0},
    {"norm", 2048, 0, 0, norm, 0},
    {"norm-back", 2048, 0, 0, norm_back, 0},
    {"swiglu", 2048, 0, 0, swiglu, 0},
    {"swiglu-back", 2048, 0, 0, swiglu_back, 0},
    {"add", 2048, 0, 0, add, 0},
    {"rope", 2048, 0, 0, rope, 0},
    {"head-fold", 2048, 2048, 0, fold, 0},
    {"block-forward-2048", 2048, 2048, 0, forward, 0},
    {"block-backward-2048", 2048, 2048, 0, backward, 0},
    {"block-forward-512", 2048, 512, 0, forward, 0},
    {"block-backward-512", 2048, 512, 0, backward, 0},
    {"block-forward-1x512", 512, 512, 0, forward, 0},
    {"block-backward-1x512", 512, 512, 0, backward, 0},
    {"stats-576", 2048, D, 0, stats, 0},
    {"stats-1536", 2048, F, 0, stats, 0},
};
enum { N_OPS = sizeof ops / sizeof *ops };

int main(int argc, char **argv)
{
    int threads = 0, rounds = 7;
    const char *pattern = "", *precision = "f32";
    bool bf16;
    double ceiling = 0;
    backend_early(argv);
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "-j") && i + 1 < argc)
            threads = atoi(argv[++i]);
        else if (!strcmp(argv[i], "-r") && i + 1 < argc)
            rounds = atoi(argv[++i]);
        else if (!strcmp(argv[i], "-p") && i + 1 < argc)
            precision = argv[++i];
        else if (!strcmp(argv[i], "-c"))
            cpu_time = true;
        else
            pattern = argv[i];
    }
    bf16 = !strcmp(precision, "bf16");
    be = backend_open("cpu", threads, bf16);
    x = random_array((size_t)MAX_T * F), y = random_array((size_t)MAX_T * F),
    wide = random_array((size_t)MAX_T * F);
    big = random_array((size_t)32 * 512 * KV * 2 + (size_t)MAX_T * MAX_T), w = random_array((size_t)V * D);
    stat = random_array((size_t)MAX_T * H), gain = random_array(D), cs = random_array((size_t)MAX_T * E);
    be->hold(w, (size_t)V * D);
    ids = be->alloc(MAX_T * 4), st = be->alloc(MAX_T * 16), best = be->alloc(MAX_T * 8);
    make_block();
    for (int r = 0; r < rounds; r++) {
        double c = bf16 ? ceiling_bf16(be->threads) : ceiling_f32(be->threads);
        if (c > ceiling) ceiling = c;
        be->head_init(st, best, MAX_T);
        for (int i = 0; i < N_OPS; i++) {
            double t = now(), g;
            if (!strstr(ops[i].name, pattern)) continue;
            g = ops[i].run(&ops[i]);
            t = now() - t;
            if (g / t > ops[i].best) ops[i].best = g / t;
        }
    }
    printf("op-ceiling\t\t%s\t%d\t%.5f\t%.4f\t1.000\t\t%.0f\n", precision, be->threads,
           2e-9 * CEILING * CEILING * CEILING / ceiling, 2e-9 * CEILING * CEILING * CEILING, rss_mib());
    for (int i = 0; i < N_OPS; i++) {
        double g;
        if (!strstr(ops[i].name, pattern)) continue;
        g = ops[i].run(&ops[i]);
        printf("op-%s\t\t%s\t%d\t%.5f\t%.4f\t%.3f\t%.0f\t%.0f\n", ops[i].name, precision, be->threads,
               g / ops[i].best, g, ops[i].best / ceiling, ops[i].R * ops[i].best / g, rss_mib());
    }
    fprintf(stderr, "ceiling %.1f GFLOP/s with %d threads, core %s\n", ceiling, be->threads, be->core);
    block_work_free(work);
    backend_close(be);
    return 0;
}
