/* SPDX-License-Identifier: Apache-2.0
 * The stream's way through the norm tweak of one block after the other. */
#include "common/tweak_run.h"
#include <math.h>
#include <string.h>
#include "common/mem.h"
#include "common/tool.h"
#include "common/tweak_stream.h"

struct run {
    struct model *m;
    const struct tweak_job *job;
    struct stream_reader *r;
    struct stream_writer *w;
    struct outfile *report;
    json_t *header;
    struct tweak *tw;
};

static int open_input(struct run *u, struct err *e)
{
    u->r = stream_open(u->job->qweights, "qweights", e);
    return u->r ? model_check_identity(u->m, stream_header(u->r), stream_name(u->r), e) : -1;
}

static int open_output(struct run *u, struct err *e)
{
    const struct tweak_job *job = u->job;
    if (job->report) {
        u->report = outfile_open(job->report, e);
        if (!u->report || outfile_write(u->report, TWEAK_REPORT_HEAD, strlen(TWEAK_REPORT_HEAD), e))
            return -1;
    }
    struct outfile *out = outfile_open(job->out, e);
    if (!out) return -1;
    u->header = tweak_header(stream_header(u->r), job->o, job->params, job->tk, job->layers);
    stream_watch(u->r, outfile_watch_fd(out));
    u->w = stream_create(out, u->header, e);
    return u->w ? 0 : -1;
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

static int one_layer(struct run *u, int l, float *old_v, float *new_v, struct err *e)
{
    const int64_t *layers = u->job->layers;
    struct tweak_input in = {0};
    struct tweak_report rep;
    int rc = tweak_read_layer(u->r, u->tw, u->m, l, &in, e);
    if (!rc) rc = tweak_layer(u->tw, &in, l >= layers[0] && l < layers[1], old_v, new_v, &rep, e);
    if (!rc) rc = tweak_write_layer(u->w, u->tw, &in, old_v, new_v, &rep, e);
    if (!rc && u->report) rc = tweak_report_line(u->report, &rep, e);
    if (!rc) rc = tweak_acts_layer(u->job->acts, u->tw, l, u->r, e);
    if (!rc) say_layer(&rep);
    tweak_input_clear(&in);
    return rc;
}

static int all_layers(struct run *u, struct err *e)
{
    size_t n = (size_t)tweak_norm_values(u->tw);
    float *old_v = MEM_NEW(float, n), *new_v = MEM_NEW(float, n);
    int rc = 0;
    stream_tee(u->r, u->w, "target"); /* its use ends here */
    for (int l = u->job->acts->first; !rc && l < u->job->acts->end; l++)
        rc = one_layer(u, l, old_v, new_v, e);
    if (!rc) rc = tweak_read_rest(u->r, u->m, e);
    mem_free(old_v);
    mem_free(new_v);
    return rc;
}

/* The output appears last of all files: it says that the others are there. */
static int finish(struct run *u, const struct tweak_verdict *v, struct err *e)
{
    stream_note_input(u->w, u->r);
    tweak_acts_note(u->job->acts, u->job->tk, u->w);
    json_t *extra = tweak_trailer(v, stream_trailer(u->r));
    int rc = u->report ? outfile_commit(u->report, e) : 0;
    if (!rc) rc = tweak_acts_finish(u->job->acts, e);
    if (!rc) rc = stream_finish(u->w, extra, e);
    json_decref(extra);
    return rc;
}

int tweak_run(struct model *m, const struct tweak_job *job, struct tweak_verdict *v, struct err *e)
{
    struct run u = {.m = m, .job = job};
    int rc = open_input(&u, e);
    if (!rc) tool_predict(tweak_bytes(&m->c, job->tk, job->o), 0, NULL);
    if (!rc) rc = open_output(&u, e);
    if (!rc) rc = (u.tw = tweak_open(m, job->tk, job->o, e)) ? 0 : -1;
    if (!rc) rc = tweak_acts_start(job->acts, u.tw, m, job->tk, json_object_get(u.header, "params"), u.r, e);
    if (!rc) progress_start("tweak", "sequences", tweak_work(u.tw, job->layers));
    if (!rc) rc = all_layers(&u, e);
    if (!rc) rc = tweak_judge(u.tw, v, e);
    if (!rc) progress_end();
    if (!rc) rc = finish(&u, v, e);
    json_decref(u.header);
    stream_close(u.r);
    tweak_close(u.tw);
    return rc;
}
