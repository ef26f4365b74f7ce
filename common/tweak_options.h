/* SPDX-License-Identifier: Apache-2.0
 * What nt-tweak's command line says, and what it means in each scope: an option that has no meaning there is
 * refused instead of ignored. */
#ifndef NT_TWEAK_OPTIONS_H
#define NT_TWEAK_OPTIONS_H
#include "common/scope_model.h"
#include "common/tool.h"
#include "common/tweak_acts.h"

/* The values of the options; start from TWEAK_ARGS. NULL, NAN: not given, the default belongs to scope or
 * loss. */
struct tweak_args {
    const char *tokens, *params, *loss, *scope, *target, *opt, *lr, *checkpoint, *report, *norm_dtype,
        *norms_step;
    double lr_scale, ridge, clip, weight_decay, scales_step;
    int64_t iters, skip_first, steps, batch, seq, warmup, eval_every, checkpoint_every;
    bool require_gain, final_norm;
    struct tweak_acts acts;
};

#define TWEAK_ARGS                                                                                           \
    {                                                                                                        \
        .params = "norms", .scope = "block", .target = "local", .lr_scale = NAN, .ridge = 0.01, .clip = 1,   \
        .scales_step = 1, .iters = 1, .steps = 60, .batch = 4, .seq = 256, .warmup = 10, .eval_every = 10,   \
        .checkpoint_every = 10                                                                               \
    }

/* Into the options of either scope; -1: a usage error. */
int tweak_block_options(const struct tweak_args *a, const struct tool *t, struct tweak_opts *o,
                        struct err *e) NT_MUST_CHECK;
int tweak_model_options(const struct tweak_args *a, const struct tool *t, struct scope_opts *o,
                        struct err *e) NT_MUST_CHECK;

/* Do model and tokens allow what is asked for? tweak_model_check shortens windows to the sequences. */
int tweak_block_check(const struct tweak_args *a, const struct tweak_opts *o, const struct model *m,
                      const struct tokens *tk, struct err *e) NT_MUST_CHECK;
int tweak_model_check(const struct tweak_args *a, struct scope_opts *o, const struct model *m,
                      const struct tokens *tk, struct err *e) NT_MUST_CHECK;
#endif
