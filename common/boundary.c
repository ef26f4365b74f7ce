/* SPDX-License-Identifier: Apache-2.0
 * Moving the activations of all sequences through one block after another. Statistics, losses and streams are
 * the callers' affair: they see rows through the tap and the visit. */
#include "common/boundary.h"

#include <assert.h>
#include <string.h>

#include "common/mem.h"
#include "common/tool.h"

uint64_t boundary_bytes(int n, int T, int D)
{
    return (uint64_t)n * (uint64_t)T * (uint64_t)D * sizeof(float);
}

/* Inputs, outputs and the block's work space of one sequence. */
static uint64_t sequence_work(const struct block_shape *s, int T)
{
    return 2 * boundary_bytes(1, T, s->D) + block_work_bytes(s, T, false);
}

int boundary_group(const struct block_shape *s, int T)
{
    uint64_t rows = BOUNDARY_ROWS / (uint64_t)T, work = BOUNDARY_WORK / sequence_work(s, T),
             n = rows < work ? rows : work;
    return n ? (int)n : 1;
}

void boundary_alloc(struct boundary *b, int n, int T, int D, int first, int n_train)
{
    *b = (struct boundary){.n = n, .T = T, .D = D, .first = first, .n_train = n_train};
    b->x = mem_array((size_t)n, (size_t)T * (size_t)D * sizeof(float));
}

void boundary_copy(struct boundary *dst, const struct boundary *src)
{
    boundary_alloc(dst, src->n, src->T, src->D, src->first, src->n_train);
    dst->layer = src->layer;
    memcpy(dst->x, src->x, boundary_bytes(src->n, src->T, src->D));
}

void boundary_clear(struct boundary *b)
{
    mem_free(b->x);
    memset(b, 0, sizeof *b);
}

float *boundary_view(const struct boundary *b, int i)
{
    return b->x + (size_t)i * (size_t)b->T * (size_t)b->D;
}

int boundary_from_tokens(struct boundary *b, struct model *m, const struct tokens *t, int first, int n,
                         struct err *e)
{
    int n_train = t->n - t->n_holdout - first, group = boundary_group(&m->c.block, t->T), D = m->c.block.D,
        rc = 0;
    boundary_alloc(b, n, t->T, D, first, n_train < 0 ? 0 : n_train > n ? n : n_train);
    size_t row = (size_t)D * sizeof(float);
    dev x = m->be->alloc((size_t)group * (size_t)t->T * row);
    for (int i = 0; i < n && rc == 0; i += group) {
        int B = n - i < group ? n - i : group, R = B * t->T;
        rc = model_embed(m, t->ids + (size_t)(first + i) * (size_t)t->T, B, t->T, 0, x, e);
        if (rc == 0) m->be->get(boundary_view(b, i), x, (size_t)R * row);
    }
    m->be->release(x);
    if (rc < 0) boundary_clear(b);
    return rc < 0 ? -1 : 0;
}

/* ---- passes ---- */

void boundary_pass_init(struct boundary_pass *p, const struct model *m, int T, bool backward)
{
    p->be = m->be;
    p->group = boundary_group(&m->c.block, T);
    size_t n = (size_t)p->group * (size_t)T * (size_t)m->c.block.D * sizeof(float);
    p->x = p->be->alloc(n);
    p->y = p->be->alloc(n);
    p->work = block_work_alloc_mixed(p->be, &m->c.block, p->group * T, backward ? T : 0);
}

void boundary_pass_clear(struct boundary_pass *p)
{
    if (!p->be) return;
    p->be->release(p->x);
    p->be->release(p->y);
    block_work_free(p->work);
    memset(p, 0, sizeof *p);
}

uint64_t boundary_pass_bytes(const struct model_config *c, int T, bool backward)
{
    int group = boundary_group(&c->block, T);
    return 2 * boundary_bytes(group, T, c->block.D) +
           block_work_bytes_mixed(&c->block, group * T, backward ? T : 0);
}

static int check_finite(const struct boundary *b, int s0, const float *y, size_t n, struct err *e)
{
    size_t bad = f32_first_nonfinite(y, n), D = (size_t)b->D, T = (size_t)b->T;
    if (bad == n) return 0;
    return err_set(e, NT_EXIT_DATA,
                   "layer %d: the block's output is not finite (sequence %zu, token %zu, channel %zu)",
                   b->layer, (size_t)(b->first + s0) + bad / D / T, bad / D % T, bad % D);
}

/* One group of sequences; the check needs the rows on the host, kept or not. */
static int run_group(struct boundary_pass *p, const struct block *blk, const struct boundary *b,
                     struct boundary *out, float *host, int s0, int B, block_tap *tap, boundary_visit *visit,
                     void *ctx, struct err *e)
{
    size_t n = (size_t)B * (size_t)b->T * (size_t)b->D;
    float *y = out ? boundary_view(out, s0) : host;
    p->be->put(p->x, boundary_view(b, s0), n * sizeof(float));
    block_forward(p->be, blk, p->work, B, b->T, 0, p->x, p->y, tap, ctx);
    p->be->get(y, p->y, n * sizeof(float));
    if (check_finite(b, s0, y, n, e) < 0) return -1;
    return visit ? visit(ctx, s0, B, p->x, p->y, e) : 0;
}

int boundary_run(struct boundary_pass *p, const struct block *blk, const struct boundary *b,
                 struct boundary *out, block_tap *tap, boundary_visit *visit, void *ctx, struct err *e)
{
    assert(!out || (out->n == b->n && out->T == b->T && out->D == b->D));
    float *host = out ? NULL : mem_array((size_t)p->group * (size_t)b->T, (size_t)b->D * sizeof(float));
    int rc = 0;
    for (int s0 = 0; s0 < b->n && rc == 0; s0 += p->group) {
        int B = b->n - s0 < p->group ? b->n - s0 : p->group;
        rc = run_group(p, blk, b, out, host, s0, B, tap, visit, ctx, e);
        if (rc == 0 && tool_stopping())
            rc = err_set(e, 128 + err_stop_signal, "stopped by a signal in layer %d", b->layer);
    }
    mem_free(host);
    if (rc == 0 && out) out->layer = b->layer + 1;
    return rc;
}
