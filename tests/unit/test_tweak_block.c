/* SPDX-License-Identifier: Apache-2.0
 * The whole chain of one block against PyTorch and transformers in float64 (tests/data/tweak/block.json:
 * RMSNorm as in llama; layernorm.json: LayerNorm with biases everywhere): loss, gradient by every norm, and
 * where Adam ends up. */
#include "tests/check.h"
#include <jansson.h>
#include "common/mem.h"
#include "common/tweak_block.h"

static const char *const role_keys[ROLE_COUNT] = {"q", "k", "v", "o", "gate", "up", "down"};
enum { NORMS = 2 }; /* of these blocks */
static const char *const norm_keys[NORMS] = {"input_layernorm", "post_attention_layernorm"};
static const struct backend *be;

static float *numbers(const json_t *a)
{
    float *f = MEM_NEW(float, json_array_size(a));
    for (size_t i = 0; i < json_array_size(a); i++) f[i] = (float)json_number_value(json_array_get(a, i));
    return f;
}

static int integer(const json_t *o, const char *key)
{
    return (int)json_integer_value(json_object_get(o, key));
}

static dev upload(const json_t *a)
{
    if (!a) return DEV_NONE;
    float *f = numbers(a);
    dev d = be->alloc(json_array_size(a) * sizeof *f);
    be->put(d, f, json_array_size(a) * sizeof *f);
    mem_free(f);
    return d;
}

static void load_block(struct block *b, const json_t *file, const char *which, dev cossin)
{
    *b = (struct block){.cossin = cossin};
    b->s = BLOCK_SHAPE_PLAIN;
    b->s.D = integer(file, "D"), b->s.F = integer(file, "F");
    b->s.H = integer(file, "H"), b->s.G = integer(file, "G");
    b->s.E = b->s.rot = integer(file, "E");
    const json_t *norms = json_object_get(file, "norms");
    b->s.eps = (float)json_number_value(json_object_get(file, "eps"));
    b->s.scale = 1 / sqrtf((float)b->s.E);
    b->s.rms = !json_object_get(json_object_get(norms, norm_keys[0]), "bias");
    for (int r = 0; r < ROLE_COUNT; r++) {
        const json_t *l = json_object_get(json_object_get(file, "linears"), role_keys[r]);
        b->w[r] = upload(json_object_get(l, which));
        b->b[r] = upload(json_object_get(l, "bias"));
    }
    for (int n = 0; n < NORMS; n++) {
        b->gain[n] = upload(json_object_get(json_object_get(norms, norm_keys[n]), "gain"));
        b->bias[n] = upload(json_object_get(json_object_get(norms, norm_keys[n]), "bias"));
    }
}

static void free_block(struct block *b)
{
    for (int r = 0; r < ROLE_COUNT; r++) {
        be->release(b->w[r]);
        be->release(b->b[r]);
    }
    for (int n = 0; n < NORMS; n++) {
        be->release(b->gain[n]);
        be->release(b->bias[n]);
    }
}

static dev rotary(const json_t *file)
{
    int T = integer(file, "T"), half = integer(file, "E") / 2;
    float *c = numbers(json_object_get(file, "cos")), *s = numbers(json_object_get(file, "sin"));
    float *table = MEM_NEW(float, (size_t)T * 2 * half);
    for (int t = 0; t < T; t++)
        for (int i = 0; i < half; i++) {
            table[t * 2 * half + i] = c[t * half + i];
            table[t * 2 * half + half + i] = s[t * half + i];
        }
    dev d = be->alloc((size_t)T * 2 * half * sizeof *table);
    be->put(d, table, (size_t)T * 2 * half * sizeof *table);
    mem_free(c);
    mem_free(s);
    mem_free(table);
    return d;
}

/* PyTorch lists a module's weight before its bias, norm by norm; ours are gains first. */
static double compare(const struct tweak_block *t, const float *mine, const json_t *torch)
{
    int per = t->n_params / NORMS, D = t->D;
    double *want = MEM_NEW(double, (size_t)t->n_values), rel = INFINITY;
    if (json_array_size(torch) == (size_t)t->n_params) {
        for (int n = 0; n < NORMS; n++)
            for (int k = 0; k < per; k++)
                for (int c = 0; c < D; c++)
                    want[(k * NORMS + n) * D + c] = json_number_value(
                        json_array_get(json_array_get(torch, (size_t)(n * per + k)), (size_t)c));
        rel = check_rel(mine, want, (size_t)t->n_values);
    }
    mem_free(want);
    return rel;
}

static void check_grad(struct tweak_block *t, const float *x, const json_t *exp, const char *label)
{
    float *g = MEM_NEW(float, (size_t)t->n_values);
    double torch = json_number_value(json_object_get(exp, "value")),
           value = tweak_block_loss(t, x, NULL, -1, true);
    be->get(g, t->g, (size_t)t->n_values * sizeof *g);
    double rel = compare(t, g, json_object_get(exp, "grad"));
    CHECK(fabs(value - torch) <= 1e-5 * torch, "%s: loss %.8g, PyTorch %.8g", label, value, torch);
    CHECK(rel < 1e-4, "%s: gradients of all norms, relative %.2g", label, rel);
    mem_free(g);
}

static void check_adam(struct tweak_block *t, const json_t *file, const float *x, const json_t *want,
                       const char *label)
{
    int n = integer(file, "n"), steps = integer(file, "iters") * n, failed = 0;
    size_t seq = (size_t)t->T * t->D;
    float *keep = MEM_NEW(float, (size_t)t->n_values), *now = MEM_NEW(float, (size_t)t->n_values);
    double loss, first = 0, last = 0;
    tweak_block_reset(t);
    tweak_block_get(t, keep);
    for (int i = 0; i < n; i++) first += tweak_block_loss(t, x + i * seq, NULL, i, false);
    for (int k = 0; k < steps; k++)
        failed += tweak_block_step(t, x + (k % n) * seq, NULL, k % n,
                                   json_number_value(json_object_get(file, "lr")), &loss) != 0;
    for (int i = 0; i < n; i++) last += tweak_block_loss(t, x + i * seq, NULL, i, false);
    tweak_block_get(t, now);
    double rel = compare(t, now, want);
    CHECK(!failed && rel < 1e-4, "%s: norms after %d Adam steps, relative %.2g", label, steps, rel);
    CHECK(last < first, "%s: the loss falls, %.6g to %.6g", label, first, last);
    tweak_block_put(t, keep);
    tweak_block_get(t, now);
    CHECK(!memcmp(now, keep, (size_t)t->n_values * sizeof *now), "%s: norms are put back", label);
    mem_free(keep);
    mem_free(now);
}

static void check_nonfinite(struct tweak_block *t, const float *x)
{
    size_t seq = (size_t)t->T * t->D;
    float *bad = MEM_NEW(float, seq), *before = MEM_NEW(float, (size_t)t->n_values),
          *after = MEM_NEW(float, (size_t)t->n_values);
    double loss;
    memcpy(bad, x, seq * sizeof *bad);
    bad[3] = INFINITY;
    tweak_block_get(t, before);
    CHECK(tweak_block_step(t, bad, NULL, -1, 0.01, &loss) == -1, "a loss that is not finite stops the step");
    tweak_block_get(t, after);
    CHECK(!memcmp(before, after, (size_t)t->n_values * sizeof *after), "and leaves the norms alone");
    mem_free(bad);
    mem_free(before);
    mem_free(after);
}

/* The closed form on the block: what it aligns is each norm's linears, what is checked the block's output. */
static double sum_losses(struct tweak_block *t, const float *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += tweak_block_loss(t, x + (size_t)i * t->T * t->D, NULL, -1, false);
    return sum;
}

static void check_closed(struct tweak_block *t, const float *x, int n, const char *label)
{
    struct boundary b;
    struct err e = {0};
    double ridge[NORM_COUNT] = {0};
    float *keep = MEM_NEW(float, (size_t)t->n_values);
    boundary_alloc(&b, n, t->T, t->D, 0, n);
    memcpy(b.x, x, (size_t)n * t->T * t->D * sizeof *b.x);
    tweak_block_get(t, keep);
    double before = sum_losses(t, x, n);
    int rc = tweak_block_closed(t, &b, ridge, &e);
    double after = sum_losses(t, x, n);
    CHECK(rc == 0 && ridge[0] == 0.01 && ridge[1] == 0.01, "%s: closed form solved %s", label, e.text);
    CHECK(after < before, "%s: closed form lowers the output error, %.6g to %.6g", label, before, after);
    tweak_block_put(t, keep);
    mem_free(keep);
    boundary_clear(&b);
}

/* Sums over every sequence's target and its squares, from the float block's output. */
static double *sum_targets(struct tweak_block *t, const float *x, int n)
{
    size_t D = (size_t)t->D, seq = (size_t)t->T * D;
    double *sums = MEM_NEW(double, (size_t)n * 2 * D);
    float *y = MEM_NEW(float, seq);
    for (int i = 0; i < n; i++) {
        be->put(t->pass->x, x + (size_t)i * seq, seq * sizeof *x);
        block_forward(be, t->f, t->pass->work, 1, t->T, 0, t->pass->x, t->pass->y, NULL, NULL);
        be->get(y, t->pass->y, seq * sizeof *y);
        double *s = sums + (size_t)i * 2 * D;
        for (size_t k = 0; k < seq; k++) s[k % D] += y[k], s[D + k % D] += (double)y[k] * y[k];
    }
    mem_free(y);
    return sums;
}

/* Loss of the second sequence after sums were given. */
static double second_loss(struct tweak_block *t, const float *x, const double *sums, int n, bool *taken)
{
    tweak_block_reset(t);
    *taken = tweak_block_given(t, x, sums, n);
    return tweak_block_loss(t, x + (size_t)t->T * t->D, NULL, 1, false);
}

static void check_given(struct tweak_block *t, const float *x, int n, const char *label)
{
    double own = tweak_block_loss(t, x + (size_t)t->T * t->D, NULL, -1, false), *sums = sum_targets(t, x, n);
    size_t D = (size_t)t->D;
    bool taken[3];
    double same = second_loss(t, x, sums, n, &taken[0]);
    CHECK(taken[0] && fabs(same - own) < 1e-9 * own, "%s: given targets, loss %.12g, its own %.12g", label,
          same, own);
    sums[2 * D] += t->T;
    double other = second_loss(t, x, sums, n, &taken[1]);
    CHECK(taken[1] && fabs(other - own) > 1e-3 * own, "%s: they are used: loss %.6g with another one", label,
          other);
    for (size_t c = 0; c < D; c++) sums[c] *= 1.01;
    same = second_loss(t, x, sums, n, &taken[2]);
    CHECK(!taken[2] && same == own, "%s: not when the first is another", label);
    tweak_block_reset(t);
    mem_free(sums);
}

static void test_file(const char *path)
{
    json_t *file = json_load_file(path, 0, NULL);
    struct block f, q;
    struct boundary_pass pass;
    struct tweak_opts o = {.ridge = 0.01, .iters = 1};
    CHECK(file != NULL, "%s can be read", path);
    dev cossin = rotary(file);
    load_block(&f, file, "float", cossin);
    load_block(&q, file, "quant", cossin);
    struct model m = {.be = be};
    m.c.block = q.s;
    float *x = numbers(json_object_get(file, "x"));
    int T = integer(file, "T"), n = integer(file, "n");
    boundary_pass_init(&pass, &m, T, true);
    for (int i = 0; loss_at(i); i++) {
        const json_t *exp = json_object_get(json_object_get(file, "losses"), loss_at(i)->name);
        char label[64];
        struct tweak_block t;
        snprintf(label, sizeof label, "%s %s", q.s.rms ? "rms" : "layernorm", loss_at(i)->name);
        o.loss = loss_at(i);
        o.skip_first = 0;
        bool trained[NORM_VECTORS];
        for (int k = 0; k < NORM_VECTORS; k++) trained[k] = dev_ok(block_norm_vector(&q, k));
        tweak_block_init(&t, be, &o, &f, &q, &pass, T, n, trained);
        CHECK(t.n_params == (q.s.rms ? 2 : 4), "%s: %d vectors are trained", label, t.n_params);
        check_grad(&t, x, exp, label);
        check_adam(&t, file, x, json_object_get(exp, "adam"), label);
        if (!strcmp(o.loss->name, "mse")) check_closed(&t, x, n, label);
        check_nonfinite(&t, x);
        if (!o.loss->power) check_given(&t, x, n, label);
        o.skip_first = 2;
        snprintf(label, sizeof label, "%s %s without two tokens", q.s.rms ? "rms" : "layernorm",
                 o.loss->name);
        check_grad(&t, x, json_object_get(exp, "skip2"), label);
        tweak_block_clear(&t);
        o.relative = true, o.skip_first = 0;
        snprintf(label, sizeof label, "%s %s relative", q.s.rms ? "rms" : "layernorm", o.loss->name);
        tweak_block_init(&t, be, &o, &f, &q, &pass, T, n, trained);
        check_adam(&t, file, x, json_object_get(exp, "relative"), label);
        tweak_block_clear(&t);
        o.relative = false;
    }
    boundary_pass_clear(&pass);
    free_block(&f);
    free_block(&q);
    be->release(cossin);
    mem_free(x);
    json_decref(file);
}

int main(void)
{
    struct backend *b = backend_open("cpu", 1, false);
    be = b;
    test_file("tests/data/tweak/block.json");
    test_file("tests/data/tweak/layernorm.json");
    backend_close(b);
    return check_done();
}
