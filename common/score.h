/* SPDX-License-Identifier: Apache-2.0
 * Log-likelihoods of token sequences under a model, layer by layer: one block resident, the activations of
 * all sequences at one boundary held on the device. A second model (the reference) can run beside it, for KL,
 * agreement and drift. */
#ifndef NT_SCORE_H
#define NT_SCORE_H
#include "common/eval_qweights.h"
#include "common/model.h"

/* Sequences of one length, run together. Row r = sequence r / T, position r % T. */
struct score_batch {
    int B, T;
    int32_t *ids;             /* [B * T] */
    int32_t *targets;         /* [B * T] the token that row predicts, -1 = row not scored */
    double *nll, *kl;         /* [B * T] results, 0 where not scored; kl NULL without reference */
    int32_t *best, *best_ref; /* [B * T] argmax; best_ref NULL without reference */
};

struct score_set {
    int n, cap;
    struct score_batch *batch;
};

#define SCORE_ROWS 2048 /* rows that one forward takes, at least one sequence */

/* One more sequence of T ids, next to others of its length; targets [T] as above. */
void score_add(struct score_set *s, const int32_t *ids, const int32_t *targets, int T);
/* The same, padded at its end to T (attention is causal: what stands behind changes nothing). */
void score_add_padded(struct score_set *s, const int32_t *ids, const int32_t *targets, int len, int T);
void score_clear(struct score_set *s);
uint64_t score_tokens(const struct score_set *s); /* rows in all */

/* A model as it lies, or with a stream's weights in its place. */
struct score_source {
    struct model *m;
    struct qweights *q; /* NULL: as it lies */
};
/* block_load, then the stream's replacements. */
int score_load(struct score_source *s, struct block *b, int layer, struct err *e) NT_MUST_CHECK;

/* Per layer, over all rows of all sequences: how far the channels of the block's output are from the
 * reference's. mean = |mean - mean_ref| / std_ref, var = |var - var_ref| / var_ref, each averaged over
 * channels with its standard error. */
struct score_drift {
    double mean, mean_err, var, var_err;
};

/* Fills nll, best (and with ref: kl, best_ref) of every batch; drift [n_layers] may be NULL. ref NULL: no
 * reference. */
int score_run(struct score_source *s, struct model *ref, struct score_set *set, struct score_drift *drift,
              struct err *e) NT_MUST_CHECK;
uint64_t score_bytes(const struct model_config *c, const struct score_set *set,
                     bool ref); /* memory score_run will take */

/* Effective bits per weight of the blocks' linears as they lie in the file. */
double score_model_bits(const struct model *m);
#endif
