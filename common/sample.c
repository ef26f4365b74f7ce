/* SPDX-License-Identifier: Apache-2.0
 * Top-k by a heap of k candidates: one pass over the vocabulary in blocks, most of which hold nothing above
 * the smallest candidate and are skipped by one comparison that the compiler turns into vector code. */
#include "common/sample.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/mem.h"

struct candidate {
    float z;
    int32_t id;
};

static bool better(const struct candidate *a, const struct candidate *b)
{
    return a->z != b->z ? a->z > b->z : a->id < b->id;
}

static int by_rank(const void *a, const void *b)
{
    return better(a, b) ? -1 : better(b, a);
}

/* h[0] is the worst of n candidates; puts v in its place. */
static void replace_worst(struct candidate *h, int n, struct candidate v)
{
    int i = 0;
    for (int k; (k = 2 * i + 1) < n; i = k) {
        if (k + 1 < n && better(&h[k], &h[k + 1])) k++;
        if (!better(&v, &h[k])) break;
        h[i] = h[k];
    }
    h[i] = v;
}

static void add(struct candidate *h, int n, struct candidate v)
{
    int i = n;
    for (; i && better(&h[(i - 1) / 2], &v); i = (i - 1) / 2) h[i] = h[(i - 1) / 2];
    h[i] = v;
}

static bool any_above(const float *z, float limit)
{
    int any = 0;
    for (int i = 0; i < 64; i++) any |= z[i] > limit;
    return any;
}

/* The k best in h, sorted; returns how many. */
static int select_top(const struct sampler *s, const float *logits, int V, int k, struct candidate *h)
{
    int n = 0;
    for (int i = 0; i < V; i++) {
        while (n == k && i % 64 == 0 && i + 64 <= V && !any_above(logits + i, h[0].z)) i += 64;
        if (i == V) break;
        if (s->banned && s->banned[i]) continue;
        struct candidate v = {logits[i], i};
        if (n < k)
            add(h, n++, v);
        else if (better(&v, &h[0]))
            replace_worst(h, k, v);
    }
    qsort(h, (size_t)n, sizeof *h, by_rank);
    return n;
}

int32_t sample_greedy(const struct sampler *s, const float *logits, int V)
{
    struct candidate best;
    return select_top(s, logits, V, 1, &best) ? best.id : -1;
}

int32_t sample_top_k(const struct sampler *s, const float *logits, int V, double u)
{
    int k = s->top_k > 0 && s->top_k < V ? s->top_k : V;
    struct candidate *h = MEM_NEW(struct candidate, k);
    int n = select_top(s, logits, V, k, h);
    double total = 0, sum = 0;
    for (int i = 0; i < n; i++) total += exp(((double)h[i].z - (double)h[0].z) / s->temperature);
    int32_t id = n ? h[n - 1].id : -1;
    for (int i = 0; i < n; i++) {
        sum += exp(((double)h[i].z - (double)h[0].z) / s->temperature);
        if (sum > u * total) {
            id = h[i].id;
            break;
        }
    }
    mem_free(h);
    return id;
}
