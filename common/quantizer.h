/* SPDX-License-Identifier: Apache-2.0
 * A quantization method is one file in common/quantizers/ that exports `const struct quantizer
 * quantizer_NAME`. It sees no stream, no file, no packing. */
#ifndef NT_QUANTIZER_H
#define NT_QUANTIZER_H
#include "common/qtensor.h"
#include "common/stats.h"
#include "kernels/backend.h"

struct quant_opts {
    int bits, group; /* 2..8; group 0 = per row */
    bool sym, act_order, true_f64;
    bool static_groups; /* scales from the original weights; implied by act_order */
    double damp;        /* 0.01: fraction of the mean diagonal */
    bool clip_mse;
    int block;              /* columns per lazy update, 128 */
    int order_block;        /* act_order leaves blocks of so many columns together; 0: none */
    enum dtype scale_dtype; /* F16, F32, BF16 */
    int64_t seed;
};

struct quantizer {
    const char *name;
    const char *summary; /* one line for -q list */
    const char *needs;   /* statistics, comma separated ("hessian"), "" = none */
    /* What the linears of one site share (a factored Hessian, say); NULL when there is no such thing. Its
     * notes for people are added to info. */
    void *(*prepare)(const struct site_stats *st, const struct quant_opts *o, json_t *info, struct err *e);
    void (*release)(void *prepared);
    /* W[out, in] host f32 (not modified); st NULL when needs is "". Fills q (name, layer, role already
     * set). Notes for people (damping raised, dead columns) go to q->info, which is there. */
    int (*run)(const struct backend *be, const float *W, int out, int in, const struct site_stats *st,
               const void *prepared, const struct quant_opts *o, struct qtensor *q, struct err *e);
};

const struct quantizer *quantizer_find(const char *name); /* NULL: unknown */
const struct quantizer *quantizer_at(int i);              /* NULL after the last; sorted by name */

/* Defaults: 4 bits, group 128, asymmetric, damp 0.01, no clip, block 128, F16 scales. */
void quant_opts_init(struct quant_opts *o);
/* 0 when the values make sense, else a sentence with NT_EXIT_USAGE. */
int quant_opts_check(const struct quant_opts *o, struct err *e) NT_MUST_CHECK;
enum dtype quant_scale_dtype(const char *name); /* f16 f32 bf16 in either case; DT_NONE: something else */
json_t *quant_opts_json(const struct quantizer *qz,
                        const struct quant_opts *o); /* normalized, for headers; new */

/* What one layer needs of a method, prepared once per site and set of options, kept until the layer is
 * done. */
struct quantizer_cache;
struct quantizer_cache *quantizer_cache_alloc(void);
void quantizer_cache_clear(struct quantizer_cache *c); /* when the layer's statistics go away */
void quantizer_cache_free(struct quantizer_cache *c);

/* What quantizer_run would prepare, ahead of it: so that a factorisation's work space need not lie beside the
 * weights. Checks st. */
int quantizer_prepare(const struct quantizer *qz, struct quantizer_cache *c, int in,
                      const struct site_stats *st, const struct quant_opts *o, const char *name,
                      struct err *e) NT_MUST_CHECK;
/* Checks W and st (finite, sizes), runs the method and adds to q->info: method, options, `rel_weights` =
 * |W-Q|/|W| and, with a Hessian, `rel_objective` = tr((W-Q)H(W-Q)')/tr(WHW'). */
int quantizer_run(const struct quantizer *qz, struct quantizer_cache *c, const struct backend *be,
                  const float *W, int out, int in, const struct site_stats *st, const struct quant_opts *o,
                  struct qtensor *q, struct err *e) NT_MUST_CHECK;
/* tr(M H M') for M[out, in], H[in, in] symmetric; fixed order, f64 sums over f32 products. */
double quantizer_objective(const float *M, int out, int in, const float *H);
#endif
