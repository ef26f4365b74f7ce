/* SPDX-License-Identifier: Apache-2.0
 * ggml's types whose levels come from a table: IQ (code books of 4 or 8 elements with signs, or 16 levels),
 * TQ (ternary), MXFP4 and NVFP4 (4-bit floats). As in ggml_types.c: block in, floats out, the order of the
 * float operations is ggml's. */
#include "common/ggml_types.h"
#include <math.h>

static float half_at(const uint8_t *p)
{
    return f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

static uint32_t u32_at(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* ---- code books ---- */

static const float levels2[4] = {0x08, 0x19, 0x2b, 0},
                   levels3[8] = {0x04, 0x0c, 0x14, 0x1c, 0x24, 0x2c, 0x34, 0x3e},
                   levels3s[8] = {1, 3, 5, 7, 9, 11, 13, 15}, levels1[4] = {-1, 0, 1, 0};

/* Eight signs from seven bits: their number is even. */
static unsigned even_signs(unsigned i)
{
    return i | (unsigned)__builtin_parity(i) << 7;
}

static void put8(float *y, float d, unsigned word, unsigned signs)
{
    for (int k = 0; k < 8; k++) {
        float v = d * levels2[word >> 2 * k & 3];
        y[k] = signs >> k & 1 ? -v : v;
    }
}

static void put4(float *y, float d, unsigned word, const float *levels, unsigned signs)
{
    for (int k = 0; k < 4; k++) {
        float v = d * levels[word >> 4 * k & 7];
        y[k] = signs >> k & 1 ? -v : v;
    }
}

/* d; per 32: four bytes of indices, then 4 x 7 bits of signs and a 4-bit scale */
void ggml_iq2_xxs(float *y, const uint8_t *b)
{
    for (int g = 0; g < 8; g++) {
        const uint8_t *q = b + 2 + 8 * g;
        uint32_t s = u32_at(q + 4);
        float d = half_at(b) * (0.5f + (float)(s >> 28)) * 0.25f;
        for (int k = 0; k < 4; k++)
            put8(y + 32 * g + 8 * k, d, ggml_grid_iq2_xxs[q[k]], even_signs(s >> 7 * k & 127));
    }
}

/* d, 32 words of 9 bits of index and 7 of signs, 4-bit scale per 16 */
void ggml_iq2_xs(float *y, const uint8_t *b)
{
    for (int k = 0; k < 32; k++) {
        unsigned q = b[2 + 2 * k] | (unsigned)b[3 + 2 * k] << 8, s = b[66 + k / 4] >> (k & 2 ? 4 : 0) & 15;
        put8(y + 8 * k, half_at(b) * (0.5f + (float)s) * 0.25f, ggml_grid_iq2_xs[q & 511],
             even_signs(q >> 9));
    }
}

/* d, low bytes of 32 indices, 32 bytes of signs, 2 high bits each, 4-bit scale per 16 */
void ggml_iq2_s(float *y, const uint8_t *b)
{
    for (int k = 0; k < 32; k++) {
        unsigned q = b[2 + k] | (unsigned)(b[66 + k / 4] >> 2 * (k & 3) & 3) << 8,
                 s = b[74 + k / 4] >> (k & 2 ? 4 : 0) & 15;
        put8(y + 8 * k, half_at(b) * (0.5f + (float)s) * 0.25f, ggml_grid_iq2_s[q], b[34 + k]);
    }
}

/* d, 64 indices, per 32: 4 x 7 bits of signs and a 4-bit scale */
void ggml_iq3_xxs(float *y, const uint8_t *b)
{
    for (int k = 0; k < 64; k++) {
        uint32_t s = u32_at(b + 66 + 4 * (k / 8));
        unsigned signs = even_signs(s >> 7 * (k / 2 & 3) & 127) >> 4 * (k & 1);
        put4(y + 4 * k, half_at(b) * (0.5f + (float)(s >> 28)) * 0.5f, ggml_grid_iq3_xxs[b[2 + k]], levels3,
             signs);
    }
}

/* d, low bytes of 64 indices, a high bit each, 32 bytes of signs, 4-bit scale per 32 */
void ggml_iq3_s(float *y, const uint8_t *b)
{
    for (int k = 0; k < 64; k++) {
        unsigned q = b[2 + k] | (unsigned)(b[66 + k / 8] >> (k & 7) & 1) << 8,
                 s = b[106 + k / 16] >> (k & 8 ? 4 : 0) & 15;
        put4(y + 4 * k, half_at(b) * (float)(1 + 2 * s), ggml_grid_iq3_s[q], levels3s,
             b[74 + k / 2] >> 4 * (k & 1));
    }
}

static void put1(float *y, float d, unsigned word, bool down)
{
    for (int k = 0; k < 8; k++) y[k] = d * (levels1[word >> 2 * k & 3] + (down ? -0.125f : 0.125f));
}

/* d, low bytes of 32 indices, per 32 a word: 4 x 3 high bits, a 3-bit scale, the sign of the shift */
void ggml_iq1_s(float *y, const uint8_t *b)
{
    for (int k = 0; k < 32; k++) {
        const uint8_t *h = b + 34 + 2 * (k / 4);
        unsigned w = h[0] | (unsigned)h[1] << 8, q = b[2 + k] | (w >> 3 * (k & 3) & 7) << 8;
        put1(y + 8 * k, half_at(b) * (float)(2 * (w >> 12 & 7) + 1), ggml_grid_iq1_s[q], w >> 15);
    }
}

/* Low bytes of 32 indices, 4 bits each of high bits and shift, 4 words of 4 x 3-bit scales whose high bits
 * together are d. */
void ggml_iq1_m(float *y, const uint8_t *b)
{
    unsigned w[4], half = 0;
    for (int i = 0; i < 4; i++) {
        w[i] = b[48 + 2 * i] | (unsigned)b[49 + 2 * i] << 8;
        half |= (w[i] >> 12) << 4 * i;
    }
    for (int k = 0; k < 32; k++) {
        unsigned h = b[32 + k / 2] >> 4 * (k & 1), s = w[k / 8] >> 3 * (k / 2 & 3) & 7;
        put1(y + 8 * k, f16_to_f32((uint16_t)half) * (float)(2 * s + 1), ggml_grid_iq1_s[b[k] | (h & 7) << 8],
             h & 8);
    }
}

/* ---- sixteen levels ---- */

static const float levels4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113},
                   levels_e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}; /* doubled */

/* 2n elements: low nibbles first */
static void nibbles(float *y, float d, const uint8_t *q, int n, const float *levels)
{
    for (int k = 0; k < n; k++) y[k] = d * levels[q[k] & 15], y[k + n] = d * levels[q[k] >> 4];
}

void ggml_iq4_nl(float *y, const uint8_t *b)
{
    nibbles(y, half_at(b), b + 2, 16, levels4);
}

/* d, 8 x 2 high bits and 8 x 4 low bits of scales, then 32 elements each */
void ggml_iq4_xs(float *y, const uint8_t *b)
{
    unsigned high = b[2] | (unsigned)b[3] << 8;
    for (int g = 0; g < 8; g++) {
        int s = (b[4 + g / 2] >> 4 * (g & 1) & 15) | (int)(high >> 2 * g & 3) << 4;
        nibbles(y + 32 * g, half_at(b) * (float)(s - 32), b + 8 + 16 * g, 16, levels4);
    }
}

/* 2^(e - 127), halved for the doubled levels */
void ggml_mxfp4(float *y, const uint8_t *b)
{
    nibbles(y, ldexpf(1, b[0] - 128), b + 1, 16, levels_e2m1);
}

/* four unsigned E4M3 scales, 16 elements each; 0x7f counts as 0 */
void ggml_nvfp4(float *y, const uint8_t *b)
{
    for (int g = 0; g < 4; g++) {
        int e = b[g] >> 3 & 15, m = b[g] & 7;
        float d = b[g] == 0x7F ? 0 : e ? ldexpf((float)(8 + m), e - 11) : ldexpf((float)m, -10);
        nibbles(y + 16 * g, d, b + 4 + 8 * g, 8, levels_e2m1);
    }
}

/* ---- ternary ---- */

/* Base 3, five (or four) digits a byte, most significant first, as a fraction of 256. */
static void trits(float *y, float d, const uint8_t *q, int n, int digits)
{
    static const uint8_t power[5] = {1, 3, 9, 27, 81};
    for (int k = 0; k < digits; k++)
        for (int i = 0; i < n; i++) y[k * n + i] = d * (float)(((uint8_t)(q[i] * power[k]) * 3 >> 8) - 1);
}

void ggml_tq1_0(float *y, const uint8_t *b)
{
    float d = half_at(b + 52);
    trits(y, d, b, 32, 5);
    trits(y + 160, d, b + 32, 16, 5);
    trits(y + 240, d, b + 48, 4, 4);
}

void ggml_tq2_0(float *y, const uint8_t *b)
{
    float d = half_at(b + 64);
    for (int k = 0; k < 256; k++) y[k] = d * (float)((b[k / 128 * 32 + k % 32] >> 2 * (k / 32 & 3) & 3) - 1);
}
