/* SPDX-License-Identifier: Apache-2.0
 * nt-tweak --scope block after its options: qweights (file or "-") layer by layer to the new stream. The
 * counterpart of scope_run. */
#ifndef NT_TWEAK_RUN_H
#define NT_TWEAK_RUN_H
#include "common/tweak_acts.h"

struct tweak_job {
    const struct tweak_opts *o;
    const struct tokens *tk;
    struct tweak_acts *acts;             /* open, its range known */
    const char *params;                  /* what is trained, for the header */
    const char *qweights, *out, *report; /* report may be NULL */
    int64_t layers[2];                   /* which are tweaked; the others only pass */
};
/* On failure the output's temporary file and error trailer are left to die(). */
int tweak_run(struct model *m, const struct tweak_job *job, struct tweak_verdict *v,
              struct err *e) NT_MUST_CHECK;
#endif
