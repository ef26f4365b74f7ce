/* SPDX-License-Identifier: Apache-2.0
 * The options of nt-tweak, scope by scope. */
#include "common/tweak_options.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/scope_train.h"

/* The rate asked for; NAN: the default, or with `automatic` that --lr auto is given. */
static int rate(const char *text, double *lr, bool *automatic, struct err *e)
{
    char *end;
    *lr = NAN;
    *automatic = text && !strcmp(text, "auto");
    if (!text || *automatic) return 0;
    *lr = strtod(text, &end);
    if (end == text || *end || !isfinite(*lr))
        return err_set(e, NT_EXIT_USAGE, "--lr: '%s' is not a number", text);
    return *lr < 0 ? err_set(e, NT_EXIT_USAGE, "--lr: %s is too small (at least 0)", text) : 0;
}

/* What --norm-dtype names: DT_NONE where nothing is rounded. */
static enum dtype norm_type(const struct tweak_args *a)
{
    const char *s = a->norm_dtype ? a->norm_dtype : "f32";
    return !strcmp(s, "bf16") ? DT_BF16 : !strcmp(s, "f16") ? DT_F16 : DT_NONE;
}

static bool relative(const struct tweak_args *a)
{
    return a->norms_step && a->norms_step[0] == 'r';
}

static int check_tokens(const struct tweak_args *a, const struct tokens *tk, int skip_first, struct err *e)
{
    if (tk->n - tk->n_holdout < 1) return err_set(e, NT_EXIT_DATA, "%s: no training sequences", a->tokens);
    if (tk->T - skip_first < 2)
        return err_set(e, NT_EXIT_DATA, "%s: %d tokens a sequence leave fewer than 2 for the loss", a->tokens,
                       tk->T);
    return 0;
}

/* "norms" and what is trained beside: returns 0 with the flags set, or -1: something that is not `more`, a
 * list of two, or qk. */
static int parse_params(const char *params, const char *more, bool *has_more, bool *qk)
{
    *has_more = *qk = false;
    if (strncmp(params, "norms", 5)) return -1;
    for (const char *p = params + 5; *p;) {
        size_t n = strlen(more);
        if (!strncmp(p, "+qk", 3) && !*qk)
            *qk = true, p += 3;
        else if (*p == '+' && !strncmp(p + 1, more, n) && !*has_more)
            *has_more = true, p += 1 + n;
        else
            return -1;
    }
    return 0;
}

/* ---- block scope ---- */

int tweak_block_options(const struct tweak_args *a, const struct tool *t, struct tweak_opts *o, struct err *e)
{
    const char *opt = a->opt ? a->opt : "adam", *loss = a->loss ? a->loss : "author";
    bool automatic, bias;
    double lr;
    if (rate(a->lr, &lr, &automatic, e)) return -1;
    if (automatic) return err_set(e, NT_EXIT_USAGE, "--lr auto: only with --scope model");
    if (!strcmp(opt, "adamw")) return err_set(e, NT_EXIT_USAGE, "--opt adamw: only with --scope model");
    if (a->final_norm || a->checkpoint)
        return err_set(e, NT_EXIT_USAGE, "--%s: only with --scope model",
                       a->final_norm ? "final-norm" : "checkpoint");
    *o = (struct tweak_opts){.loss = loss_find(loss),
                             .closed_form = opt[0] == 'c',
                             .ridge = a->ridge,
                             .target_float = a->target[0] == 'f',
                             .iters = (int)a->iters,
                             .skip_first = (int)a->skip_first,
                             .relative = relative(a),
                             .norm_dtype = norm_type(a),
                             .bf16 = t->precision[0] == 'b'};
    if (!o->loss)
        return err_set(e, NT_EXIT_USAGE, "--loss: '%s' is not known; --loss list shows what is", loss);
    if (strcmp(a->scope, "block"))
        return err_set(e, NT_EXIT_USAGE, "--scope: '%s' is not available, only block and model", a->scope);
    if (parse_params(a->params, "bias", &bias, &o->qk))
        return err_set(e, NT_EXIT_USAGE,
                       "--params: '%s' is not available in block scope, only norms, norms+bias and norms+qk",
                       a->params);
    if (o->closed_form && o->qk)
        return err_set(e, NT_EXIT_USAGE, "--params %s: norms of q and k have no closed form", a->params);
    if (o->closed_form && a->norms_step)
        return err_set(e, NT_EXIT_USAGE, "--norms-step: the closed form takes no steps");
    o->lr = isnan(lr) ? o->loss->lr : lr;
    o->lr_scale = isnan(a->lr_scale) ? o->loss->lr_scale : a->lr_scale;
    return 0;
}

/* Something to train; the closed form solves for norms that linears read. */
static int check_norms(const struct model *m, bool qk, bool closed, const char *params, struct err *e)
{
    const struct block_shape *s = &m->c.block;
    bool trained[NORM_VECTORS], any = false;
    model_trained_norms(m, qk, trained);
    for (int i = 0; i < NORM_VECTORS; i++) any = any || trained[i];
    if (qk && !s->norm[NORM_Q] && !s->norm[NORM_K])
        return err_set(e, NT_EXIT_USAGE, "--params %s: %s has no norms of q and k", params, m->ck->path);
    if (closed && ((!s->norm[NORM_ATTN] && !s->norm[NORM_MLP]) || s->residual_normed))
        return err_set(e, NT_EXIT_USAGE, "--opt closed-form: no norm of %s is there for linears alone",
                       m->ck->path);
    return any ? 0 : err_set(e, NT_EXIT_USAGE, "%s has no norms in its blocks to train", m->ck->path);
}

/* Biases of norms are always trained; those of linears would need readers that take them back. */
int tweak_block_check(const struct tweak_args *a, const struct tweak_opts *o, const struct model *m,
                      const struct tokens *tk, struct err *e)
{
    if (check_tokens(a, tk, o->skip_first, e)) return -1;
    if (strstr(a->params, "+bias") && model_linear_has_bias(m))
        return err_set(e, NT_EXIT_USAGE,
                       "--params norms+bias: training the biases of linears (%s has them) is not available",
                       m->ck->path);
    return o->iters || o->closed_form ? check_norms(m, o->qk, o->closed_form, a->params, e) : 0;
}

/* ---- model scope ---- */

static int check_model_options(const struct tweak_args *a, const struct scope_opts *o, struct err *e)
{
    bool scales, qk;
    if (!o->all && parse_params(a->params, "scales", &scales, &qk))
        return err_set(
            e, NT_EXIT_USAGE,
            "--params: '%s' is not available in model scope, only norms, norms+scales, norms+qk and all",
            a->params);
    if (o->all && (o->kl > 0 || o->layers[0] > 0 || o->layers[1] < INT64_MAX))
        return err_set(e, NT_EXIT_USAGE, "--params all: %s",
                       o->kl > 0 ? "there is no other model to follow, only --loss ce"
                                 : "all layers are trained, --layers has no meaning");
    if (o->all && o->norm_dtype != DT_NONE)
        return err_set(e, NT_EXIT_USAGE,
                       "--norm-dtype: not with --params all, which writes no norms of a file");
    if (o->all && a->norms_step)
        return err_set(e, NT_EXIT_USAGE,
                       "--norms-step: not with --params all, which trains matrices as well");
    if (a->opt && a->opt[0] == 'c')
        return err_set(e, NT_EXIT_USAGE, "--opt closed-form: only with --scope block");
    if (a->checkpoint && !strcmp(a->checkpoint, "-"))
        return err_set(e, NT_EXIT_USAGE, "--checkpoint: a file, not a pipe");
    if (a->acts.in || a->acts.out)
        return err_set(e, NT_EXIT_USAGE, "--acts-%s: only with --scope block", a->acts.in ? "in" : "out");
    if (!isnan(a->lr_scale) || a->iters != 1 || a->skip_first || a->ridge != 0.01 || a->target[0] != 'l')
        return err_set(e, NT_EXIT_USAGE,
                       "--lr-scale, --iters, --skip-first, --ridge, --target: only with --scope block");
    return 0;
}

int tweak_model_options(const struct tweak_args *a, const struct tool *t, struct scope_opts *o, struct err *e)
{
    bool automatic;
    double lr;
    if (rate(a->lr, &lr, &automatic, e)) return -1;
    *o = (struct scope_opts){.scales = strstr(a->params, "+scales") != NULL,
                             .qk = strstr(a->params, "+qk") != NULL,
                             .all = !strcmp(a->params, "all"),
                             .final_norm = a->final_norm,
                             .steps = (int)a->steps,
                             .batch = (int)a->batch,
                             .seq = (int)a->seq,
                             .warmup = (int)a->warmup,
                             .eval_every = (int)a->eval_every,
                             .checkpoint = a->checkpoint,
                             .checkpoint_every = (int)a->checkpoint_every,
                             .clip = a->clip,
                             .weight_decay = a->weight_decay,
                             .scales_step = a->scales_step,
                             .lr = automatic || !isnan(lr) ? lr : scope_rates[relative(a)][1],
                             .seed = (uint64_t)t->seed,
                             .relative = relative(a),
                             .norm_dtype = norm_type(a),
                             .bf16 = t->precision[0] == 'b',
                             .layers = {t->layers[0], t->layers[1]}};
    if (o->all) o->final_norm = true;
    if (scope_loss(a->loss ? a->loss : o->all ? "ce" : "kl", o))
        return err_set(e, NT_EXIT_USAGE,
                       "--loss: '%s' is not available in model scope, only kl, ce and kl+ce", a->loss);
    return check_model_options(a, o, e);
}

int tweak_model_check(const struct tweak_args *a, struct scope_opts *o, const struct model *m,
                      const struct tokens *tk, struct err *e)
{
    if (check_tokens(a, tk, 0, e)) return -1;
    if (o->seq > tk->T) {
        note("--seq %d: the sequences have %d tokens, so that is what a window has", o->seq, tk->T);
        o->seq = tk->T;
    }
    if ((int64_t)o->batch * o->seq > 1 << 20)
        return err_set(e, NT_EXIT_USAGE, "--batch %d, --seq %d: more than 2^20 tokens a step", o->batch,
                       o->seq);
    if (isnan(o->lr) && !tk->n_holdout)
        return err_set(e, NT_EXIT_USAGE, "--lr auto: the tokens have no held-out sequences to choose by");
    return o->all ? scope_all_check(m, e) : check_norms(m, o->qk, false, a->params, e);
}
