/* SPDX-License-Identifier: Apache-2.0
 * One layer at a time from statistics and float weights to the records of a qweights stream: QTensor and
 * QPart for every linear in role order, Norm (which: "old") for the block's norms, LayerEnd. */
#ifndef NT_QUANTIZE_H
#define NT_QUANTIZE_H
#include "common/model.h"
#include "common/plan.h"

/* What becomes of an expert to which fewer tokens than dead_below were routed: a refusal; X'X = 1, which leaves
 * rounding; the sum of all experts' X'X of its layer. */
enum quantize_dead { DEAD_ERROR, DEAD_RTN, DEAD_BORROW };

struct quantize {
    struct model *m;
    struct plan *plan;
    const struct backend *be; /* may be NULL */
    struct quantizer_cache *cache;
    bool *done;                  /* [n_layers] */
    int first, end;              /* layers wanted */
    bool import;                 /* the model's own codes, untouched; plan is NULL */
    enum quantize_dead dead;
    uint64_t dead_below;
    double stored_bits, weights; /* totals of the linears, for effective bits */
};

/* Layers a..b (b excluded, clipped to the model). plan NULL: import, what the file holds is passed on. */
int quantize_init(struct quantize *z, struct model *m, struct plan *plan, const struct backend *be, int64_t a,
                  int64_t b, struct err *e) NT_MUST_CHECK;
void quantize_clear(struct quantize *z);
/* Predicted memory of the work itself; statistics of a layer included when `hessian`. */
uint64_t quantize_bytes(const struct model_config *c, bool hessian, bool f64);
/* Header of the qweights stream; stats_header NULL when none are read; new. */
json_t *quantize_header(const struct quantize *z, const json_t *stats_header);
/* One layer; st[block_sites], NULL when no rule needs statistics: each site's are cleared when its linears are
 * done, for their memory. Refuses a layer that was already there; skips one that is not wanted. */
int quantize_layer(struct quantize *z, struct stream_writer *w, int layer, struct site_stats *st,
                   struct err *e) NT_MUST_CHECK;
/* Before the linears of a layer: counts of its experts are told, statistics of dead ones replaced
 * (quantize_experts.c). */
int quantize_experts(struct quantize *z, int layer, struct site_stats *st, struct err *e) NT_MUST_CHECK;
int quantize_check_complete(const struct quantize *z, const char *stream,
                            struct err *e) NT_MUST_CHECK; /* no layer missing */
/* A linear of a layer as the file holds it: packed weights as they are coded, GGUF's blocks and plain floats
 * as such, rows in HF order (quantize_import.c). */
int quantize_import(struct model *m, int layer, int linear, struct qtensor *q, struct err *e) NT_MUST_CHECK;
double quantize_bits(const struct quantize *z);           /* effective bits per weight so far */
#endif
