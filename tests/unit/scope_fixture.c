/* SPDX-License-Identifier: Apache-2.0
 * Shared by test_scope.c and test_scope_all.c. */
#include "tests/unit/scope_fixture.h"
#include <math.h>
#include <stdio.h>
#include "common/mem.h"

double number(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

void load_tokens(struct tokens *tk, const json_t *ids, int n_holdout)
{
    int n = (int)json_array_size(ids), T = (int)json_array_size(json_array_get(ids, 0));
    *tk = (struct tokens){.n = n,
                          .T = T,
                          .n_holdout = n_holdout,
                          .ids = MEM_NEW(int32_t, (size_t)n * T),
                          .hash = "0123456789abcdef"};
    for (int i = 0; i < n * T; i++)
        tk->ids[i] = (int32_t)json_integer_value(
            json_array_get(json_array_get(ids, (size_t)(i / T)), (size_t)(i % T)));
}

void fixture_close(struct fixture *f)
{
    if (f->e.code) printf("# %s\n", f->e.text);
    scope_close(f->s);
    scope_input_clear(&f->in);
    tokens_clear(&f->tk);
    model_close(f->m);
    backend_close(f->be);
}

double worst(const float *a, const json_t *want, size_t n, size_t step)
{
    double d = 0, top = 0;
    for (size_t i = 0; i < n; i += step) {
        double b = json_number_value(json_array_get(want, i / step));
        if (!(fabs(a[i] - b) <= d)) d = fabs(a[i] - b);
        if (fabs(b) > top) top = fabs(b);
    }
    return json_array_size(want) == (n + step - 1) / step ? d / top : INFINITY;
}
