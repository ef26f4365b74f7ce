/* SPDX-License-Identifier: Apache-2.0
 * MLX's layout: NAME.weight U32 [out, words] with codes packed along in, least significant bits first, and
 *   affine   NAME.scales, NAME.biases [out, groups]: w = scale * code + bias
 *   mxfp4, nvfp4   NAME.scales U8 [out, groups], of 32 (E8M0) or 16 (E4M3) elements; mxfp8: E4M3 elements,
 * E8M0 scales Embeddings and heads are stored so, too. */
#include <string.h>
#include "common/checkpoint_impl.h"
#include "common/qtensor.h"
#include "common/mem.h"

enum { WEIGHT, SCALES, BIASES };

static const enum dtype words[3] = {DT_U32, DT_I32, DT_U32}, floats[3] = {DT_F16, DT_BF16, DT_F32};

static int rows(const struct checkpoint *c, const struct packed *p, int r0, int n, struct qtensor *q,
                struct err *e)
{
    const struct tensor *w = &p->part[WEIGHT]->t, *s = &p->part[SCALES]->t;
    enum dtype scale = s->dtype != DT_U8 ? s->dtype : p->group == 16 ? DT_F8_E4M3 : DT_F8_E8M0;
    size_t groups = (size_t)p->groups, in = (size_t)p->in, some = (size_t)n * groups,
           size = (size_t)dtype_block_bytes(scale), row = (size_t)w->shape[1] * 4;
    (void)c, (void)e;
    if (p->part[BIASES]) {
        qtensor_init_uniform(q, n, p->in, p->bits, p->group, false, scale);
        mem_free(q->zero);
        q->zero = NULL;
        q->minimum = MEM_NEW(float, some);
        dtype_to_f32(q->minimum, scale, (const char *)p->part[BIASES]->t.data + (size_t)r0 * groups * size,
                     some);
    } else {
        qtensor_init_codebook(q, n, p->in, p->bits == 8 ? "e4m3" : "e2m1", p->group, scale);
    }
    dtype_to_f32(q->scale, scale, (const char *)s->data + (size_t)r0 * groups * size, some);
#pragma omp parallel for schedule(static) if (n > 15)
    for (int r = 0; r < n; r++)
        packed_unpack(q->codes + (size_t)r * in, (const char *)w->data + (size_t)(r0 + r) * row, 1, in,
                      p->bits);
    return 0;
}

static void put(const struct packed *p, uint64_t row, const uint8_t *codes, uint8_t *bytes)
{
    packed_pack(codes, bytes + row * p->part[WEIGHT]->t.shape[1] * 4, 1, (size_t)p->in, p->bits);
}

/* The group of one module: its own (null: the mode's default, as mlx-lm's mixed recipes have it), or that of
 * all. */
static json_int_t group_of(const struct checkpoint *c, const char *base)
{
    const json_t *own = json_object_get(c->quantization, base),
                 *of = json_is_object(own) ? own : c->quantization,
                 *group = json_object_get(of, "group_size");
    const char *mode = json_string_value(json_object_get(of, "mode"));
    if (!group) group = json_object_get(c->quantization, "group_size");
    if (!json_is_null(group)) return json_integer_value(group);
    return mode && strcmp(mode, "nvfp4") == 0 ? 16 : mode && strncmp(mode, "mxfp", 4) == 0 ? 32 : 64;
}

static int add_linear(struct checkpoint *c, const char *base, const struct checkpoint_tensor *s,
                      struct err *e)
{
    struct packed p = {.part = {packed_part(c, base, ".weight"), s}, .rows = rows, .put = put};
    const struct checkpoint_tensor *w = p.part[WEIGHT];
    json_int_t group = group_of(c, base);
    if (!w || w->t.rank != 2 || s->t.rank != 2 || group < 1 || group > 1 << 16 || w->t.shape[0] > 1 << 24 ||
        s->t.shape[1] > 1 << 20 || !s->t.shape[1] || w->t.shape[1] > 1 << 24)
        return packed_bad(c, base, "no MLX weight: weight and scales do not fit each other", e);
    uint64_t in = s->t.shape[1] * (uint64_t)group;
    uint64_t bits = w->t.shape[1] * 32 / in;
    if (bits < 2 || bits > 8 || bits * in != w->t.shape[1] * 32 || in > 1 << 24)
        return packed_bad(c, base, "its width is no whole number of bits for its groups", e);
    p.in = (int)in, p.out = (int)w->t.shape[0], p.bits = (int)bits;
    p.groups = (int)s->t.shape[1], p.group = p.groups == 1 ? 0 : (int)group;
    if (!packed_need(c, base, ".weight", words, w->t.shape[0], w->t.shape[1], e)) return -1;
    if (s->t.dtype == DT_U8) {
        if ((bits != 4 || group != 16) && ((bits != 4 && bits != 8) || group != 32))
            return packed_bad(c, base, "scales of one byte, but neither mxfp4, mxfp8 nor nvfp4", e);
        if (s->t.shape[0] != w->t.shape[0])
            return packed_bad(c, base, "no MLX weight: weight and scales do not fit each other", e);
    } else {
        enum dtype same[3] = {s->t.dtype, s->t.dtype, s->t.dtype};
        if (!packed_need(c, base, ".scales", floats, w->t.shape[0], s->t.shape[1], e) ||
            !(p.part[BIASES] = packed_need(c, base, ".biases", same, w->t.shape[0], s->t.shape[1], e)))
            return -1;
    }
    return packed_add(c, base, &p, e);
}

static int mlx_adopt(struct checkpoint *c, struct err *e)
{
    if (json_object_get(c->quantization, "quant_method") || !json_object_get(c->quantization, "group_size") ||
        json_object_get(c->quantization, "desc_act"))
        return 0;
    return packed_each(c, ".scales", add_linear, e) < 0 ? -1 : 1;
}

const struct checkpoint_format checkpoint_format_mlx = {.name = "mlx", .adopt = mlx_adopt};
