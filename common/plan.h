/* SPDX-License-Identifier: Apache-2.0
 * Which method, bits and group each tensor gets: rules over tensor names, the first match wins, the
 * command line's own options are the last rule. A plan file has one rule a line, blank lines and lines
 * that start with # are skipped:
 *
 *   PATTERN  METHOD  BITS  GROUP  [OPTION...]      between blanks or tabs; "-" for BITS, GROUP: the command
 * line's PATTERN  keep                                  the tensor stays as it is
 *   {"pattern": ..., "method": ..., "bits": ...}   the same as JSON, keys as in a qweights header
 *
 * PATTERN is a shell pattern (* ? [...]) of the whole name; OPTION is sym asym act-order no-act-order
 * static-groups no-static-groups clip=none|mse damp=F scale=f16|f32|bf16. */
#ifndef NT_PLAN_H
#define NT_PLAN_H
#include "common/quantizer.h"

struct plan_rule {
    char *pattern;
    const struct quantizer *method; /* NULL: keep */
    struct quant_opts o;
    long matched; /* how often plan_find gave this rule */
};

struct plan {
    struct plan_rule *rules; /* the last one is the command line's and matches everything */
    size_t n, cap;
};

/* path NULL: the command line's rule only. */
int plan_read(const char *path, const struct quantizer *method, const struct quant_opts *o, struct plan *p,
              struct err *e) NT_MUST_CHECK;
void plan_clear(struct plan *p);
struct plan_rule *plan_find(struct plan *p, const char *name);
/* Statistics that some rule needs, comma separated, "" for none; at most size bytes. */
void plan_needs(const struct plan *p, char *out, size_t size);
/* For a stream's header: the options of the last rule and, if there are others, `plan`: array of rules;
 * new. */
json_t *plan_json(const struct plan *p);
#endif
