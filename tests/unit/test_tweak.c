/* SPDX-License-Identifier: Apache-2.0
 * Norm tweaking of a whole tiny model against PyTorch in float64 (tests/data/tweak/model.json): losses of
 * every layer, new norms, and the verdict's KL and top-1, for several losses, targets and optimisers; the
 * same bytes with 1 and 2 threads. */
#include "tests/check.h"
#include <jansson.h>
#include "common/mem.h"
#include "common/tweak.h"

#define DATA "tests/data/"
enum { MAX_LAYERS = 4 };

enum { NORMS = 2 }; /* of a block of these models */
static struct qtensor quant[MAX_LAYERS][ROLE_COUNT];
static struct tweak_input given[MAX_LAYERS];
static const json_t *file;

static double number(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static void digits(uint8_t *dst, const char *s)
{
    while (*s) *dst++ = (uint8_t)(*s++ - '0');
}

static void load_codes(struct model *m)
{
    int bits = (int)number(file, "bits"), group = (int)number(file, "group");
    for (int l = 0; l < m->c.n_layers; l++)
        for (int r = 0; r < ROLE_COUNT; r++) {
            struct qtensor *q = &quant[l][r];
            int out, in;
            const json_t *j =
                json_object_get(json_array_get(json_object_get(file, "layers"), (size_t)l), role_name(r));
            const json_t *scale = json_object_get(j, "scale");
            role_dims(&m->c.block, r, &out, &in);
            q->layer = l;
            qtensor_init_uniform(q, out, in, bits, group, false, DT_F16);
            CHECK(strlen(text(j, "codes")) == (size_t)out * in &&
                      json_array_size(scale) == (size_t)out * q->n_groups,
                  "layer %d %s: codes are there", l, role_name(r));
            digits(q->codes, text(j, "codes"));
            digits(q->zero, text(j, "zero"));
            for (size_t i = 0; i < json_array_size(scale); i++)
                q->scale[i] = (float)json_number_value(json_array_get(scale, i));
        }
}

static void load_tokens(struct tokens *tk, int holdout)
{
    json_t *ids = json_load_file(DATA "collect/ids.json", 0, NULL);
    int n = (int)number(file, "n"), T = (int)number(file, "T");
    *tk = (struct tokens){.n = n, .T = T, .n_holdout = holdout, .ids = MEM_NEW(int32_t, (size_t)n * T)};
    for (int i = 0; i < n; i++)
        for (int t = 0; t < T; t++)
            tk->ids[i * T + t] =
                (int32_t)json_integer_value(json_array_get(json_array_get(ids, (size_t)i), (size_t)t));
    if (!holdout) tk->n -= 2; /* the same training sequences, no verdict */
    json_decref(ids);
}

static struct tweak_opts case_opts(const json_t *c)
{
    return (struct tweak_opts){.loss = loss_find(text(c, "loss")),
                               .closed_form = !strcmp(text(c, "opt"), "closed"),
                               .target_float = !strcmp(text(c, "target"), "float"),
                               .lr = number(c, "lr"),
                               .lr_scale = number(c, "scale"),
                               .ridge = number(c, "ridge"),
                               .iters = (int)number(c, "iters")};
}

struct outcome {
    struct tweak_report rep[MAX_LAYERS];
    struct tweak_verdict v;
    float *norms[MAX_LAYERS]; /* [n]: new ones */
    int n;
};

static void outcome_clear(struct outcome *o)
{
    for (int l = 0; l < MAX_LAYERS; l++) mem_free(o->norms[l]);
}

static int run_case(const json_t *c, int threads, int holdout, struct outcome *res)
{
    struct err e = {0};
    struct tokens tk;
    struct tweak_opts o = case_opts(c);
    struct backend *be = backend_open("cpu", threads, false);
    struct model *m = model_open(DATA "collect/tiny", be, &e);
    const json_t *range = json_object_get(c, "layers");
    int from = range ? (int)json_integer_value(json_array_get(range, 0)) : 0, rc = -1;
    *res = (struct outcome){0};
    load_tokens(&tk, holdout);
    struct tweak *t = m ? tweak_open(m, &tk, &o, &e) : NULL;
    if (t) {
        float *old_v = MEM_NEW(float, (size_t)tweak_norm_values(t));
        res->n = tweak_norm_values(t);
        rc = 0;
        for (int l = 0; l < m->c.n_layers && !rc; l++) {
            res->norms[l] = MEM_NEW(float, (size_t)res->n);
            struct tweak_input in = given[l];
            for (int r = 0; r < ROLE_COUNT; r++) tweak_linear(t, &in, r, &quant[l][r]);
            rc = tweak_layer(t, &in, l >= from, old_v, res->norms[l], &res->rep[l], &e);
        }
        if (!rc) rc = tweak_judge(t, &res->v, &e);
        mem_free(old_v);
    }
    if (rc) printf("# %s\n", e.text);
    tweak_close(t);
    tokens_clear(&tk);
    model_close(m);
    backend_close(be);
    return rc;
}

static int near(double a, double b, double rel)
{
    return fabs(a - b) <= rel * fabs(b) + 1e-9;
}

static void check_layer(const char *name, int l, const struct outcome *res, const json_t *want)
{
    const struct tweak_report *r = &res->rep[l];
    const json_t *train = json_object_get(want, "train"), *hold = json_object_get(want, "holdout");
    const json_t *norms = json_object_get(want, "norms");
    for (size_t i = 0; i < 2 && r->tuned; i++) {
        double a = json_number_value(json_array_get(train, i)),
               b = json_number_value(json_array_get(hold, i));
        CHECK(near(r->train[i], a, 1e-4) && near(r->holdout[i], b, 1e-4),
              "%s, layer %d: loss %s %.7g, held out %.7g", name, l, i ? "after" : "before", r->train[i],
              r->holdout[i]);
    }
    double worst = 0;
    int D = res->n / NORMS;
    for (int i = 0; i < res->n; i++)
        worst = fmax(worst,
                     fabs(res->norms[l][i] - json_number_value(json_array_get(
                                                 json_array_get(norms, (size_t)(i / D)), (size_t)(i % D)))));
    CHECK(json_array_size(norms) == NORMS && worst < 2e-5, "%s, layer %d: new norms within %.2g", name,
          l, worst);
    CHECK(!r->tuned || near(r->lr, number(want, "lr"), 1e-9), "%s, layer %d: lr %g", name, l, r->lr);
}

static void test_case(const json_t *c)
{
    struct outcome one, two;
    const char *name = text(c, "name");
    if (!CHECK(run_case(c, 1, 2, &one) == 0 && run_case(c, 2, 2, &two) == 0, "%s: runs", name)) return;
    int layers = (int)json_array_size(json_object_get(file, "layers")), same = 1;
    bool far = !strcmp(name, "too far");
    for (int l = 0; l < layers; l++) {
        if (!far) check_layer(name, l, &one, json_array_get(json_object_get(c, "result"), (size_t)l));
        same &= !memcmp(one.norms[l], two.norms[l], (size_t)one.n * sizeof(float)) &&
                !memcmp(one.rep[l].train, two.rep[l].train, sizeof one.rep[l].train);
    }
    CHECK(same && one.v.kl_new == two.v.kl_new, "%s: same bytes with 1 and 2 threads", name);
    double old = number(c, "kl_old"), new = number(c, "kl_new");
    const char *want = new < old &&case_opts(c).iters ? "positive" : "negative";
    CHECK(near(one.v.kl_old, old, 1e-5), "%s: KL with old norms %.8f, PyTorch %.8f", name, one.v.kl_old, old);
    if (!far) {
        CHECK(near(one.v.kl_new, new, 2e-5), "%s: KL with new norms %.8f, PyTorch %.8f", name, one.v.kl_new,
              new);
        CHECK(near(one.v.top1_old, number(c, "top1_old"), 1e-9) &&
                  near(one.v.top1_new, number(c, "top1_new"), 1e-9),
              "%s: top-1 agreement %.4f, %.4f", name, one.v.top1_old, one.v.top1_new);
    } else {
        CHECK(one.rep[0].moved > 0.5, "%s: gains moved by %.0f %%", name, 100 * one.rep[0].moved);
    }
    CHECK(!strcmp(one.v.verdict, want) && !strcmp(one.v.norms, *want == 'p' ? "new" : "old"),
          "%s: verdict %s, norms %s", name, one.v.verdict, one.v.norms);
    CHECK(one.v.n == 22 && one.v.changed == (case_opts(c).iters > 0), "%s: %ld tokens, changed %d", name,
          one.v.n, one.v.changed);
    outcome_clear(&one);
    outcome_clear(&two);
}

/* A quantizer that folds scales into the norms: tuning starts from its norms, which also are the old ones. */
static void test_folded_norms(const json_t *c)
{
    struct outcome res;
    enum { D = 32 };
    given[1].norms = MEM_NEW(float, (size_t)NORM_VECTORS *D);
    given[1].has_norm[NORM_MLP] = true;
    for (int i = 0; i < D; i++) given[1].norms[NORM_MLP * D + i] = 0.5f + 0.01f * (float)i;
    CHECK(run_case(c, 1, 2, &res) == 0, "runs on a quantizer's own norms");
    CHECK(!memcmp(res.norms[1] + D, given[1].norms + D, D * sizeof(float)), "which are the ones that count");
    CHECK(!res.v.changed && !near(res.v.kl_old, number(c, "kl_old"), 1e-3), "and go into the KL: %.6f",
          res.v.kl_old);
    given[1].has_norm[NORM_MLP] = false;
    outcome_clear(&res);
}

static void test_without_holdout(const json_t *c)
{
    struct outcome with, none;
    CHECK(run_case(c, 1, 2, &with) == 0 && run_case(c, 1, 0, &none) == 0,
          "runs with and without held-out sequences");
    CHECK(!strcmp(none.v.verdict, "none") && !strcmp(none.v.norms, "new") && none.v.n == 0,
          "no held-out data, no verdict");
    CHECK(isnan(none.rep[0].holdout[0]), "and no held-out loss");
    CHECK(!memcmp(with.norms[1], none.norms[1], (size_t)with.n * sizeof(float)),
          "held-out sequences do not train");
    outcome_clear(&with);
    outcome_clear(&none);
}

int main(void)
{
    struct err e = {0};
    json_t *j = json_load_file(DATA "tweak/model.json", 0, NULL);
    struct model *m = model_open(DATA "collect/tiny", NULL, &e);
    file = j;
    CHECK(j && m, "tests/data/tweak/model.json and the tiny model can be read %s", e.text);
    load_codes(m);
    const json_t *cases = json_object_get(file, "cases");
    for (size_t i = 0; i < json_array_size(cases); i++) test_case(json_array_get(cases, i));
    test_without_holdout(json_array_get(cases, 0));
    test_folded_norms(json_array_get(cases, 5)); /* no passes */
    tweak_input_clear(&given[1]);
    for (int l = 0; l < m->c.n_layers; l++)
        for (int r = 0; r < ROLE_COUNT; r++) qtensor_clear(&quant[l][r]);
    model_close(m);
    json_decref(j);
    return check_done();
}
