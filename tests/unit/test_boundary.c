/* SPDX-License-Identifier: Apache-2.0
 * Boundaries: the embedding of tokens, a block applied group by group, and what happens to values that are
 * not finite. */
#include "common/boundary.h"

#include "common/mem.h"
#include "tests/check.h"

#define MODEL "tests/data/collect/tiny"

static struct backend *be;
static struct model *m;

static void make_tokens(struct tokens *t, int n, int T, int holdout)
{
    *t =
        (struct tokens){.n = n, .T = T, .n_holdout = holdout, .ids = MEM_NEW(int32_t, (size_t)n * (size_t)T)};
    for (int i = 0; i < n * T; i++) t->ids[i] = (i * 37 + i / 5) % m->c.vocab;
}

static void test_groups(void)
{
    const struct block_shape *s = &m->c.block, smollm = {.D = 576, .H = 9, .G = 3, .E = 64, .F = 1536},
                             llama = {.D = 4096, .H = 32, .G = 32, .E = 128, .F = 11008};
    CHECK(boundary_group(s, 2048) == 1 && boundary_group(s, 4096) == 1 && boundary_group(s, 1025) == 1,
          "one long sequence");
    CHECK(boundary_group(s, 1024) == 2 && boundary_group(s, 512) == 4 &&
              boundary_group(s, 1) == BOUNDARY_ROWS,
          "several short ones");
    CHECK(boundary_group(&smollm, 512) == 4 && boundary_group(&smollm, 128) == 16 &&
              boundary_group(&llama, 512) == 1 && boundary_group(&llama, 64) == 4,
          "fewer when a sequence's work space is large: %d of 64 tokens", boundary_group(&llama, 64));
}

static void test_embedding(void)
{
    struct tokens t;
    struct boundary b;
    struct err e = {0};
    int D = m->c.block.D, same = 1;
    make_tokens(&t, 7, 33, 2);
    float *table = MEM_NEW(float, (size_t)m->c.vocab *(size_t)D);
    int rc = model_read_embed(m, 0, m->c.vocab, table, &e);
    rc = rc < 0 ? rc : boundary_from_tokens(&b, m, &t, 2, 5, &e);
    if (!CHECK(rc == 0, "five of seven sequences are embedded %s", e.text)) return;
    CHECK(b.n == 5 && b.T == 33 && b.D == D && b.layer == 0 && b.first == 2 && b.n_train == 3,
          "their description");
    for (int i = 0; i < 5; i++)
        for (int p = 0; p < 33; p++)
            same = same &&
                   !memcmp(boundary_view(&b, i) + p * D, table + t.ids[(2 + i) * 33 + p] * D, (size_t)D * 4);
    CHECK(same, "their rows are those of the embedding");
    boundary_clear(&b);
    mem_free(table);
    mem_free(t.ids);
}

struct seen {
    int groups, next, rows_tapped, good;
    const struct boundary *b;
};

static void tap(void *ctx, int site, dev x, int R, int dim)
{
    struct seen *s = ctx;
    (void)x;
    if (site == SITE_QKV) s->rows_tapped += R;
    s->good = s->good && dim == site_dim(&m->c.block, site);
}

static int visit(void *ctx, int s0, int B, dev x, dev y, struct err *e)
{
    struct seen *s = ctx;
    size_t n = (size_t)B * (size_t)s->b->T * (size_t)s->b->D;
    float *h = MEM_NEW(float, n);
    (void)y, (void)e;
    be->get(h, x, n * sizeof(float));
    s->good = s->good && s0 == s->next && !memcmp(h, boundary_view(s->b, s0), n * sizeof(float));
    mem_free(h);
    s->next += B;
    s->groups++;
    return 0;
}

/* Each sequence by itself through the block must give what the grouped pass gives. */
static double worst_difference(const struct block *blk, const struct boundary *b, const struct boundary *out)
{
    size_t n = (size_t)b->T * (size_t)b->D;
    struct block_work *w = block_work_alloc(be, &m->c.block, b->T, false);
    dev x = be->alloc(n * 4), y = be->alloc(n * 4);
    float *h = MEM_NEW(float, n);
    double worst = 0, largest = 0;
    for (int i = 0; i < b->n; i++) {
        be->put(x, boundary_view(b, i), n * 4);
        block_forward(be, blk, w, 1, b->T, 0, x, y, NULL, NULL);
        be->get(h, y, n * 4);
        for (size_t j = 0; j < n; j++) {
            worst = fmax(worst, fabs((double)h[j] - boundary_view(out, i)[j]));
            largest = fmax(largest, fabs((double)h[j]));
        }
    }
    mem_free(h);
    be->release(x);
    be->release(y);
    block_work_free(w);
    return worst / largest;
}

static void test_run(void)
{
    struct tokens t;
    struct boundary b, copy, out;
    struct boundary_pass p;
    struct err e = {0};
    make_tokens(&t, 70, 60, 0); /* 34 sequences a group: 34, 34, 2 */
    int rc = boundary_from_tokens(&b, m, &t, 0, t.n, &e);
    boundary_pass_init(&p, m, t.T, false);
    struct block *blk = block_alloc(m, t.T);
    rc = rc < 0 || block_load(m, blk, 1, &e) < 0 ? -1 : 0;
    if (!CHECK(rc == 0, "a block is loaded %s", e.text)) return;
    b.layer = 1;
    boundary_copy(&copy, &b);
    boundary_alloc(&out, b.n, b.T, b.D, b.first, b.n_train);

    struct seen s = {.good = 1, .b = &b};
    rc = boundary_run(&p, blk, &b, &out, tap, visit, &s, &e);
    CHECK(rc == 0 && out.layer == 2 && b.layer == 1, "to another boundary %s", e.text);
    CHECK(s.good && s.groups == 3 && s.next == 70 && s.rows_tapped == 70 * 60,
          "visits see their rows, taps all of them");
    CHECK(!memcmp(b.x, copy.x, boundary_bytes(b.n, b.T, b.D)), "the input is left alone");
    double d = worst_difference(blk, &b, &out);
    CHECK(d < 5e-6, "as each sequence by itself (largest difference %.2g of the largest value)", d);
    rc = boundary_run(&p, blk, &copy, &copy, NULL, NULL, NULL, &e);
    CHECK(rc == 0 && copy.layer == 2 && !memcmp(copy.x, out.x, boundary_bytes(b.n, b.T, b.D)),
          "the same bytes in place");
    rc = boundary_run(&p, blk, &b, NULL, tap, NULL, &s, &e);
    CHECK(rc == 0 && b.layer == 1 && s.rows_tapped == 2 * 70 * 60, "nothing kept, all tapped");

    boundary_view(&b, 41)[17 * b.D + 3] = NAN;
    rc = boundary_run(&p, blk, &b, NULL, NULL, NULL, NULL, &e);
    CHECK(rc == -1 && e.code == NT_EXIT_DATA && strstr(e.text, "layer 1") && strstr(e.text, "sequence 41, "),
          "what is not finite is named: %s", e.text);
    block_free(m, blk);
    boundary_pass_clear(&p);
    boundary_clear(&b);
    boundary_clear(&copy);
    boundary_clear(&out);
    mem_free(t.ids);
}

int main(void)
{
    struct err e = {0};
    be = backend_open("cpu", 2, false);
    m = model_open(MODEL, be, &e);
    if (!CHECK(m != NULL, "%s opens %s", MODEL, e.text)) return check_done();
    test_groups();
    test_embedding();
    test_run();
    model_close(m);
    backend_close(be);
    return check_done();
}
