/* SPDX-License-Identifier: Apache-2.0
 * The activations of all sequences at one layer boundary, in host memory: made from tokens by the embedding,
 * advanced through a block sequence by sequence. One boundary is all a stage keeps of the model's
 * activations; acts streams carry the same rows between processes. */
#ifndef NT_BOUNDARY_H
#define NT_BOUNDARY_H
#include "common/model.h"
#include "common/tokens.h"

struct boundary {
    int n, T, D; /* sequences held, tokens of each, channels */
    int layer;   /* x is the input of this block; the number of layers: output of the last one */
    int first;   /* sequence i here is sequence first + i of the tokens stream */
    int n_train; /* the first n_train sequences here are training data, the rest is held out */
    float *x;    /* [n, T, D] */
};

/* The sequences that one forward takes: at most BOUNDARY_ROWS rows, at most BOUNDARY_WORK bytes of work
 * space, at least one sequence. A function of shapes alone, so that results depend neither on threads nor on
 * memory. */
#define BOUNDARY_ROWS 2048
#define BOUNDARY_WORK (40u << 20)
int boundary_group(const struct block_shape *s, int T);
uint64_t boundary_bytes(int n, int T, int D);

/* Sequences first .. first+n-1 of the tokens, embedded: the input of block 0. m->be must be open. */
int boundary_from_tokens(struct boundary *b, struct model *m, const struct tokens *t, int first, int n,
                         struct err *e) NT_MUST_CHECK;
/* The same shape with zeros in x (a second boundary, or one that is filled from an acts stream). */
void boundary_alloc(struct boundary *b, int n, int T, int D, int first, int n_train);
void boundary_copy(struct boundary *dst, const struct boundary *src); /* dst is allocated by this */
void boundary_clear(struct boundary *b);
float *boundary_view(const struct boundary *b, int i); /* sequence i, [T, D] */

/* Device memory for moving a boundary through a block; reused for all layers. */
struct boundary_pass {
    const struct backend *be;
    int group;               /* sequences per forward */
    dev x, y;                /* [group * T, D] */
    struct block_work *work; /* with backward, if asked for, for one sequence at a time */
};
void boundary_pass_init(struct boundary_pass *p, const struct model *m, int T, bool backward);
void boundary_pass_clear(struct boundary_pass *p);
uint64_t boundary_pass_bytes(const struct model_config *c, int T, bool backward);

/* Called after each group's forward with its rows y[B*T, D], while x[B*T, D] is still there; s0 = index of
 * the group's first sequence in the boundary. -1 ends the pass. */
typedef int boundary_visit(void *ctx, int s0, int B, dev x, dev y, struct err *e);

/* Runs every sequence through the block. out = b: advance in place (b->layer is raised); out = another
 * boundary of the same shape: its rows are written and its layer set; out NULL: nothing is kept. tap and
 * visit may be NULL, ctx goes to both. Checks that outputs are finite and names layer, sequence and token
 * when one is not. Stops with 128 + the signal when tool_stopping(). Progress is the caller's, by visit. */
int boundary_run(struct boundary_pass *p, const struct block *blk, const struct boundary *b,
                 struct boundary *out, block_tap *tap, boundary_visit *visit, void *ctx,
                 struct err *e) NT_MUST_CHECK;
#endif
