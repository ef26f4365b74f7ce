/* SPDX-License-Identifier: Apache-2.0
 * nt-tweak: qweights -> qweights. Tunes the norms of every block against the float model, one layer at a time
 * or through the whole model, and says on held-out sequences whether that helped. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/mem.h"
#include "common/scope_train.h"
#include "common/tool.h"
#include "common/tweak_acts.h"
#include "common/tweak_stream.h"

static const char *tokens_path, *loss_name, *opt_name, *params = "norms", *lr_text, *scope = "block",
                                                       *target = "local", *report_path;
static double lr_scale = NAN, ridge = 0.01, clip = 1, weight_decay, scales_step = 1;
static int64_t iters = 1, skip_first, steps = 60, batch = 4, seq = 256, warmup = 10, eval_every = 10,
               checkpoint_every = 10;
static const char *checkpoint_path;
static bool require_gain, final_norm;
static struct tweak_acts acts;

static const struct opt options[] = {
    {0, "tokens", OPT_STR, &tokens_path, "FILE", "tokens stream: training and held-out sequences"},
    {0, "params", OPT_STR, &params, "WHAT", "what to train: norms, norms+bias (block), norms+scales (model)"},
    {0, "loss", OPT_STR, &loss_name, "NAME",
     "against what, 'list' shows all (default author; model scope: kl)"},
    {0, "scope", OPT_STR, &scope, "SPAN", "over which span: block or model"},
    {0, "target", OPT_CHOICE, &target, "local|float",
     "float block on the quantized stream, or the float stream"},
    {0, "opt", OPT_CHOICE, &opt_name, "adam|adamw|closed-form", "how (default adam; model scope: adamw)"},
    {0, "lr", OPT_STR, &lr_text, "X",
     "Adam's step in layer 0 (default: the loss's own; model scope: 1e-3), or auto"},
    {0, "lr-scale", OPT_F64, &lr_scale, "S=0..", "layer i of L: lr (1 + S i/L) (default: the loss's own)"},
    {0, "iters", OPT_INT, &iters, "N=0..1000", "passes over the training sequences; 0 only advances"},
    {0, "ridge", OPT_F64, &ridge, "R=0..1", "closed form: pull towards the old norms"},
    {0, "skip-first", OPT_INT, &skip_first, "N=0..", "leading tokens of a sequence that the loss leaves out"},
    {0, "steps", OPT_INT, &steps, "N=1..1000000", "model scope: steps of the optimiser"},
    {0, "batch", OPT_INT, &batch, "N=1..4096", "model scope: windows of a step"},
    {0, "seq", OPT_INT, &seq, "N=2..", "model scope: tokens of a window, at most those of a sequence"},
    {0, "warmup", OPT_INT, &warmup, "N=0..", "model scope: steps until the full rate"},
    {0, "clip", OPT_F64, &clip, "X=0..", "model scope: largest norm of the whole gradient; 0: any"},
    {0, "weight-decay", OPT_F64, &weight_decay, "X=0..", "model scope: of norms"},
    {0, "final-norm", OPT_FLAG, &final_norm, NULL, "model scope: train the norm before the head, too"},
    {0, "scales-step", OPT_F64, &scales_step, "X=0..",
     "model scope: step of scales in units of --lr and of themselves"},
    {0, "eval-every", OPT_INT, &eval_every, "N=1..",
     "model scope: steps between evaluations on held-out sequences"},
    {0, "checkpoint", OPT_STR, &checkpoint_path, "FILE",
     "model scope: go on from FILE if it is there, and write it"},
    {0, "checkpoint-every", OPT_INT, &checkpoint_every, "N=1..", "model scope: steps between checkpoints"},
    {0, "require-gain", OPT_FLAG, &require_gain, NULL, "exit 1 unless the verdict is positive"},
    {0, "acts-in", OPT_STR, &acts.in, "FILE",
     "input of the first of --layers, from another run's --acts-out"},
    {0, "acts-out", OPT_STR, &acts.out, "FILE", "write the input of every next layer (a FIFO: the ring)"},
    {0, "report", OPT_STR, &report_path, "FILE", "losses of every layer as TSV"},
    {0},
};

static void list_losses(void)
{
    for (int i = 0; loss_at(i); i++)
        printf("%-8s lr %g, lr-scale %g: %s\n", loss_at(i)->name, loss_at(i)->lr, loss_at(i)->lr_scale,
               loss_at(i)->summary);
    tool_finish(0);
}

/* The rate asked for; NAN: the default, or with `automatic` that --lr auto is given. */
static double rate(bool *automatic)
{
    char *end;
    *automatic = lr_text && !strcmp(lr_text, "auto");
    if (!lr_text || *automatic) return NAN;
    double x = strtod(lr_text, &end);
    if (end == lr_text || *end || !isfinite(x)) die_usage("--lr: '%s' is not a number", lr_text);
    if (x < 0) die_usage("--lr: %s is too small (at least 0)", lr_text);
    return x;
}

static void check_files(const struct tool *t)
{
    if (!t->model) die_usage("-m MODEL is needed: the float model that was quantized");
    if (!tokens_path) die_usage("--tokens FILE is needed: what to train on");
    if (t->argc > 1) die_usage("one qweights stream, not %d", t->argc);
}

static struct tweak_opts check_options(const struct tool *t)
{
    bool automatic;
    double lr = rate(&automatic);
    if (!loss_name) loss_name = "author";
    if (!opt_name) opt_name = "adam";
    if (!strcmp(loss_name, "list")) list_losses();
    if (automatic) die_usage("--lr auto: only with --scope model");
    if (!strcmp(opt_name, "adamw")) die_usage("--opt adamw: only with --scope model");
    if (final_norm || checkpoint_path)
        die_usage("--%s: only with --scope model", final_norm ? "final-norm" : "checkpoint");
    struct tweak_opts o = {.loss = loss_find(loss_name),
                           .closed_form = opt_name[0] == 'c',
                           .ridge = ridge,
                           .target_float = target[0] == 'f',
                           .iters = (int)iters,
                           .skip_first = (int)skip_first};
    if (!o.loss) die_usage("--loss: '%s' is not known; --loss list shows what is", loss_name);
    if (strcmp(scope, "block")) die_usage("--scope: '%s' is not available, only block and model", scope);
    if (strcmp(params, "norms") && strcmp(params, "norms+bias"))
        die_usage("--params: '%s' is not available in block scope, only norms and norms+bias", params);
    check_files(t);
    o.lr = isnan(lr) ? o.loss->lr : lr;
    o.lr_scale = isnan(lr_scale) ? o.loss->lr_scale : lr_scale;
    return o;
}

/* Biases of norms are always trained; those of linears would need readers that take them back. */
static void check_params(const struct model *m)
{
    for (int r = 0; r < ROLE_COUNT && !strcmp(params, "norms+bias"); r++)
        if (m->layers[0].b[r])
            die_usage("--params norms+bias: training the biases of linears (%s has them) is not available",
                      m->ck->path);
}

static void check_tokens(const struct tokens *tk, const struct tweak_opts *o)
{
    struct err e = {0};
    if (tk->n - tk->n_holdout < 1)
        err_set(&e, NT_EXIT_DATA, "%s: no training sequences", tokens_path);
    else if (tk->T - o->skip_first < 2)
        err_set(&e, NT_EXIT_DATA, "%s: %d tokens a sequence leave fewer than 2 for the loss", tokens_path,
                tk->T);
    if (e.code) die(&e);
}

static void say_layer(const struct tweak_report *r)
{
    if (r->why[0]) warn("layer %d: tweak dropped, old norms kept: %s", r->layer, r->why);
    if (r->moved > 0.5)
        warn("layer %d: a gain moved by %.0f %%; a smaller --lr or --lr-scale may be needed", r->layer,
             100 * r->moved);
    if (r->tuned && r->holdout[1] > r->holdout[0])
        note("layer %d: the held-out loss rose, %.4g to %.4g", r->layer, r->holdout[0], r->holdout[1]);
}

static void say_verdict(const struct tweak_verdict *v, int layers)
{
    if (!v->changed) warn("no element of any norm changed");
    if (!v->n && acts.end < layers)
        note("no verdict before the last layer");
    else if (!v->n)
        warn("no verdict: the tokens have no held-out sequences");
    else {
        char err[32] = ""; /* one held-out sequence gives no standard error */
        if (isfinite(v->kl_gain_err)) snprintf(err, sizeof err, " +- %.5f", v->kl_gain_err);
        note("verdict %s: KL on %ld held-out tokens %.5f -> %.5f (fell by %.5f%s), top-1 %.2f -> %.2f %%", v->verdict, v->n,
             v->kl_old, v->kl_new, v->kl_old - v->kl_new, err, 100 * v->top1_old, 100 * v->top1_new);
    }
}

/* ---- model scope ---- */

static struct scope_opts check_scope_options(const struct tool *t)
{
    bool automatic;
    double lr = rate(&automatic);
    struct scope_opts o = {.scales = !strcmp(params, "norms+scales"),
                           .final_norm = final_norm,
                           .steps = (int)steps,
                           .batch = (int)batch,
                           .seq = (int)seq,
                           .warmup = (int)warmup,
                           .eval_every = (int)eval_every,
                           .checkpoint = checkpoint_path,
                           .checkpoint_every = (int)checkpoint_every,
                           .clip = clip,
                           .weight_decay = weight_decay,
                           .scales_step = scales_step,
                           .seed = (uint64_t)t->seed,
                           .layers = {t->layers[0], t->layers[1]}};
    if (loss_name && !strcmp(loss_name, "list")) {
        puts("kl\nce\nkl+ce");
        tool_finish(0);
    }
    if (scope_loss(loss_name ? loss_name : "kl", &o))
        die_usage("--loss: '%s' is not available in model scope, only kl, ce and kl+ce", loss_name);
    if (strcmp(params, "norms") && !o.scales)
        die_usage("--params: '%s' is not available in model scope, only norms and norms+scales", params);
    if (opt_name && opt_name[0] == 'c') die_usage("--opt closed-form: only with --scope block");
    if (checkpoint_path && !strcmp(checkpoint_path, "-")) die_usage("--checkpoint: a file, not a pipe");
    if (acts.in || acts.out) die_usage("--acts-%s: only with --scope block", acts.in ? "in" : "out");
    if (!isnan(lr_scale) || iters != 1 || skip_first || ridge != 0.01 || target[0] != 'l')
        die_usage("--lr-scale, --iters, --skip-first, --ridge, --target: only with --scope block");
    check_files(t);
    o.lr = automatic || !isnan(lr) ? lr : 1e-3;
    return o;
}

static void check_windows(struct scope_opts *o, const struct tokens *tk)
{
    struct tweak_opts none = {0};
    check_tokens(tk, &none);
    if (o->seq > tk->T)
        note("--seq %d: the sequences have %d tokens, so that is what a window has", o->seq, tk->T);
    if (o->seq > tk->T) o->seq = tk->T;
    if ((int64_t)o->batch * o->seq > 1 << 20)
        die_usage("--batch %d, --seq %d: more than 2^20 tokens a step", o->batch, o->seq);
    if (isnan(o->lr) && !tk->n_holdout)
        die_usage("--lr auto: the tokens have no held-out sequences to choose by");
}

static void run_model_scope(struct tool *t)
{
    struct err e = {0};
    struct tokens tk = {0};
    struct tweak_verdict v;
    struct scope_opts o = check_scope_options(t);
    struct scope_job job = {
        .o = &o, .tk = &tk, .qweights = t->argc ? t->argv[0] : "-", .out = t->out, .report = report_path};
    struct backend *be = tool_backend(t);
    struct model *m = model_open(t->model, be, &e);
    if (!m || tokens_read(tokens_path, m->c.vocab, &tk, &e)) die(&e);
    check_windows(&o, &tk);
    if (t->layers[0] >= m->c.n_layers) die_usage("--layers: the model has %d layers", m->c.n_layers);
    if (model_norm_has_bias(m))
        die_usage("--scope model: norms with biases (%s has them) are not available", t->model);
    if (scope_run(m, &job, &v, &e)) die(&e);
    say_verdict(&v, 0);
    tokens_clear(&tk);
    model_close(m);
    backend_close(be);
    tool_finish(require_gain && strcmp(v.verdict, "positive") ? NT_EXIT_NEGATIVE : 0);
}

/* ---- block scope ---- */

static void run_layers(struct tweak *tw, struct stream_reader *r, struct stream_writer *w, struct model *m,
                       const int64_t layers[2], struct outfile *report)
{
    struct err e = {0};
    size_t n = (size_t)tweak_norm_values(tw);
    float *old_v = MEM_NEW(float, n), *new_v = MEM_NEW(float, n);
    stream_tee(r, w);
    for (int l = acts.first; l < acts.end; l++) {
        struct tweak_input in = {0};
        struct tweak_report rep;
        if (tweak_read_layer(r, tw, m, l, &in, &e) ||
            tweak_layer(tw, &in, l >= layers[0] && l < layers[1], old_v, new_v, &rep, &e) ||
            tweak_write_layer(w, tw, &in, old_v, new_v, &rep, &e) ||
            (report && tweak_report_line(report, &rep, &e)) || tweak_acts_layer(&acts, tw, l, r, &e))
            die(&e);
        say_layer(&rep);
        tweak_input_clear(&in);
    }
    if (tweak_read_rest(r, m, &e)) die(&e);
    mem_free(old_v);
    mem_free(new_v);
}

int main(int argc, char **argv)
{
    struct tool t;
    struct err e = {0};
    struct tokens tk = {0};
    struct tweak_verdict v;
    tool_start(&t, "nt-tweak", "[QWEIGHTS]", "tune norms of a quantized model against the float one", options,
               argc, argv);
    if (!strcmp(scope, "model")) run_model_scope(&t);
    struct tweak_opts o = check_options(&t);
    if (tweak_acts_open(&acts, !t.argc || !strcmp(t.argv[0], "-"), &e)) die(&e);
    struct backend *be = tool_backend(&t);
    struct model *m = model_open(t.model, be, &e);
    if (!m || tokens_read(tokens_path, m->c.vocab, &tk, &e)) die(&e);
    check_tokens(&tk, &o);
    check_params(m);
    struct stream_reader *r = stream_open(t.argc ? t.argv[0] : "-", "qweights", &e);
    if (!r || model_check_identity(m, stream_header(r), stream_name(r), &e)) die(&e);
    if (t.layers[0] >= m->c.n_layers) die_usage("--layers: the model has %d layers", m->c.n_layers);
    if (tweak_acts_range(&acts, m, t.layers, &e)) die(&e);
    if (require_gain && acts.end < m->c.n_layers)
        die_usage("--require-gain: the verdict comes with the last layer");
    tool_predict(tweak_bytes(&m->c, &tk, &o), 0, NULL);

    struct outfile *report = report_path ? outfile_open(report_path, &e) : NULL;
    if (e.code || (report && outfile_write(report, TWEAK_REPORT_HEAD, strlen(TWEAK_REPORT_HEAD), &e)))
        die(&e);
    struct outfile *out = outfile_open(t.out, &e);
    if (!out) die(&e);
    json_t *header = tweak_header(stream_header(r), &o, params, &tk, t.layers);
    stream_watch(r, outfile_watch_fd(out));
    struct stream_writer *w = stream_create(out, header, &e);
    if (!w) die(&e);
    struct tweak *tw = tweak_open(m, &tk, &o, &e);
    if (!tw || tweak_acts_start(&acts, tw, m, &tk, json_object_get(header, "params"), r, &e)) die(&e);
    progress_start("tweak", "sequences", tweak_work(tw, t.layers));
    run_layers(tw, r, w, m, t.layers, report);
    if (tweak_judge(tw, &v, &e)) die(&e);
    progress_end();
    stream_note_input(w, r);
    json_t *extra = tweak_trailer(&v, stream_trailer(r));
    if ((report && outfile_commit(report, &e)) || tweak_acts_finish(&acts, &e) || stream_finish(w, extra, &e))
        die(&e);
    say_verdict(&v, m->c.n_layers);

    json_decref(extra);
    json_decref(header);
    stream_close(r);
    tweak_close(tw);
    tokens_clear(&tk);
    model_close(m);
    backend_close(be);
    tool_finish(require_gain && strcmp(v.verdict, "positive") ? NT_EXIT_NEGATIVE : 0);
}
