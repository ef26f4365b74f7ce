/* SPDX-License-Identifier: Apache-2.0
 * The vector loops of every instruction set this machine has: exp within 2 ulp over its whole range, the same
 * results (but for rounding) from all; and the choice of BLAS kernels and devices. */
#include "kernels/cpu.h"
#include "tests/check.h"
#include <sys/wait.h>
#include <unistd.h>

static const struct vec_ops *const sets[] = {&vec_base, &vec_avx2, &vec_avx512};

/* Sets are in rising order; vec_choose gives the best that runs here. */
static int n_sets(void)
{
    int n = 0;
    while (sets[n++] != vec_choose()) continue;
    return n;
}

static void test_exp(const struct vec_ops *v)
{
    enum { N = 1 << 16 };
    float *x = malloc(N * sizeof(float)), *y = malloc(N * sizeof(float)),
          special[] = {-INFINITY, -88, 0, 88.7f, 89, INFINITY, NAN};
    double worst = 0;
    for (int round = 0; round < 8; round++) {
        for (int i = 0; i < N; i++) x[i] = -86.5f + (175.2f * ((float)i + 0.125f * (float)round)) / N;
        v->exp(y, x, N);
        for (int i = 0; i < N; i++) {
            double want = exp((double)x[i]);
            float near = (float)want;
            worst = fmax(worst, fabs(y[i] - want) / (nextafterf(near, INFINITY) - near));
        }
    }
    CHECK(worst <= 2, "%s: exp within 2 ulp on [-86.5, 88.7]: %.2f", v->name, worst);
    v->exp(y, special, 7);
    CHECK(y[0] == 0 && y[1] == 0 && y[2] == 1 && isfinite(y[3]) && y[4] == INFINITY && y[5] == INFINITY &&
              isnan(y[6]),
          "%s: exp of infinities, NaN, 0, and beyond the range", v->name);
    free(x), free(y);
}

static void test_products(const struct vec_ops *v)
{
    enum { K = 37, COLS = 15, E = 91, N = 45, LD = 100 };
    float x[64 * K], xt[K * 64], w[COLS * K], t[16 * 64], q[E], k[N * LD], s[N], o[E] = {0};
    double worst = 0, want[16 * 64];
    int rows = v->panel, m = rows - 1;
    for (int i = 0; i < K * m; i++) x[i] = (float)(i * 7 % 11) - 5;
    v->pack_panel(xt, x, K, false, m, K);
    for (int i = 0; i < COLS * K; i++) w[i] = (float)(i * 5 % 13) - 6;
    for (int cols = 1; cols <= v->cols; cols++) {
        v->panel_product(t, (size_t)cols, 1, 0, m, xt, w, K, 1, K, cols, false);
        for (int j = 0; j < cols; j++)
            for (int i = 0; i < m; i++) {
                want[i * cols + j] = 0;
                for (int l = 0; l < K; l++) want[i * cols + j] += (double)x[i * K + l] * w[j * K + l];
            }
        worst = fmax(worst, check_rel(t, want, (size_t)(cols * m)));
    }
    CHECK(worst == 0, "%s: panel_product, 1 to %d columns, exact on integers", v->name, v->cols);
    worst = 0;
    for (int n = 1; n <= COLS; n++) { /* c = 2 W X' - c, one column beyond stays */
        for (int i = 0; i < n * rows; i++) t[i] = (float)(i % 5);
        v->panel_rows(t, (size_t)rows, 2, -1, m, xt, w, K, 1, K, n);
        for (int i = 0; i < n * rows; i++) {
            want[i] = i % 5;
            if (i % rows == m) continue;
            want[i] = -want[i];
            for (int l = 0; l < K; l++) want[i] += 2.0 * x[i % rows * K + l] * w[i / rows * K + l];
        }
        worst = fmax(worst, check_rel(t, want, (size_t)(n * rows)));
    }
    CHECK(worst == 0, "%s: panel_rows, 1 to %d rows, exact on integers", v->name, (int)COLS);
    for (int i = 0; i < E; i++) q[i] = (float)(i % 9) - 4;
    for (int i = 0; i < N * LD; i++) k[i] = (float)(i * 3 % 17) - 8;
    v->scores(s, q, k, LD, N, E, 0.5f);
    v->mix(o, s, k, LD, N, E);
    for (int i = 0; i < N; i++) {
        want[i] = 0;
        for (int e = 0; e < E; e++) want[i] += 0.5 * q[e] * k[i * LD + e];
    }
    worst = check_rel(s, want, N);
    for (int e = 0; e < E; e++) {
        want[64 + e] = 0;
        for (int i = 0; i < N; i++) want[64 + e] += want[i] * k[i * LD + e];
    }
    CHECK(worst == 0 && check_rel(o, want + 64, E) == 0, "%s: scores and mix, exact on integers", v->name);
}

/* Exit status of backend_open in a child; its sentence must name the cause. */
static int refused(const char *name, bool bf16, const char *word)
{
    int fd[2], status;
    char text[400] = {0};
    ssize_t got;
    pid_t pid;
    if (pipe(fd) || (pid = fork()) < 0) return -1;
    if (!pid) {
        dup2(fd[1], 2);
        backend_open(name, 1, bf16);
        _exit(0);
    }
    close(fd[1]);
    for (size_t at = 0; (got = read(fd[0], text + at, sizeof text - 1 - at)) > 0;) at += (size_t)got;
    close(fd[0]);
    waitpid(pid, &status, 0);
    return strstr(text, word) && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* A query that sees keys i .. 2 + i in two tiles of 8 (none at all in one of them), and its gradient. */
static void test_attention(const struct vec_ops *v)
{
    enum { N = 16, HALF = N / 2, MOST = 32 };
    float s[N * MOST], ds[N * MOST], o[MOST] = {0}, max[MOST], sum[MOST], factor[MOST], lse[MOST],
                                     delta[MOST];
    double p[N * MOST], want[MOST], dwant[N * MOST], worst = 0;
    int32_t first[MOST], last[MOST];
    int P = v->panel;
    for (int i = 0; i < P; i++) {
        double total = want[i] = delta[i] = 0;
        first[i] = i % 14, last[i] = first[i] + 2, max[i] = -INFINITY, sum[i] = 0;
        for (int j = 0; j < N; j++) {
            s[j * P + i] = (float)((i * 5 + j * 11) % 19 - 9), ds[j * P + i] = (float)((i + j * 7) % 5);
            p[j * P + i] = j < first[i] || j > last[i] ? 0 : exp(0.5 * s[j * P + i]);
            total += p[j * P + i];
        }
        lse[i] = (float)log(total);
        for (int j = 0; j < N; j++) p[j * P + i] /= total, want[i] += j * p[j * P + i];
        delta[i] = (float)want[i];
        for (int j = 0; j < N; j++) dwant[j * P + i] = 0.5 * p[j * P + i] * (ds[j * P + i] - delta[i]);
    }
    float back[N * MOST];
    v->panel_mask(s, N, 0, first, last);
    memcpy(back, s, (size_t)(N * P) * sizeof *s);
    for (int half = 0; half < 2; half++) {
        float *t = s + half * HALF * P;
        v->panel_softmax(t, HALF, 0.5f, max, sum, factor);
        v->panel_scale(o, 1, factor);
        for (int j = 0; j < HALF; j++)
            for (int i = 0; i < P; i++) o[i] += t[j * P + i] * (float)(half * HALF + j);
    }
    for (int i = 0; i < P; i++) {
        worst = fmax(worst, fabs(o[i] / sum[i] - want[i]));
        worst = fmax(worst, fabs(max[i] + logf(sum[i]) - lse[i]));
    }
    CHECK(worst < 1e-5, "%s: running softmax of masked scores, %.1e", v->name, worst);
    v->panel_softmax_back(back, ds, N, 0.5f, lse, delta);
    worst = fmax(check_rel(back, p, (size_t)(N * P)), check_rel(ds, dwant, (size_t)(N * P)));
    CHECK(worst < 2e-6, "%s: its gradient, %.1e", v->name, worst);
}

int main(void)
{
    int n = n_sets();
    CHECK(n >= 1 && n <= 3, "the machine's instruction set: %s", vec_choose()->name);
    for (int i = 0; i < n; i++) {
        test_exp(sets[i]);
        test_products(sets[i]);
        test_attention(sets[i]);
    }
    CHECK(refused("tpu", false, "tpu") == 71, "an unknown device: exit 71 and its name");
    CHECK(refused("cuda", false, "not built in") == 71, "a device that is not built in: exit 71");
    int bf16 = refused("cpu", true, "--precision f32"); /* tests/ops/test_bf16.c sees to where it is there */
    CHECK(bf16 == 71 || refused("cpu", true, "") == 0,
          "a precision that is not there: exit 71 and what to do");
    CHECK(backend_better_core("SkylakeX") == NULL && backend_better_core("Cooperlake") == NULL,
          "AVX-512 kernels are kept");
    CHECK(!backend_better_core("Prescott") == (vec_choose() == &vec_base),
          "SSE kernels are replaced where the CPU has more");
    CHECK(!backend_better_core("Haswell") == (vec_choose() != &vec_avx512),
          "AVX2 kernels are replaced where it has AVX-512");
    return check_done();
}
