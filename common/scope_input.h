/* SPDX-License-Identifier: Apache-2.0
 * A whole qweights stream as model scope needs it: every quantized linear at hand by layer, in any order and
 * as often as asked. Codes are kept bit-packed, in memory or in an unlinked temporary file; scales, zeros and
 * minima stay in memory. A pipe is spooled first, because the stream is read again when the result is
 * written. */
#ifndef NT_SCOPE_INPUT_H
#define NT_SCOPE_INPUT_H
#include "common/model.h"
#include "common/qtensor.h"
#include "common/tempfile.h"

struct scope_tensor {
    struct qtensor q; /* out 0: the linear stays float; codes (or plain.data) NULL */
    uint8_t *packed;  /* in memory, or NULL */
    uint64_t at, bytes;
};

struct scope_input {
    struct respool src;
    int n_layers, per, D; /* per: linears of a layer, as numbered in block.h */
    struct scope_tensor *t; /* [n_layers * per] */
    int n_norms;    /* norm vectors in the order of model_norm_part */
    size_t *at;     /* [n_norms + 1]: where each begins in norms; no numbers: the model has no such vector */
    float *norms;   /* the valid ones of the stream, else the model's */
    bool *has_norm; /* which of them the stream holds */
    uint64_t packed_bytes; /* of all codes and plain data */
    uint64_t n_scales, n_minima;
    bool tweaked; /* the input holds the new norms of an earlier run */
    bool use_new;
    char hash[17];
    json_t *header;
    struct tempfile *codes; /* packed; NULL: they are in memory */
    uint8_t *scratch[2];    /* codes of one linear, and as packed */
};

/* Finds the stream ("-" or a pipe: spools it), checks it to its end and counts: no payload is kept yet. */
int scope_input_open(struct scope_input *in, const char *path, struct model *m, struct err *e) NT_MUST_CHECK;
/* Reads the tensors and norms. in_memory: where the packed codes go. */
int scope_input_read(struct scope_input *in, struct model *m, bool in_memory, struct err *e) NT_MUST_CHECK;
/* No stream: every linear and norm is the model's own. */
int scope_input_none(struct scope_input *in, struct model *m, struct err *e) NT_MUST_CHECK;
void scope_input_clear(struct scope_input *in);

/* w[out, in] = the dequantized linear; scale, minimum [out, n_groups]: in place of its own (NULL: its own).
 */
int scope_input_weights(struct scope_input *in, int layer, int r, float *scale, float *minimum,
                        float *w, struct err *e) NT_MUST_CHECK;
/* Unpacks codes into in->scratch and gives a view of the tensor; valid until the next call. */
int scope_input_view(struct scope_input *in, int layer, int r, struct qtensor *view,
                     struct err *e) NT_MUST_CHECK;
#endif
