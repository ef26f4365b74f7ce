/* SPDX-License-Identifier: Apache-2.0
 * A quantization method is one file in common/quantizers/ that exports `const struct quantizer quantizer_NAME`. It sees
 * no stream, no file, no packing. */
#ifndef NT_QUANTIZER_H
#define NT_QUANTIZER_H
#include "common/qtensor.h"
#include "common/stats.h"
#include "kernels/backend.h"

struct quant_opts {
    int bits, group;         /* group 0 = per row */
    bool sym, act_order, true_f64;
    double damp;             /* 0.01: fraction of the mean diagonal */
    bool clip_mse;
    int block;               /* columns per lazy update, 128 */
    enum dtype scale_dtype;
    int64_t seed;
};

struct quantizer {
    const char *name;
    const char *summary;     /* one line for -q list */
    const char *needs;       /* statistics, comma separated ("hessian"), "" = none */
    /* W[out, in] host f32 (not modified); st NULL when needs is "". Fills q (name, layer, role already set). Notes for
     * people (damping raised, dead columns) go to q->info. */
    int (*run)(const struct backend *be, const float *W, int out, int in, const struct site_stats *st,
               const struct quant_opts *o, struct qtensor *q, struct err *e);
};

const struct quantizer *quantizer_find(const char *name); /* NULL: unknown */
const struct quantizer *quantizer_at(int i);              /* NULL after the last; sorted by name */
#endif
