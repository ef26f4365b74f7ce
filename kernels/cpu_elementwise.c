/* SPDX-License-Identifier: Apache-2.0
 * Element-wise operations, rotary embedding, embedding look-up: the loops are in vec_ops.h, here is who does
 * which part. */
#include "kernels/cpu.h"
#include <string.h>

enum { CHUNK = 16384, COLUMNS = 64 }; /* elements, columns per task */

#define FOR_CHUNKS(n) _Pragma("omp parallel for schedule(static)") for (size_t i = 0; i < (n); i += CHUNK)
#define LEN(n) ((n)-i < CHUNK ? (n)-i : CHUNK)

void cpu_add(dev y, dev a, dev b, size_t n)
{
    float *py = cpu_f(y);
    const float *pa = cpu_f(a), *pb = cpu_f(b);
    FOR_CHUNKS(n) vec->add(py + i, pa + i, pb + i, LEN(n));
}

void cpu_axpy(dev y, float s, dev x, size_t n)
{
    float *py = cpu_f(y);
    const float *px = cpu_f(x);
    FOR_CHUNKS(n) vec->axpy(py + i, s, px + i, LEN(n));
}

void cpu_add_bias(dev y, dev bias, int R, int D)
{
    float *py = cpu_f(y);
    const float *pb = cpu_f(bias);
#pragma omp parallel for schedule(static)
    for (int r = 0; r < R; r++) vec->add(py + (size_t)r * D, py + (size_t)r * D, pb, (size_t)D);
}

void cpu_sum_rows(dev dbias, dev dy, int R, int D)
{
    float *out = cpu_f(dbias);
    const float *in = cpu_f(dy);
#pragma omp parallel for schedule(static)
    for (int c = 0; c < D; c += COLUMNS) {
        int n = D - c < COLUMNS ? D - c : COLUMNS;
        for (int r = 0; r < R; r++) vec->add(out + c, out + c, in + (size_t)r * D + c, (size_t)n);
    }
}

void cpu_scale_rows(dev y, dev x, dev s, int R, int D)
{
    float *py = cpu_f(y);
    const float *px = cpu_f(x), *ps = cpu_f(s);
#pragma omp parallel for schedule(static)
    for (int r = 0; r < R; r++)
        for (size_t i = (size_t)r * D, end = i + (size_t)D; i < end; i++) py[i] = ps[r] * px[i];
}

void cpu_dot_rows(dev out, dev a, dev b, int R, int D)
{
    float *po = cpu_f(out);
    const float *pa = cpu_f(a), *pb = cpu_f(b);
#pragma omp parallel for schedule(static)
    for (int r = 0; r < R; r++) {
        double sum = 0;
        for (size_t i = (size_t)r * D, end = i + (size_t)D; i < end; i++) sum += (double)pa[i] * (double)pb[i];
        po[r] = (float)sum;
    }
}

void cpu_act(enum act kind, dev h, dev gate, dev up, size_t n)
{
    float *ph = cpu_f(h);
    const float *pg = cpu_f(gate), *pu = dev_ok(up) ? cpu_f(up) : NULL;
    FOR_CHUNKS(n) vec->act(kind, ph + i, pg + i, pu ? pu + i : NULL, LEN(n));
}

void cpu_act_back(enum act kind, dev dgate, dev dup, dev dh, dev gate, dev up, size_t n)
{
    float *dg = cpu_f(dgate), *du = dev_ok(up) ? cpu_f(dup) : NULL;
    const float *ph = cpu_f(dh), *pg = cpu_f(gate), *pu = dev_ok(up) ? cpu_f(up) : NULL;
    FOR_CHUNKS(n) vec->act_back(kind, dg + i, du ? du + i : NULL, ph + i, pg + i, pu ? pu + i : NULL, LEN(n));
}

void cpu_softcap(dev z, float cap, size_t n)
{
    float *p = cpu_f(z);
    FOR_CHUNKS(n) vec->softcap(p + i, cap, LEN(n));
}

void cpu_softcap_back(dev dz, dev z, float cap, size_t n)
{
    float *p = cpu_f(dz);
    const float *from = cpu_f(z);
    FOR_CHUNKS(n) vec->softcap_back(p + i, from + i, cap, LEN(n));
}

void cpu_clamp(dev x, float most, size_t n)
{
    float *p = cpu_f(x);
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++) p[i] = p[i] > most ? most : p[i] < -most ? -most : p[i];
}

void cpu_clamp_back(dev dx, dev x, float most, size_t n)
{
    float *p = cpu_f(dx);
    const float *at = cpu_f(x);
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++)
        if (at[i] >= most || at[i] <= -most) p[i] = 0;
}

void cpu_rope(dev x, int R, int T, int heads, int E, int rot, bool pairs, dev cossin, int pos0, float sign)
{
    float *px = cpu_f(x);
    const float *table = cpu_f(cossin);
#pragma omp parallel for schedule(static)
    for (int r = 0; r < R; r++)
        vec->rope_row(px + (size_t)r * heads * E, heads, E, rot, pairs, table + (size_t)(pos0 + r % T) * rot,
                      sign);
}

void cpu_embed(dev x, dev table, dev ids, int R, int D)
{
    float *px = cpu_f(x);
    const float *rows = cpu_f(table);
    const int32_t *id = cpu_i(ids);
#pragma omp parallel for schedule(static)
    for (int r = 0; r < R; r++)
        memcpy(px + (size_t)r * D, rows + (size_t)id[r] * D, (size_t)D * sizeof(float));
}

void cpu_embed_back(dev dtable, dev dx, dev ids, int R, int D)
{
    float *rows = cpu_f(dtable);
    const float *px = cpu_f(dx);
    const int32_t *id = cpu_i(ids);
#pragma omp parallel for schedule(static)
    for (int c = 0; c < D; c += COLUMNS) {
        int n = D - c < COLUMNS ? D - c : COLUMNS;
        for (int r = 0; r < R; r++) {
            float *row = rows + (size_t)id[r] * D + c;
            vec->add(row, row, px + (size_t)r * D + c, (size_t)n);
        }
    }
}
