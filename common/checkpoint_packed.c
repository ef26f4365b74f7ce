/* SPDX-License-Identifier: Apache-2.0
 * Weights that quantized checkpoints store as several tensors: what the layouts in common/checkpoints/ share,
 * and reading them. A layout describes one weight (struct packed) and makes codes of its rows; everything
 * else follows from those. */
#include "common/bitwords.h"
#include "common/checkpoint_impl.h"
#include "common/mem.h"
#include "common/qtensor.h"
#include <string.h>

uint32_t packed_word(const void *words, uint64_t i)
{
    uint32_t w;
    memcpy(&w, (const char *)words + 4 * i, 4); /* mapped files promise no alignment */
    return w;
}

void packed_unpack(uint8_t *codes, const void *words, size_t stride, size_t n, int bits)
{
    uint64_t have = 0, at = 0, mask = (1u << bits) - 1;
    int left = 0;
    for (size_t i = 0; i < n; i++) {
        if (left < bits) have |= (uint64_t)packed_word(words, at) << left, left += 32, at += stride;
        codes[i] = (uint8_t)(have & mask);
        have >>= bits, left -= bits;
    }
}

void packed_pack(const uint8_t *codes, void *words, size_t stride, size_t n, int bits)
{
    for (size_t i = 0; i < n; i++) bits_put(words, stride, i, bits, codes[i]);
}

void packed_nibbles(uint8_t *codes, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) codes[i] = bytes[i / 2] >> 4 * (i & 1) & 15;
}

void packed_put_nibbles(const uint8_t *codes, uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) bytes[i / 2] |= (uint8_t)(codes[i] << 4 * (i & 1));
}

uint32_t packed_code_apart(const void *words, uint64_t stride, uint64_t i, int bits)
{
    uint64_t at = i * (uint64_t)bits;
    int off = (int)(at % 32);
    uint64_t v = packed_word(words, at / 32 * stride);
    if (off + bits > 32) v |= (uint64_t)packed_word(words, (at / 32 + 1) * stride) << 32;
    return (uint32_t)(v >> off & ((1u << bits) - 1));
}

uint32_t packed_code(const void *words, uint64_t i, int bits) { return packed_code_apart(words, 1, i, bits); }

float packed_float(const struct checkpoint_tensor *t, uint64_t i)
{
    float x;
    dtype_to_f32(&x, t->t.dtype, (const char *)t->t.data + i * (uint64_t)dtype_block_bytes(t->t.dtype), 1);
    return x;
}

/* ---- for layouts ---- */

bool packed_method(const struct checkpoint *c, const char *method)
{
    const char *is = json_string_value(json_object_get(c->quantization, "quant_method"));
    return is && strcmp(is, method) == 0;
}

int packed_bad(const struct checkpoint *c, const char *base, const char *why, struct err *e)
{
    return err_set(e, NT_EXIT_DATA, "%s: weight %s: %s", c->path, show_name(base, strlen(base)), why);
}

const struct checkpoint_tensor *packed_part(const struct checkpoint *c, const char *base, const char *suffix)
{
    char *name = mem_printf("%s%s", base, suffix);
    const struct checkpoint_tensor *t = checkpoint_find(c, name);
    mem_free(name);
    return t;
}

const struct checkpoint_tensor *packed_need(const struct checkpoint *c, const char *base, const char *suffix,
                                            const enum dtype types[3], uint64_t a, uint64_t b, struct err *e)
{
    const struct checkpoint_tensor *t = packed_part(c, base, suffix);
    const char *shown = show_name(base, strlen(base));
    if (!t) return err_set(e, NT_EXIT_DATA, "%s: tensor %s%s is missing", c->path, shown, suffix), NULL;
    bool type = t->t.dtype == types[0] || t->t.dtype == types[1] || t->t.dtype == types[2];
    if (type && t->t.rank == (b ? 2 : 1) && t->t.shape[0] == a && (!b || t->t.shape[1] == b)) return t;
    err_set(e, NT_EXIT_DATA,
            "%s: tensor %s%s: %s of rank %d, [%llu, %llu]: does not fit the weight's other parts", c->path,
            shown, suffix, dtype_name(t->t.dtype), t->t.rank,
            (unsigned long long)(t->t.rank > 0 ? t->t.shape[0] : 1),
            (unsigned long long)(t->t.rank > 1 ? t->t.shape[1] : 1));
    return NULL;
}

int packed_group(int in, int64_t groups, int64_t said)
{
    if (groups == 1) return 0;
    if (said > 0 && said < in && qtensor_groups(in, (int)said) == groups) return (int)said;
    return groups > 1 && in % groups == 0 ? (int)(in / groups) : -1;
}

int packed_add(struct checkpoint *c, const char *base, const struct packed *p, struct err *e)
{
    if (p->out < 1 || p->in < 1) return packed_bad(c, base, "a size that is out of range", e);
    struct tensor t = {.dtype = DT_F32, .rank = 2, .shape = {(uint64_t)p->out, (uint64_t)p->in}};
    for (int i = 0; i < PACKED_PARTS; i++) t.nbytes += p->part[i] ? p->part[i]->t.nbytes : 0;
    struct packed *copy = MEM_NEW(struct packed, 1);
    *copy = *p;
    char *name = mem_printf("%s.weight", base);
    checkpoint_add_weight(c, name, &t, copy);
    return 0;
}

int packed_each(struct checkpoint *c, const char *suffix, packed_visit *visit, struct err *e)
{
    int rc = 0;
    for (int i = 0; i < c->n_tensors && rc == 0; i++) {
        const struct checkpoint_tensor *t = &c->tensors[i];
        if (!path_ends(t->name, suffix)) continue;
        char *base = mem_printf("%.*s", (int)(strlen(t->name) - strlen(suffix)), t->name);
        rc = visit(c, base, t, e);
        mem_free(base);
    }
    return rc;
}

/* ---- reading ---- */

int checkpoint_codes(const struct checkpoint *c, const struct checkpoint_tensor *t, int r0, int n,
                     struct qtensor *q, struct err *e)
{
    return t->packed->rows(c, t->packed, r0, n, q, e);
}

const struct checkpoint_tensor *checkpoint_codes_part(const struct checkpoint_tensor *t)
{
    return t->packed ? t->packed->part[0] : t;
}

void checkpoint_put_codes(const struct checkpoint_tensor *t, uint64_t row, const uint8_t *codes, uint8_t *bytes)
{
    t->packed->put(t->packed, row, codes, bytes);
}

int checkpoint_rows(const struct checkpoint *c, const struct checkpoint_tensor *t, uint64_t r0, uint64_t n,
                    float *dst, struct err *e)
{
    uint64_t rows = t->t.rank == 2 ? t->t.shape[0] : 1,
             cols = t->t.rank == 2 ? t->t.shape[1] : tensor_count(&t->t);
    if (!t->packed) {
        dtype_to_f32(dst, t->t.dtype, (const char *)t->t.data + r0 * (t->t.nbytes / rows),
                     (size_t)(n * cols));
        return 0;
    }
    struct qtensor q = {0};
    int rc = checkpoint_codes(c, t, (int)r0, (int)n, &q, e);
    if (rc == 0) qtensor_dequant(&q, dst);
    qtensor_clear(&q);
    return rc;
}
