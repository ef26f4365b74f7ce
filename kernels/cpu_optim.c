/* SPDX-License-Identifier: Apache-2.0
 * Adam (Kingma & Ba, algorithm 1) with decoupled weight decay. */
#include "kernels/cpu.h"
#include <math.h>

enum { CHUNK = 16384 };

void cpu_adam(dev p, dev g, dev m, dev v, size_t n, float lr, float b1, float b2, float eps, float wd, int t)
{
    float step = (float)(lr / (1 - pow(b1, t))), root = (float)sqrt(1 - pow(b2, t)), decay = 1.0f - lr * wd;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i += CHUNK)
        vec->adam(cpu_f(p) + i, cpu_f(g) + i, cpu_f(m) + i, cpu_f(v) + i, n - i < CHUNK ? n - i : CHUNK, step,
                  b1, b2, root, eps, decay);
}
