/* SPDX-License-Identifier: Apache-2.0
 * For block.c: the feed-forward of a block with routed experts, forward and backward. With p = softmax(n2 Wr) over
 * experts, the K likeliest of them as C(t), and w = p, divided by its sum over C(t) with norm_topk,
 *   sum(t) = sum over e in C(t) of w(t, e) expert_e(n2(t)) + sigmoid(n2(t) g) shared(n2(t))
 * C is a constant for the backward, w is not. Additional legend: X experts, K per token, A = R K assignments. */
#ifndef NT_BLOCK_MOE_H
#define NT_BLOCK_MOE_H
#include "common/block.h"

/* What routing decided, on the host; assignments lie by experts, then tokens. */
struct moe_host {
    float *p;      /* [R, X] */
    int32_t *pick; /* [R, K] experts of a token, the likeliest first */
    int32_t *at;   /* [R, K] their assignments */
    int32_t *token;/* [A] */
    float *weight; /* [A] */
    float *mix;    /* [R] of the shared expert */
    int *first;    /* [X + 1] of each expert's assignments */
};
void moe_host_alloc(struct moe_host *h, const struct block_shape *s, int max_R); /* nothing without experts */
void moe_host_free(struct moe_host *h);
size_t moe_host_bytes(const struct block_shape *s, int max_R);

/* Parts of the block's arena; without backward those that are spent share addresses. */
struct moe {
    struct moe_host *h;
    bool backward;
    dev logits;                    /* [R, X] */
    dev token, weight;             /* i32[A], f32[A] */
    dev x, out, dout;              /* [A, D] */
    dev gate, up, act;             /* [A, expert_F] */
    dev sgate, sup, sact;          /* [R, shared_F] */
    dev sout, mix;                 /* [R, D], [R] */
    dev sum;                       /* [R, D]: the result */
};
/* Places the parts from float number `at` of the arena on; returns where they end. */
size_t moe_lay_out(struct moe *m, const struct block_shape *s, int max_R, bool backward, dev arena, size_t at);
void moe_forward(const struct backend *be, const struct block *blk, struct moe *m, dev n2, int R, block_tap *tap,
                 void *ctx);
/* dn2 from that of the sum; may be n2. Spends what forward kept. */
void moe_backward(const struct backend *be, const struct block *blk, struct moe *m, dev n2, dev dsum, dev dn2, int R,
                  const struct block_grads *g, block_grad_tap *tap, void *ctx);
#endif
