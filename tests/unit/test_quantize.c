/* SPDX-License-Identifier: Apache-2.0
 * Plans, and whole layers of the tiny model from statistics to records: order, norms, refusals. */
#include "common/quantize.h"
#include <unistd.h>
#include "common/mem.h"
#include "common/rng.h"
#include "tests/check.h"

#define MODEL "tests/data/model/llama3"

static char plan_path[] = "/tmp/nt-test-plan-XXXXXX", out_path[] = "/tmp/nt-test-qweights-XXXXXX";

/* ---- plans ---- */

static int read_plan(const char *text, struct plan *p, struct err *e)
{
    struct quant_opts o;
    quant_opts_init(&o);
    o.bits = 3;
    memset(e, 0, sizeof *e);
    FILE *f = fopen(plan_path, "w");
    if (!f || fputs(text, f) < 0 || fclose(f)) return -1;
    return plan_read(plan_path, quantizer_find("gptq"), &o, p, e);
}

static void test_plan(void)
{
    struct plan p;
    struct err e;
    char needs[64];
    int rc = read_plan(
        "# comment\n\n"
        "*.layers.0.*\trtn\t4\t32\tsym clip=mse\n"
        "  *.down_proj.weight gptq - 0 act-order damp=0.1 scale=f32\n"
        "*.q_proj.* keep\n"
        "{\"pattern\": \"*.k_proj.*\", \"method\": \"rtn\", \"bits\": 8, \"static_groups\": true}\n",
        &p, &e);
    if (!CHECK(!rc && p.n == 5, "a plan of four rules%s%s", rc ? ": " : "", e.text)) return;
    struct plan_rule *r = plan_find(&p, "model.layers.0.mlp.down_proj.weight");
    CHECK(r == &p.rules[0] && !strcmp(r->method->name, "rtn") && r->o.bits == 4 && r->o.group == 32 &&
              r->o.sym && r->o.clip_mse,
          "the first match wins, options are taken");
    r = plan_find(&p, "model.layers.1.mlp.down_proj.weight");
    CHECK(r == &p.rules[1] && r->o.bits == 3 && r->o.group == 0 && r->o.act_order && r->o.damp == 0.1 &&
              r->o.scale_dtype == DT_F32 && !r->o.sym,
          "'-' is the command line's value");
    CHECK(plan_find(&p, "model.layers.1.self_attn.q_proj.weight")->method == NULL, "keep");
    r = plan_find(&p, "model.layers.1.self_attn.k_proj.weight");
    CHECK(r->o.bits == 8 && r->o.static_groups && r->o.group == 128, "a rule in JSON");
    r = plan_find(&p, "model.layers.1.self_attn.v_proj.weight");
    CHECK(r == &p.rules[4] && r->o.bits == 3 && r->matched == 1, "the rest follows the command line");
    plan_needs(&p, needs, sizeof needs);
    CHECK(!strcmp(needs, "hessian"), "needs of all rules: %s", needs);

    json_t *j = plan_json(&p), *rules = json_object_get(j, "plan");
    CHECK(json_array_size(rules) == 4 && json_integer_value(json_object_get(j, "bits")) == 3,
          "the header lists the rules");
    char *text = mem_strdup("");
    for (size_t i = 0; i < json_array_size(rules); i++) {
        char *line = json_dumps(json_array_get(rules, i), JSON_COMPACT),
             *more = mem_printf("%s%s\n", text, line);
        free(line);
        mem_free(text);
        text = more;
    }
    plan_clear(&p);
    rc = read_plan(text, &p, &e);
    json_t *again = rc ? NULL : plan_json(&p);
    CHECK(!rc && json_equal(j, again), "and is a plan itself%s%s", rc ? ": " : "", e.text);
    mem_free(text);
    json_decref(j);
    json_decref(again);
    plan_clear(&p);
}

static void test_bad_plans(void)
{
    static const struct {
        const char *text, *why;
    } bad[] = {{"\n* nothing 4 32\n", "unknown method 'nothing'"},
               {"* rtn 4\n", ":1: a rule is PATTERN"},
               {"# x\n* rtn 9 32\n", ":2: bits must be 2 to 8"},
               {"* rtn four 32\n", "'bits'"},
               {"* rtn 4 -3\n", "'group'"},
               {"* rtn 4 32 simm\n", "unknown option 'simm'"},
               {"* rtn 4 32 clip=all\n", "'all'"},
               {"* rtn 4 32 scale=f64\n", "'f64'"},
               {"* gptq 4 32 damp=x\n", "'damp'"},
               {"* gptq 4 32 damp=-1\n", "damping"},
               {"{\"pattern\": \"*\"\n", ":1: "},
               {"{\"pattern\": \"*\", \"method\": \"rtn\", \"bit\": 4}\n", "unknown key 'bit'"},
               {"{\"method\": \"rtn\"}\n", "needs a pattern"},
               {"{\"pattern\": \"*\", \"method\": \"rtn\", \"sym\": 1}\n", "'sym'"}};
    struct plan p;
    struct err e;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int rc = read_plan(bad[i].text, &p, &e);
        CHECK(rc == -1 && e.code == NT_EXIT_DATA && strstr(e.text, bad[i].why) && strstr(e.text, plan_path),
              "refused: %s", e.text);
    }
    struct quant_opts o;
    quant_opts_init(&o);
    memset(&e, 0, sizeof e);
    int rc = plan_read("/nonexistent/plan", quantizer_find("rtn"), &o, &p, &e);
    CHECK(rc == -1 && e.code == NT_EXIT_IO, "no file: %s", e.text);
}

/* ---- layers ---- */

/* Seeded statistics of one layer; `off` is added to the width of the last site. */
static void make_stats(const struct model_config *c, int layer, int off, struct site_stats st[SITE_COUNT])
{
    memset(st, 0, SITE_COUNT * sizeof *st);
    for (int t = 0; t < SITE_COUNT; t++) {
        int d = site_dim(&c->block, t) + (t == SITE_COUNT - 1 ? off : 0);
        st[t] =
            (struct site_stats){.site = t, .dim = d, .count = 100, .hessian = MEM_NEW(float, (size_t)d *d)};
        for (int n = 0; n < 100; n++)
            for (int i = 0; i < d; i++)
                for (int j = 0; j < d; j++) {
                    uint64_t s = (uint64_t)(layer * 8 + t);
                    double a = rng_uniform(3, s, (uint64_t)(n * 64 + i)) - 0.5,
                           b = rng_uniform(3, s, (uint64_t)(n * 64 + j)) - 0.5;
                    st[t].hessian[i * d + j] += (float)(a * b);
                }
    }
}

static int run_layers(struct model *m, struct plan *p, const int *layers, int n, int off, int a, int b,
                      struct err *e)
{
    struct quantize z;
    struct site_stats st[SITE_COUNT];
    int rc = quantize_init(&z, m, p, NULL, a, b, e);
    struct outfile *f = rc ? NULL : outfile_open(out_path, e);
    json_t *header = rc ? NULL : quantize_header(&z, NULL);
    struct stream_writer *w = f ? stream_create(f, header, e) : NULL;
    json_decref(header);
    if (!w) return -1;
    for (int i = 0; i < n && !rc; i++) {
        make_stats(&m->c, layers[i], off, st);
        rc = quantize_layer(&z, w, layers[i], st, e);
        for (int t = 0; t < SITE_COUNT; t++) site_stats_clear(&st[t]);
    }
    if (!rc) rc = quantize_check_complete(&z, "stats", e);
    if (rc)
        stream_abort(w, e);
    else
        rc = stream_finish(w, NULL, e);
    quantize_clear(&z);
    return rc;
}

/* The records of one layer: seven tensors in role order whose values are those of quantizer_run, two
 * norms, the end. */
static int layer_is_right(struct model *m, struct stream_reader *r, int layer, struct plan *p, struct err *e)
{
    struct record rec;
    struct site_stats st[SITE_COUNT];
    struct quantizer_cache *cache = quantizer_cache_alloc();
    int ok = 1;
    make_stats(&m->c, layer, 0, st);
    for (int role = 0; role < ROLE_COUNT && ok; role++) {
        struct qtensor got, want = {.layer = layer};
        int out, in;
        char name[256];
        role_dims(&m->c.block, role, &out, &in);
        model_tensor_name(m, layer, role, name);
        float *W = MEM_NEW(float, (size_t)out *in);
        struct plan_rule *rule = plan_find(p, name);
        ok = stream_next(r, &rec, e) == 1 && !strcmp(rec.kind, "QTensor") &&
             !qtensor_read(r, &rec, &got, e) && !model_read_linear(m, layer, role, W, e);
        if (!ok) break;
        ok = !strcmp(got.name, name) && !strcmp(got.role, role_name(role)) && got.layer == layer &&
             got.out == out && got.in == in;
        if (rule->method) {
            ok = ok && !quantizer_run(rule->method, cache, NULL, W, out, in, &st[linear_site(role)], &rule->o,
                                      &want, e);
            ok = ok && !memcmp(got.codes, want.codes, (size_t)out * in) && got.bits == rule->o.bits &&
                 !memcmp(got.scale, want.scale, sizeof(float) * (size_t)out * want.n_groups) &&
                 json_object_get(got.info, "rel_weights");
        } else {
            float *back = MEM_NEW(float, (size_t)out *in);
            qtensor_dequant(&got, back);
            ok = ok && got.form == QF_PLAIN && !memcmp(back, W, sizeof(float) * (size_t)out * in);
            mem_free(back);
        }
        qtensor_clear(&got);
        qtensor_clear(&want);
        mem_free(W);
    }
    for (int n = 0; n <= NORM_MLP && ok; n++) {
        float gain[64];
        char name[256];
        model_norm_name(m, layer, n, name);
        ok = !model_read_norm(m, layer, n, gain, NULL, e) && stream_next(r, &rec, e) == 1 &&
             !strcmp(rec.kind, "Norm") && !strcmp(rec.name, name) && rec.layer == layer &&
             !stream_payload(r, &rec, NULL, e) &&
             !strcmp(json_string_value(json_object_get(rec.meta, "which")), "old") &&
             rec.t.nbytes == sizeof(float) * (size_t)m->c.block.D && !memcmp(rec.t.data, gain, rec.t.nbytes);
        if (ok) mem_free(rec.t.data);
    }
    ok = ok && stream_next(r, &rec, e) == 1 && !strcmp(rec.kind, "LayerEnd") && rec.layer == layer;
    for (int t = 0; t < SITE_COUNT; t++) site_stats_clear(&st[t]);
    quantizer_cache_free(cache);
    return ok;
}

static void test_layers(struct model *m)
{
    static const int order[] = {2, 1, 0};
    struct plan p;
    struct err e;
    int rc = read_plan("*.layers.1.*.o_proj.weight rtn 4 8 sym\n*.layers.1.*.up_proj.* keep\n", &p, &e);
    rc = rc || run_layers(m, &p, order, 3, 0, 0, 99, &e);
    CHECK(!rc, "layers in descending order%s%s", rc ? ": " : "", e.text);
    struct stream_reader *r = rc ? NULL : stream_open(out_path, "qweights", &e);
    if (!CHECK(r, "the stream opens again")) return;
    CHECK(!model_check_identity(m, stream_header(r), "q", &e) &&
              json_object_get(stream_header(r), "config") &&
              json_array_size(json_object_get(json_object_get(stream_header(r), "params"), "plan")) == 2,
          "its header names model and plan");
    for (int i = 0; i < 3; i++)
        CHECK(layer_is_right(m, r, order[i], &p, &e), "layer %d%s%s", order[i], e.code ? ": " : "", e.text);
    struct record rec;
    CHECK(stream_next(r, &rec, &e) == 0, "and nothing more");
    stream_close(r);
    plan_clear(&p);
}

static void test_refusals(struct model *m)
{
    static const struct {
        int layers[3], n, off, a, b, code;
        const char *why;
    } t[] = {{{0, 1, 1}, 3, 0, 0, 99, NT_EXIT_DATA, "layer 1 is there twice"},
             {{0, 2}, 2, 0, 0, 99, NT_EXIT_DATA, "no statistics of layer 1"},
             {{0, 3}, 2, 0, 0, 99, NT_EXIT_DATA, "layers 0 to 2"},
             {{0}, 1, 4, 0, 99, NT_EXIT_DATA, "of 40 inputs"},
             {{0}, 1, 0, 3, 99, NT_EXIT_USAGE, "only 3 layers"},
             {{0, 2}, 2, 0, 1, 3, NT_EXIT_DATA, "layer 1 (wanted: 1 to 2)"}};
    struct plan p;
    struct err e;
    if (read_plan("", &p, &e)) return;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        memset(&e, 0, sizeof e);
        int rc = run_layers(m, &p, t[i].layers, t[i].n, t[i].off, t[i].a, t[i].b, &e);
        CHECK(rc == -1 && e.code == t[i].code && strstr(e.text, t[i].why), "refused: %s", e.text);
    }
    static const int all[] = {0, 1, 2};
    memset(&e, 0, sizeof e);
    CHECK(!run_layers(m, &p, all, 3, 0, 1, 2, &e), "layers outside --layers are passed over%s", e.text);
    plan_clear(&p);
}

int main(void)
{
    struct err e = {0};
    close(mkstemp(plan_path));
    close(mkstemp(out_path));
    test_plan();
    test_bad_plans();
    struct model *m = model_open(MODEL, NULL, &e);
    if (CHECK(m, "open %s%s", MODEL, e.text)) {
        test_layers(m);
        test_refusals(m);
        model_close(m);
    }
    unlink(plan_path);
    unlink(out_path);
    return check_done();
}
