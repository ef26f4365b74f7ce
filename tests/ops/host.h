/* SPDX-License-Identifier: Apache-2.0
 * Arrays that live three times: host float, host double, device; and the backends under test. */
#ifndef NT_OPS_HOST_H
#define NT_OPS_HOST_H
#include "kernels/backend.h"

struct arr {
    size_t n;
    float *f;
    double *d; /* the same values */
    dev p;
};
void arr_use(const struct backend *be);        /* backend for what follows; resets the random numbers */
struct arr arr_random(size_t n, double scale); /* uniform in +-scale, never within 1e-3 scale of 0 */
struct arr arr_zero(size_t n);
struct arr arr_ids(size_t n, int below); /* i32 in p and f, the same numbers in d */
void arr_fetch(struct arr *a);           /* device to f */
void arr_free_all(void);                 /* everything since arr_use */
double arr_err(struct arr *a);           /* fetches; largest |f - d| relative to the largest |d| */
#endif
