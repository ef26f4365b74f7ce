/* SPDX-License-Identifier: Apache-2.0
 * Encoding and decoding of GPTQ linears. A packed row is one bit stream of 32-bit words, which serves 3 bits
 * (32 values in 3 words) like the rest. */
#include "common/gptq_file.h"
#include "common/checkpoint_impl.h"
#include "common/mem.h"
#include <string.h>

const char *gptq_refusal(const struct qtensor *q)
{
    if (q->form != QF_UNIFORM) return "is not quantized uniformly";
    if (q->minimum) return "has float minima, GPTQ files have integer zeros";
    if (q->bits != 2 && q->bits != 3 && q->bits != 4 && q->bits != 8)
        return "has a number of bits other than 2, 3, 4, 8";
    if (q->in * q->bits % 32 || q->out * q->bits % 32 || q->in % 32 || q->out % 32)
        return "has a size that is no multiple of 32";
    for (size_t i = 0; i < (size_t)q->out * (size_t)q->n_groups; i++)
        if (f16_to_f32(f32_to_f16(q->scale[i])) != q->scale[i])
            return "has scales that F16 cannot hold exactly";
    return NULL;
}

/* Puts value v at position i of a bit stream whose words are `stride` apart. */
static void put_bits(int32_t *words, size_t stride, uint64_t i, int bits, uint32_t v)
{
    uint64_t at = i * (uint64_t)bits;
    int off = (int)(at % 32);
    uint32_t *w = (uint32_t *)&words[at / 32 * stride];
    *w |= v << off;
    if (off + bits > 32) *(uint32_t *)&words[(at / 32 + 1) * stride] |= v >> (32 - off);
}

void gptq_encode(const struct qtensor *q, struct gptq_linear *g, uint64_t *wrapped)
{
    size_t out = (size_t)q->out, in = (size_t)q->in, groups = (size_t)q->n_groups, bits = (size_t)q->bits;
    uint32_t mask = (1u << bits) - 1;
    *g = (struct gptq_linear){.bits = q->bits, .groups = q->n_groups, .n_qweight = in * bits / 32 * out,
                              .n_qzeros = groups * (out * bits / 32), .n_scales = groups * out};
    g->qweight = MEM_NEW(int32_t, g->n_qweight);
    g->qzeros = MEM_NEW(int32_t, g->n_qzeros);
    g->scales = MEM_NEW(uint16_t, g->n_scales);
    g->g_idx = MEM_NEW(int32_t, in);
    size_t width = groups == 1 ? in : (size_t)q->group;
    for (size_t i = 0; i < in; i++) g->g_idx[i] = q->gidx ? q->gidx[i] : (int32_t)(i / width);
    for (size_t o = 0; o < out; o++) {
        for (size_t i = 0; i < in; i++) put_bits(g->qweight + o, out, i, q->bits, q->codes[o * in + i]);
        for (size_t k = 0; k < groups; k++) {
            uint32_t z = q->zero ? q->zero[o * groups + k] : 1u << (bits - 1);
            *wrapped += z == 0;
            put_bits(g->qzeros + k * (out * bits / 32), 1, o, q->bits, (z - 1) & mask);
            g->scales[k * out + o] = f32_to_f16(q->scale[o * groups + k]);
        }
    }
}

void gptq_clear(struct gptq_linear *g)
{
    mem_free(g->qweight);
    mem_free(g->qzeros);
    mem_free(g->scales);
    mem_free(g->g_idx);
    memset(g, 0, sizeof *g);
}

/* ---- reading ---- */

int gptq_checkpoint_bits(const struct checkpoint *c, struct err *e)
{
    const json_t *q = json_object_get(c->config, "quantization_config");
    const char *method = json_string_value(json_object_get(q, "quant_method"));
    const char *format = json_string_value(json_object_get(q, "checkpoint_format"));
    if (!method || strcmp(method, "gptq") != 0) return 0;
    json_int_t bits = json_integer_value(json_object_get(q, "bits"));
    if ((format && strcmp(format, "gptq") != 0) || (bits != 2 && bits != 3 && bits != 4 && bits != 8))
        return err_set(
            e, NT_EXIT_DATA,
            "%s: a GPTQ checkpoint of format %.40s, %lld bits: only version 1 with 2, 3, 4 or 8 is "
            "supported",
            c->path, format ? format : "gptq", (long long)bits);
    return (int)bits;
}

static const void *part(const struct checkpoint *c, const char *base, const char *suffix, enum dtype t,
                        uint64_t a, uint64_t b, struct err *e)
{
    char *name = mem_printf("%s.%s", base, suffix);
    const struct checkpoint_tensor *x = checkpoint_find(c, name);
    bool fits =
        x && x->t.dtype == t && x->t.rank == (b ? 2 : 1) && x->t.shape[0] == a && (!b || x->t.shape[1] == b);
    if (!fits) err_set(e, NT_EXIT_DATA, "%s: tensor %s: missing or of another type or shape", c->path, name);
    mem_free(name);
    return fits ? x->t.data : NULL;
}

/* Bits [i*bits, i*bits + bits) of a stream of 32-bit words that are `stride` words apart. */
static uint32_t take(const int32_t *words, size_t stride, uint64_t i, unsigned bits)
{
    uint32_t v = 0;
    for (unsigned b = 0; b < bits; b++) {
        uint64_t at = i * bits + b;
        v |= ((uint32_t)words[at / 32 * stride] >> (at % 32) & 1) << b;
    }
    return v;
}

int gptq_read_linear(const struct checkpoint *c, const char *base, int bits, int out, int in, float *dst,
                     struct err *e)
{
    char *name = mem_printf("%s.scales", base);
    const struct checkpoint_tensor *s = checkpoint_find(c, name);
    mem_free(name);
    uint64_t groups = s && s->t.rank == 2 ? s->t.shape[0] : 0, o = (uint64_t)out, n = (uint64_t)in,
             b = (uint64_t)bits;
    const int32_t *qw = part(c, base, "qweight", DT_I32, n * b / 32, o, e),
                  *gi = part(c, base, "g_idx", DT_I32, n, 0, e);
    const int32_t *qz = groups ? part(c, base, "qzeros", DT_I32, groups, o * b / 32, e) : NULL;
    const uint16_t *sc = groups ? part(c, base, "scales", DT_F16, groups, o, e) : NULL;
    if (!groups) err_set(e, NT_EXIT_DATA, "%s: tensor %s.scales: missing or empty", c->path, base);
    if (!qw || !gi || !qz || !sc) return -1;
    for (uint64_t i = 0; i < n; i++)
        if (gi[i] < 0 || (uint64_t)gi[i] >= groups)
            return err_set(e, NT_EXIT_DATA, "%s: tensor %s.g_idx: group %d of %llu", c->path, base, gi[i],
                           (unsigned long long)groups);
#pragma omp parallel for schedule(static)
    for (uint64_t r = 0; r < o; r++)
        for (uint64_t i = 0; i < n; i++) {
            uint64_t g = (uint64_t)gi[i];
            uint32_t z = (take(qz + g * (o * b / 32), 1, r, (unsigned)b) + 1) & ((1u << b) - 1);
            dst[r * n + i] =
                f16_to_f32(sc[g * o + r]) * (float)((int)take(qw + r, o, i, (unsigned)b) - (int)z);
        }
    return 0;
}
