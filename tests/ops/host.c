/* SPDX-License-Identifier: Apache-2.0
 * See host.h. */
#include "tests/ops/host.h"
#include "tests/check.h"

enum { MAX_ARRAYS = 256 };
static const struct backend *be;
static struct arr all[MAX_ARRAYS];
static int n_all;
static uint64_t state;

void arr_use(const struct backend *b)
{
    be = b;
    state = 20240607;
}

static double uniform(void) /* SplitMix64 */
{
    uint64_t z = (state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

static struct arr new_array(size_t n)
{
    struct arr a = {n, calloc(n + 1, sizeof(float)), calloc(n + 1, sizeof(double)),
                    be->alloc(n * sizeof(float))};
    if (n_all == MAX_ARRAYS) abort();
    return all[n_all++] = a;
}

struct arr arr_random(size_t n, double scale)
{
    struct arr a = new_array(n);
    for (size_t i = 0; i < n; i++) {
        double x = 2 * uniform() - 1;
        a.f[i] = (float)(scale * (fabs(x) < 1e-3 ? 1e-3 : x));
        a.d[i] = a.f[i];
    }
    be->put(a.p, a.f, n * sizeof(float));
    return a;
}

struct arr arr_zero(size_t n)
{
    return new_array(n);
}

struct arr arr_ids(size_t n, int below)
{
    struct arr a = new_array(n);
    for (size_t i = 0; i < n; i++) ((int32_t *)a.f)[i] = (int32_t)(a.d[i] = floor(uniform() * below));
    be->put(a.p, a.f, n * sizeof(float));
    return a;
}

void arr_fetch(struct arr *a)
{
    be->get(a->f, a->p, a->n * sizeof(float));
}

double arr_err(struct arr *a)
{
    arr_fetch(a);
    return check_rel(a->f, a->d, a->n);
}

void arr_free_all(void)
{
    while (n_all > 0) {
        struct arr *a = &all[--n_all];
        free(a->f);
        free(a->d);
        be->release(a->p);
    }
}
