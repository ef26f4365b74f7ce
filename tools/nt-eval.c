/* SPDX-License-Identifier: Apache-2.0
 * MODEL or qweights -> table: perplexity by named protocol, KL and agreement with a float model, LAMBADA,
 * drift per layer; or raw numbers as safetensors. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/eval.h"
#include "common/mem.h"
#include "common/tool.h"

static struct tool t;
static struct {
    const char *qweights, *norms, *ppl, *protocol, *windows, *tokens, *lambada, *ref, *label, *ids, *dump;
    int64_t items;
    bool json, no_drift;
} o = {.norms = "verdict", .protocol = "gptq-2048", .items = 0};

static const struct opt opts[] = {
    {0, "qweights", OPT_STR, &o.qweights, "FILE",
     "evaluate this stream's linears and norms in the model's place"},
    {0, "norms", OPT_CHOICE, &o.norms, "verdict|old|new", "which norms of the stream count"},
    {0, "ppl", OPT_STR, &o.ppl, "TEXT", "perplexity of a text file"},
    {0, "protocol", OPT_CHOICE, &o.protocol, EVAL_PROTOCOLS, "how a text becomes windows"},
    {0, "windows", OPT_STR, &o.windows, "N|A:B", "only the first N windows, or A to B - 1"},
    {0, "tokens", OPT_STR, &o.tokens, "FILE", "perplexity of the held-out sequences of a tokens stream"},
    {0, "lambada", OPT_STR, &o.lambada, "FILE", "last words of a jsonl file of objects with \"text\""},
    {0, "items", OPT_INT, &o.items, "N=0..", "only the first N items of --lambada, 0 = all"},
    {0, "ref", OPT_STR, &o.ref, "MODEL", "float model: adds kl, top1 and drift"},
    {0, "no-drift", OPT_FLAG, &o.no_drift, NULL, "with --ref: leave drift_mean and drift_var out"},
    {0, "label", OPT_STR, &o.label, "NAME", "what the model column says"},
    {0, "json", OPT_FLAG, &o.json, NULL, "an array of objects instead of tab-separated lines"},
    {0, "ids", OPT_STR, &o.ids, "FILE", "token ids for --dump: a JSON array of arrays"},
    {0, "dump", OPT_STR, &o.dump, "LIST", "nll,logits,hidden,norm-grads of --ids into -o"},
    {0},
};

static struct err e;
#define MUST(call)                                                                                           \
    do {                                                                                                     \
        if (call) die(&e);                                                                                   \
    } while (0)

static void parse_windows(int64_t range[2])
{
    char *end = NULL;
    range[0] = 0, range[1] = INT64_MAX;
    if (!o.windows) return;
    const char *colon = strchr(o.windows, ':');
    if (colon && colon != o.windows) range[0] = strtoll(o.windows, &end, 10);
    if (colon && end && end != colon) range[0] = -1;
    const char *to = colon ? colon + 1 : o.windows;
    end = NULL;
    if (*to) range[1] = strtoll(to, &end, 10);
    if (range[0] < 0 || range[1] <= range[0] || (end && *end) || (!*to && !colon))
        die_usage("--windows: '%s' is neither N nor A:B", o.windows);
}

/* --label, or the last part of the path. */
static const char *model_label(void)
{
    static char name[256];
    const char *path = o.qweights && strcmp(o.qweights, "-") ? o.qweights : t.model;
    size_t n = strlen(path), at;
    while (n > 1 && path[n - 1] == '/') n--;
    for (at = n; at && path[at - 1] != '/';) at--;
    snprintf(name, sizeof name, "%.*s", (int)(n - at), path + at);
    return o.label ? o.label : name;
}

static void measure(struct score_source *s, struct model *ref, struct score_set *set,
                    struct score_drift *drift, const char *what)
{
    if (!set->n) die_usage("nothing to measure");
    note("%s: %llu tokens; %s", what, (unsigned long long)score_tokens(set), t.precision);
    tool_predict(score_bytes(&s->m->c, set, ref != NULL), 0, NULL);
    MUST(score_run(s, ref, set, drift, &e));
}

/* Perplexity of a text or of a tokens stream, with everything --ref adds. */
static void windows(struct score_source *s, struct model *ref, const struct tokenizer *tok,
                    struct eval_table *table)
{
    struct score_set set = {0};
    struct eval_protocol p;
    char rule[160] = "ids as they are";
    int64_t range[2];
    parse_windows(range);
    if (o.tokens)
        MUST(eval_token_windows(&set, &p, o.tokens, s->m->c.vocab, &e));
    else
        p = *eval_protocol_find(o.protocol);
    struct pages *pages = NULL;
    if (!o.tokens && p.pages) {
        p.T = s->m->c.max_pos;
        if (!(pages = pages_read(o.ppl, range, tok, p.T, &set, rule, &e))) die(&e);
    } else if (!o.tokens) {
        MUST(eval_windows(&set, &p, tok, o.ppl, range, rule, &e));
    }
    struct score_drift *drift = ref && !o.no_drift ? MEM_NEW(struct score_drift, s->m->c.n_layers) : NULL;
    note("protocol %s: windows of %d, %s, %.3f bits per weight", p.name, p.T, rule, table->bits);
    measure(s, ref, &set, drift, o.tokens ? o.tokens : o.ppl);
    eval_window_rows(table, &set, &p, drift, s->m->c.n_layers);
    if (pages) pages_rows(table, pages, &set, p.name);
    pages_free(pages);
    mem_free(drift);
    score_clear(&set);
}

static void last_words(struct score_source *s, const struct tokenizer *tok, struct eval_table *table)
{
    struct score_set set = {0};
    struct lambada *l = lambada_read(o.lambada, o.items ? o.items : INT64_MAX, tok, &set, &e);
    if (!l) die(&e);
    measure(s, NULL, &set, NULL, o.lambada);
    lambada_row(table, l, &set);
    lambada_free(l);
    score_clear(&set);
}

static void check_usage(void)
{
    if (!t.model) die_usage("no model: -m MODEL");
    if (t.argc) die_usage("unexpected argument %s", t.argv[0]);
    if (t.layers[0] || t.layers[1] != INT64_MAX) die_usage("--layers: a model is measured whole");
    if (!o.dump != !o.ids) die_usage("--ids and --dump go together");
    if (o.dump && (o.ppl || o.tokens || o.lambada)) die_usage("--dump measures nothing: give it alone");
    if (o.ppl && o.tokens) die_usage("--ppl and --tokens are alternatives");
    if (!o.dump && !o.ppl && !o.tokens && !o.lambada)
        die_usage("nothing to measure: --ppl, --tokens, --lambada or --dump");
}

int main(int argc, char **argv)
{
    struct dump_request want = {0};
    struct eval_table table = {0};
    tool_start(&t, "nt-eval", "", "measure a model or a qweights stream", opts, argc, argv);
    check_usage();
    if (o.dump) MUST(dump_parse(o.dump, &want, &e));
    struct backend *be = tool_backend(&t);
    struct score_source s = {.m = model_open(t.model, be, &e)};
    if (!s.m) die(&e);
    if (o.qweights && !(s.q = qweights_open(o.qweights, s.m, o.norms, &e))) die(&e);
    if (o.qweights) note("%s: %s norms", o.qweights, qweights_norms(s.q));
    if (o.dump) {
        MUST(dump_run(&s, o.ids, &want, t.out, &e));
    } else {
        struct model *ref = o.ref ? model_open(o.ref, be, &e) : NULL;
        struct tokenizer *tok = o.ppl || o.lambada ? tokenizer_open(t.model, &e) : NULL;
        if (e.code) die(&e);
        double start = now_seconds();
        table.bf16 = be->bf16;
        table.model = model_label(), table.bits = s.q ? qweights_bits(s.q) : score_model_bits(s.m);
        if (o.ppl || o.tokens) windows(&s, ref, tok, &table);
        table.seconds = now_seconds() - start;
        if (o.lambada) last_words(&s, tok, &table);
        MUST(eval_write(&table, t.out, o.json, &e));
        tokenizer_free(tok);
        model_close(ref);
    }
    eval_clear(&table);
    qweights_close(s.q);
    model_close(s.m);
    backend_close(be);
    tool_finish(0);
}
