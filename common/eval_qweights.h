/* SPDX-License-Identifier: Apache-2.0
 * A qweights stream as replacements for a model's weights: its quantized linears, dequantized into a loaded
 * block layer by layer, and the norms its trailer says are valid. The stream is read twice (the trailer comes
 * last), so a pipe is spooled to disk. */
#ifndef NT_EVAL_QWEIGHTS_H
#define NT_EVAL_QWEIGHTS_H
#include "common/model.h"

struct qweights;

/* Reads and checks the whole stream: made from this model, every layer there, shapes right. norms: "verdict"
 * (what the trailer says), "old" or "new". path "-" = stdin. */
struct qweights *qweights_open(const char *path, struct model *m, const char *norms,
                               struct err *e) NT_MUST_CHECK;
void qweights_close(struct qweights *q); /* NULL ok */
double
qweights_bits(const struct qweights *q); /* effective bits per weight of the quantized linears, as stored */
const char *qweights_norms(const struct qweights *q); /* "old", "new", or "model" when the stream has none */
const float *qweights_final_gain(const struct qweights *q); /* NULL: the model's own */
const float *qweights_final_bias(const struct qweights *q);
/* After block_load of the same layer: puts the stream's tensors and norms over it. */
int qweights_apply(struct qweights *q, struct model *m, struct block *b, int layer,
                   struct err *e) NT_MUST_CHECK;
#endif
