/* SPDX-License-Identifier: Apache-2.0
 * Weights of fp4 and fp8 as ModelOpt exports them (config.json, or hf_quant_config.json alone), and those of
 * fbgemm_fp8. Per linear
 *   NVFP4   NAME.weight U8 [out, in/2], even columns in the low nibble; NAME.weight_scale F8_E4M3 [out,
 * in/16]; NAME.weight_scale_2 F32, of the whole tensor; all three are multiplied FP8     NAME.weight F8_E4M3
 * [out, in], NAME.weight_scale F32, of the tensor or of each row Scales of activations and of a cache of keys
 * and values are left out. */
#include <math.h>
#include <string.h>
#include "common/checkpoint_impl.h"
#include "common/mem.h"
#include "common/qtensor.h"

enum { WEIGHT, SCALE, SCALE_2, INPUT_SCALE, K_SCALE, V_SCALE, INPUT_BOUND };

static int rows(const struct checkpoint *c, const struct packed *p, int r0, int n, struct qtensor *q,
                struct err *e)
{
    const struct tensor *s = &p->part[SCALE]->t;
    bool small = p->bits == 4;
    size_t in = (size_t)p->in, groups = (size_t)p->groups, row = small ? in / 2 : in;
    const uint8_t *from = (const uint8_t *)p->part[WEIGHT]->t.data + (size_t)r0 * row;
    (void)c, (void)e;
    qtensor_init_codebook(q, n, p->in, small ? "e2m1" : "e4m3", p->group, s->dtype);
    q->divisor = p->factor;
    for (size_t r = 0; r < (size_t)n; r++) {
        uint8_t *codes = q->codes + r * in;
        if (small)
            packed_nibbles(codes, from + r * row, in);
        else
            memcpy(codes, from + r * row, in);
        for (size_t g = 0; g < groups; g++) {
            uint64_t at = tensor_count(s) == 1 ? 0 : ((uint64_t)r0 + r) * groups + g;
            q->scale[r * groups + g] = packed_float(p->part[SCALE], at);
        }
    }
    return 0;
}

static void put(const struct packed *p, uint64_t row, const uint8_t *codes, uint8_t *bytes)
{
    size_t in = (size_t)p->in;
    if (p->bits == 4)
        packed_put_nibbles(codes, bytes + row * (in / 2), in);
    else
        memcpy(bytes + row * in, codes, in);
}

static int check_fp4(const struct checkpoint *c, const char *base, struct packed *p, struct err *e)
{
    static const enum dtype byte[3] = {DT_U8, DT_U8, DT_U8}, e4m3[3] = {DT_F8_E4M3, DT_F8_E4M3, DT_F8_E4M3};
    const struct checkpoint_tensor *w = p->part[WEIGHT], *two = packed_part(c, base, ".weight_scale_2");
    p->bits = 4, p->in = 2 * (int)w->t.shape[1], p->groups = p->in / 16, p->group = p->groups == 1 ? 0 : 16;
    if (p->in % 16) return packed_bad(c, base, "its rows are no whole groups of 16", e);
    if (!packed_need(c, base, ".weight", byte, w->t.shape[0], w->t.shape[1], e) ||
        !packed_need(c, base, ".weight_scale", e4m3, w->t.shape[0], (uint64_t)p->groups, e))
        return -1;
    float v = two && two->t.dtype == DT_F32 && tensor_count(&two->t) == 1 ? packed_float(two, 0) : 0;
    p->factor = 1 / v; /* the form divides */
    if (!(v > 0) || !isfinite(v) || !isfinite(p->factor) || !(p->factor > 0))
        return packed_bad(c, base, "weight_scale_2 is no positive number", e);
    p->part[SCALE_2] = two;
    return 0;
}

static int check_fp8(const struct checkpoint *c, const char *base, struct packed *p, struct err *e)
{
    const struct checkpoint_tensor *w = p->part[WEIGHT], *s = p->part[SCALE];
    uint64_t n = tensor_count(&s->t);
    p->bits = 8, p->in = (int)w->t.shape[1], p->groups = 1;
    if ((s->t.dtype != DT_F32 && s->t.dtype != DT_F16 && s->t.dtype != DT_BF16) ||
        (n != 1 && (n != w->t.shape[0] || s->t.shape[0] != n)))
        return packed_bad(c, base, "weight_scale is neither a number nor one for each row", e);
    return 0;
}

static int add_linear(struct checkpoint *c, const char *base, const struct checkpoint_tensor *s,
                      struct err *e)
{
    static const char *const aside[] = {".input_scale", ".k_scale", ".v_scale", ".input_scale_ub"};
    struct packed p = {.part = {packed_part(c, base, ".weight"), s}, .sym = true, .rows = rows, .put = put};
    const struct checkpoint_tensor *w = p.part[WEIGHT];
    if (!w || w->t.rank != 2 || w->t.shape[0] > 1 << 24 || w->t.shape[1] > 1 << 23 ||
        (w->t.dtype != DT_U8 && w->t.dtype != DT_F8_E4M3))
        return packed_bad(c, base, "weight_scale for something else than fp4 or fp8 weights", e);
    p.out = (int)w->t.shape[0];
    for (int i = 0; i < 4; i++) p.part[INPUT_SCALE + i] = packed_part(c, base, aside[i]);
    if ((w->t.dtype == DT_U8 ? check_fp4(c, base, &p, e) : check_fp8(c, base, &p, e)) < 0) return -1;
    return packed_add(c, base, &p, e);
}

static int adopt(struct checkpoint *c, struct err *e)
{
    const json_t *own = json_object_get(c->quantization, "quantization"); /* hf_quant_config.json */
    const char *algo = json_string_value(json_object_get(own ? own : c->quantization, "quant_algo"));
    bool modelopt = packed_method(c, "modelopt") || packed_method(c, "modelopt_fp4") ||
                    (!json_object_get(c->quantization, "quant_method") && algo);
    if (!modelopt && !packed_method(c, "fbgemm_fp8")) return 0;
    if (modelopt && algo && strcmp(algo, "NVFP4") && strcmp(algo, "FP8") &&
        strcmp(algo, "FP8_PER_CHANNEL_PER_TOKEN"))
        return err_set(e, NT_EXIT_DATA, "%s: ModelOpt weights of %s are not supported (NVFP4 and FP8 are)",
                       c->path, show_name(algo, strlen(algo)));
    return packed_each(c, ".weight_scale", add_linear, e) < 0 ? -1 : 1;
}

const struct checkpoint_format checkpoint_format_modelopt = {
    .name = "modelopt", .methods = "modelopt, fbgemm_fp8", .adopt = adopt};
