/* SPDX-License-Identifier: Apache-2.0
 * Which layers a run covers, and when the stream of boundaries starts and ends. */
#include "common/tweak_acts.h"
#include <poll.h>
#include <string.h>
#include <unistd.h>
#include "common/acts.h"

int tweak_acts_open(struct tweak_acts *a, bool stdin_input, struct err *e)
{
    if (!a->out) return 0;
    a->file = acts_open_ring(a->out, stdin_input, e);
    if (!a->file) return -1;
    a->pipe = !outfile_is_temporary(a->file);
    return 0;
}

int tweak_acts_range(struct tweak_acts *a, const struct model *m, const int64_t layers[2], struct err *e)
{
    bool part = a->in || a->out;
    a->first = part ? (int)layers[0] : 0;
    a->end = part && layers[1] < m->c.n_layers ? (int)layers[1] : m->c.n_layers;
    if (a->in && !a->first)
        return err_set(e, NT_EXIT_USAGE,
                       "--acts-in: the input of layer 0 comes from the tokens; give --layers A:B");
    if (!a->in && a->first)
        return err_set(e, NT_EXIT_USAGE, "--acts-out from layer %d on: --acts-in must give its input",
                       a->first);
    if (a->first >= a->end)
        return err_set(e, NT_EXIT_USAGE, "--layers %d:%d holds no layer", a->first, a->end);
    return 0;
}

/* The stages before this one wrote the file with the same options, or it is of another run. */
static int read_start(struct tweak_acts *a, struct tweak *t, struct model *m, const struct tokens *tk,
                      const json_t *params, struct err *e)
{
    struct acts_path p[TWEAK_PATHS];
    int n = tweak_paths(t, p);
    struct stream_reader *r = acts_open(a->in, -1, m, tk->hash, e);
    int rc = !r || acts_check_params(r, params, e) || acts_read(r, p, n, a->first, e) || acts_read_rest(r, e)
                 ? -1
                 : 0;
    if (rc == 0) a->from = stream_provenance(r);
    stream_close(r);
    if (rc == 0) tweak_start_at(t, a->first);
    return rc;
}

/* Why the ring's reader went away: the stage between it and this one may have heard. */
static void add_reason(struct stream_reader *r, struct err *e)
{
    struct pollfd in = {STDIN_FILENO, POLLIN, 0};
    struct record rec;
    struct err why = {0};
    int got = !strcmp(stream_name(r), "<stdin>");
    stream_tee(r, NULL, NULL);
    while (got > 0 && poll(&in, 1, 2000) > 0) got = stream_next(r, &rec, &why);
    if (got < 0) {
        struct err first = *e;
        memset(e, 0, sizeof *e);
        err_set(e, first.code, "%.200s (%.250s)", first.text, why.text);
    }
}

/* Nothing more will come: the last block's output is nobody's input. */
static bool all_written(const struct tweak_acts *a, const struct model *m, int next)
{
    return next >= a->end || next + 1 >= m->c.n_layers;
}

void tweak_acts_note(const struct tweak_acts *a, const struct tokens *tk, struct stream_writer *w)
{
    stream_note_provenance(w, tk->provenance);
    if (a->from) stream_note_provenance(w, a->from);
}

int tweak_acts_start(struct tweak_acts *a, struct tweak *t, struct model *m, const struct tokens *tk,
                     const json_t *params, struct stream_reader *r, struct err *e)
{
    if (a->in && read_start(a, t, m, tk, params, e)) return -1;
    if (!a->out) return 0;
    json_t *header = acts_header(m, tk->hash, params);
    a->w = stream_create(a->file, header, e);
    json_decref(header);
    if (!a->w && a->pipe) add_reason(r, e);
    if (!a->w) return -1;
    tweak_acts_note(a, tk, a->w);
    return a->pipe && m->c.n_layers - a->first < 2 ? tweak_acts_finish(a, e) : 0;
}

int tweak_acts_layer(struct tweak_acts *a, struct tweak *t, int layer, struct stream_reader *r, struct err *e)
{
    struct acts_path p[TWEAK_PATHS];
    const struct model *m = tweak_model(t);
    if (!a->w || layer + 1 >= m->c.n_layers) return 0;
    int n = tweak_paths(t, p), rc = acts_write(a->w, p, n, layer + 1, e);
    if (rc == 0 && a->pipe && all_written(a, m, layer + 1)) rc = tweak_acts_finish(a, e);
    if (rc < 0 && e->code == NT_EXIT_IO && a->pipe) add_reason(r, e);
    return rc;
}

int tweak_acts_finish(struct tweak_acts *a, struct err *e)
{
    struct stream_writer *w = a->w;
    a->w = NULL;
    return w ? stream_finish(w, NULL, e) : 0;
}
