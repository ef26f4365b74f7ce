/* SPDX-License-Identifier: Apache-2.0
 * nt-collect: tokens -> stats. Runs the float model over the training sequences, layer by layer, and writes
 * what the input of every linear looked like; with --acts-in, on the inputs that quantized layers produce. */
#include <string.h>
#include <sys/stat.h>

#include "common/collect.h"
#include "common/outfile.h"
#include "common/tool.h"

static struct tool tool;
static const char *tokens_path, *want = "hessian,sums,absmax,targets", *shard = "0/1", *imatrix_path, *acts_path;

static const struct opt options[] = {
    {0, "tokens", OPT_STR, &tokens_path, "FILE", "the tokens stream, instead of the operand or stdin"},
    {0, "want", OPT_STR, &want, "LIST",
     "of hessian,sums,absmax,rows:N,targets; nt-quant -q NAME --needs prints it"},
    {0, "shard", OPT_STR, &shard, "I/N", "only run I (from 0) of the training sequences cut into N runs"},
    {0, "acts-in", OPT_STR, &acts_path, "FILE",
     "inputs of the layers after the first, from nt-tweak --acts-out"},
    {0, "imatrix", OPT_STR, &imatrix_path, "FILE", "also write llama.cpp's importance matrix (GGUF)"},
    {0, NULL, OPT_FLAG, NULL, NULL, NULL},
};

static void parse_options(struct collect_opts *o, int argc, char **argv)
{
    struct err e = {0};
    tool_start(&tool, "nt-collect", "[TOKENS.nts]",
               "statistics of every linear's input, from the float model", options, argc, argv);
    if (!tool.model) die_usage("-m MODEL is missing");
    if (tool.argc > 1 || (tool.argc == 1 && tokens_path)) die_usage("more than one tokens stream is given");
    if (tool.argc == 1) tokens_path = tool.argv[0];
    if (!tokens_path) tokens_path = "-";
    if (stats_want_parse(want, &o->want, &e) < 0 || collect_shard_parse(shard, o, &e) < 0) die(&e);
    o->seed = (uint64_t)tool.seed;
    o->acts = acts_path;
}

/* --layers A:B within the model. */
static void choose_layers(struct collect_opts *o, const struct model *m)
{
    int64_t a = tool.layers[0], b = tool.layers[1] < m->c.n_layers ? tool.layers[1] : m->c.n_layers;
    if (a < 0 || a >= b)
        die_usage("--layers %lld:%lld holds none of the model's %d layers", (long long)a,
                  (long long)tool.layers[1], m->c.n_layers);
    o->layers[0] = (int)a;
    o->layers[1] = (int)b;
}

/* A file that takes disk space, unlike stdout, a FIFO or a device. */
static const char *regular_output(void)
{
    struct stat st;
    if (!strcmp(tool.out, "-") || (stat(tool.out, &st) == 0 && !S_ISREG(st.st_mode))) return NULL;
    return tool.out;
}

/* Number of sequences that will be run. */
static int predict(const struct model *m, const struct tokens *t, const struct collect_opts *o)
{
    struct err e = {0};
    int first, n;
    uint64_t mem, disk;
    if (t->T > m->c.max_pos) {
        err_set(&e, NT_EXIT_DATA, "%s: sequences of %d tokens, but the model has %d positions", tokens_path,
                t->T, m->c.max_pos);
        die(&e);
    }
    if (collect_range(t, o, &first, &n, &e) < 0) die(&e);
    collect_predict(m, t, o, n, &mem, &disk);
    tool_predict(mem, disk, regular_output());
    note("%d training sequences of %d tokens (%d held out)", n, t->T, t->n_holdout);
    return n;
}

/* In a ring nobody may be left to say why: here the end of the pipe's reader is worth a word. */
static void fail(const struct err *e)
{
    if (acts_path && e->code == NT_EXIT_IO && outfile_stdout_gone()) warn("%s", e->text);
    die(e);
}

int main(int argc, char **argv)
{
    struct err e = {0};
    struct collect_opts o = {.n_shards = 1};
    struct tokens t;
    struct imatrix *im = NULL;

    parse_options(&o, argc, argv);
    struct backend *be = tool_backend(&tool);
    struct model *m = model_open(tool.model, be, &e);
    if (!m || tokens_read(tokens_path, m->c.vocab, &t, &e) < 0) die(&e);
    choose_layers(&o, m);
    int n = predict(m, &t, &o);

    if (imatrix_path) im = imatrix_open(imatrix_path, t.hash, (uint32_t)n, (uint32_t)t.T, &e);
    struct outfile *out = imatrix_path && !im ? NULL : outfile_open(tool.out, &e);
    if (!out) die(&e);
    o.watch_fd = outfile_watch_fd(out);
    json_t *header = collect_header(m, &t, &o);
    struct stream_writer *w = stream_create(out, header, &e);
    json_decref(header);
    if (!w) fail(&e);
    stream_note_provenance(w, t.provenance);
    int rc = collect_run(m, &t, &o, w, im, &e);
    if (rc == 0 && im)
        rc = imatrix_finish(im, &e);
    else
        imatrix_discard(im);
    if (rc < 0)
        stream_abort(w, &e);
    else
        rc = stream_finish(w, NULL, &e);

    tokens_clear(&t);
    model_close(m);
    backend_close(be);
    if (rc < 0 && tool_stopping()) tool_exit_signal();
    if (rc < 0) fail(&e);
    tool_finish(0);
}
