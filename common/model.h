/* SPDX-License-Identifier: Apache-2.0
 * A decoder model: configuration, names, weights by layer, embedding and head. Holds one layer on the device
 * unless asked for all. Names are the Hugging Face ones whatever file the weights come from; row order too
 * (GGUF's permuted q and k rows of llama files are put back). A family is a table in common/families/. */
#ifndef NT_MODEL_H
#define NT_MODEL_H
#include "common/block.h"
#include "common/checkpoint.h"
#include "common/rope.h"

/* model_config.c: config.json to a struct; GGUF keys to a config.json. The common keys are checked, a key
 * that changes what is computed and is not supported is refused by name. */
struct model_config;
int model_config_read(struct model_config *c, const json_t *hf_config, struct err *e) NT_MUST_CHECK;
/* New reference or NULL. */
json_t *model_config_from_gguf(const struct checkpoint *ck, struct err *e) NT_MUST_CHECK;
/* Inverse frequencies of the rotary table [rot/2], scaling included, in the single precision of the reference
 * code. */
void model_rope_frequencies(const struct model_config *c, float *freq);

struct model_config {
    const struct family *family;
    char arch[32]; /* model_type */
    int n_layers, vocab, max_pos;
    struct block_shape block;
    bool tied; /* head = embedding */
    bool bf16; /* the backend also keeps bf16 forms of weights; counted in block_bytes and head_bytes */
    bool attn_bias, mlp_bias;
    enum rope_type rope;
    double rope_theta, rope_factor, rope_low, rope_high;
    int rope_orig;
    float logit_scale, logit_softcap; /* z = softcap(scale * (W x + b)); 1, 0 = none */
    int bos, eos;                     /* -1 = none */
};

struct family {
    const char *model_type; /* config.json's */
    const char *gguf_arch;  /* general.architecture */
    const char *hf_class;   /* config.json's architectures entry */
    /* HF tensor names, "%d" = layer; weights end in .weight, biases in .bias */
    const char *role[ROLE_COUNT], *norm[NORM_COUNT], *embed, *final_norm, *head;
    const char *gguf_role[ROLE_COUNT], *gguf_norm[NORM_COUNT], *gguf_embed, *gguf_final_norm, *gguf_head;
    bool gguf_permuted_qk; /* llama.cpp permutes q and k rows of this architecture */
    bool rms, attn_bias;   /* attn_bias: q, k, v always have one (Qwen2) */
    struct {
        int vocab, hidden, ff, layers, heads, max_pos;
        double eps, rope_theta;
    } defaults; /* what keys that config.json lacks mean */
    /* After the common keys; may be NULL. */
    int (*configure)(struct model_config *c, const json_t *hf_config, struct err *e);
};
const struct family *family_by_gguf_arch(const char *arch);

/* The tensors of one block as they lie in the file; NULL = no such tensor. */
struct model_layer {
    const struct checkpoint_tensor *w[ROLE_COUNT], *b[ROLE_COUNT], *gain[NORM_COUNT], *norm_bias[NORM_COUNT];
};

struct model {
    struct checkpoint *ck;
    struct model_config c;
    json_t *hf_config; /* config.json, or one made from GGUF keys: written into qweights and by nt-pack */
    const struct backend *be;   /* may be NULL for tools that only read weights */
    bool gguf;                  /* names and q/k row order are GGUF's */
    struct model_layer *layers; /* [n_layers] */
    const struct checkpoint_tensor *embed, *head; /* head = embed when tied */
    const struct checkpoint_tensor *final_gain, *final_bias, *head_bias; /* NULL: there is none */
};

/* Opens, recognises the family, checks that every tensor is there with the right shape. Unknown model_type or
 * a config key that changes what is computed and is not supported: refused by name. */
struct model *model_open(const char *path, const struct backend *be, struct err *e) NT_MUST_CHECK;
void model_close(struct model *m);
/* Identity for stream headers: {arch, layers, hidden, vocab, config_sha256, sample_xxh3, name?}; new
 * reference. It depends on what is computed and on values (all norms, three rows of every matrix), not on
 * file format or place. */
json_t *model_identity(struct model *m);
/* 0 when a stream's header.model is of this model, else an error that names both. */
int model_check_identity(struct model *m, const json_t *header, const char *stream,
                         struct err *e) NT_MUST_CHECK;

/* ---- weights on the host, f32 ---- */
void model_tensor_name(const struct model *m, int layer, enum role r, char out[256]); /* ".weight" included */
void model_norm_name(const struct model *m, int layer, enum norm_id n, char out[256]);
/* The same of gain (i < NORM_COUNT) or bias i. */
void model_norm_vector_name(const struct model *m, int layer, int i, char out[256]);
void model_final_norm_name(const struct model *m, char out[256]);
/* The other way round: a linear (enum role) or norm vector (as in struct block) of this layer by its name; -1:
 * none. */
int model_find_role(const struct model *m, int64_t layer, const char *name);
int model_find_norm(const struct model *m, int64_t layer, const char *name);
bool model_is_final_norm(const struct model *m, const char *name);
/* A family's pattern with its %d filled in, and a suffix. */
void family_tensor_name(char out[256], const char *pattern, int layer, const char *suffix);
/* Dequantized weight [out, in] of a linear / vector of a norm into dst; checks for non-finite values, naming
 * the tensor. */
int model_read_linear(struct model *m, int layer, enum role r, float *dst, struct err *e) NT_MUST_CHECK;
/* 1 read, 0 there is none, -1 error */
int model_read_bias(struct model *m, int layer, enum role r, float *dst, struct err *e) NT_MUST_CHECK;
int model_read_norm(struct model *m, int layer, enum norm_id n, float *gain, float *bias,
                    struct err *e) NT_MUST_CHECK;
int model_read_final_norm(struct model *m, float *gain, float *bias, struct err *e) NT_MUST_CHECK;
/* Rows r0..r0+n of the embedding table [V, D], or of the head. */
int model_read_embed(struct model *m, int r0, int n, float *dst, struct err *e) NT_MUST_CHECK;
int model_read_head(struct model *m, int r0, int n, float *dst, struct err *e) NT_MUST_CHECK;
bool model_norm_has_bias(const struct model *m);
/* Rows r0..r0+n of any tensor of this model, dequantized and checked; head_dim not 0: GGUF's permuted rows of
 * q or k, put back in HF order (model_permuted_head gives it: 0 where rows lie as in HF). */
int model_read_rows(struct model *m, const struct checkpoint_tensor *t, int head_dim, uint64_t r0, uint64_t n,
                    float *dst, struct err *e) NT_MUST_CHECK;
int model_permuted_head(const struct model *m, enum role r);

/* ---- weights on the device ---- */
#define MODEL_STAGE_FLOATS (1 << 20) /* of a linear that are on the host on their way to the device */
/* A block's memory, filled layer by layer. Replacement of single tensors: be->put into blk.w[role],
 * blk.gain[norm]. */
struct block *block_alloc(struct model *m, int max_pos); /* with rotary table for max_pos positions */
void block_free(struct model *m, struct block *b);
int block_load(struct model *m, struct block *b, int layer, struct err *e) NT_MUST_CHECK;
uint64_t block_bytes(const struct model_config *c);
/* What a backward keeps beside that, for the products with W instead of W^T: of a block, of the head. */
uint64_t block_back_bytes(const struct model_config *c);
uint64_t head_back_bytes(const struct model_config *c);

/* x[R,D] (device) = embedding of host ids. */
int model_embed(struct model *m, const int32_t *ids, int R, dev x, struct err *e) NT_MUST_CHECK;

/* The head: final norm, then logits in tiles of the vocabulary, nothing of size R x V held. Weights are read
 * once by head_open and stay on the device. */
struct head;
struct head *head_open(struct model *m, const float *final_gain /* NULL: the model's own */,
                       struct err *e) NT_MUST_CHECK;
/* Another head on the same weights with its own final norm (NULL: the model's); `with` must outlive it. */
struct head *head_share(struct model *m, const struct head *with, const float *final_gain,
                        struct err *e) NT_MUST_CHECK;
void head_put_gain(struct head *h, const float *final_gain); /* another final norm, [D] */
/* Training the vocabulary's weights: the head runs with W [V, D] of the caller's, and its backward adds their
 * gradient to dW. */
void head_train(struct head *h, dev W, dev dW);
void head_free(struct head *h);
uint64_t head_bytes(const struct model_config *c);
/* Per row of x[R,D] (output of the last block): nll[R] = -log p(target) in nats (0 where target < 0), best[R]
 * = argmax (may be NULL). Host arrays. */
void head_nll(struct head *h, dev x, const int32_t *targets, int R, double *nll, int32_t *best);
/* KL(teacher || student) per row in nats and both argmaxes (may be NULL). The two heads may share weights. */
void head_kl(struct head *teacher, dev xt, struct head *student, dev xs, int R, double *kl, int32_t *best_t,
             int32_t *best_s);
/* The same for two students, the teacher's logits made once. */
void head_kl_two(struct head *teacher, dev xt, struct head *const student[2], const dev xs[2], int R,
                 double *const kl[2], int32_t *best_t, int32_t *const best_s[2]);
/* Both at once, each logit made once: also the student's nll of targets (nll and targets may be NULL
 * together). */
void head_compare(struct head *teacher, dev xt, struct head *student, dev xs, const int32_t *targets, int R,
                  double *nll, double *kl, int32_t *best_t, int32_t *best_s);
/* Logits of R rows to the host, [R, V]: for decoding and --dump only. */
void head_logits(struct head *h, dev x, int R, float *logits);
/* Backward of the mean next-token cross-entropy: dx[R,D] overwritten, dgain[D] added (DEV_NONE ok). scale =
 * 1/count. */
void head_ce_back(struct head *h, dev x, const int32_t *targets, int R, float scale, dev dx, dev dgain);
/* The same for kl_scale * sum KL(teacher || student) + ce_scale * sum nll; kl[R], nll[R] receive the values
 * (may be NULL). teacher NULL: cross-entropy alone; targets NULL: KL alone. The two heads may share weights.
 */
void head_kl_back(struct head *teacher, dev xt, struct head *student, dev xs, const int32_t *targets, int R,
                  float kl_scale, float ce_scale, double *kl, double *nll, dev dx, dev dgain);
#endif
