/* SPDX-License-Identifier: Apache-2.0
 * Training a whole float model on tiny random ones, tied, untied and with experts: initial values, gradients and AdamW runs
 * against PyTorch in float64 (tests/data/tweak/all.json), gradients by finite differences, checkpoints and
 * threads, what is refused. */
#include "tests/check.h"
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>
#include "common/mem.h"
#include "tests/unit/scope_fixture.h"

static char dir[] = "/tmp/nt-all-XXXXXX", config_path[64], state_path[64];

static int fixture_open(struct fixture *f, const json_t *c, int threads, int batch)
{
    *f = (struct fixture){.be = backend_open("cpu", threads, false)};
    load_tokens(&f->tk, json_object_get(c, "ids"), 1);
    f->o = (struct scope_opts){.all = true,
                               .final_norm = true,
                               .ce = 1,
                               .lr = number(c, "lr"),
                               .clip = number(c, "clip"),
                               .weight_decay = number(c, "decay"),
                               .warmup = (int)number(c, "warmup"),
                               .steps = (int)number(c, "steps"),
                               .batch = batch,
                               .seq = f->tk.T,
                               .eval_every = 3,
                               .checkpoint_every = 1,
                               .layers = {0, INT64_MAX}};
    if (json_dump_file(json_object_get(c, "config"), config_path, 0)) return -1;
    f->m = model_open(config_path, f->be, &f->e);
    if (!f->m || scope_input_none(&f->in, f->m, &f->e)) return -1;
    f->s = scope_open(f->m, &f->in, &f->o, f->tk.T, &f->e);
    return f->s ? 0 : -1;
}

static void test_steps(const json_t *c, const char *name)
{
    struct fixture f;
    double kl, ce, off = 0;
    if (!CHECK(fixture_open(&f, c, 2, 3) == 0, "%s: opens", name)) return;
    CHECK(f.s->n == scope_all_values(&f.m->c) + 5 * 16, "%s: %zu values", name, f.s->n);
    double d = worst(f.s->value, json_object_get(c, "start"), f.s->n, 7);
    CHECK(d < 1e-7, "%s: initial values within %.2g of a Philox in Python", name, d);
    for (int step = 0; step < f.o.steps; step++) {
        if (scope_gradient(f.s, f.tk.ids, &kl, &ce, &f.e)) break;
        if (!step) {
            CHECK(fabs(ce - number(c, "ce")) < 1e-6 * ce, "%s: cross-entropy %.8f", name, ce);
            d = worst(f.s->grad, json_object_get(c, "grad"), f.s->n, 7);
            CHECK(d < 2e-6, "%s: gradient of %zu values within %.2g of PyTorch's", name, f.s->n, d);
        }
        off = fmax(off,
                   fabs(ce - json_number_value(json_array_get(json_object_get(c, "losses"), (size_t)step))));
        scope_step(f.s, step + 1, scope_rate(&f.o, f.o.lr, step, f.o.steps));
    }
    CHECK(!f.e.code && off < 1e-4, "%s: losses of %d steps within %.2g", name, f.o.steps, off);
    d = worst(f.s->value, json_object_get(c, "values"), f.s->n, 7);
    CHECK(d < 2e-4, "%s: values after them within %.2g", name, d);
    fixture_close(&f);
}

/* Along the gradient of a range, (L(v + h u) - L(v - h u)) / 2h is |g|. */
static void check_slope(struct fixture *f, const char *what, size_t from, size_t to)
{
    size_t n = f->s->n;
    float *start = MEM_NEW(float, n), *g = MEM_NEW(float, n), *v = MEM_NEW(float, n);
    double norm = 0, loss[2] = {0, 0}, kl, h = 0.01;
    memcpy(start, f->s->value, n * sizeof *start);
    memcpy(g, f->s->grad, n * sizeof *g);
    for (size_t i = from; i < to; i++) norm += (double)g[i] * g[i];
    norm = sqrt(norm);
    for (int side = 0; side < 2; side++) {
        memcpy(v, start, n * sizeof *v);
        for (size_t i = from; i < to; i++) v[i] = (float)(start[i] + (side ? h : -h) * g[i] / norm);
        scope_put(f->s, v);
        if (scope_gradient(f->s, f->tk.ids, &kl, &loss[side], &f->e)) break;
    }
    double slope = (loss[1] - loss[0]) / (2 * h);
    CHECK(norm > 0 && fabs(slope - norm) < 5e-3 * norm, "%s: slope %.6f, gradient %.6f", what, slope, norm);
    scope_put(f->s, start);
    memcpy(f->s->grad, g, n * sizeof *g);
    mem_free(start);
    mem_free(g);
    mem_free(v);
}

static void test_differences(const json_t *c, const char *name)
{
    struct fixture f;
    double kl, ce;
    if (!CHECK(fixture_open(&f, c, 1, 3) == 0 && scope_gradient(f.s, f.tk.ids, &kl, &ce, &f.e) == 0,
               "%s: differences: runs", name))
        return;
    const size_t *at = f.s->matrix_at;
    int per = f.in.per + (f.m->c.block.experts ? 2 : 0), embed = f.s->L * per;
    bool tied = at[embed + 1] == SCOPE_NONE;
    check_slope(&f, "norms", 0, f.s->n_norms);
    check_slope(&f, "q of layer 0", at[ROLE_Q], at[ROLE_Q + 1]);
    check_slope(&f, "down of layer 1", at[per + ROLE_DOWN], at[embed]);
    if (f.m->c.block.experts) {
        check_slope(&f, "experts", at[expert_linear(0, ROLE_GATE)], at[expert_linear(3, ROLE_GATE)]);
        check_slope(&f, "shared expert", at[expert_linear(3, ROLE_GATE)], at[f.in.per]);
        check_slope(&f, "router", at[f.in.per], at[f.in.per + 1]);
        check_slope(&f, "shared gate", at[f.in.per + 1], at[per]);
    }
    check_slope(&f, tied ? "embedding and head" : "embedding", at[embed], tied ? f.s->n : at[embed + 1]);
    if (!tied) check_slope(&f, "head", at[embed + 1], f.s->n);
    fixture_close(&f);
}

/* Asks the run to stop as soon as its first checkpoint is there. */
static void on_alarm(int sig)
{
    if (!access(state_path, R_OK)) err_stop_signal = SIGTERM;
    (void)sig;
}

static int open_run(struct fixture *f, struct scope_train *t, const json_t *c, int threads)
{
    if (fixture_open(f, c, threads, 2)) return -1;
    f->o.steps = 200;
    return scope_train_open(t, f->s, &f->tk, &f->e);
}

static void close_run(struct fixture *f, struct scope_train *t)
{
    scope_train_clear(t);
    fixture_close(f);
}

/* A run, the same with two threads, and one that is stopped and taken up again. */
static void test_same_bytes(const json_t *c)
{
    struct fixture f[2];
    struct scope_train t[2];
    const struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    CHECK(open_run(&f[0], &t[0], c, 1) == 0 && scope_train(&t[0], &f[0].e) == 0, "a whole run");
    CHECK(t[0].v.ce && t[0].best_step > 0 && json_array_size(t[0].history) == 68,
          "held-out loss %.4f -> %.4f, step %d", t[0].v.kl_old, t[0].v.kl_new, t[0].best_step);
    for (int i = 0; i < 2; i++) {
        CHECK(open_run(&f[1], &t[1], c, 2 - i) == 0, "run %d", i);
        if (i) {
            f[1].o.checkpoint = state_path;
            signal(SIGALRM, on_alarm);
            setitimer(ITIMER_REAL, &often, NULL);
            CHECK(scope_train(&t[1], &f[1].e) == -1 && f[1].e.code == NT_EXIT_TERM,
                  "is stopped after step %d", t[1].step);
            setitimer(ITIMER_REAL, &never, NULL);
            err_stop_signal = 0;
            CHECK(t[1].step > 0 && t[1].step < 200, "in the middle");
            close_run(&f[1], &t[1]);
            CHECK(open_run(&f[1], &t[1], c, 1) == 0, "again");
            f[1].o.checkpoint = state_path;
        }
        CHECK(scope_train(&t[1], &f[1].e) == 0 && !memcmp(t[0].best, t[1].best, f[0].s->n * sizeof(float)) &&
                  !memcmp(t[0].s->value, t[1].s->value, f[0].s->n * sizeof(float)) &&
                  json_equal(t[0].history, t[1].history),
              "%s: the same bytes", i ? "taken up again" : "two threads");
        close_run(&f[1], &t[1]);
    }
    close_run(&f[0], &t[0]);
}

static void test_refused(const json_t *c)
{
    static const char *const bad[][2] = {{"-3", "nt_init_seed"}, {"\"x\"", "nt_init_seed"}};
    struct err e = {0};
    for (int i = 0; i < 2; i++) {
        json_t *j = json_deep_copy(json_object_get(c, "config"));
        json_object_set_new(j, "nt_init_seed", json_loads(bad[i][0], JSON_DECODE_ANY, NULL));
        json_dump_file(j, config_path, 0);
        e = (struct err){0};
        CHECK(!model_open(config_path, NULL, &e) && e.code == NT_EXIT_DATA && strstr(e.text, bad[i][1]),
              "seed %s: %s", bad[i][0], e.text);
        json_object_del(j, "nt_init_seed");
        json_dump_file(j, config_path, 0);
        e = (struct err){0};
        CHECK(!model_open(config_path, NULL, &e) && e.code == NT_EXIT_DATA, "no seed: %s", e.text);
        json_decref(j);
    }
}

int main(void)
{
    static const char *const names[] = {"tied", "untied", "experts"};
    json_t *cases = json_load_file("tests/data/tweak/all.json", 0, NULL);
    if (!CHECK(json_array_size(cases) == 3 && mkdtemp(dir), "data")) return check_done();
    snprintf(config_path, sizeof config_path, "%s/config.json", dir);
    snprintf(state_path, sizeof state_path, "%s/state.nts", dir);
    for (size_t i = 0; i < 3; i++) {
        test_steps(json_array_get(cases, i), names[i]);
        test_differences(json_array_get(cases, i), names[i]);
    }
    test_same_bytes(json_array_get(cases, 0));
    test_refused(json_array_get(cases, 0));
    json_decref(cases);
    unlink(config_path);
    unlink(state_path);
    rmdir(dir);
    return check_done();
}
