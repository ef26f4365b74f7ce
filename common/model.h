/* SPDX-License-Identifier: Apache-2.0
 * A decoder model: configuration, names, weights by layer, embedding and head. Holds one layer on the device
 * unless asked for all. Names are the Hugging Face ones whatever file the weights come from; row order too
 * (GGUF's permuted q and k rows of llama files are put back). A family is a table in common/families/. */
#ifndef NT_MODEL_H
#define NT_MODEL_H
#include "common/block.h"
#include "common/checkpoint.h"
#include "common/rope.h"

/* Patterns of tensor names without .weight or .bias; "%d" = layer. "NAME#q", "#k", "#v", "#gate", "#up": that
 * part of a fused tensor. NULL = the family has no such tensor. Experts: gate, up, down; "%x" = expert; "NAME#x"
 * is its part of a tensor [experts, out, in], "#gate", "#up" of [experts, 2 out, in]; the shared one's. */
struct family_names {
    const char *role[ROLE_COUNT], *norm[NORM_COUNT];
    const char *expert[3], *shared[3], *router, *shared_gate;
    const char *embed, *pos_embed, *embed_norm, *project_in, *project_out, *final_norm, *head;
};

/* What a layer has that others of the same model may not. Before configure: -1, 0, 0 = as the block's. */
struct layer_attrs {
    int window; /* 0 = none */
    int rope;   /* rotary table, 0 or 1; -1 = no rotation */
    float scale;
    bool dense; /* in a model with experts: this layer has the plain feed-forward */
};

/* model_config.c: config.json to a struct; GGUF keys to a config.json. The common keys are checked, a key
 * that changes what is computed and is not supported is refused by name. The caller clears what was read. */
struct model_config;
int model_config_read(struct model_config *c, const json_t *hf_config, struct err *e) NT_MUST_CHECK;
void model_config_clear(struct model_config *c);
/* The text model's part of a multimodal configuration (text_config), completed; others as they are. New
 * reference. */
json_t *model_config_text(json_t *hf_config);
/* The refusal of a model_type (GGUF architecture: `what` begins with G) that no family has; -1. */
int model_unknown_type(const char *what, const char *type, struct err *e);
/* What of a configuration enters the numbers, as sha256 in lower-case hex. */
void model_config_hash(const struct model_config *c, char hex[65]);
/* New reference or NULL. */
json_t *model_config_from_gguf(const struct checkpoint *ck, struct err *e) NT_MUST_CHECK;
/* Gives every role of a bit mask a bias: for configure. */
void config_bias(struct model_config *c, unsigned roles);

struct model_config {
    const struct family *family;
    char arch[32]; /* model_type */
    int n_layers, vocab, max_pos;
    struct block_shape block;
    struct layer_attrs *layer;    /* [n_layers] */
    struct family_names hf, gguf; /* the family's, as its configure left them */
    bool tied;                    /* head = embedding */
    bool bf16; /* the backend also keeps bf16 forms of weights; counted in block_bytes and head_bytes */
    bool bias[ROLE_COUNT], norm_bias, qk_norm_bias, head_bias;
    bool norm_constant; /* norms have neither gain nor bias in the file: 1 and 0 */
    bool qkv_groups;    /* fused q k v: the rows of a k/v group together, else all of q, then k, then v */
    bool transposed;    /* the blocks' linears lie as [in, out] */
    struct rope rope[2];
    int embed_dim;                    /* of the embedding and the head; not block.D only with projections */
    float embed_scale;                /* of embedding rows */
    int pos_offset;                   /* learned positions: position p is row p + pos_offset */
    float logit_scale, logit_softcap; /* z = softcap(scale * (W x + b)); 1, 0 = none */
    int bos, eos;                     /* -1 = none */
};

/* A NULL-terminated list of config keys. */
#define CONFIG_KEYS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define ROLE_BITS_QKV (1u << ROLE_Q | 1u << ROLE_K | 1u << ROLE_V)
#define ROLE_BITS_ALL ((1u << ROLE_COUNT) - 1)

struct family {
    const char *model_type; /* config.json's */
    const char *gguf_arch;  /* general.architecture; NULL: llama.cpp has none */
    const char *hf_class;   /* config.json's architectures entry */
    struct family_names hf, gguf;
    bool gguf_permuted_qk;    /* llama.cpp permutes q and k rows of this architecture */
    struct block_shape block; /* flags; sizes, rot, eps and scale come from the configuration */
    unsigned bias;            /* bit r: role r always has one */
    bool no_norm_bias;        /* LayerNorm without bias */
    bool no_qk_norm_bias;     /* the norms of q and k, at least */
    bool transposed, qkv_groups;
    float norm_offset;           /* HF files hold gain - norm_offset */
    const char *rope_layer_type; /* rope_parameters is kept by layer type; this entry is table 0 */
    bool yarn_is_longrope;       /* as in struct rope_defaults */
    struct {
        int vocab, hidden, ff /* 0: 4 hidden */, layers, heads, groups /* 0: heads */, head_dim, max_pos;
        int orig_pos; /* original_max_position_embeddings, where the class has one */
        double eps, rope_theta, partial_rotary /* 0: no such key */;
        bool tied;
    } defaults;                   /* what keys that config.json lacks mean */
    const char *eps_key;          /* NULL: rms_norm_eps or layer_norm_eps */
    const char *const *spellings; /* pairs: the family's own name of a key, the usual one */
    bool own_spellings;           /* the usual ones say nothing to its class */
    const char *const *keys; /* otherwise refused config keys that configure (or the common code) honours */
    /* After the common keys; may be NULL. */
    int (*configure)(struct model_config *c, const json_t *hf_config, struct err *e);
    /* GGUF keys and tensors that say what only this family knows, into a config.json; may be NULL. */
    void (*from_gguf)(const struct checkpoint *ck, json_t *hf_config);
};
const struct family *family_by_gguf_arch(const char *arch);
const struct family *family_by_model_type(const char *model_type);
bool family_honours(const struct family *f, const char *key);
/* Whether a GGUF file has this tensor (of layer 0). */
bool model_gguf_has(const struct checkpoint *ck, const char *pattern, const char *suffix);

/* The rows of one linear (or bias, norm) in a tensor of the file: row i is row  row0 + i / run * stride + i %
 * run  of the tensor, or of its transposed. A whole tensor: row0 0, run = stride = rows. Vectors: cols 1. */
struct weight_part {
    const struct checkpoint_tensor *t; /* NULL = there is none */
    uint64_t rows, cols, row0, run, stride;
    bool transposed;
    int head_dim; /* of GGUF's permuted q and k rows; 0 where rows lie as in HF */
    float offset; /* added to what the file holds (norms of 1 + w) */
};

/* The tensors of one block as they lie in the file. */
struct model_layer {
    struct weight_part *w; /* [block_linears(&c.block)] */
    struct weight_part b[ROLE_COUNT], gain[NORM_COUNT], norm_bias[NORM_COUNT];
    struct weight_part router, shared_gate;
};

struct model {
    struct checkpoint *ck;
    struct model_config c;
    json_t *hf_config; /* config.json, or one made from GGUF keys: written into qweights and by nt-pack */
    const struct backend *be;   /* may be NULL for tools that only read weights */
    bool gguf;                  /* names and q/k row order are GGUF's */
    bool nested;                /* a multimodal checkpoint, of which this is the text model */
    struct model_layer *layers; /* [n_layers] */
    struct weight_part *linears; /* of all layers */
    struct checkpoint_tensor
        *joined; /* [2 n_layers] of own memory: norms of q and k that a file has by heads */
    struct weight_part embed, pos_embed, embed_gain, embed_bias, project_in, project_out;
    struct weight_part final_gain, final_bias, head, head_bias; /* head = embed when tied */
    struct embedder *embedder; /* what model_embed keeps on the device; NULL before its first call */
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
/* ".weight" included; linears of experts are apart, whatever the file joins. */
void model_tensor_name(const struct model *m, int layer, int linear, char out[256]);
/* Layers with experts and without have different linears (numbers as in block.h). */
static inline bool model_has_linear(const struct model *m, int layer, int linear)
{
    return m->layers[layer].w[linear].t != NULL;
}
void model_norm_name(const struct model *m, int layer, enum norm_id n, char out[256]);
/* The same of gain (i < NORM_COUNT) or bias i. */
void model_norm_vector_name(const struct model *m, int layer, int i, char out[256]);
void model_final_norm_name(const struct model *m, char out[256]); /* "" = the model has none */
/* The other way round: a linear or norm vector (as in struct block) of this layer by its name;
 * -1: none. */
int model_find_role(const struct model *m, int64_t layer, const char *name);
int model_find_norm(const struct model *m, int64_t layer, const char *name);
bool model_is_joined(const struct model *m, const struct checkpoint_tensor *t); /* of m->joined */
/* Vector i of the norms of the blocks, NORM_VECTORS a layer, then the final norm's gain and bias: NULL when
 * the file has none. NORM_VECTORS * n_layers + 2 in all. */
const struct weight_part *model_norm_part(const struct model *m, int i);
int model_norm_part_name(const struct model *m, int i, char out[256]);            /* its layer, or -1 */
int model_find_norm_part(const struct model *m, int64_t layer, const char *name); /* -1: none */
int model_read_norm_part(struct model *m, int i, float *dst, struct err *e) NT_MUST_CHECK;
/* Which norm vectors of a block are trained: those in the file, of q and k only with qk. */
void model_trained_norms(const struct model *m, bool qk, bool trained[NORM_VECTORS]);
bool model_is_final_norm(const struct model *m, const char *name);
/* A family's pattern with its %d filled in, and a suffix before its "#q" if it has one. */
void family_tensor_name(char out[256], const char *pattern, int layer, const char *suffix);
void family_expert_name(char out[256], const char *pattern, int layer, int expert, const char *suffix);
/* A linear's pattern, of the shared expert, too; NULL: none. */
const char *family_linear_pattern(const struct family_names *n, const struct block_shape *s, int linear);
/* Dequantized weight [out, in] of a linear / vector of a norm into dst; checks for non-finite values, naming
 * the tensor. */
int model_read_linear(struct model *m, int layer, int linear, float *dst, struct err *e) NT_MUST_CHECK;
/* 1 read, 0 there is none, -1 error */
int model_read_bias(struct model *m, int layer, int linear, float *dst, struct err *e) NT_MUST_CHECK;
bool model_linear_has_bias(const struct model *m); /* any linear of the blocks has one */
int model_read_norm(struct model *m, int layer, enum norm_id n, float *gain, float *bias,
                    struct err *e) NT_MUST_CHECK;
int model_read_final_norm(struct model *m, float *gain, float *bias, struct err *e) NT_MUST_CHECK;
/* Rows r0..r0+n of the embedding table [V, D], or of the head. */
int model_read_embed(struct model *m, int r0, int n, float *dst, struct err *e) NT_MUST_CHECK;
int model_read_head(struct model *m, int r0, int n, float *dst, struct err *e) NT_MUST_CHECK;
bool model_norm_has_bias(const struct model *m); /* the norms of the blocks and the final one */
/* Rows r0..r0+n of a part [rows, cols], dequantized and checked, in HF order. */
int model_read_rows(struct model *m, const struct weight_part *p, uint64_t r0, uint64_t n, float *dst,
                    struct err *e) NT_MUST_CHECK;
/* All of it; lets go of the mapped pages. */
int model_read_part(struct model *m, const struct weight_part *p, float *dst, struct err *e) NT_MUST_CHECK;

/* Where a role's weight lies in its tensor, in a Hugging Face or GGUF file: fills all of *p but t and offset;
 * returns the rows of the whole tensor (of its transposed). A bias lies alike, with cols 1 and never
 * transposed. */
uint64_t model_part_layout(const struct model_config *c, int linear, bool gguf, struct weight_part *p);
/* The row of that tensor (transposed: column) where row i of a part lies. */
uint64_t model_part_row(const struct weight_part *p, uint64_t i);

/* ---- weights on the device ---- */
#define MODEL_STAGE_FLOATS (1 << 20) /* of a linear that are on the host on their way to the device */
/* A block's memory, filled layer by layer. Replacement of single tensors: be->put into blk.w[role],
 * blk.gain[norm]. */
struct block *block_alloc(struct model *m, int max_pos); /* with rotary table for max_pos positions */
void block_free(struct model *m, struct block *b);
int block_load(struct model *m, struct block *b, int layer, struct err *e) NT_MUST_CHECK;
/* What chooses experts, of a layer that has them; block_load does. */
int block_load_routing(struct model *m, struct block *b, int layer, struct err *e) NT_MUST_CHECK;
/* Makes b->s and b->cossin the layer's; block_load does. For blocks whose weights come from elsewhere. */
void block_set_layer(const struct model *m, struct block *b, int layer);
uint64_t block_bytes(const struct model_config *c);
/* What a backward keeps beside that, for the products with W instead of W^T: of a block, of the head. */
uint64_t block_back_bytes(const struct model_config *c);
uint64_t head_back_bytes(const struct model_config *c);
uint64_t head_kept_bytes(const struct model_config *c); /* of a head's logits in a backward */

/* x[B*T,D] (device) = input of the first block for host ids [B, T]; pos0 = position of the first token of
 * every sequence. */
int model_embed(struct model *m, const int32_t *ids, int B, int T, int pos0, dev x,
                struct err *e) NT_MUST_CHECK;
void embedder_free(struct model *m); /* model_close does */

/* The head: final norm, then logits in tiles of the vocabulary, nothing of size R x V held. Weights are read
 * once by head_open and stay on the device. */
struct head;
struct head *head_open(struct model *m, const float *final_gain /* NULL: the model's own */,
                       struct err *e) NT_MUST_CHECK;
/* Another head on the same weights with its own final norm (NULL: the model's); `with` must outlive it. */
struct head *head_share(struct model *m, const struct head *with, const float *final_gain,
                        struct err *e) NT_MUST_CHECK;
/* Another final norm, [D]; NULL or not there: as it is. */
void head_put_norm(struct head *h, const float *gain, const float *bias);
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
/* Backward of the mean next-token cross-entropy: dx[R,D] overwritten, dgain[D], dbias[D] added (DEV_NONE ok).
 * scale = 1/count. */
void head_ce_back(struct head *h, dev x, const int32_t *targets, int R, float scale, dev dx, dev dgain,
                  dev dbias);
/* The same for kl_scale * sum KL(teacher || student) + ce_scale * sum nll; kl[R], nll[R] receive the values
 * (may be NULL). teacher NULL: cross-entropy alone; targets NULL: KL alone. The two heads may share weights.
 */
void head_kl_back(struct head *teacher, dev xt, struct head *student, dev xs, const int32_t *targets, int R,
                  float kl_scale, float ce_scale, double *kl, double *nll, dev dx, dev dgain, dev dbias);
#endif
