/* SPDX-License-Identifier: Apache-2.0
 * The layouts of compressed-tensors (llm-compressor), told apart by the parts themselves:
 *   pack-quantized   weight_packed I32 [out, words], weight_scale, weight_zero_point I32 [words, groups],
 *                    weight_shape [2], weight_g_idx [in]; codes are dense, or (3, 5, 6, 7 bits, older files)
 *                    whole codes fill each word from below; the width says which
 *   nvfp4, mxfp4     weight_packed U8 [out, in/2], even columns in the low nibble; weight_scale F8_E4M3 and
 *                    weight_global_scale, which divides, or U8 (E8M0)
 *   int, float, naive   weight I8 or F8_E4M3 [out, in], weight_scale of the tensor, a row, groups or blocks
 * and fp8 of DeepSeek (weight_scale_inv by blocks, which multiplies). Scales of activations are left out. */
#include <math.h>
#include <string.h>
#include "common/checkpoint_impl.h"
#include "common/mem.h"
#include "common/qtensor.h"

enum { WEIGHT, SCALE, ZERO, SHAPE, G_IDX, GLOBAL, INPUT_SCALE, INPUT_ZERO };

/* variant: bits of these */
enum { PADDED = 1, PERMUTED = 2, INTEGERS = 4, NIBBLES = 8 };

static const enum dtype words[3] = {DT_I32, DT_U32, DT_I32}, sizes[3] = {DT_I64, DT_I32, DT_I64};

/* What the configuration says of weights in its first group; the groups differ by the modules they are for.
 */
static const json_t *weights_of(const json_t *group)
{
    return json_object_get(group, "weights");
}

static json_int_t said(const struct checkpoint *c, const char *key)
{
    const char *name;
    json_t *group;
    json_t *groups = json_object_get(c->quantization, "config_groups");
    json_object_foreach(groups, name, group)
    {
        const json_t *v = json_object_get(weights_of(group), key);
        if (json_is_integer(v)) return json_integer_value(v);
    }
    return 0;
}

/* Row of the scales that row o of the weight uses: one for all, one each, or one for a block of rows. */
static uint64_t scale_row(const struct packed *p, uint64_t o)
{
    const struct tensor *t = &p->part[SCALE]->t;
    uint64_t rows = t->rank ? t->shape[0] : 1, out = (uint64_t)p->out;
    return rows == 1 ? 0 : rows == out ? o : o / 128;
}

static uint32_t padded_code(const void *at, uint64_t stride, uint64_t i, int bits)
{
    uint64_t each = 32 / (uint64_t)bits;
    return packed_word(at, i / each * stride) >> i % each * (uint64_t)bits & ((1u << bits) - 1);
}

static uint8_t zero_of(const struct packed *p, uint64_t o, uint64_t g)
{
    const struct tensor *t = &p->part[ZERO]->t;
    if (p->variant & INTEGERS) {
        uint64_t at = (t->rank && t->shape[0] == 1 ? 0 : o) * (uint64_t)p->groups + g;
        return (uint8_t)(((const uint8_t *)t->data)[at] ^ 0x80);
    }
    const char *column = (const char *)t->data + 4 * g;
    return (uint8_t)(p->variant & PADDED ? padded_code(column, (uint64_t)p->groups, o, p->bits)
                                         : packed_code_apart(column, (uint64_t)p->groups, o, p->bits));
}

static void codes_of(const struct packed *p, uint64_t o, uint8_t *codes)
{
    const struct tensor *t = &p->part[WEIGHT]->t;
    size_t in = (size_t)p->in, row = (size_t)t->nbytes / (size_t)p->out;
    const uint8_t *at = (const uint8_t *)t->data + o * row;
    if (p->variant & NIBBLES)
        packed_nibbles(codes, at, in);
    else if (p->variant & INTEGERS)
        for (size_t i = 0; i < in; i++) codes[i] = at[i] ^ 0x80;
    else if (p->variant & PADDED)
        for (size_t i = 0; i < in; i++) codes[i] = (uint8_t)padded_code(at, 1, i, p->bits);
    else if (t->dtype == DT_F8_E4M3)
        memcpy(codes, at, in);
    else
        packed_unpack(codes, at, 1, in, p->bits);
}

static void put(const struct packed *p, uint64_t row, const uint8_t *codes, uint8_t *bytes)
{
    const struct tensor *t = &p->part[WEIGHT]->t;
    size_t in = (size_t)p->in, each = 32 / (size_t)p->bits;
    uint8_t *at = bytes + row * (t->nbytes / (uint64_t)p->out);
    uint32_t *word = (uint32_t *)(void *)at; /* of those that have words */
    if (p->variant & NIBBLES)
        packed_put_nibbles(codes, at, in);
    else if (p->variant & INTEGERS)
        for (size_t i = 0; i < in; i++) at[i] = codes[i] ^ 0x80;
    else if (p->variant & PADDED)
        for (size_t i = 0; i < in; i++) word[i / each] |= (uint32_t)codes[i] << i % each * (size_t)p->bits;
    else if (t->dtype == DT_F8_E4M3)
        memcpy(at, codes, in);
    else
        packed_pack(codes, word, 1, in, p->bits);
}

static int rows(const struct checkpoint *c, const struct packed *p, int r0, int n, struct qtensor *q,
                struct err *e)
{
    enum dtype scale = p->part[SCALE]->t.dtype == DT_U8 ? DT_F8_E8M0 : p->part[SCALE]->t.dtype;
    size_t groups = (size_t)p->groups, in = (size_t)p->in, size = (size_t)dtype_block_bytes(scale);
    (void)c, (void)e;
    if (p->part[WEIGHT]->t.dtype == DT_F8_E4M3 || p->variant & NIBBLES)
        qtensor_init_codebook(q, n, p->in, p->variant & NIBBLES ? "e2m1" : "e4m3", p->group, scale);
    else
        qtensor_init_uniform(q, n, p->in, p->bits, p->group, p->sym, scale);
    q->divisor = p->factor;
#pragma omp parallel for schedule(static) if (n > 15)
    for (int r = 0; r < n; r++) {
        uint64_t o = (uint64_t)(r0 + r);
        codes_of(p, o, q->codes + (size_t)r * in);
        const char *from = (const char *)p->part[SCALE]->t.data + scale_row(p, o) * groups * size;
        dtype_to_f32(q->scale + (size_t)r * groups, scale, from, groups);
        for (size_t g = 0; q->zero && g < groups; g++) q->zero[(size_t)r * groups + g] = zero_of(p, o, g);
    }
    if (!(p->variant & PERMUTED)) return 0;
    q->gidx = MEM_NEW(int32_t, in);
    for (size_t i = 0; i < in; i++) q->gidx[i] = (int32_t)packed_word(p->part[G_IDX]->t.data, i);
    return 0;
}

/* ---- opening ---- */

/* Scales [1], [out] or [out, 1], [out, groups], or one for each 128 x 128. */
static int check_scales(const struct checkpoint *c, const char *base, struct packed *p, struct err *e)
{
    const struct tensor *t = &p->part[SCALE]->t;
    uint64_t r = t->rank ? t->shape[0] : 1, k = t->rank == 2 ? t->shape[1] : 1, out = (uint64_t)p->out;
    bool blocks = r != 1 && r != out;
    if (t->rank > 2 || !r || !k || k > (uint64_t)p->in || (blocks && r != (out + 127) / 128))
        return packed_bad(c, base, "its scales do not fit its shape", e);
    p->groups = (int)k;
    p->group = packed_group(p->in, p->groups, blocks ? 128 : said(c, "group_size"));
    return p->group < 0 ? packed_bad(c, base, "its groups do not fit its inputs", e) : 0;
}

static int check_index(const struct checkpoint *c, const char *base, struct packed *p, struct err *e)
{
    static const enum dtype any[3] = {DT_I32, DT_I32, DT_I32};
    if (!packed_part(c, base, ".weight_g_idx")) return 0;
    if (!(p->part[G_IDX] = packed_need(c, base, ".weight_g_idx", any, (uint64_t)p->in, 0, e))) return -1;
    if (packed_word(p->part[G_IDX]->t.data, 0) == UINT32_MAX) return 0; /* never set */
    size_t width = p->groups == 1 ? (size_t)p->in : (size_t)p->group;
    for (size_t i = 0; i < (size_t)p->in; i++) {
        uint32_t g = packed_word(p->part[G_IDX]->t.data, i);
        if (g >= (uint32_t)p->groups)
            return packed_bad(c, base, "weight_g_idx names a group that is not there", e);
        if (g != i / width) p->variant |= PERMUTED;
    }
    return 0;
}

static int finish(struct checkpoint *c, const char *base, struct packed *p, struct err *e)
{
    p->part[INPUT_SCALE] = packed_part(c, base, ".input_scale");
    if (!p->part[INPUT_SCALE]) p->part[INPUT_SCALE] = packed_part(c, base, ".input_global_scale");
    p->part[INPUT_ZERO] = packed_part(c, base, ".input_zero_point");
    p->rows = rows, p->put = put;
    return packed_add(c, base, p, e);
}

/* Which of the numbers of bits that the configuration names gives that many words, and how. */
static bool find_bits(const struct checkpoint *c, uint64_t n_words, struct packed *p)
{
    const char *name;
    json_t *group;
    json_t *groups = json_object_get(c->quantization, "config_groups");
    json_object_foreach(groups, name, group)
    {
        json_int_t b = json_integer_value(json_object_get(weights_of(group), "num_bits"));
        uint64_t in = (uint64_t)p->in;
        if (b < 2 || b > 8) continue;
        bool dense = n_words == (in * (uint64_t)b + 31) / 32;
        if (!dense && n_words != (in + 32 / (uint64_t)b - 1) / (32 / (uint64_t)b)) continue;
        p->bits = (int)b;
        if (!dense) p->variant |= PADDED;
        return true;
    }
    return false;
}

static int add_words(struct checkpoint *c, const char *base, struct packed *p, struct err *e)
{
    const struct checkpoint_tensor *w = p->part[WEIGHT];
    p->part[SHAPE] = packed_need(c, base, ".weight_shape", sizes, 2, 0, e);
    if (!p->part[SHAPE]) return -1;
    uint64_t dims[2] = {0};
    size_t size = (size_t)dtype_block_bytes(p->part[SHAPE]->t.dtype);
    for (int i = 0; i < 2; i++) memcpy(&dims[i], (const char *)p->part[SHAPE]->t.data + i * (int)size, size);
    if (dims[0] != w->t.shape[0] || dims[0] > 1 << 24 || dims[1] > 1 << 24 || !dims[0] || !dims[1])
        return packed_bad(c, base, "weight_shape is not the shape of weight_packed", e);
    p->out = (int)dims[0], p->in = (int)dims[1];
    if (!find_bits(c, w->t.shape[1], p))
        return packed_bad(c, base, "no number of bits in config_groups fits its width", e);
    if (check_scales(c, base, p, e) < 0 || check_index(c, base, p, e) < 0) return -1;
    uint64_t out = (uint64_t)p->out, each = 32 / (uint64_t)p->bits,
             high = p->variant & PADDED ? (out + each - 1) / each : (out * (uint64_t)p->bits + 31) / 32;
    p->sym = !packed_part(c, base, ".weight_zero_point");
    if (!p->sym &&
        !(p->part[ZERO] = packed_need(c, base, ".weight_zero_point", words, high, (uint64_t)p->groups, e)))
        return -1;
    return finish(c, base, p, e);
}

static int add_nibbles(struct checkpoint *c, const char *base, struct packed *p, struct err *e)
{
    const struct tensor *s = &p->part[SCALE]->t;
    p->variant |= NIBBLES, p->bits = 4, p->sym = true;
    p->out = (int)p->part[WEIGHT]->t.shape[0], p->in = (int)(2 * p->part[WEIGHT]->t.shape[1]);
    bool nv = s->dtype == DT_F8_E4M3;
    if ((!nv && s->dtype != DT_U8 && s->dtype != DT_F8_E8M0) || s->rank != 2 ||
        s->shape[0] != (uint64_t)p->out)
        return packed_bad(c, base, "4-bit floats whose scales are neither those of NVFP4 nor of MXFP4", e);
    if (nv) {
        const struct checkpoint_tensor *g = p->part[GLOBAL] = packed_part(c, base, ".weight_global_scale");
        if (!g || g->t.dtype != DT_F32 || tensor_count(&g->t) != 1)
            return packed_bad(c, base, "weight_global_scale is missing", e);
        p->factor = packed_float(g, 0);
        if (!isfinite(p->factor) || !(p->factor > 0))
            return packed_bad(c, base, "weight_global_scale is no positive number", e);
    }
    if (s->shape[1] * (nv ? 16 : 32) != (uint64_t)p->in)
        return packed_bad(c, base, "its groups do not fit its inputs", e);
    return check_scales(c, base, p, e) < 0 ? -1 : finish(c, base, p, e);
}

static bool is_matrix(const struct checkpoint_tensor *t)
{
    return t && t->t.rank == 2 && t->t.shape[0] && t->t.shape[1] && t->t.shape[0] <= 1 << 24 &&
           t->t.shape[1] <= 1 << 24;
}

static int add_packed(struct checkpoint *c, const char *base, const struct checkpoint_tensor *w,
                      struct err *e)
{
    struct packed p = {.part = {w, packed_part(c, base, ".weight_scale")}};
    const struct checkpoint_tensor *s = p.part[SCALE];
    if (!is_matrix(w) || !s) return packed_bad(c, base, "weight_packed without weight_scale", e);
    if (w->t.dtype == DT_U8) return add_nibbles(c, base, &p, e);
    if (w->t.dtype != DT_I32 || (s->t.dtype != DT_F16 && s->t.dtype != DT_BF16 && s->t.dtype != DT_F32))
        return packed_bad(c, base, "weight_packed or weight_scale of another type than expected", e);
    return add_words(c, base, &p, e);
}

/* weight I8 or F8_E4M3 with scales; weights without are floats. */
static int add_scaled(struct checkpoint *c, const char *base, const struct checkpoint_tensor *s,
                      struct err *e)
{
    struct packed p = {.part = {packed_part(c, base, ".weight"), s}, .bits = 8, .sym = true};
    const struct checkpoint_tensor *w = p.part[WEIGHT], *z = packed_part(c, base, ".weight_zero_point");
    if (packed_part(c, base, ".weight_packed")) return 0;
    if (!is_matrix(w) || (w->t.dtype != DT_I8 && w->t.dtype != DT_F8_E4M3) ||
        (s->t.dtype != DT_F16 && s->t.dtype != DT_BF16 && s->t.dtype != DT_F32))
        return packed_bad(c, base, "scales for something else than I8 or F8_E4M3 weights", e);
    p.out = (int)w->t.shape[0], p.in = (int)w->t.shape[1];
    if (w->t.dtype == DT_I8) p.variant |= INTEGERS;
    if (check_scales(c, base, &p, e) < 0) return -1;
    if (z && w->t.dtype == DT_I8) {
        uint64_t n = tensor_count(&z->t), each = (uint64_t)p.out * (uint64_t)p.groups;
        if (z->t.dtype != DT_I8 || n != tensor_count(&s->t) || (n != each && n != (uint64_t)p.groups))
            return packed_bad(c, base, "zeros that do not fit its scales", e);
        p.part[ZERO] = z, p.sym = false;
    }
    return finish(c, base, &p, e);
}

static int adopt(struct checkpoint *c, struct err *e)
{
    bool fp8 = packed_method(c, "fp8");
    if (!packed_method(c, "compressed-tensors") && !fp8) return 0;
    if (packed_each(c, ".weight_packed", add_packed, e) < 0 ||
        packed_each(c, fp8 ? ".weight_scale_inv" : ".weight_scale", add_scaled, e) < 0)
        return -1;
    return 1;
}

const struct checkpoint_format checkpoint_format_compressed_tensors = {
    .name = "compressed-tensors", .methods = "compressed-tensors, fp8", .adopt = adopt};
