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
enum norm_id { NORM_ATTN, NORM_MLP, NORM_COUNT }; /* norms inside the block */

static inline enum site role_site(enum role r)
{
    return r <= ROLE_V ? SITE_QKV : r == ROLE_O ? SITE_O : r == ROLE_DOWN ? SITE_DOWN : SITE_MLP;
}
/* "q", "k", "v", "o", "gate", "up", "down": stable names for plans and streams */
const char *role_name(enum role r);
const char *site_name(enum site s);    /* "qkv", "o", "mlp", "down" */
const char *norm_name(enum norm_id n); /* "attn_norm", "mlp_norm" */

struct block_shape {
    int D, H, G, E, F;
    int rot;  /* rotary dimensions per head */
    bool rms; /* RMSNorm, else LayerNorm */
    float eps;
    float scale; /* attention logits multiplier, 1/sqrt(E) */
    int window;  /* 0 = none */
};

/* All in device memory. Linear weights [out, in]. Bias 0 = none. */
struct block {
    struct block_shape s;
    dev w[ROLE_COUNT], b[ROLE_COUNT];
    dev gain[NORM_COUNT], bias[NORM_COUNT];
    dev cossin; /* rotary table [max_pos, rot], shared by all blocks */
};
void role_dims(const struct block_shape *s, enum role r, int *out, int *in);
int site_dim(const struct block_shape *s, enum site t);

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

/* Called with each linear input x[R, dim] as forward reaches it. */
typedef void block_tap(void *ctx, enum site site, dev x, int R, int dim);

/* y[R,D] = block(x[R,D]). y may not alias x. tap may be NULL. pos0 = position of the first token of every
 * sequence. The work keeps what one backward needs until the next call (if allocated with backward). */
void block_forward(const struct backend *be, const struct block *blk, struct block_work *w, int B, int T,
                   int pos0, dev x, dev y, block_tap *tap, void *ctx);

/* Gradients, device memory; DEV_NONE = not wanted. Parameters add, dx overwrites. */
struct block_grads {
    dev w[ROLE_COUNT], b[ROLE_COUNT], gain[NORM_COUNT], bias[NORM_COUNT];
};
/* Called with each linear's input and output gradient (for gradient statistics), before the next op. May be
 * NULL. */
typedef void block_grad_tap(void *ctx, enum role role, dev x, dev dy, int R);
/* After block_forward on the same work, x, B, T; spends what forward kept, so once per forward. dx may be
 * DEV_NONE (then the part of the backward that only feeds dx is skipped). dy is read only. */
void block_backward(const struct backend *be, const struct block *blk, struct block_work *w, int B, int T,
                    int pos0, dev x, dev dy, dev dx, const struct block_grads *g, block_grad_tap *tap,
                    void *ctx);

/* One token for each of B sequences at position pos, with this block's cache kc, vc [B, cap, G*E]. */
void block_step(const struct backend *be, const struct block *blk, struct block_work *w, int B, int pos,
                dev x, dev y, dev kc, dev vc, int cap);
#endif
