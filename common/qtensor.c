/* SPDX-License-Identifier: Apache-2.0
 * Low-bit storage: packing, sizes as stored, dequantization, and the records of a quantized tensor in a
 * stream. Where the numbers come from is a quantizer's business. */
#include "common/qtensor.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/mem.h"

#define ROW_CHUNK 16 /* rows per unit of parallel work */
#define UNPACK_PIECE (256u << 10)

/* ---- packing ---- */

uint64_t qtensor_packed_bytes(uint64_t n, int bits)
{
    return n / 8 * (uint64_t)bits + (n % 8 * (uint64_t)bits + 7) / 8;
}

void qtensor_pack(uint8_t *dst, const uint8_t *codes, uint64_t n, int bits)
{
    /* eight codes are `bits` whole bytes */
    for (uint64_t k = 0; k < n; k += 8) {
        int m = n - k < 8 ? (int)(n - k) : 8, bytes = (m * bits + 7) / 8;
        uint64_t v = 0;
        for (int i = 0; i < m; i++) v |= (uint64_t)codes[k + i] << (i * bits);
        for (int i = 0; i < bytes; i++) dst[k / 8 * bits + i] = (uint8_t)(v >> (8 * i));
    }
}

void qtensor_unpack(uint8_t *codes, const uint8_t *src, uint64_t n, int bits)
{
    uint64_t mask = (1u << bits) - 1;
    for (uint64_t k = 0; k < n; k += 8) {
        int m = n - k < 8 ? (int)(n - k) : 8, bytes = (m * bits + 7) / 8;
        uint64_t v = 0;
        for (int i = 0; i < bytes; i++) v |= (uint64_t)src[k / 8 * bits + i] << (8 * i);
        for (int i = 0; i < m; i++) codes[k + i] = (uint8_t)(v >> (i * bits) & mask);
    }
}

/* ---- the struct ---- */

int qtensor_groups(int in, int group)
{
    return group <= 0 || group >= in ? 1 : (in - 1) / group + 1;
}

static void free_parts(struct qtensor *q)
{
    mem_free(q->plain.data);
    mem_free(q->codes);
    mem_free(q->scale);
    mem_free(q->zero);
    mem_free(q->minimum);
    mem_free(q->gidx);
    mem_free(q->ridx);
    q->codes = q->zero = NULL;
    q->scale = q->minimum = NULL;
    q->gidx = q->ridx = NULL;
    q->n_rows = 0;
    memset(&q->plain, 0, sizeof q->plain);
}

void qtensor_clear(struct qtensor *q)
{
    free_parts(q);
    json_decref(q->info);
    memset(q, 0, sizeof *q);
}

void qtensor_init_uniform(struct qtensor *q, int out, int in, int bits, int group, bool sym,
                          enum dtype scale_dtype)
{
    free_parts(q);
    q->form = QF_UNIFORM;
    q->out = out;
    q->in = in;
    q->bits = bits;
    q->group = group;
    q->n_groups = qtensor_groups(in, group);
    q->sym = sym;
    q->scale_dtype = scale_dtype;
    q->codes = MEM_NEW(uint8_t, (size_t)out * in);
    q->scale = MEM_NEW(float, (size_t)out * q->n_groups);
    q->zero = sym ? NULL : MEM_NEW(uint8_t, (size_t)out * q->n_groups);
}

/* ---- levels ---- */

static const struct {
    const char *name;
    int bits;
    enum dtype t; /* of 8 bits: the level of a code is its value as a float of that type */
    float level[16];
} levels[] = {
    {"e2m1", 4, DT_NONE, {0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6}},
    {"nf4", 4, DT_NONE, {-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
                         -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
                         0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f,
                         0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f,
                         0.7229568362236023f, 1.0f}},
    {"fp4", 4, DT_NONE, {0, 0.0052083334885537624f, 2 / 3.f, 1, 1 / 3.f, .5f, 1 / 6.f, .25f,
                         -0.f, -0.0052083334885537624f, -2 / 3.f, -1, -1 / 3.f, -.5f, -1 / 6.f, -.25f}},
    {"e4m3", 8, DT_F8_E4M3, {0}},
    {"e5m2", 8, DT_F8_E5M2, {0}},
};
#define N_LEVELS ((int)(sizeof levels / sizeof *levels))

static int find_levels(const char *name)
{
    int i = 0;
    while (i < N_LEVELS && strcmp(levels[i].name, name)) i++;
    return i < N_LEVELS ? i : -1;
}

int qtensor_level_bits(const char *name)
{
    int i = find_levels(name);
    return i < 0 ? 0 : levels[i].bits;
}

const float *qtensor_levels(const char *name)
{
    int i = find_levels(name);
    return i < 0 || levels[i].t != DT_NONE ? NULL : levels[i].level;
}

void qtensor_init_codebook(struct qtensor *q, int out, int in, const char *name, int group,
                           enum dtype scale_dtype)
{
    qtensor_init_uniform(q, out, in, qtensor_level_bits(name), group, true, scale_dtype);
    q->form = QF_CODEBOOK;
    q->divisor = 0;
    snprintf(q->levels, sizeof q->levels, "%s", name);
}

static bool holds(enum dtype t, const float *W, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float back = t == DT_F16 ? f16_to_f32(f32_to_f16(W[i])) : bf16_to_f32(f32_to_bf16(W[i]));
        if (memcmp(&back, &W[i], sizeof back)) return false;
    }
    return true;
}

void qtensor_init_plain(struct qtensor *q, int out, int in, const float *W)
{
    size_t n = (size_t)out * in;
    enum dtype t = holds(DT_BF16, W, n) ? DT_BF16 : holds(DT_F16, W, n) ? DT_F16 : DT_F32;
    free_parts(q);
    q->form = QF_PLAIN;
    q->out = out;
    q->in = in;
    q->plain = (struct tensor){.dtype = t,
                               .rank = 2,
                               .shape = {(uint64_t)out, (uint64_t)in},
                               .nbytes = n * (uint64_t)dtype_block_bytes(t)};
    q->plain.data = mem_array(n, (size_t)dtype_block_bytes(t));
    dtype_from_f32(q->plain.data, t, W, n);
}

static void dequant_row(const struct qtensor *q, int o, float *w)
{
    const uint8_t *c = q->codes + (size_t)o * q->in;
    size_t at = qtensor_param(q, o);
    const float *scale = q->scale + at;
    const uint8_t *zero = q->zero ? q->zero + at : NULL;
    const float *minimum = q->minimum ? q->minimum + at : NULL;
    int group = q->n_groups == 1 ? q->in : q->group;

    for (int a = 0, g = 0; a < q->in; g++) {
        int b = q->gidx ? a + 1 : q->in - a < group ? q->in : a + group;
        if (q->gidx) g = q->gidx[a];
        float s = scale[g], m = minimum ? minimum[g] : 0;
        int z = zero ? zero[g] : minimum ? 0 : 1 << (q->bits - 1);
        if (minimum)
            for (; a < b; a++) w[a] = s * c[a] + m;
        else
            for (; a < b; a++) w[a] = s * (float)(c[a] - z);
    }
}

static void dequant_levels(const struct qtensor *q, int o, float *w)
{
    const uint8_t *c = q->codes + (size_t)o * q->in;
    const float *scale = q->scale + (size_t)o * q->n_groups;
    int k = find_levels(q->levels), group = q->n_groups == 1 ? q->in : q->group;
    if (levels[k].t != DT_NONE) dtype_to_f32(w, levels[k].t, c, (size_t)q->in);
    for (int a = 0, g = 0; a < q->in; g++) {
        int b = q->gidx ? a + 1 : q->in - a < group ? q->in : a + group;
        float s = scale[q->gidx ? q->gidx[a] : g];
        if (q->divisor != 0) s /= q->divisor;
        for (; a < b; a++) w[a] = (levels[k].t == DT_NONE ? levels[k].level[c[a]] : w[a]) * s;
    }
}

void qtensor_dequant_rows(const struct qtensor *q, int r0, int n, float *w)
{
    int chunks = (n + ROW_CHUNK - 1) / ROW_CHUNK;
#pragma omp parallel for schedule(static)
    for (int k = 0; k < chunks; k++) {
        int end = (k + 1) * ROW_CHUNK < n ? (k + 1) * ROW_CHUNK : n;
        if (q->form == QF_PLAIN) {
            size_t row = (size_t)q->in / dtype_block(q->plain.dtype) * dtype_block_bytes(q->plain.dtype);
            for (int o = k * ROW_CHUNK; o < end; o++)
                dtype_to_f32(w + (size_t)o * q->in, q->plain.dtype, (char *)q->plain.data + (r0 + o) * row,
                             (size_t)q->in);
        } else if (q->form == QF_CODEBOOK) {
            for (int o = k * ROW_CHUNK; o < end; o++) dequant_levels(q, r0 + o, w + (size_t)o * q->in);
        } else {
            for (int o = k * ROW_CHUNK; o < end; o++) dequant_row(q, r0 + o, w + (size_t)o * q->in);
        }
    }
}

void qtensor_dequant(const struct qtensor *q, float *w)
{
    qtensor_dequant_rows(q, 0, q->out, w);
}

/* ---- parts: the one list that size, writer and reader share ---- */

enum part { PART_DATA, PART_CODES, PART_SCALE, PART_ZERO, PART_MINIMUM, PART_GIDX, PART_RIDX, PART_COUNT };
static const char *const form_name[] = {"plain", "uniform", "codebook"};
static const char *const part_name[PART_COUNT] = {"data", "codes", "scale", "zero", "minimum", "gidx", "ridx"};

static bool has_part(const struct qtensor *q, enum part p)
{
    switch (p) {
    case PART_DATA:
        return q->form == QF_PLAIN;
    case PART_CODES:
        return q->form != QF_PLAIN;
    case PART_SCALE:
        return q->form != QF_PLAIN;
    case PART_ZERO:
        return q->zero != NULL;
    case PART_MINIMUM:
        return q->minimum != NULL;
    case PART_GIDX:
        return q->gidx != NULL;
    case PART_RIDX:
        return q->n_rows > 0;
    default:
        return false;
    }
}

/* dtype, shape and size of a part as it lies in the stream; data is not set. */
static struct tensor part_tensor(const struct qtensor *q, enum part p)
{
    uint64_t params = qtensor_params(q);
    struct tensor t = {.dtype = DT_U8, .rank = 1};
    switch (p) {
    case PART_DATA:
        t = q->plain;
        return t;
    case PART_CODES:
    case PART_ZERO:
        t.shape[0] = t.nbytes =
            qtensor_packed_bytes(p == PART_ZERO ? params : (uint64_t)q->out * q->in, q->bits);
        return t;
    case PART_GIDX:
    case PART_RIDX:
        t.dtype = DT_I32;
        t.shape[0] = (uint64_t)(p == PART_GIDX ? q->in : q->out);
        t.nbytes = 4 * t.shape[0];
        return t;
    default:
        t.dtype = q->scale_dtype;
        t.rank = 2;
        t.shape[0] = qtensor_rows(q);
        t.shape[1] = (uint64_t)q->n_groups;
        t.nbytes = params * (uint64_t)dtype_block_bytes(q->scale_dtype);
        return t;
    }
}

uint64_t qtensor_stored_bytes(const struct qtensor *q)
{
    uint64_t n = 0;
    for (int p = 0; p < PART_COUNT; p++)
        if (has_part(q, p)) n += part_tensor(q, p).nbytes;
    return n;
}

double qtensor_bits(const struct qtensor *q)
{
    return 8.0 * (double)qtensor_stored_bytes(q) / ((double)q->out * q->in);
}

/* ---- writing ---- */

static int write_part(struct stream_writer *w, const struct qtensor *q, enum part p, struct err *e)
{
    struct tensor t = part_tensor(q, p);
    void *made = NULL;
    if (p == PART_CODES || p == PART_ZERO) {
        t.data = made = mem_array(t.nbytes, 1);
        if (p == PART_CODES)
            qtensor_pack(made, q->codes, (uint64_t)q->out * q->in, q->bits);
        else
            qtensor_pack(made, q->zero, qtensor_params(q), q->bits);
    } else if (p == PART_SCALE || p == PART_MINIMUM) {
        t.data = made = mem_array(t.nbytes, 1);
        dtype_from_f32(made, t.dtype, p == PART_SCALE ? q->scale : q->minimum, qtensor_params(q));
    } else if (p == PART_GIDX) {
        t.data = q->gidx;
    } else if (p == PART_RIDX) {
        t.data = q->ridx;
    }
    json_t *meta = json_pack("{s:s, s:s}", "name", q->name, "part", part_name[p]);
    if (q->layer >= 0) json_object_set_new(meta, "layer", json_integer(q->layer));
    int rc = stream_write(w, "QPart", meta, &t, e);
    json_decref(meta);
    mem_free(made);
    return rc;
}

int qtensor_write(struct stream_writer *w, const struct qtensor *q, struct err *e)
{
    json_t *meta = json_pack("{s:s, s:s, s:s, s:[i,i]}", "name", q->name, "role", q->role, "form",
                             form_name[q->form], "dims", q->out, q->in);
    if (!meta) return err_set(e, NT_EXIT_DATA, "tensor name or role is not UTF-8");
    if (q->layer >= 0) json_object_set_new(meta, "layer", json_integer(q->layer));
    if (q->form != QF_PLAIN) {
        json_object_set_new(meta, "bits", json_integer(q->bits));
        json_object_set_new(meta, "group", json_integer(q->group));
        json_object_set_new(meta, "sym", json_boolean(q->sym));
    }
    if (q->n_rows) json_object_set_new(meta, "rows", json_integer(q->n_rows));
    if (q->form == QF_CODEBOOK) json_object_set_new(meta, "levels", json_string(q->levels));
    if (q->form == QF_CODEBOOK && q->divisor != 0)
        json_object_set_new(meta, "divisor", json_real((double)q->divisor));
    json_t *parts = json_array();
    for (int p = 0; p < PART_COUNT; p++)
        if (has_part(q, p)) json_array_append_new(parts, json_string(part_name[p]));
    json_object_set_new(meta, "parts", parts);
    if (q->info) json_object_set(meta, "info", q->info);
    int rc = stream_write(w, "QTensor", meta, NULL, e);
    json_decref(meta);
    for (int p = 0; !rc && p < PART_COUNT; p++)
        if (has_part(q, p)) rc = write_part(w, q, p, e);
    return rc;
}

/* ---- reading ---- */

static int bad(struct stream_reader *r, struct err *e, const char *why)
{
    return stream_err(r, e, "%s", why);
}

static int get_int(const json_t *meta, const char *key, int64_t lo, int64_t hi, int *v)
{
    const json_t *j = json_object_get(meta, key);
    if (!json_is_integer(j) || json_integer_value(j) < lo || json_integer_value(j) > hi) return -1;
    *v = (int)json_integer_value(j);
    return 0;
}

/* What a codebook tensor says beside a uniform one. */
static int read_levels(struct stream_reader *r, const json_t *meta, struct qtensor *q, struct err *e)
{
    const char *name = json_string_value(json_object_get(meta, "levels"));
    const json_t *d = json_object_get(meta, "divisor");
    if (!name || qtensor_level_bits(name) != q->bits || !q->sym)
        return bad(r, e, "levels that are not known, or of another number of bits");
    snprintf(q->levels, sizeof q->levels, "%s", name);
    q->divisor = (float)json_real_value(d);
    if (d && !(json_is_real(d) && isfinite(q->divisor) && q->divisor > 0))
        return bad(r, e, "divisor is no positive number");
    return 0;
}

static int read_meta(struct stream_reader *r, const json_t *meta, struct qtensor *q, struct err *e)
{
    const char *name = json_string_value(json_object_get(meta, "name"));
    const char *role = json_string_value(json_object_get(meta, "role"));
    const char *form = json_string_value(json_object_get(meta, "form"));
    const json_t *dims = json_object_get(meta, "dims");

    if (!name || !name[0] || strlen(name) >= sizeof q->name)
        return bad(r, e, "no name, or one over 255 bytes");
    strcpy(q->name, name);
    if (role && strlen(role) >= sizeof q->role) return bad(r, e, "role is over 15 bytes");
    strcpy(q->role, role ? role : "");
    q->layer = -1;
    if (json_object_get(meta, "layer") && get_int(meta, "layer", -1, INT32_MAX, &q->layer))
        return bad(r, e, "layer is no number");
    q->out = (int)json_integer_value(json_array_get(dims, 0));
    q->in = (int)json_integer_value(json_array_get(dims, 1));
    if (json_array_size(dims) != 2 || json_integer_value(json_array_get(dims, 0)) != q->out ||
        json_integer_value(json_array_get(dims, 1)) != q->in || q->out < 1 || q->in < 1)
        return bad(r, e, "its dims are not [out, in]");
    if (form && !strcmp(form, "plain")) {
        q->form = QF_PLAIN;
    } else if (form && (!strcmp(form, "uniform") || !strcmp(form, "codebook"))) {
        q->form = *form == 'u' ? QF_UNIFORM : QF_CODEBOOK;
        if (get_int(meta, "bits", 1, 8, &q->bits)) return bad(r, e, "bits is not in 1..8");
        if (get_int(meta, "group", 0, INT32_MAX, &q->group)) return bad(r, e, "group is not 0 or more");
        if (!json_is_boolean(json_object_get(meta, "sym"))) return bad(r, e, "sym is missing");
        q->sym = json_is_true(json_object_get(meta, "sym"));
        q->n_groups = qtensor_groups(q->in, q->group);
        if (json_object_get(meta, "rows") && get_int(meta, "rows", 1, 1 << 24, &q->n_rows))
            return bad(r, e, "rows is not in 1..2^24");
        if (q->form == QF_CODEBOOK && read_levels(r, meta, q, e)) return -1;
    } else {
        return stream_err(r, e, "the form '%.40s' is not known here", form ? form : "");
    }
    if (json_is_object(json_object_get(meta, "info")))
        q->info = json_deep_copy(json_object_get(meta, "info"));
    return 0;
}

static int same_shape(const struct tensor *a, const struct tensor *b)
{
    if (a->dtype != b->dtype || a->rank != b->rank || a->nbytes != b->nbytes) return 0;
    for (int i = 0; i < a->rank; i++)
        if (a->shape[i] != b->shape[i]) return 0;
    return 1;
}

static int read_floats(struct stream_reader *r, struct record *rec, struct qtensor *q, float **dst,
                       struct err *e)
{
    size_t n = qtensor_params(q);
    if (stream_payload(r, rec, NULL, e)) return -1;
    *dst = MEM_NEW(float, n);
    dtype_to_f32(*dst, rec->t.dtype, rec->t.data, n);
    mem_free(rec->t.data);
    return f32_first_nonfinite(*dst, n) < n ? bad(r, e, "a scale or minimum is not finite") : 0;
}

/* Unpacked as it arrives: eight codes are `bits` whole bytes. Memory follows the bytes that came. */
static int read_packed(struct stream_reader *r, const struct qtensor *q, uint64_t n, uint8_t **dst,
                       struct err *e)
{
    uint8_t *piece = MEM_NEW(uint8_t, UNPACK_PIECE);
    uint64_t have = 0;
    size_t cap = 0, left = 0;
    int64_t k;
    while ((k = stream_payload_some(r, piece + left, UNPACK_PIECE - left, e)) > 0) {
        size_t bytes = left + (size_t)k, whole = bytes / q->bits;
        uint64_t codes = n - have < whole * 8 ? n - have : whole * 8, more = 8 * (have + codes);
        if (more < STREAM_SEGMENT_MAX) more = STREAM_SEGMENT_MAX;
        *dst = mem_grow(*dst, &cap, more < n ? more : n, 1);
        qtensor_unpack(*dst + have, piece, codes, q->bits);
        have += codes;
        left = bytes - whole * q->bits;
        memmove(piece, piece + whole * q->bits, left);
    }
    if (!*dst) *dst = mem_array(0, 1);
    if (k == 0) qtensor_unpack(*dst + have, piece, n - have, q->bits); /* fewer than eight */
    mem_free(piece);
    return k < 0 ? -1 : 0;
}

static int read_part(struct stream_reader *r, struct record *rec, enum part p, struct qtensor *q,
                     struct err *e)
{
    if (p == PART_DATA) {
        if (rec->t.rank != 2 || rec->t.shape[0] != (uint64_t)q->out || rec->t.shape[1] != (uint64_t)q->in ||
            !dtype_is_float(rec->t.dtype))
            return bad(r, e, "plain data has the wrong shape or type");
        if (stream_payload(r, rec, NULL, e)) return -1;
        q->plain = rec->t;
        return 0;
    }
    if (p == PART_SCALE) {
        q->scale_dtype = rec->t.dtype;
        bool small = rec->t.dtype == DT_F8_E4M3 || rec->t.dtype == DT_F8_E8M0;
        if (rec->t.dtype != DT_F16 && rec->t.dtype != DT_F32 && rec->t.dtype != DT_BF16 &&
            !(small && q->form == QF_CODEBOOK))
            return bad(r, e, "scales are not F16, F32 or BF16");
    }
    struct tensor want = part_tensor(q, p);
    if (!same_shape(&want, &rec->t))
        return stream_err(r, e, "part %s has the wrong type or shape", part_name[p]);
    switch (p) {
    case PART_CODES:
        return read_packed(r, q, (uint64_t)q->out * q->in, &q->codes, e);
    case PART_ZERO:
        return read_packed(r, q, qtensor_params(q), &q->zero, e);
    case PART_SCALE:
        return read_floats(r, rec, q, &q->scale, e);
    case PART_MINIMUM:
        return read_floats(r, rec, q, &q->minimum, e);
    default:
        break;
    }
    if (stream_payload(r, rec, NULL, e)) return -1;
    int32_t *index = rec->t.data;
    int n = p == PART_GIDX ? q->in : q->out, end = p == PART_GIDX ? q->n_groups : q->n_rows;
    *(p == PART_GIDX ? &q->gidx : &q->ridx) = index;
    for (int i = 0; i < n; i++)
        if (index[i] < 0 || index[i] >= end)
            return bad(r, e, p == PART_GIDX ? "a group index is out of range" : "a row index is out of range");
    return 0;
}

/* Which parts a valid tensor has; bit p of `parts`. */
static int check_parts(struct stream_reader *r, const struct qtensor *q, unsigned parts, struct err *e)
{
    unsigned need = q->form == QF_PLAIN ? 1u << PART_DATA : 1u << PART_CODES | 1u << PART_SCALE;
    unsigned may = q->form == QF_PLAIN ? 0 : 1u << PART_GIDX;
    if (q->n_rows) need |= 1u << PART_RIDX;
    if (q->form == QF_UNIFORM && !q->sym) {
        if (!(parts & 1u << PART_ZERO) == !(parts & 1u << PART_MINIMUM))
            return bad(r, e, "an asymmetric tensor needs either zeros or minima");
        may |= 1u << PART_ZERO | 1u << PART_MINIMUM;
    }
    if ((parts & need) != need || (parts & ~(need | may))) return bad(r, e, "parts do not fit its form");
    return 0;
}

static int list_parts(struct stream_reader *r, const json_t *list, const struct qtensor *q,
                      enum part order[PART_COUNT], int *n, struct err *e)
{
    unsigned seen = 0;
    int last = -1; /* scales come before minima: their type is the minima's type */
    *n = 0;
    if (json_array_size(list) > PART_COUNT) return bad(r, e, "too many parts");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *s = json_string_value(json_array_get(list, i));
        int p = 0;
        while (p < PART_COUNT && (!s || strcmp(s, part_name[p]))) p++;
        if (p == PART_COUNT || p <= last) return bad(r, e, "an unknown, repeated or misplaced part");
        seen |= 1u << p;
        order[(*n)++] = (enum part)p;
        last = p;
    }
    return check_parts(r, q, seen, e);
}

int qtensor_read(struct stream_reader *r, struct record *rec, struct qtensor *q, struct err *e)
{
    enum part order[PART_COUNT];
    int n;
    memset(q, 0, sizeof *q);
    if (read_meta(r, rec->meta, q, e) || list_parts(r, json_object_get(rec->meta, "parts"), q, order, &n, e))
        goto fail;
    for (int i = 0; i < n; i++) {
        int got = stream_next(r, rec, e);
        if (got < 0) goto fail;
        const char *part = got ? json_string_value(json_object_get(rec->meta, "part")) : NULL;
        if (!got || strcmp(rec->kind, "QPart") || strcmp(rec->name, q->name) || !part ||
            strcmp(part, part_name[order[i]]) || !rec->has_payload) {
            if (got)
                stream_err(r, e, "part %s of %s is missing here", part_name[order[i]], q->name);
            else
                err_set(e, NT_EXIT_DATA, "%s: part %s of %s is missing", stream_name(r), part_name[order[i]],
                        q->name);
            goto fail;
        }
        if (read_part(r, rec, order[i], q, e)) goto fail;
    }
    return 0;
fail:
    qtensor_clear(q);
    return -1;
}
