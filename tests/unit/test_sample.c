/* SPDX-License-Identifier: Apache-2.0
 * Drawing tokens against a plain sort, and the frequencies of many draws. */
#include <stdbool.h>
#include "common/mem.h"
#include "common/rng.h"
#include "common/sample.h"
#include "tests/check.h"

/* The r-th best allowed index, found the slow way. */
static int ranked(const float *z, const bool *banned, int V, int r)
{
    for (int i = 0; i < V; i++) {
        int above = 0;
        if (banned && banned[i]) continue;
        for (int j = 0; j < V; j++)
            above += !(banned && banned[j]) && (z[j] > z[i] || (z[j] == z[i] && j < i));
        if (above == r) return i;
    }
    return -1;
}

static int slow(const struct sampler *s, const float *z, int V, double u)
{
    int k = s->top_k ? s->top_k : V, id = -1;
    double total = 0, sum = 0;
    float top = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int r = 0, i; r < k && (i = ranked(z, s->banned, V, r)) >= 0; r++) {
            if (!r) top = z[i];
            double p = exp(((double)z[i] - (double)top) / s->temperature);
            if (!pass) {
                total += p;
                continue;
            }
            id = i;
            sum += p;
            if (sum > u * total) return id;
        }
    return id;
}

static void test_against_sort(void)
{
    float z[300];
    bool banned[300];
    int wrong = 0, greedy = 0, n = 0;
    for (uint64_t c = 0; c < 120; c++) {
        int V = 1 + (int)rng_below(1, c, 0, 300);
        for (int i = 0; i < V; i++) {
            z[i] = (float)rng_below(2, c, (uint64_t)i, 40) / 8 - 2; /* many ties */
            banned[i] = rng_below(3, c, (uint64_t)i, 10) == 0;
        }
        struct sampler s = {(int)rng_below(4, c, 0, 60), 0.5 + rng_uniform(5, c, 0), c % 3 ? banned : NULL};
        for (int k = 0; k < 8; k++, n++) {
            double u = k ? rng_uniform(6, c, (uint64_t)k) : 0;
            wrong += sample_top_k(&s, z, V, u) != slow(&s, z, V, u);
        }
        greedy += sample_greedy(&s, z, V) != ranked(z, s.banned, V, 0);
    }
    CHECK(!wrong, "%d draws with ties and banned ids, %d differ", n, wrong);
    CHECK(!greedy, "greedy takes the first of the largest, %d differ", greedy);
}

static void test_edges(void)
{
    float z[200] = {0};
    bool all[200];
    memset(all, 1, sizeof all);
    struct sampler s = {50, 1, all};
    CHECK(sample_top_k(&s, z, 200, 0.5) == -1 && sample_greedy(&s, z, 200) == -1, "nothing allowed gives -1");
    s.banned = NULL;
    CHECK(sample_top_k(&s, z, 200, 0) == 0 && sample_top_k(&s, z, 200, 1 - 0x1p-53) == 49,
          "equal logits: ids 0 to 49");
    z[199] = 1000;
    CHECK(sample_top_k(&s, z, 200, 1 - 0x1p-53) == 199, "a huge logit takes all");
    s.temperature = 0.01;
    z[199] = 3e38f, z[7] = -3e38f;
    CHECK(sample_top_k(&s, z, 200, 0.999) == 199, "no overflow");
}

/* 49,152 logits with three large ones: the draws have the softmax's frequencies. */
static void test_frequencies(void)
{
    enum { V = 49152, N = 4000 };
    float *z = MEM_NEW(float, V);
    int count[3] = {0};
    for (int i = 0; i < V; i++) z[i] = (float)rng_uniform(7, 0, (uint64_t)i) - 40;
    z[5] = 1, z[64] = 2, z[V - 1] = 0;
    struct sampler s = {50, 1, NULL};
    for (int i = 0; i < N; i++) {
        int32_t id = sample_top_k(&s, z, V, rng_uniform(8, 0, (uint64_t)i));
        count[0] += id == 5, count[1] += id == 64, count[2] += id == V - 1;
    }
    double total = exp(1) + exp(2) + 1;
    CHECK(fabs(count[0] / (double)N - exp(1) / total) < 0.03 &&
              fabs(count[1] / (double)N - exp(2) / total) < 0.03 && count[0] + count[1] + count[2] == N,
          "frequencies of %d draws: %d %d %d", N, count[0], count[1], count[2]);
    mem_free(z);
}

int main(void)
{
    test_against_sort();
    test_edges();
    test_frequencies();
    return check_done();
}
