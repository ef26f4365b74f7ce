/* SPDX-License-Identifier: Apache-2.0
 * HQQ's layout, as its linears save themselves into safetensors: NAME.W_q, scale, zero and a dozen settings
 * as small tensors. The matrix is laid out as one of groups, R x C: a group is a row (axis 1), or a column
 * (axis 0). R is cut into as many parts as codes go into a word, the first in the highest bits; the words of
 * all parts lie in W_q [ceil(R / codes), C], by whatever type it is viewed. w = (code - zero) * scale. Groups
 * of axis 1 become groups of rows, with minima -zero * scale; so do those of axis 0, of one column each, whose
 * scales several rows share. */
#include <string.h>
#include "common/checkpoint_impl.h"
#include "common/mem.h"
#include "common/qtensor.h"

enum { W_Q, SCALE, ZERO, SHAPE, AXIS, PACKING };

/* Read, or of no use here. */
/* clang-format off */
static const char *const part_names[] = {
    ".W_q", ".scale", ".zero", ".shape", ".axis", ".packing", ".nbits", ".group_size", ".unpack_view_dtype",
    ".view_as_float", ".quant_scale", ".quant_zero", ".compute_dtype", ".offload_meta",
    ".encoded_state_dict", ".stores_quant_config", ".channel_wise", ".optimize", ".round_zero"};
/* clang-format on */
#define N_PARTS (int)(sizeof part_names / sizeof *part_names)

static const struct packing {
    const char *name;
    int bits, each, bytes; /* codes in a word of so many bytes */
} packings[] = {{"8bit_u8", 8, 1, 1},
                {"4bit_u8", 4, 2, 1},
                {"3bit_32", 3, 10, 4},
                {"2bit_u8", 2, 4, 1},
                {"1bit_u8", 1, 8, 1}};
#define N_PACKINGS (int)(sizeof packings / sizeof *packings)

/* variant: index of the packing, and this */
enum { ACROSS = 8 };

/* R x C: the matrix as it was packed. */
static void sizes(const struct packed *p, uint64_t *R, uint64_t *C)
{
    uint64_t n = (uint64_t)p->out * (uint64_t)p->in, scales = tensor_count(&p->part[SCALE]->t);
    *R = p->variant & ACROSS ? n / scales : scales;
    *C = n / *R;
}

/* Where the code in row r and column c of the R x C matrix lies. */
static uint64_t word_of(const struct packed *p, uint64_t r, uint64_t c, int *shift)
{
    const struct packing *k = &packings[p->variant & 7];
    uint64_t R, C;
    sizes(p, &R, &C);
    uint64_t step = (R + (uint64_t)k->each - 1) / (uint64_t)k->each;
    *shift = k->bits * (k->each - 1 - (int)(r / step));
    return r % step * C + c;
}

/* n codes of row r of the R x C matrix from column c on. */
static void codes_of(const struct packed *p, uint64_t r, uint64_t c, size_t n, uint8_t *codes)
{
    const struct packing *k = &packings[p->variant & 7];
    const uint8_t *data = p->part[W_Q]->t.data;
    int shift;
    uint64_t at = word_of(p, r, c, &shift);
    uint32_t mask = (1u << k->bits) - 1;
    for (size_t i = 0; i < n; i++)
        codes[i] = (uint8_t)((k->bytes == 4 ? packed_word(data, at + i) : data[at + i]) >> shift & mask);
}

/* Codes i .. i+n-1 of the matrix as it lies in one piece; they may be of several of the R rows. */
static void codes_from(const struct packed *p, uint64_t i, uint64_t n, uint8_t *codes)
{
    uint64_t R, C, k;
    sizes(p, &R, &C);
    for (uint64_t end = i + n; i < end; i += k, codes += k) {
        k = C - i % C < end - i ? C - i % C : end - i;
        codes_of(p, i / C, i % C, k, codes);
    }
}

static void put(const struct packed *p, uint64_t row, const uint8_t *codes, uint8_t *bytes)
{
    bool words = packings[p->variant & 7].bytes == 4;
    uint64_t in = (uint64_t)p->in, R, C;
    sizes(p, &R, &C);
    for (uint64_t i = 0; i < in; i++) {
        int shift;
        uint64_t at = word_of(p, (row * in + i) / C, (row * in + i) % C, &shift);
        if (words)
            ((uint32_t *)(void *)bytes)[at] |= (uint32_t)codes[i] << shift;
        else
            bytes[at] |= (uint8_t)(codes[i] << shift);
    }
}

/* Group `from` of the file as group `to` of q. */
static void take_group(const struct packed *p, uint64_t from, struct qtensor *q, uint64_t to)
{
    q->scale[to] = packed_float(p->part[SCALE], from);
    q->minimum[to] = -packed_float(p->part[ZERO], from) * q->scale[to];
}

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t c = a % b;
        a = b, b = c;
    }
    return a;
}

/* Element i of the whole is of group i % C: after so many rows the groups come again. */
static uint64_t period(const struct packed *p)
{
    uint64_t R, C;
    sizes(p, &R, &C);
    return C / common_divisor(C, (uint64_t)p->in);
}

static int rows(const struct checkpoint *c, const struct packed *p, int r0, int n, struct qtensor *q,
                struct err *e)
{
    bool across = p->variant & ACROSS;
    uint64_t in = (uint64_t)p->in, groups = (uint64_t)p->groups, width = in / groups, R, C;
    (void)c, (void)e;
    sizes(p, &R, &C);
    qtensor_init_uniform(q, n, p->in, p->bits, 0, true, DT_F32); /* for the codes; the rest is other than usual */
    q->group = p->group, q->n_groups = p->groups, q->sym = false;
    if (across) {
        q->n_rows = (int)period(p);
        q->ridx = MEM_NEW(int32_t, (size_t)n);
        for (int r = 0; r < n; r++) q->ridx[r] = (r0 + r) % q->n_rows;
    }
    mem_free(q->scale);
    q->scale = MEM_NEW(float, qtensor_params(q));
    q->minimum = MEM_NEW(float, qtensor_params(q));
#pragma omp parallel for schedule(static) if (n > 15)
    for (int r = 0; r < n; r++) {
        uint64_t at = (uint64_t)(r0 + r) * in;
        codes_from(p, at, in, q->codes + (size_t)r * in);
        for (uint64_t g = 0; g < groups && !across; g++)
            take_group(p, (at + g * width) / C, q, (uint64_t)r * groups + g);
    }
    for (uint64_t g = 0; across && g < qtensor_params(q); g++) take_group(p, g % C, q, g);
    return 0;
}

/* ---- opening ---- */

static bool is_float(const struct checkpoint_tensor *t)
{
    return t->t.dtype == DT_F16 || t->t.dtype == DT_BF16 || t->t.dtype == DT_F32;
}

/* A setting that is stored as a tensor of one number; -1: not there, or something else. */
static int number(const struct checkpoint_tensor *t)
{
    if (!t || tensor_count(&t->t) != 1) return -1;
    if (t->t.dtype == DT_U8) return *(const uint8_t *)t->t.data;
    return t->t.dtype == DT_I32 ? (int)packed_word(t->t.data, 0) : -1;
}

static int find_packing(const struct checkpoint_tensor *t)
{
    int i = 0;
    while (t && i < N_PACKINGS &&
           (t->t.dtype != DT_U8 || t->t.nbytes != strlen(packings[i].name) ||
            memcmp(t->t.data, packings[i].name, (size_t)t->t.nbytes)))
        i++;
    return t && i < N_PACKINGS ? i : -1;
}

static int read_shape(const struct checkpoint_tensor *t, struct packed *p)
{
    int64_t v[2];
    if (!t || t->t.dtype != DT_I64 || t->t.rank != 1 || t->t.shape[0] != 2) return -1;
    memcpy(v, t->t.data, sizeof v);
    if (v[0] < 1 || v[1] < 1 || v[0] > 1 << 24 || v[1] > 1 << 24) return -1;
    p->out = (int)v[0], p->in = (int)v[1];
    return 0;
}

static int check_sizes(const struct checkpoint *c, const char *base, struct packed *p, struct err *e)
{
    const struct packing *k = &packings[p->variant & 7];
    uint64_t n = (uint64_t)p->out * (uint64_t)p->in, scales = tensor_count(&p->part[SCALE]->t), R, C;
    if (!scales || n % scales || tensor_count(&p->part[ZERO]->t) != scales)
        return packed_bad(c, base, "its scales and zeros do not fit its shape", e);
    sizes(p, &R, &C);
    if (p->part[W_Q]->t.nbytes != (R + (uint64_t)k->each - 1) / (uint64_t)k->each * C * (uint64_t)k->bytes)
        return packed_bad(c, base, "W_q does not fit its shape, scales and packing", e);
    p->groups = p->variant & ACROSS ? p->in : (int)((uint64_t)p->in / common_divisor((uint64_t)p->in, C));
    p->group = p->groups == 1 ? 0 : p->in / p->groups;
    return 0;
}

static int add_linear(struct checkpoint *c, const char *base, const struct checkpoint_tensor *w,
                      struct err *e)
{
    struct packed p = {.rows = rows};
    for (int i = 0; i < N_PARTS; i++) p.part[i] = packed_part(c, base, part_names[i]);
    int packing = find_packing(p.part[PACKING]), axis = number(p.part[AXIS]);
    (void)w;
    if (packed_part(c, base, ".zero_scale") || number(packed_part(c, base, ".quant_scale")) > 0 ||
        number(packed_part(c, base, ".quant_zero")) > 0)
        return packed_bad(c, base, "scales or zeros that are quantized, or patched, are not supported", e);
    if (read_shape(p.part[SHAPE], &p) < 0) return packed_bad(c, base, "its shape is no tensor [out, in]", e);
    if (packing < 0)
        return packed_bad(c, base, "its packing is none of 8bit_u8, 4bit_u8, 3bit_32, 2bit_u8, 1bit_u8", e);
    if (axis != 0 && axis != 1) return packed_bad(c, base, "its axis is neither 0 nor 1", e);
    if (!p.part[SCALE] || !p.part[ZERO] || !is_float(p.part[SCALE]) || !is_float(p.part[ZERO]))
        return packed_bad(c, base, "no scale or zero of type F16, BF16 or F32", e);
    p.put = put, p.bits = packings[packing].bits, p.variant = packing | (axis ? 0 : ACROSS);
    return check_sizes(c, base, &p, e) < 0 ? -1 : packed_add(c, base, &p, e);
}

/* What the hqq package saves by itself says nothing of quantization in config.json. */
static int adopt(struct checkpoint *c, struct err *e)
{
    bool mine = packed_method(c, "hqq");
    for (int i = 0; i < c->n_tensors && !mine && !c->quantization; i++)
        mine = path_ends(c->tensors[i].name, ".W_q");
    if (!mine) return 0;
    return packed_each(c, ".W_q", add_linear, e) < 0 ? -1 : 1;
}

const struct checkpoint_format checkpoint_format_hqq = {.name = "hqq", .methods = "hqq", .adopt = adopt};
