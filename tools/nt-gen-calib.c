/* SPDX-License-Identifier: Apache-2.0
 * nt-gen-calib: model -> tokens. Calibration data that the model writes itself, or windows of a text; and the
 * tokenizer on its own. */
#include <stdio.h>
#include <string.h>

#include "common/calib.h"
#include "common/outfile.h"
#include "common/tool.h"

static struct tool tool;
static struct calib_opts o = {
    .scheme = "norm-tweaking", .holdout = 0.125, .temperature = 1, .languages = "en,es,pt,zh,fr"};
static int64_t n = 128, T = 2048, batch = 32, top_k = 50;
static bool encode, decode, special;

static const struct opt options[] = {
    {0, "scheme", OPT_CHOICE, &o.scheme, "norm-tweaking|llm-qat|text", "where the sequences come from"},
    {'n', "sequences", OPT_INT, &n, "N=1..1048576", "sequences, those held out included"},
    {'T', "tokens", OPT_INT, &T, "T=2..1048576", "tokens of each sequence"},
    {0, "holdout", OPT_RATIO, &o.holdout, "RATIO=0..0.9", "share that is held out: the last sequences"},
    {0, "text", OPT_STR, &o.text, "FILE",
     "scheme text: plain text, or JSON objects with \"text\", one a line"},
    {0, "batch", OPT_INT, &batch, "B=1..4096", "sequences decoded at a time; part of the method"},
    {0, "languages", OPT_STR, &o.languages, "LIST", "scheme norm-tweaking: languages of the first token"},
    {0, "top-k", OPT_INT, &top_k, "K=0..", "sample from the K likeliest tokens; 0 = all"},
    {0, "temperature", OPT_F64, &o.temperature, "F=0.01..100", "of the sampling"},
    {0, "encode", OPT_FLAG, &encode, NULL, "JSON strings on stdin to arrays of ids, one a line"},
    {0, "decode", OPT_FLAG, &decode, NULL, "and back"},
    {0, "special", OPT_FLAG, &special, NULL, "with --encode: add what the model's template adds"},
    {0, NULL, OPT_FLAG, NULL, NULL, NULL},
};

static void parse_options(int argc, char **argv)
{
    tool_start(&tool, "nt-gen-calib", "",
               "calibration tokens that a model writes itself, or windows of a text", options, argc, argv);
    bool text = !strcmp(o.scheme, "text");
    if (!tool.model) die_usage("-m MODEL is missing");
    if (tool.argc) die_usage("unexpected operand '%s'", tool.argv[0]);
    if (encode && decode) die_usage("--encode and --decode exclude each other");
    if ((encode || decode) && strcmp(tool.out, "-")) die_usage("--encode and --decode write to stdout");
    if (tool.layers[0] || tool.layers[1] != INT64_MAX) die_usage("--layers: all layers are needed");
    if (special && !encode) die_usage("--special goes with --encode");
    if (text && !o.text) die_usage("--scheme text needs --text FILE");
    if (!text && o.text) die_usage("--text goes with --scheme text");
    if (n > (int64_t)INT32_MAX / T) die_usage("-n %lld -T %lld: too many tokens", (long long)n, (long long)T);
    o.n = (int)n;
    o.T = (int)T;
    o.batch = (int)batch;
    o.top_k = (int)(top_k < INT32_MAX ? top_k : INT32_MAX);
    o.seed = (uint64_t)tool.seed;
}

/* --encode, --decode: no model is read, only its tokenizer. */
static void convert(struct tokenizer *t)
{
    struct err e = {0};
    int r =
        encode ? calib_encode_lines(t, special, stdin, stdout, &e) : calib_decode_lines(t, stdin, stdout, &e);
    tokenizer_free(t);
    if (r && tool_stopping()) tool_exit_signal();
    if (r) die(&e);
    tool_finish(0);
}

int main(int argc, char **argv)
{
    struct err e = {0};
    parse_options(argc, argv);
    struct tokenizer *t = tokenizer_open(tool.model, &e);
    if (!t) die(&e);
    if (encode || decode) convert(t);

    struct backend *be = tool_backend(&tool);
    struct model *m = model_open(tool.model, be, &e);
    if (!m || calib_check(m, t, &o, &e)) die(&e);
    tool_predict(calib_bytes(m, &o), 0, NULL);
    struct outfile *out = outfile_open(tool.out, &e);
    if (!out) die(&e);
    json_t *header = calib_header(m, &o);
    struct stream_writer *w = stream_create(out, header, &e);
    json_decref(header);
    if (!w) die(&e);
    int r = strcmp(o.scheme, "text") ? calib_generate(m, t, &o, w, &e) : calib_text(t, &o, w, &e);
    if (r)
        stream_abort(w, &e);
    else
        r = stream_finish(w, NULL, &e);

    model_close(m);
    tokenizer_free(t);
    backend_close(be);
    if (r && tool_stopping()) tool_exit_signal();
    if (r) die(&e);
    tool_finish(0);
}
