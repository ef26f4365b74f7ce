/* SPDX-License-Identifier: Apache-2.0
 * qweights -> a checkpoint for other tools; norms alone, or into a finished checkpoint; a stream as text; a
 * run as one file. */
#include <stdio.h>
#include <string.h>
#include "common/bundle.h"
#include "common/pack.h"
#include "common/tool.h"

static struct {
    const char *format, *like, *dtype, *norm_dtype, *norms, *apply, *norms_into, *bundle, *unbundle;
    uint64_t max_shard;
    bool unchecked, text, loose;
} arg = {.norms = "verdict", .max_shard = 5ull << 30};

static const struct opt options[] = {
    {0, "format", OPT_STR, &arg.format, "NAME|list", "what to write; list prints all of them"},
    {0, "like", OPT_STR, &arg.like, "FILE",
     "gguf: template whose keys and tensor order are kept (default: a GGUF MODEL)"},
    {0, "loose", OPT_FLAG, &arg.loose, NULL,
     "gguf: codes that fit no block type become floats, not a refusal"},
    {0, "dtype", OPT_CHOICE, &arg.dtype, "f32|f16|bf16",
     "directories: type of float tensors (default hf f32, others f16)"},
    {0, "norm-dtype", OPT_CHOICE, &arg.norm_dtype, "f32|f16|bf16",
     "directories: type of norms (default f32, hf and mlx --dtype); what --norms-into rounds to"},
    {0, "max-shard-size", OPT_SIZE, &arg.max_shard, "SIZE",
     "directories: split the tensors into files of at most this; 0: one file"},
    {0, "norms", OPT_CHOICE, &arg.norms, "verdict|new|old",
     "which norms; verdict: those that the stream's trailer names"},
    {0, "norms-into", OPT_STR, &arg.norms_into, "CKPT", "copy CKPT byte by byte but for its norms"},
    {0, "apply", OPT_STR, &arg.apply, "OVERLAY", "copy MODEL byte by byte but for the norms of an overlay"},
    {0, "unchecked", OPT_FLAG, &arg.unchecked, NULL, "with --apply: do not compare the weights first"},
    {0, "bundle", OPT_STR, &arg.bundle, "FILE",
     "archive directories and streams (the operands) of a run, tar.zst"},
    {0, "unbundle", OPT_STR, &arg.unbundle, "FILE", "unpack such an archive to the new directory -o DIR"},
    {'t', "text", OPT_FLAG, &arg.text, NULL, "print any stream as text"},
    {0}};

static void list_formats(void)
{
    const struct packer *k;
    for (int i = 0; (k = packer_at(i)); i++) printf("%-18s %s\n", k->name, k->summary);
    tool_finish(0);
}

static enum dtype parse_dtype(const char *s)
{
    return !s ? DT_NONE : !strcmp(s, "f32") ? DT_F32 : !strcmp(s, "f16") ? DT_F16 : DT_BF16;
}

static void need_file(const struct tool *t)
{
    if (!strcmp(t->out, "-")) die_usage("no output: -o NEW");
}

static void say_norms(const struct pack *p, enum dtype dtype)
{
    const char *verdict = json_string_value(json_object_get(p->trailer, "verdict"));
    struct pack_change c = pack_norm_change(p, dtype);
    if (verdict && strcmp(verdict, "none"))
        note("verdict %s: the %s norms", verdict, p->tuned ? "new" : "old");
    if (!p->tuned) return;
    note("norms: %llu of %llu elements changed, %llu still as %s", (unsigned long long)c.changed,
         (unsigned long long)c.elements, (unsigned long long)c.kept, dtype_name(dtype));
    if (!c.kept) warn("no element of any norm differs from the old one");
}

static void say_result(const struct norms_result *r)
{
    printf("norms\t%llu\nelements\t%llu\nmoved\t%llu\nchanged\t%llu\nfraction\t%.6f\nkept\t%.6f\ntype\t%s\n",
           (unsigned long long)r->tensors, (unsigned long long)r->elements, (unsigned long long)r->moved,
           (unsigned long long)r->changed, r->elements ? (double)r->changed / (double)r->elements : 0,
           r->kept, dtype_name(r->dtype));
    if (!r->changed) warn("no element of any norm changed");
}

/* --apply, --norms-into: the result is a copy, the numbers go to stdout. */
static void into_checkpoint(const struct tool *t, struct pack *p, const char *stream, enum pack_which which)
{
    struct norms_result r;
    struct err e = {0};
    need_file(t);
    if (arg.apply) {
        if (!t->model) die_usage("no checkpoint: -m MODEL");
        if (pack_apply(arg.apply, t->model, t->out, arg.unchecked, parse_dtype(arg.norm_dtype), &r, &e))
            die(&e);
    } else {
        p->norm_dtype = parse_dtype(arg.norm_dtype);
        if (pack_read(p, stream, which, t->layers[0], t->layers[1], &e)) die(&e);
        if (pack_norms_into(p, arg.norms_into, t->out, &r, &e)) die(&e);
        pack_clear(p);
    }
    say_result(&r);
    tool_finish(0);
}

static void print_text(const struct tool *t, const char *stream)
{
    struct err e = {0};
    if (strcmp(t->out, "-")) die_usage("-t prints on stdout");
    if (pack_text(stream, stdout, &e)) die(&e);
    tool_finish(0);
}

/* A run into one file. */
static void bundle(const struct tool *t)
{
    struct bundle b;
    struct err e = {0};
    if (!t->argc) die_usage("--bundle: which directory or streams?");
    if (strcmp(t->out, "-")) die_usage("--bundle FILE is the output: no -o");
    if (bundle_list(&b, t->argv, t->argc, warn, &e)) die(&e);
    tool_predict(0, bundle_bytes(&b), strcmp(arg.bundle, "-") ? arg.bundle : NULL);
    struct outfile *out = outfile_open(arg.bundle, &e);
    if (!out || bundle_write(&b, out, &e)) die(&e);
    note("%d files, %llu bytes", b.n, (unsigned long long)bundle_bytes(&b));
    bundle_clear(&b);
    tool_finish(0);
}

/* And out of it again; a second time there is nothing to do. */
static void unbundle(const struct tool *t)
{
    struct err e = {0};
    if (t->argc) die_usage("--unbundle takes no operands");
    need_file(t);
    struct bundle_reader *r = bundle_open(arg.unbundle, &e);
    if (!r) die(&e);
    const struct bundle *b = bundle_manifest(r);
    if (!bundle_is_unpacked(r, t->out)) {
        tool_predict(0, bundle_bytes(b), t->out);
        if (bundle_extract(r, t->out, &e)) die(&e);
        note("%d files, %llu bytes", b->n, (unsigned long long)bundle_bytes(b));
    }
    bundle_close(r);
    tool_finish(0);
}

int main(int argc, char **argv)
{
    struct tool t;
    struct pack p = {0};
    struct err e = {0};

    tool_start(&t, "nt-pack", "[QWEIGHTS.nts | DIR ...]", "writes a quantized model for other tools", options,
               argc, argv);
    const char *stream = t.argc ? t.argv[0] : "-";
    enum pack_which which = !strcmp(arg.norms, "new")   ? PACK_NEW
                            : !strcmp(arg.norms, "old") ? PACK_OLD
                                                        : PACK_VERDICT;
    if (arg.format && !strcmp(arg.format, "list")) list_formats();
    if ((arg.format != NULL) + (arg.apply != NULL) + (arg.norms_into != NULL) + (arg.bundle != NULL) +
            (arg.unbundle != NULL) + arg.text !=
        1)
        die_usage("one of --format, --norms-into, --apply, --bundle, --unbundle and -t");
    if (arg.bundle) bundle(&t);
    if (arg.unbundle) unbundle(&t);
    if (t.argc > 1) die_usage("one stream at most");
    if (arg.text) print_text(&t, stream);
    if (arg.apply || arg.norms_into) into_checkpoint(&t, &p, stream, which);

    p.packer = packer_find(arg.format);
    if (!p.packer) die_usage("unknown format '%s' (nt-pack --format list prints them)", arg.format);
    if (p.packer->directory) need_file(&t);
    p.out = t.out, p.loose = arg.loose, p.like = arg.like, p.dtype = parse_dtype(arg.dtype),
    p.norm_dtype = parse_dtype(arg.norm_dtype), p.max_shard = arg.max_shard;
    p.keep_rest = !t.model;
    if ((t.model && !(p.m = model_open(t.model, NULL, &e))) ||
        pack_read(&p, stream, which, t.layers[0], t.layers[1], &e) || (!p.m && pack_open_rest(&p, &e)) ||
        pack_bind(&p, &e))
        die(&e);
    tool_predict(pack_memory(&p), pack_disk(&p, p.packer->size), strcmp(t.out, "-") ? t.out : NULL);
    if (p.packer->write(&p, &e)) {
        if (tool_stopping()) tool_exit_signal();
        die(&e);
    }
    say_norms(&p, p.norm_dtype == DT_NONE ? DT_F32 : p.norm_dtype);
    struct model *m = p.m;
    pack_clear(&p);
    model_close(m);
    tool_finish(0);
}
