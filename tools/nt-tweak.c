/* SPDX-License-Identifier: Apache-2.0
 * nt-tweak: qweights -> qweights. Tunes the norms of every block against the float model, one layer at a time
 * or through the whole model, and says on held-out sequences whether that helped. */
#include <math.h>
#include <string.h>
#include "common/scope_train.h"
#include "common/tool.h"
#include "common/tweak_options.h"
#include "common/tweak_run.h"

static struct tweak_args arg = TWEAK_ARGS;

static const struct opt options[] = {
    {0, "tokens", OPT_STR, &arg.tokens, "FILE", "tokens stream: training and held-out sequences"},
    {0, "params", OPT_STR, &arg.params, "WHAT",
     "what to train: norms, norms+bias (block), norms+scales (model), norms+qk, all (model)"},
    {0, "loss", OPT_STR, &arg.loss, "NAME",
     "against what, 'list' shows all (default author; model scope: kl)"},
    {0, "scope", OPT_STR, &arg.scope, "SPAN", "over which span: block or model"},
    {0, "target", OPT_CHOICE, &arg.target, "local|float",
     "float block on the quantized stream, or the float stream"},
    {0, "opt", OPT_CHOICE, &arg.opt, "adam|adamw|closed-form", "how (default adam; model scope: adamw)"},
    {0, "lr", OPT_STR, &arg.lr, "X",
     "Adam's step in layer 0 (default: the loss's own; model scope: 1e-3, relative 3e-2), or auto"},
    {0, "lr-scale", OPT_F64, &arg.lr_scale, "S=0..",
     "layer i of L: lr (1 + S i/L) (default: the loss's own)"},
    {0, "iters", OPT_INT, &arg.iters, "N=0..1000", "passes over the training sequences; 0 only advances"},
    {0, "ridge", OPT_F64, &arg.ridge, "R=0..1", "closed form: pull towards the old norms"},
    {0, "skip-first", OPT_INT, &arg.skip_first, "N=0..",
     "leading tokens of a sequence that the loss leaves out"},
    {0, "steps", OPT_INT, &arg.steps, "N=1..1000000", "model scope: steps of the optimiser"},
    {0, "batch", OPT_INT, &arg.batch, "N=1..4096", "model scope: windows of a step"},
    {0, "seq", OPT_INT, &arg.seq, "N=2..", "model scope: tokens of a window, at most those of a sequence"},
    {0, "warmup", OPT_INT, &arg.warmup, "N=0..", "model scope: steps until the full rate"},
    {0, "clip", OPT_F64, &arg.clip, "X=0..", "model scope: largest norm of the whole gradient; 0: any"},
    {0, "weight-decay", OPT_F64, &arg.weight_decay, "X=0..", "model scope: of norms"},
    {0, "final-norm", OPT_FLAG, &arg.final_norm, NULL, "model scope: train the norm before the head, too"},
    {0, "scales-step", OPT_F64, &arg.scales_step, "X=0..",
     "model scope: step of scales in units of --lr and of themselves"},
    {0, "norms-step", OPT_CHOICE, &arg.norms_step, "absolute|relative",
     "step of norms: as it is, or as a share of each gain (default absolute)"},
    {0, "norm-dtype", OPT_CHOICE, &arg.norm_dtype, "f32|f16|bf16",
     "round new norms to the type they will be stored in, in every forward (default f32: not)"},
    {0, "eval-every", OPT_INT, &arg.eval_every, "N=1..",
     "model scope: steps between evaluations on held-out sequences"},
    {0, "checkpoint", OPT_STR, &arg.checkpoint, "FILE",
     "model scope: go on from FILE if it is there, and write it"},
    {0, "checkpoint-every", OPT_INT, &arg.checkpoint_every, "N=1..",
     "model scope: steps between checkpoints"},
    {0, "require-gain", OPT_FLAG, &arg.require_gain, NULL, "exit 1 unless the verdict is positive"},
    {0, "acts-in", OPT_STR, &arg.acts.in, "FILE",
     "input of the first of --layers, from another run's --acts-out"},
    {0, "acts-out", OPT_STR, &arg.acts.out, "FILE", "write the input of every next layer (a FIFO: the ring)"},
    {0, "report", OPT_STR, &arg.report, "FILE", "losses of every layer as TSV"},
    {0},
};

static void list_losses(bool model_scope)
{
    if (model_scope) puts("kl\nce\nkl+ce");
    for (int i = 0; !model_scope && loss_at(i); i++)
        printf("%-8s lr %g, lr-scale %g: %s\n", loss_at(i)->name, loss_at(i)->lr, loss_at(i)->lr_scale,
               loss_at(i)->summary);
    tool_finish(0);
}

static void say_verdict(const struct tweak_verdict *v, bool at_end)
{
    if (!v->changed) warn("no element of any norm changed");
    if (!v->n && !at_end)
        note("no verdict before the last layer");
    else if (!v->n)
        warn("no verdict: the tokens have no held-out sequences");
    else {
        char err[32] = ""; /* one held-out sequence gives no standard error */
        if (isfinite(v->kl_gain_err)) snprintf(err, sizeof err, " +- %.5f", v->kl_gain_err);
        note("verdict %s: %s on %ld held-out tokens %.5f -> %.5f (fell by %.5f%s), top-1 %.2f -> %.2f %%",
             v->verdict, v->ce ? "cross-entropy" : "KL", v->n, v->kl_old, v->kl_new, v->kl_old - v->kl_new,
             err, 100 * v->top1_old, 100 * v->top1_new);
    }
}

static int run_model(const struct tool *t, struct model *m, const struct tokens *tk, struct scope_opts *o,
                     const char *qweights, struct tweak_verdict *v, struct err *e)
{
    struct scope_job job = {.o = o, .tk = tk, .qweights = qweights, .out = t->out, .report = arg.report};
    return tweak_model_check(&arg, o, m, tk, e) || scope_run(m, &job, v, e) ? -1 : 0;
}

static int run_blocks(const struct tool *t, struct model *m, const struct tokens *tk,
                      const struct tweak_opts *o, const char *qweights, struct tweak_verdict *v,
                      struct err *e)
{
    struct tweak_job job = {.o = o,
                            .tk = tk,
                            .acts = &arg.acts,
                            .params = arg.params,
                            .qweights = qweights,
                            .out = t->out,
                            .report = arg.report,
                            .layers = {t->layers[0], t->layers[1]}};
    if (tweak_block_check(&arg, o, m, tk, e) || tweak_acts_range(&arg.acts, m, t->layers, e)) return -1;
    if (arg.require_gain && arg.acts.end < m->c.n_layers)
        die_usage("--require-gain: the verdict comes with the last layer");
    return tweak_run(m, &job, v, e);
}

int main(int argc, char **argv)
{
    struct tool t;
    struct err e = {0};
    struct tokens tk = {0};
    struct tweak_verdict v;
    struct tweak_opts block_opts;
    struct scope_opts model_opts;
    tool_start(&t, "nt-tweak", "[QWEIGHTS]", "tune norms of a quantized model against the float one", options,
               argc, argv);
    bool whole = !strcmp(arg.scope, "model");
    const char *qweights = t.argc ? t.argv[0] : "-";
    if (arg.loss && !strcmp(arg.loss, "list")) list_losses(whole);
    if (whole ? tweak_model_options(&arg, &t, &model_opts, &e)
              : tweak_block_options(&arg, &t, &block_opts, &e))
        die_usage("%s", e.text);
    if (!t.model)
        die_usage("-m MODEL is needed: norms are tuned against the float model, and nothing can stand in for it. "
                  "Without it a checkpoint can be evaluated (nt-eval), packed anew (nt-quant -q import | nt-pack) "
                  "and given the norms of an overlay (nt-pack --apply)");
    if (!arg.tokens) die_usage("--tokens FILE is needed: what to train on");
    if (t.argc > 1) die_usage("one qweights stream, not %d", t.argc);
    if (whole && model_opts.all && t.argc)
        die_usage("--params all: the model is the input, no qweights stream is");

    if (tweak_acts_open(&arg.acts, !strcmp(qweights, "-"), &e)) die(&e);
    struct backend *be = tool_backend(&t);
    struct model *m = model_open(t.model, be, &e);
    if (!m || tokens_read(arg.tokens, m->c.vocab, &tk, &e)) die(&e);
    if (t.layers[0] >= m->c.n_layers) die_usage("--layers: the model has %d layers", m->c.n_layers);
    if (whole ? run_model(&t, m, &tk, &model_opts, qweights, &v, &e)
              : run_blocks(&t, m, &tk, &block_opts, qweights, &v, &e))
        die(&e);
    say_verdict(&v, whole || arg.acts.end == m->c.n_layers);

    tokens_clear(&tk);
    model_close(m);
    backend_close(be);
    tool_finish(arg.require_gain && strcmp(v.verdict, "positive") ? NT_EXIT_NEGATIVE : 0);
}
