/* SPDX-License-Identifier: Apache-2.0
 * Lossless re-encoding: the type that is chosen, and that every value comes back. Expectations are computed
 * here from the form's formula, in double. */
#include "common/ggml_encode.h"
#include "common/ggml_types.h"
#include "common/mem.h"
#include "common/rng.h"
#include "tests/check.h"

enum { OUT = 6, IN = 128 };

struct spec {
    int bits, group;
    bool sym, minimum;
    int gidx;            /* 0 none, 1 constant over blocks of 32, 2 not */
    float scale_step;    /* scales are multiples of it */
    int zero_lo, zero_hi;/* range of zeros */
    enum dtype want;
    const char *what;
};

static uint64_t counter;
static int below(int n) { return (int)rng_below(1, 2, counter++, (uint64_t)n); }

static void fill(struct qtensor *q, const struct spec *s)
{
    qtensor_init_uniform(q, OUT, IN, s->bits, s->group, s->sym, DT_F32);
    for (int i = 0; i < OUT * IN; i++) q->codes[i] = (uint8_t)below(1 << s->bits);
    for (int o = 0; o < OUT; o++) /* every block sees the whole range */
        for (int b = 0; b < IN; b += 32)
            q->codes[o * IN + b] = 0, q->codes[o * IN + b + 1] = (uint8_t)((1 << s->bits) - 1);
    for (int i = 0; i < OUT * q->n_groups; i++) {
        q->scale[i] = s->scale_step * (float)(1 + below(1000));
        if (q->zero) q->zero[i] = (uint8_t)(s->zero_lo + below(s->zero_hi - s->zero_lo + 1));
    }
    if (s->minimum) {
        mem_free(q->zero);
        q->zero = NULL;
        q->minimum = MEM_NEW(float, (size_t)OUT * (size_t)q->n_groups);
        for (int i = 0; i < OUT * q->n_groups; i++) q->minimum[i] = -0.125f * (float)below(1000);
    }
    if (s->gidx) q->gidx = MEM_NEW(int32_t, IN);
    for (int i = 0; s->gidx && i < IN; i++)
        q->gidx[i] = s->gidx == 1 ? (i / 32 + 1) % q->n_groups : i % q->n_groups;
}

static double value(const struct qtensor *q, int o, int i)
{
    int width = q->n_groups == 1 ? q->in : q->group, g = q->gidx ? q->gidx[i] : i / width;
    double s = q->scale[o * q->n_groups + g], c = q->codes[o * q->in + i];
    if (q->minimum) return s * c + q->minimum[o * q->n_groups + g];
    return s * (c - (q->zero ? q->zero[o * q->n_groups + g] : 1 << (q->bits - 1)));
}

static void try(const struct spec *s)
{
    struct qtensor q = {0};
    uint8_t row[IN * 4];
    float y[IN];
    int bad = 0;
    fill(&q, s);
    enum dtype t = ggml_encode_choose(&q);
    CHECK(t == s->want, "%s: %s chosen, %s expected", s->what, dtype_name(t), dtype_name(s->want));
    for (int o = 0; o < OUT && dtype_block(t) > 1; o++) {
        ggml_encode_row(&q, t, o, row);
        ggml_to_f32(y, t, row, IN);
        for (int i = 0; i < IN; i++) bad += y[i] != (float)value(&q, o, i);
    }
    CHECK(!bad, "%s: every value comes back (%d do not)", s->what, bad);
    qtensor_clear(&q);
}

static void float_types(void)
{
    const float third = 1.0f / 3, big = 1e10f, both[] = {1, -0.5f, 0, 65504}, bf[] = {1, 0x1p100f},
                f16[] = {1.0009765625f, 2};
    CHECK(float_type_of(float_types_for(f16, 2)) == DT_F16, "ten bits of fraction need F16");
    CHECK(float_type_of(float_types_for(bf, 2)) == DT_BF16, "a large exponent needs BF16");
    CHECK(float_type_of(float_types_for(&third, 1)) == DT_F32 &&
              float_type_of(float_types_for(&big, 1)) == DT_F32,
          "a third and 1e10 need F32");
    CHECK(float_types_for(both, 3) == FLOAT_TYPES_ALL, "small numbers fit both");
    CHECK(float_type_of(float_types_for(f16, 2) & float_types_for(bf, 2)) == DT_F32,
          "pieces that fit different types need F32");
}

int main(void)
{
    static const float f16_step = 1.0f / 4096, odd_step = 1.0f / 3;
    static const struct spec specs[] = {
        {4, 32, true, false, 0, f16_step, 0, 0, DT_Q4_0, "symmetric 4 bits, groups of 32"},
        {4, 64, true, false, 0, f16_step, 0, 0, DT_Q4_0, "symmetric 4 bits, groups of 64"},
        {4, 0, true, false, 0, f16_step, 0, 0, DT_Q4_0, "symmetric 4 bits, whole rows"},
        {2, 64, true, false, 0, f16_step, 0, 0, DT_Q4_0, "symmetric 2 bits"},
        {3, 32, false, false, 0, f16_step, 0, 7, DT_Q4_0, "asymmetric 3 bits"},
        {4, 32, false, false, 0, 1.0f / 64, 8, 8, DT_Q4_0, "asymmetric 4 bits whose zeros are 8"},
        {4, 32, false, false, 0, 1.0f / 1024, 1, 2, DT_Q4_1, "asymmetric 4 bits whose minima are exact"},
        {4, 32, false, false, 0, f16_step, 0, 15, DT_Q5_0, "asymmetric 4 bits, any zero"},
        {5, 32, true, false, 0, f16_step, 0, 0, DT_Q5_0, "symmetric 5 bits"},
        {6, 32, false, false, 0, f16_step, 0, 63, DT_Q8_0, "asymmetric 6 bits"},
        {8, 32, true, false, 0, f16_step, 0, 0, DT_Q8_0, "symmetric 8 bits"},
        {4, 32, false, true, 0, f16_step, 0, 0, DT_Q4_1, "4 bits with minima"},
        {5, 32, false, true, 0, f16_step, 0, 0, DT_Q5_1, "5 bits with minima"},
        {4, 32, true, false, 1, f16_step, 0, 0, DT_Q4_0, "groups permuted by whole blocks"},
        {4, 32, true, false, 2, 1.0f / 4, 0, 0, DT_F32, "groups permuted within blocks, large scales"},
        {2, 48, true, false, 0, f16_step, 0, 0, DT_F16, "groups of 48"},
        {4, 32, true, false, 0, odd_step, 0, 0, DT_F32, "scales that F16 cannot hold"},
        {8, 32, false, false, 0, f16_step, 0, 255, DT_F32, "asymmetric 8 bits"},
    };
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) try(&specs[i]);
    float_types();
    return check_done();
}
