/* SPDX-License-Identifier: Apache-2.0
 * Model scope on a tiny model: gradients and whole AdamW runs against PyTorch in float64
 * (tests/data/tweak/scope.json), gradients of minima and permuted groups by finite differences, codes in
 * memory and on disk, checkpoints, threads. */
#include "tests/check.h"
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>
#include "common/mem.h"
#include "tests/unit/scope_fixture.h"

#define DATA "tests/data/"
static json_t *codes, *expected;
static char dir[] = "/tmp/nt-scope-XXXXXX", stream_path[64], state_path[64];

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static int near(double a, double b, double rel)
{
    return fabs(a - b) <= rel * fabs(b) + 1e-9;
}

/* ---- a qweights stream with the codes of model.json ---- */

/* MINIMA: single precision, float minima for zeros, groups permuted; SHARED: of these, several rows have the same */
enum variant { HALF, SINGLE, MINIMA, SHARED };

static void fill_tensor(struct qtensor *q, const json_t *j, enum variant kind, int layer)
{
    const char *c = text(j, "codes"), *z = text(j, "zero");
    for (size_t i = 0; c[i]; i++) q->codes[i] = (uint8_t)(c[i] - '0');
    for (size_t i = 0; z[i]; i++)
        q->scale[i] = (float)json_number_value(json_array_get(json_object_get(j, "scale"), i));
    for (size_t i = 0; z[i] && kind < MINIMA; i++) q->zero[i] = (uint8_t)(z[i] - '0');
    if (kind < MINIMA) return;
    size_t n = strlen(z);
    mem_free(q->zero);
    q->zero = NULL;
    q->minimum = MEM_NEW(float, n);
    q->gidx = MEM_NEW(int32_t, (size_t)q->in);
    for (size_t i = 0; i < n; i++) q->minimum[i] = -q->scale[i] * ((float)(z[i] - '0') + 0.25f);
    for (int i = 0; i < q->in; i++) q->gidx[i] = (i * 7 + layer) % q->in / q->group;
    if (kind != SHARED) return;
    q->n_rows = q->out / 4; /* scales and minima of the others are left out */
    q->ridx = MEM_NEW(int32_t, (size_t)q->out);
    for (int o = 0; o < q->out; o++) q->ridx[o] = (o * 5 + layer) % q->n_rows;
}

static int write_tensors(struct stream_writer *w, const struct model *m, enum variant kind, struct err *e)
{
    int rc = 0;
    for (int l = 0; l < m->c.n_layers && !rc; l++) {
        const json_t *layer = json_array_get(json_object_get(codes, "layers"), (size_t)l);
        for (int r = 0; r < ROLE_COUNT && !rc; r++) {
            struct qtensor q = {.layer = l};
            int out, in;
            role_dims(&m->c.block, r, &out, &in);
            qtensor_init_uniform(&q, out, in, (int)number(codes, "bits"), (int)number(codes, "group"), false,
                                 kind == HALF ? DT_F16 : DT_F32);
            model_tensor_name(m, l, r, q.name);
            strcpy(q.role, role_name(r));
            fill_tensor(&q, json_object_get(layer, role_name(r)), kind, l);
            rc = qtensor_write(w, &q, e);
            qtensor_clear(&q);
        }
        if (!rc) rc = stream_layer_end(w, l, e);
    }
    return rc;
}

static int write_stream(enum variant kind)
{
    struct err e = {0};
    struct model *m = model_open(DATA "collect/tiny", NULL, &e);
    struct outfile *f = m ? outfile_open(stream_path, &e) : NULL;
    json_t *h =
        f ? json_pack("{s:s, s:o, s:{}}", "kind", "qweights", "model", model_identity(m), "params") : NULL;
    struct stream_writer *w = f ? stream_create(f, h, &e) : NULL;
    int rc = w ? write_tensors(w, m, kind, &e) : -1;
    if (w && rc) stream_abort(w, &e);
    if (!rc) rc = stream_finish(w, NULL, &e);
    json_decref(h);
    model_close(m);
    if (rc) printf("# %s\n", e.text);
    return rc;
}

/* ---- a scope over it ---- */

static int fixture_open(struct fixture *f, int threads, bool in_memory, const struct scope_opts *o)
{
    *f = (struct fixture){.o = *o};
    f->be = backend_open("cpu", threads, false);
    f->m = model_open(DATA "collect/tiny", f->be, &f->e);
    json_t *ids = json_load_file(DATA "collect/ids.json", 0, NULL);
    load_tokens(&f->tk, ids, 2);
    json_decref(ids);
    if (!f->m || scope_input_open(&f->in, stream_path, f->m, &f->e) ||
        scope_input_read(&f->in, f->m, in_memory, &f->e))
        return -1;
    f->s = scope_open(f->m, &f->in, &f->o, f->tk.T, &f->e);
    return f->s ? 0 : -1;
}

static struct scope_opts options(const json_t *c)
{
    struct scope_opts o = {.scales = true,
                           .final_norm = true,
                           .scales_step = 1,
                           .layers = {0, INT64_MAX},
                           .steps = 20,
                           .eval_every = 20,
                           .checkpoint_every = 1};
    CHECK(scope_loss(text(c, "loss"), &o) == 0, "loss %s", text(c, "loss"));
    o.batch = (int)number(c, "batch"), o.seq = (int)number(c, "seq"), o.seed = (uint64_t)number(c, "seed");
    if (!json_object_get(c, "steps")) return o;
    o.scales = number(c, "scales") > 0, o.final_norm = number(c, "final") > 0;
    o.lr = number(c, "lr"), o.clip = number(c, "clip"), o.weight_decay = number(c, "decay");
    o.warmup = (int)number(c, "warmup"), o.relative = number(c, "relative") > 0;
    return o;
}

/* Windows of a step, and the float model's last states for them in s->xt. */
static int prepare(struct fixture *f, int step, int32_t *ids)
{
    struct scope *s = f->s;
    for (int i = 0; i < f->o.batch; i++) {
        int sequence, offset;
        scope_window(&f->o, &f->tk, step, i, &sequence, &offset);
        memcpy(ids + i * f->o.seq, f->tk.ids + sequence * f->tk.T + offset, (size_t)f->o.seq * sizeof *ids);
    }
    if (model_embed(f->m, ids, s->o->batch, s->o->seq, 0, s->dy, &f->e)) return -1;
    for (int l = 0; l < s->L; l++) {
        if (scope_load_float(s, l, &f->e)) return -1;
        block_forward(s->be, s->blk, s->work, f->o.batch, f->o.seq, 0, s->dy, s->xt, NULL, NULL);
        s->be->copy(s->dy, s->xt, (size_t)s->R * (size_t)s->D * sizeof(float));
    }
    return 0;
}

static void test_gradient(const json_t *c)
{
    struct fixture f;
    struct scope_opts o = options(c);
    double kl, ce;
    const char *name = text(c, "loss");
    if (!CHECK(fixture_open(&f, 1, true, &o) == 0, "%s: opens", name)) return;
    int32_t *ids = MEM_NEW(int32_t, (size_t)f.s->R);
    const json_t *places = json_object_get(c, "places");
    for (int i = 0; i < o.batch; i++) {
        int at[2];
        scope_window(&o, &f.tk, (int)number(c, "step"), i, &at[0], &at[1]);
        const json_t *want = json_array_get(places, (size_t)i);
        CHECK(at[0] == json_integer_value(json_array_get(want, 0)) &&
                  at[1] == json_integer_value(json_array_get(want, 1)),
              "%s: window %d is token %d of sequence %d", name, i, at[1], at[0]);
    }
    CHECK(prepare(&f, (int)number(c, "step"), ids) == 0 && scope_gradient(f.s, ids, &kl, &ce, &f.e) == 0,
          "%s: runs", name);
    CHECK(near(kl, number(c, "kl"), 1e-5), "%s: KL %.8f, PyTorch %.8f", name, kl, number(c, "kl"));
    CHECK(o.ce > 0 ? near(ce, number(c, "ce"), 1e-6) : isnan(ce), "%s: cross-entropy %.8f", name, ce);
    double d = worst(f.s->grad, json_object_get(c, "grad"), f.s->n, 1);
    CHECK(d < 1e-5, "%s: gradient of %zu values within %.2g of the largest", name, f.s->n, d);
    mem_free(ids);
    fixture_close(&f);
}

/* Along the gradient of each kind of value, (L(v + h u) - L(v - h u)) / 2h is |g|. */
static void check_slope(struct fixture *f, const int32_t *ids, const char *what, size_t from, size_t to)
{
    size_t n = f->s->n;
    float *start = MEM_NEW(float, n), *v = MEM_NEW(float, n);
    double norm = 0, loss[2], ce, h = 0.01;
    memcpy(start, f->s->value, n * sizeof *start);
    double *u = MEM_NEW(double, n);
    for (size_t i = from; i < to; i++) norm += (double)f->s->grad[i] * f->s->grad[i];
    norm = sqrt(norm);
    for (size_t i = from; i < to; i++) u[i] = f->s->grad[i] / norm;
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < n; i++) v[i] = (float)(start[i] + (side ? h : -h) * u[i]);
        scope_put(f->s, v);
        if (scope_gradient(f->s, ids, &loss[side], &ce, &f->e)) break;
    }
    double slope = (loss[1] - loss[0]) / (2 * h);
    CHECK(norm > 0 && near(slope, norm, 2e-3), "%s: slope %.6f, gradient %.6f", what, slope, norm);
    scope_put(f->s, start);
    CHECK(scope_gradient(f->s, ids, &loss[0], &ce, &f->e) == 0, "%s: back at the start", what);
    mem_free(start);
    mem_free(v);
    mem_free(u);
}

static void test_differences(enum variant kind, const char *what)
{
    struct fixture f;
    struct scope_opts o = options(json_array_get(json_object_get(expected, "gradients"), 0));
    double kl, ce;
    if (!CHECK(write_stream(kind) == 0 && fixture_open(&f, 2, true, &o) == 0, "%s: opens", what)) return;
    int32_t *ids = MEM_NEW(int32_t, (size_t)f.s->R);
    CHECK(prepare(&f, 0, ids) == 0 && scope_gradient(f.s, ids, &kl, &ce, &f.e) == 0,
          "%s: runs", what);
    size_t minima = f.s->min_at[0];
    CHECK(f.s->n == minima + (minima - f.s->n_norms), "as many minima as scales");
    CHECK(kind != SHARED || f.s->in->n_scales == minima - f.s->n_norms, "as many as the stream said");
    check_slope(&f, ids, "norms", 0, f.s->final_at);
    check_slope(&f, ids, "final norm", f.s->final_at, f.s->n_norms);
    check_slope(&f, ids, "scales", f.s->n_norms, minima);
    check_slope(&f, ids, "minima", minima, f.s->n);
    mem_free(ids);
    fixture_close(&f);
}

/* ---- whole runs ---- */

static int train(struct fixture *f, struct scope_train *t)
{
    return scope_train_open(t, f->s, &f->tk, &f->e) || scope_train(t, &f->e) ? -1 : 0;
}

static void test_steps(const json_t *c)
{
    struct fixture f;
    struct scope_opts o = options(c);
    const char *name = text(c, "name");
    bool half = number(c, "half") > 0, exact = !half || !o.scales;
    double kl, ce, off = 0;
    if (!CHECK(write_stream(half ? HALF : SINGLE) == 0 && fixture_open(&f, 1, true, &o) == 0, "%s: opens",
               name))
        return;
    int32_t *ids = MEM_NEW(int32_t, (size_t)f.s->R);
    for (int step = 0; step < o.steps; step++) {
        if (prepare(&f, step, ids) || scope_gradient(f.s, ids, &kl, &ce, &f.e)) break;
        double want = json_number_value(json_array_get(json_object_get(c, "kl"), (size_t)step));
        off = fmax(off, fabs(kl - want) / want);
        scope_step(f.s, step + 1, scope_rate(&o, o.lr, step, o.steps));
    }
    CHECK(!f.e.code && off < (exact ? 1e-4 : 5e-3), "%s: KL of 20 AdamW steps within %.2g of PyTorch's", name,
          off);
    double d = worst(f.s->value, json_object_get(c, "values"), f.s->n, 1);
    CHECK(d < (exact ? 5e-5 : 2e-3), "%s: %zu values within %.2g", name, f.s->n, d);
    mem_free(ids);
    struct scope_train t = {0};
    scope_start(f.s);
    CHECK(train(&f, &t) == 0 && t.step == 20, "%s: the same as one run", name);
    d = worst(t.best, json_object_get(c, "values"), f.s->n, 1);
    CHECK(d < (exact ? 5e-5 : 2e-3), "%s: which ends at the same values, within %.2g", name, d);
    const json_t *hold = json_object_get(c, "holdout");
    for (size_t i = 0; i < 2; i++)
        CHECK(near(t.kl_best[i], json_number_value(json_array_get(hold, i)), exact ? 2e-4 : 5e-3),
              "%s: held-out sequence %zu: KL %.6f", name, i, t.kl_best[i]);
    CHECK(near(t.v.kl_old, 0.26907, 1e-4), "%s: KL before %.5f, as block scope has it", name, t.v.kl_old);
    scope_train_clear(&t);
    fixture_close(&f);
}

static void check_outcome(const char *name, struct scope_train *a, struct scope_train *b)
{
    CHECK(!memcmp(a->best, b->best, a->s->n * sizeof(float)) &&
              !memcmp(a->s->value, b->s->value, a->s->n * sizeof(float)) &&
              !memcmp(a->kl_old, b->kl_old, 8 * sizeof(double)) && json_equal(a->history, b->history) &&
              a->best_step == b->best_step,
          "%s: the same bytes (best step %d, KL %.6f)", name, a->best_step, a->v.kl_new);
}

static void test_same_bytes(void)
{
    struct fixture f[3];
    struct scope_train t[3];
    struct scope_opts o = options(json_array_get(json_object_get(expected, "runs"), 3));
    o.steps = 8, o.eval_every = 3;
    if (!CHECK(write_stream(HALF) == 0, "stream")) return;
    for (int i = 0; i < 3; i++)
        CHECK(fixture_open(&f[i], i == 1 ? 2 : 1, i != 2, &o) == 0 && train(&f[i], &t[i]) == 0, "run %d", i);
    check_outcome("1 and 2 threads", &t[0], &t[1]);
    check_outcome("codes in memory and in a file", &t[0], &t[2]);
    CHECK(json_array_size(t[0].history) == 4, "evaluated at 0, 3, 6 and 8");
    for (int i = 0; i < 3; i++) {
        scope_train_clear(&t[i]);
        fixture_close(&f[i]);
    }
}

/* Asks the run to stop as soon as its first checkpoint is there. */
static void on_alarm(int sig)
{
    if (!access(state_path, R_OK)) err_stop_signal = SIGTERM;
    (void)sig;
}

static int open_run(struct fixture *f, struct scope_train *t, const struct scope_opts *o)
{
    return fixture_open(f, 1, true, o) || scope_train_open(t, f->s, &f->tk, &f->e) ? -1 : 0;
}

static void close_run(struct fixture *f, struct scope_train *t)
{
    scope_train_clear(t);
    fixture_close(f);
}

static void test_resume(void)
{
    struct fixture f[2];
    struct scope_train t[2];
    struct scope_opts o = options(json_array_get(json_object_get(expected, "runs"), 3));
    const struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    o.steps = 60, o.eval_every = 7;
    CHECK(open_run(&f[0], &t[0], &o) == 0 && scope_train(&t[0], &f[0].e) == 0, "a whole run");
    o.checkpoint = state_path, o.checkpoint_every = 3;
    CHECK(open_run(&f[1], &t[1], &o) == 0 && scope_state_read(&t[1], &f[1].e) == 0,
          "another one, no checkpoint yet");
    signal(SIGALRM, on_alarm);
    setitimer(ITIMER_REAL, &often, NULL);
    CHECK(scope_train(&t[1], &f[1].e) == -1 && f[1].e.code == NT_EXIT_TERM, "it is stopped after step %d",
          t[1].step);
    setitimer(ITIMER_REAL, &never, NULL);
    err_stop_signal = 0;
    CHECK(t[1].step >= 3 && t[1].step < 60, "in the middle");
    close_run(&f[1], &t[1]);

    CHECK(open_run(&f[1], &t[1], &o) == 0 && scope_train(&t[1], &f[1].e) == 0, "taken up again, it ends");
    check_outcome("stopped and taken up again", &t[0], &t[1]);
    close_run(&f[1], &t[1]);
    CHECK(open_run(&f[1], &t[1], &o) == 0 && scope_state_read(&t[1], &f[1].e) == 1 && t[1].step == 60,
          "the end is there, too");
    close_run(&f[1], &t[1]);
    o.seed++;
    CHECK(open_run(&f[1], &t[1], &o) == 0 && scope_state_read(&t[1], &f[1].e) == -1 &&
              f[1].e.code == NT_EXIT_DATA && strstr(f[1].e.text, "seed differs"),
          "the checkpoint of another seed is refused");
    close_run(&f[1], &t[1]);
    o.seed--, o.relative = false;
    CHECK(open_run(&f[1], &t[1], &o) == 0 && scope_state_read(&t[1], &f[1].e) == -1 &&
              f[1].e.code == NT_EXIT_DATA && strstr(f[1].e.text, "norms_step differs"),
          "that of relative steps is refused without them");
    close_run(&f[1], &t[1]);
    close_run(&f[0], &t[0]);
}

int main(void)
{
    size_t i;
    json_t *c;
    codes = json_load_file(DATA "tweak/model.json", 0, NULL);
    expected = json_load_file(DATA "tweak/scope.json", 0, NULL);
    if (!CHECK(codes && expected && mkdtemp(dir), "the data are there")) return check_done();
    snprintf(stream_path, sizeof stream_path, "%s/q.nts", dir);
    snprintf(state_path, sizeof state_path, "%s/state.nts", dir);
    CHECK(write_stream(SINGLE) == 0, "writes a stream");
    json_array_foreach(json_object_get(expected, "gradients"), i, c) test_gradient(c);
    test_differences(MINIMA, "minima and permuted groups");
    test_differences(SHARED, "groups across rows");
    json_array_foreach(json_object_get(expected, "runs"), i, c) test_steps(c);
    test_same_bytes();
    test_resume();
    unlink(stream_path);
    unlink(state_path);
    rmdir(dir);
    json_decref(codes);
    json_decref(expected);
    return check_done();
}
