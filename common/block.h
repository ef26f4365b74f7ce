/* SPDX-License-Identifier: Apache-2.0
 * One decoder block: forward, backward, and what forward saves for backward. A family is a set of flags over
 * this code. Legend: B sequences, T tokens, R = B*T, D hidden, H query heads, G key/value heads, E head
 * dimension, F feed-forward. */
#ifndef NT_BLOCK_H
#define NT_BLOCK_H
#include "kernels/backend.h"

enum role { ROLE_Q, ROLE_K, ROLE_V, ROLE_O, ROLE_GATE, ROLE_UP, ROLE_DOWN, ROLE_COUNT };
/* Distinct linear inputs: q k v share one, gate and up share one. */
enum site { SITE_QKV, SITE_O, SITE_MLP, SITE_DOWN, SITE_COUNT };
/* Norms inside the block. */
enum norm_id {
    NORM_ATTN, /* before attention, */
    NORM_MLP,  /* before the feed-forward */
    NORM_ATTN_OUT,
    NORM_MLP_OUT, /* of what a sublayer gives, before it is added (Gemma 2, OLMo 2, GLM-4); with post_add: of
                     the sum */
    NORM_Q,
    NORM_K, /* of queries and keys before they are rotated */
    NORM_COUNT
};
/* Gains of the norms of q and k: none, one [E] for all heads, one for each head [heads, E] (mean and variance
 * are of one head), or of the whole row [heads * E]. */
enum qk_norm { QK_NORM_NONE, QK_NORM_HEAD, QK_NORM_HEADS, QK_NORM_WHOLE };

/* The linears of a block are numbered: its roles, then gate, up, down of expert 0, 1 ..., the shared expert last.
 * Their inputs likewise: the sites, then the two of every expert, which see the tokens routed to it. */
enum {
    EXPERTS_MAX = 512, /* with the shared one */
    LINEARS_MAX = ROLE_COUNT + 3 * EXPERTS_MAX,
    SITES_MAX = SITE_COUNT + 2 * EXPERTS_MAX
};
static inline int expert_linear(int expert, enum role r)
{
    return ROLE_COUNT + 3 * expert + (int)(r - ROLE_GATE);
}
static inline int linear_expert(int i) /* -1: none */
{
    return i < ROLE_COUNT ? -1 : (i - ROLE_COUNT) / 3;
}
static inline enum role linear_role(int i)
{
    return i < ROLE_COUNT ? (enum role)i : (enum role)(ROLE_GATE + (i - ROLE_COUNT) % 3);
}
static inline int expert_site(int expert, enum site s) /* SITE_MLP or SITE_DOWN */
{
    return SITE_COUNT + 2 * expert + (s == SITE_DOWN);
}
static inline int site_expert(int t) /* -1: none */
{
    return t < SITE_COUNT ? -1 : (t - SITE_COUNT) / 2;
}
static inline int linear_site(int i)
{
    enum role r = linear_role(i);
    enum site s = r <= ROLE_V ? SITE_QKV : r == ROLE_O ? SITE_O : r == ROLE_DOWN ? SITE_DOWN : SITE_MLP;
    return i < ROLE_COUNT ? (int)s : expert_site(linear_expert(i), s);
}
/* "q", "k", "v", "o", "gate", "up", "down" of any linear: stable names for plans and streams */
const char *role_name(int linear);
/* "qkv", "o", "mlp", "down"; of expert 3 "mlp.3", "down.3" */
struct site_name {
    char text[16];
};
struct site_name site_name(int site);
const char *norm_name(enum norm_id n); /* "attn_norm", "mlp_norm" */

/* The gradient of every flag is tested in tests/unit/test_block.c. */
struct block_shape {
    int D, H, G, E, F;
    bool
        norm[NORM_COUNT]; /* which there are; parallel without NORM_MLP: the feed-forward reads what attention
                             reads; without NORM_ATTN (NORM_MLP): a sublayer reads its input as it is */
    bool rms;             /* the norms of D channels are RMSNorms, else LayerNorms */
    enum qk_norm qk_norm;
    bool qk_rms; /* those of q and k */
    float eps;
    int rot;           /* rotary dimensions per head; 0: none */
    bool rot_pairs;    /* pairs are (2i, 2i + 1), else (i, i + rot/2) */
    float scale;       /* attention logits multiplier, 1/sqrt(E) */
    float softcap;     /* of attention logits: c tanh(z/c); 0: none */
    float clip;        /* q, k and v, before their norms, are clamped to -clip .. clip (OLMo); 0: they are not */
    int window;        /* the last so many keys; 0: all */
    bool alibi;        /* slope[h] * (key's position - query's) is added to logits */
    float alibi_scale; /* of the slopes (Falcon scales them with the logits); 0: 1 */
    bool gated;        /* act(gate) * up, else act(up): then there is no ROLE_GATE */
    int experts, per_token; /* routed ones, and how many of them a token goes to; 0: F is the feed-forward's width */
    int expert_F, shared_F; /* widths of a routed expert and of the one that sees every token; 0: there is none */
    bool norm_topk;         /* the chosen experts' probabilities are divided by their sum */
    enum act act;
    bool parallel;        /* y = x + attention(n1 x) + mlp(n2 x) */
    bool post_add;        /* NORM_*_OUT act on the sum (post-norm OPT) */
    bool residual_normed; /* what a sublayer adds to is the output of the norm before it (BLOOM's
                             apply_residual_connection_post_layernorm) */
    float residual;       /* multiplier of what a sublayer adds, normally 1 */
};

/* The vectors of the norms in one order: gains, then biases. */
enum { NORM_VECTORS = 2 * NORM_COUNT };

/* All in device memory. Linear weights [out, in]. Bias 0 = none. What a shape does not have is none. */
struct block {
    struct block_shape s; /* of the layer at hand: block_load sets window, rotation, scale ... */
    dev w[LINEARS_MAX], b[ROLE_COUNT];
    dev router;      /* [experts, D], f32 in any precision; its choice of experts is a constant for the backward */
    dev shared_gate; /* [D]: sigmoid of its product with a token weighs the shared expert; none: 1 */
    dev gain[NORM_COUNT], bias[NORM_COUNT];
    dev cossin; /* rotary table [max_pos, rot] of this layer; none when rot is 0 */
    dev slopes; /* [H] with alibi */
};
static inline dev block_norm_vector(const struct block *b, int i)
{
    return i < NORM_COUNT ? b->gain[i] : b->bias[i - NORM_COUNT];
}
/* The flags of a llama block; sizes, eps and scale are left 0. */
#define BLOCK_SHAPE_PLAIN                                                                                    \
    (struct block_shape)                                                                                     \
    {                                                                                                        \
        .norm = {[NORM_ATTN] = true, [NORM_MLP] = true}, .rms = true, .gated = true, .residual = 1           \
    }

int block_linears(const struct block_shape *s); /* numbers end here; ROLE_COUNT without experts */
int block_sites(const struct block_shape *s);
static inline int block_experts(const struct block_shape *s) /* with the shared one */
{
    return s->experts + (s->shared_F > 0);
}
void role_dims(const struct block_shape *s, int linear, int *out, int *in);
int site_dim(const struct block_shape *s, int site);
uint64_t block_weights(const struct block_shape *s); /* in all linears */
/* Loops over linears, sites (norms) leave out those that a shape has not: ask, or get dimensions of 0. */
bool block_has_role(const struct block_shape *s, int linear);
/* Of a model some of whose layers have experts, this layer (its shape has them or not) runs this linear. */
static inline bool block_runs(const struct block_shape *s, int linear)
{
    return block_has_role(s, linear) && (linear <= ROLE_O || (linear_expert(linear) >= 0) == (s->experts > 0));
}
int norm_dim(const struct block_shape *s,
             enum norm_id n);                  /* of gain and bias: D, E, H*E ...; 0: no such norm */
int norm_max_dim(const struct block_shape *s); /* the largest of them and D */
/* False: norms of q and k, which are tweaked only when asked for. */
static inline bool norm_tweaked(enum norm_id n)
{
    return n != NORM_Q && n != NORM_K;
}

/* Work space for up to R rows; save = also what backward needs. One arena, reused. */
struct block_work;
struct block_work *block_work_alloc(const struct backend *be, const struct block_shape *s, int max_R,
                                    bool backward);
void block_work_free(struct block_work *w);
size_t block_work_bytes(const struct block_shape *s, int max_R, bool backward);
/* One arena for forwards of up to max_R rows and, of at most save_R (0: none), those that backward may
 * follow. */
struct block_work *block_work_alloc_mixed(const struct backend *be, const struct block_shape *s, int max_R,
                                          int save_R);
size_t block_work_bytes_mixed(const struct block_shape *s, int max_R, int save_R);

/* Called with each linear input x[R, dim] as forward reaches it; of experts with what was routed to them, if
 * anything was. */
typedef void block_tap(void *ctx, int site, dev x, int R, int dim);

/* y[R,D] = block(x[R,D]). y may not alias x. tap may be NULL. pos0 = position of the first token of every
 * sequence. The work keeps what one backward needs until the next call (if allocated with backward). y
 * DEV_NONE: only that is wanted (where a backward follows), and the last product may be left out. */
void block_forward(const struct backend *be, const struct block *blk, struct block_work *w, int B, int T,
                   int pos0, dev x, dev y, block_tap *tap, void *ctx);

/* Gradients, device memory; DEV_NONE = not wanted. Parameters add, dx overwrites. */
struct block_grads {
    dev w[LINEARS_MAX], b[ROLE_COUNT], gain[NORM_COUNT], bias[NORM_COUNT];
    dev router, shared_gate;
};
static inline dev *grad_norm_vector(struct block_grads *g, int i)
{
    return i < NORM_COUNT ? &g->gain[i] : &g->bias[i - NORM_COUNT];
}
/* Called with each linear's input and output gradient (for gradient statistics), before the next op. May be
 * NULL. */
typedef void block_grad_tap(void *ctx, int linear, dev x, dev dy, int R);
/* After block_forward on the same work, x, B, T; spends what forward kept, so once per forward. dx may be
 * DEV_NONE (then the part of the backward that only feeds dx is skipped). dy is read only. */
void block_backward(const struct backend *be, const struct block *blk, struct block_work *w, int B, int T,
                    int pos0, dev x, dev dy, dev dx, const struct block_grads *g, block_grad_tap *tap,
                    void *ctx);

/* ALiBi's slopes of H heads, as transformers' BLOOM has them. */
void block_alibi_slopes(int H, float *slope);

/* One token for each of B sequences at position pos, with this block's cache kc, vc [B, cap, G*E]. */
void block_step(const struct backend *be, const struct block *blk, struct block_work *w, int B, int pos,
                dev x, dev y, dev kc, dev vc, int cap);
#endif
