/* SPDX-License-Identifier: Apache-2.0
 * Low-bit storage by form, not by method: no consumer knows who made a tensor. Codes are u8 in memory,
 * bit-packed in streams. A quantizer chooses numbers, this module stores them. W is [out, in], groups run
 * along `in`. */
#ifndef NT_QTENSOR_H
#define NT_QTENSOR_H
#include <jansson.h>
#include "common/err.h"
#include "common/stream.h"
#include "common/tensor.h"

enum qform { QF_PLAIN, QF_UNIFORM, QF_CODEBOOK };

struct qtensor {
    char name[256]; /* "model.layers.3.mlp.up_proj.weight" */
    int layer;      /* -1: outside the blocks */
    char role[16];  /* role_name(), or "" */
    enum qform form;
    int out, in;
    /* QF_PLAIN */
    struct tensor plain; /* owned */
    /* QF_UNIFORM: w[o,i] = scale[r,g] * (code[o,i] - zero[r,g]), or scale*code + min when float minima; g
     * = gidx[i], r = ridx[o]. `rows` below is n_rows, or out where that is 0: rows that share their scales
     * make groups that run across rows (HQQ's axis 0). */
    int bits;  /* 1..8 */
    int group; /* as asked: 0 = one group per row; the last group may be short */
    int n_groups;
    bool sym;               /* zeros are all 2^(bits-1) and not stored */
    uint8_t *codes;         /* [out, in] */
    float *scale;           /* [rows, n_groups] values exactly representable in scale_dtype */
    enum dtype scale_dtype; /* as stored: F16 by default, F32, BF16 */
    uint8_t *zero;          /* [rows, n_groups], NULL when sym or minimum given */
    float *minimum;         /* [rows, n_groups] float minima or NULL */
    int32_t *gidx;          /* [in] or NULL: group of column i when it is not i / group */
    int n_rows;             /* rows of scales; 0: one for each row */
    int32_t *ridx;          /* [out]: row of scales of row o; NULL: n_rows is 0 */
    /* QF_CODEBOOK: w[o,i] = scale[o,g] / divisor * level[code[o,i]]; codes, scale and group as above, sym is
     * true. Scales may also be F8_E4M3 or F8_E8M0. */
    char levels[12]; /* "e2m1", "nf4", "fp4" (bitsandbytes) of 4 bits, "e4m3", "e5m2" of 8 */
    float divisor;   /* a scale of all scales; 0: there is none */
    json_t *info;           /* method, options, error: for people; may be NULL */
};

/* Rows of scale, zero and minimum; the one of row o; elements of each of the three; where row o's begin. */
static inline size_t qtensor_rows(const struct qtensor *q) { return (size_t)(q->n_rows ? q->n_rows : q->out); }
static inline size_t qtensor_row(const struct qtensor *q, int o) { return (size_t)(q->ridx ? q->ridx[o] : o); }
static inline size_t qtensor_params(const struct qtensor *q) { return qtensor_rows(q) * (size_t)q->n_groups; }
static inline size_t qtensor_param(const struct qtensor *q, int o)
{
    return qtensor_row(q, o) * (size_t)q->n_groups;
}

void qtensor_clear(struct qtensor *q); /* frees the parts, zeroes the struct */
int qtensor_groups(int in, int group);
/* Fills a QF_UNIFORM tensor's sizes and allocates codes, scale and (not sym) zero. name, layer and role
 * stay. */
void qtensor_init_uniform(struct qtensor *q, int out, int in, int bits, int group, bool sym,
                          enum dtype scale_dtype);
/* A QF_PLAIN copy of W[out, in] in the smallest of BF16, F16, F32 that holds every value exactly. */
void qtensor_init_plain(struct qtensor *q, int out, int in, const float *W);
/* The same of a QF_CODEBOOK tensor; its number of bits follows from the levels, which must be known. */
void qtensor_init_codebook(struct qtensor *q, int out, int in, const char *levels, int group,
                           enum dtype scale_dtype);
/* Bits of a set of levels; 0: not known. */
int qtensor_level_bits(const char *levels);
/* The 16 values of one of 4 bits; NULL: none of 4 bits. */
const float *qtensor_levels(const char *levels);
void qtensor_dequant(const struct qtensor *q, float *w /* [out, in] */);
/* Rows r0 .. r0+n-1 alone. */
void qtensor_dequant_rows(const struct qtensor *q, int r0, int n, float *w /* [n, in] */);
/* Bytes of the form as stored (packed codes, scales, zeros, gidx): the basis of effective bits. */
uint64_t qtensor_stored_bytes(const struct qtensor *q);
double qtensor_bits(const struct qtensor *q); /* 8 * stored / (out*in) */

/* One record "QTensor" (meta: name, layer, role, form, dims [out, in], bits, group, sym, rows, levels,
 * divisor, info, parts) followed by one record "QPart" (meta: name, part) for each part, in the order of `parts`:
 *   codes U8 [packed]   scale F16|F32|BF16 [rows, n_groups] (codebook: F8_E4M3|F8_E8M0, too)
 *   zero U8 [packed]   minimum as scale   gidx I32 [in]   ridx I32 [out]
 *   data: a plain tensor, any float dtype [out, in] */
int qtensor_write(struct stream_writer *w, const struct qtensor *q, struct err *e) NT_MUST_CHECK;
/* rec is a "QTensor" record; reads its parts too. Checks every shape, code range and finite scales. */
int qtensor_read(struct stream_reader *r, struct record *rec, struct qtensor *q, struct err *e) NT_MUST_CHECK;

/* n codes of `bits` bits as one dense bit stream: code k lies at bits k*bits .. k*bits+bits-1, bit b of
 * the stream is bit b%8 of byte b/8 (least significant first); rows follow each other without padding, the
 * last byte ends in zeros. */
uint64_t qtensor_packed_bytes(uint64_t n, int bits);
void qtensor_pack(uint8_t *dst, const uint8_t *codes, uint64_t n, int bits);
void qtensor_unpack(uint8_t *codes, const uint8_t *src, uint64_t n, int bits);
#endif
