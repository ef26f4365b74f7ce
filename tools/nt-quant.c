/* SPDX-License-Identifier: Apache-2.0
 * stats -> qweights: codes and scales for the linears of every block, by one of the methods in
 * common/quantizers. */
#include <stdio.h>
#include <string.h>
#include "common/import_rest.h"
#include "common/mem.h"
#include "common/quantize.h"
#include "common/tool.h"

static struct {
    const char *method, *clip, *scale, *plan, *dead;
    int64_t bits, group, block, dead_below;
    bool sym, act_order, static_groups, f64, needs;
    double damp;
} arg = {.bits = 4,
         .group = 128,
         .block = 128,
         .clip = "none",
         .scale = "f16",
         .damp = 0.01,
         .dead = "error",
         .dead_below = 1};

static const struct opt options[] = {
    {'q', "quantizer", OPT_STR, &arg.method, "NAME|list|import",
     "method; list prints all; import passes the codes of a quantized checkpoint on"},
    {'b', "bits", OPT_INT, &arg.bits, "BITS=2..8", "bits of a code"},
    {'g', "group", OPT_INT, &arg.group, "GROUP=0..", "weights that share a scale, 0: a whole row"},
    {0, "sym", OPT_FLAG, &arg.sym, NULL, "symmetric levels, no zeros stored"},
    {0, "act-order", OPT_FLAG, &arg.act_order, NULL,
     "columns of loud inputs first (implies --static-groups)"},
    {0, "static-groups", OPT_FLAG, &arg.static_groups, NULL,
     "scales from the original, not the updated weights"},
    {0, "damp", OPT_F64, &arg.damp, "F=0..1000", "damping, a fraction of the Hessian's mean diagonal"},
    {0, "clip", OPT_CHOICE, &arg.clip, "none|mse", "search smaller ranges for the least error"},
    {0, "scale-dtype", OPT_CHOICE, &arg.scale, "f16|f32|bf16", "how scales are stored"},
    {0, "block", OPT_INT, &arg.block, "N=1..1048576", "columns per lazy update"},
    {0, "f64", OPT_FLAG, &arg.f64, NULL, "compute in double precision throughout"},
    {0, "dead", OPT_CHOICE, &arg.dead, "error|rtn|borrow",
     "experts that no token reached: refuse, round, or use the statistics of all"},
    {0, "dead-below", OPT_INT, &arg.dead_below, "N=1..", "fewer tokens than this make an expert dead"},
    {0, "plan", OPT_STR, &arg.plan, "FILE", "method, bits, group per tensor"},
    {0, "needs", OPT_FLAG, &arg.needs, NULL, "print the statistics the method needs, for nt-collect --want"},
    {0}};

static void list_methods(void)
{
    const struct quantizer *qz;
    bool said = false;
    for (int i = 0; (qz = quantizer_at(i)); i++) {
        if (!said && strcmp(qz->name, "import") > 0)
            said = printf("%-12s %s\n", "import", "the codes of a quantized checkpoint, untouched") > 0;
        printf("%-12s %s%s%s\n", qz->name, qz->summary, qz->needs[0] ? "; needs " : "", qz->needs);
    }
    tool_finish(0);
}

static void read_plan(struct plan *plan)
{
    struct quant_opts o;
    struct err e = {0};
    const struct quantizer *qz = arg.method ? quantizer_find(arg.method) : NULL;

    if (!arg.method) die_usage("no method: -q NAME (nt-quant -q list prints them)");
    if (!strcmp(arg.method, "list")) list_methods();
    if (!qz) die_usage("unknown method '%s' (nt-quant -q list prints them)", arg.method);
    quant_opts_init(&o);
    o.bits = (int)arg.bits;
    o.group = arg.group > INT32_MAX ? 0 : (int)arg.group;
    o.block = (int)arg.block;
    o.sym = arg.sym;
    o.act_order = arg.act_order;
    o.static_groups = arg.static_groups;
    o.damp = arg.damp;
    o.clip_mse = !strcmp(arg.clip, "mse");
    o.true_f64 = arg.f64;
    o.scale_dtype = quant_scale_dtype(arg.scale);
    if (quant_opts_check(&o, &e) || plan_read(arg.plan, qz, &o, plan, &e)) die(&e);
}

static void progress(const struct quantize *z, int layer, int done)
{
    progress_at(done, "layer %d, %.3f bits", layer, quantize_bits(z));
}

/* Targets serve a tweak of the quantized stream, of which the float one is the first layer alone. */
static struct stats_targets targets(const struct quantize *z, const json_t *header, struct stream_writer *w)
{
    const char *stream = json_string_value(json_object_get(json_object_get(header, "params"), "stream"));
    return (struct stats_targets){w, z->first, stream && !strcmp(stream, "quantized") ? z->end : 1};
}

/* Every wanted layer, from the stream (in its order) or, when nothing is needed, one after the other. */
static int all_layers(struct quantize *z, struct stream_reader *in, struct stream_writer *w, struct err *e)
{
    int n_sites = block_sites(&z->m->c.block), rc = 0, layer, done = 0;
    struct site_stats *st = MEM_NEW(struct site_stats, n_sites);
    struct stats_targets to = targets(z, in ? stream_header(in) : NULL, w);
    for (int l = z->first; !in && !rc && l < z->end && !tool_stopping(); l++) {
        rc = quantize_layer(z, w, l, NULL, e);
        progress(z, l, ++done);
    }
    while (in && !rc && !tool_stopping() && (rc = stats_read_layer(in, &layer, st, n_sites, &to, e)) == 1) {
        rc = quantize_layer(z, w, layer, st, e);
        for (int t = 0; t < n_sites; t++) site_stats_clear(&st[t]);
        progress(z, layer, done += !rc && z->done[layer]);
    }
    mem_free(st);
    if (!rc && tool_stopping()) rc = err_set(e, 128 + err_stop_signal, "stopped by a signal");
    return rc ? rc : in ? quantize_check_complete(z, stream_name(in), e) : 0;
}

static void finish(struct stream_writer *w, struct quantize *z, const struct plan *plan)
{
    struct err e = {0};
    json_t *extra = json_pack("{s:s, s:s, s:f}", "verdict", "none", "norms", "old", "bits", quantize_bits(z));
    int rc = stream_finish(w, extra, &e);
    json_decref(extra);
    if (rc) die(&e);
    for (size_t i = 0; i + 1 < plan->n; i++)
        if (!plan->rules[i].matched) warn("%s: no tensor matches '%s'", arg.plan, plan->rules[i].pattern);
    note("%.4f bits per weight of the linears", quantize_bits(z));
}

int main(int argc, char **argv)
{
    struct tool t;
    struct plan plan = {0};
    struct quantize z;
    struct err e = {0};
    char needs[128] = "";

    tool_start(&t, "nt-quant", "[STATS.nts|CKPT]", "quantizes the linears of a model's blocks", options, argc,
               argv);
    bool import = arg.method && !strcmp(arg.method, "import");
    if (import && t.argc == 1 && !t.model) t.model = t.argv[0], t.argc = 0;
    if (!import) read_plan(&plan), plan_needs(&plan, needs, sizeof needs);
    if (arg.needs) {
        puts(needs);
        tool_finish(0);
    }
    if (!t.model) die_usage("no model: -m MODEL (its weights are what is quantized)");
    if (t.argc > 1) die_usage("one stats stream at most (merge shards with nt-stream merge)");
    if (t.argc && !needs[0]) die_usage("%s: -q %s reads no statistics", t.argv[0], arg.method);

    if (t.precision[0] == 'b') note("--precision bf16 changes nothing here: codes are chosen in f32 or f64");
    t.precision = "f32";
    struct backend *be = tool_backend(&t);
    struct model *m = model_open(t.model, NULL, &e);
    if (!m || quantize_init(&z, m, import ? NULL : &plan, be, t.layers[0], t.layers[1], &e)) die(&e);
    z.dead_below = (uint64_t)arg.dead_below;
    z.dead = !strcmp(arg.dead, "rtn") ? DEAD_RTN : !strcmp(arg.dead, "borrow") ? DEAD_BORROW : DEAD_ERROR;
    tool_predict(quantize_bytes(&m->c, needs[0], arg.f64), 0, NULL);
    struct stream_reader *in = needs[0] ? stream_open(t.argc ? t.argv[0] : "-", "stats", &e) : NULL;
    if (needs[0] && (!in || model_check_identity(m, stream_header(in), stream_name(in), &e))) die(&e);

    struct outfile *out = outfile_open(t.out, &e);
    if (!out) die(&e);
    if (in) stream_watch(in, outfile_watch_fd(out));
    json_t *header = quantize_header(&z, in ? stream_header(in) : NULL);
    struct stream_writer *w = stream_create(out, header, &e);
    json_decref(header);
    if (!w) die(&e);
    progress_start("quantize", "layers", z.end - z.first);
    if (all_layers(&z, in, w, &e)) {
        stream_abort(w, &e);
        if (tool_stopping()) tool_exit_signal();
        die(&e);
    }
    progress_end();
    if (import && import_rest_write(m, z.first, z.end, w, &e)) {
        stream_abort(w, &e);
        die(&e);
    }
    if (in) stream_note_input(w, in);
    finish(w, &z, &plan);
    stream_close(in);
    quantize_clear(&z);
    model_close(m);
    backend_close(be);
    plan_clear(&plan);
    tool_finish(0);
}
