/* SPDX-License-Identifier: Apache-2.0
 * Looks into streams of any kind: ls, verify, cat, merge, salvage. The format is common/stream.h's, the work
 * on whole streams common/stream_ops.h's. */
#include "common/stream_ops.h"
#include "common/tool.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct tool tool;
static struct stream_select sel = {.layers = {0, INT64_MAX}};
static bool show_header, show_values, whole_layers;
static char stdin_path[] = "-", *stdin_only[] = {stdin_path};

static void print_json(const json_t *j)
{
    char *s = json_dumps(j, JSON_COMPACT | JSON_ENSURE_ASCII);
    puts(s ? s : "null");
    free(s);
}

static bool wanted(const struct record *rec)
{
    bool all = sel.layers[0] == 0 && sel.layers[1] == INT64_MAX;
    if (!all && (rec->layer < sel.layers[0] || rec->layer >= sel.layers[1])) return false;
    return !sel.kind || !strcmp(sel.kind, rec->kind);
}

static int ls(char **paths, int n, struct err *e)
{
    struct record rec;
    int k = 0;
    if (!show_header) puts("layer\tseq\tkind\tname\tdtype\tshape\tbytes");
    for (int i = 0; i < n && !k; i++) {
        struct stream_reader *r = stream_open(paths[i], NULL, e);
        if (!r) return -1;
        if (show_header) print_json(stream_header(r));
        while ((k = stream_next(r, &rec, e)) > 0)
            if (!show_header && wanted(&rec) && stream_print(stdout, r, &rec, show_values, e)) break;
        if (show_header && !k) print_json(stream_trailer(r));
        stream_close(r);
    }
    return k;
}

/* Every file gets its line, whatever became of the one before. */
static void verify(char **paths, int n)
{
    int code = 0;
    for (int i = 0; i < n; i++) {
        struct err why = {0};
        struct record rec;
        uint64_t records = 0, bytes = 0;
        int k = -1;
        struct stream_reader *r = stream_open(paths[i], NULL, &why);
        while (r && (k = stream_next(r, &rec, &why)) > 0) records++, bytes += rec.t.nbytes;
        if (!k)
            printf("%s: ok, %s, %" PRIu64 " records, %" PRIu64 " bytes of payload, xxh3 %s\n", stream_name(r),
                   json_string_value(json_object_get(stream_header(r), "kind")), records, bytes,
                   stream_hash(r));
        stream_close(r);
        if (!k) continue;
        warn("%s", why.text);
        if (!code) code = why.code;
    }
    tool_finish(code);
}

static int salvage(char **paths, int n, struct err *e)
{
    struct salvage_report rep;
    if (n != 1 || !strcmp(paths[0], "-")) die_usage("salvage wants one file");
    struct outfile *out = outfile_open(tool.out, e);
    if (!out || stream_salvage(paths[0], whole_layers, out, warn, &rep, e)) return -1;
    if (rep.whole && !rep.lost) tool_finish(0);
    note("%" PRIu64 " records kept, %" PRIu64 " known to be lost, %" PRIu64 " bytes damaged", rep.kept,
         rep.lost, rep.bad_bytes);
    tool_finish(NT_EXIT_NEGATIVE);
}

int main(int argc, char **argv)
{
    const struct opt opts[] = {
        {0, "kind", OPT_STR, &sel.kind, "KIND", "ls, cat: only records of this kind (and layer ends)"},
        {0, "name", OPT_STR, &sel.name, "PATTERN", "cat: only records whose name matches the shell pattern"},
        {0, "header", OPT_FLAG, &show_header, NULL, "ls: the header and the trailer as JSON, no records"},
        {0, "values", OPT_FLAG, &show_values, NULL, "ls: the meta map and the numbers of every record too"},
        {0, "whole-layers", OPT_FLAG, &whole_layers, NULL, "salvage: leave out layers that lost anything"},
        {0},
    };
    struct err e = {0};
    int bad;
    tool_start(&tool, "nt-stream", "ls|verify|cat|merge|salvage [STREAM ...]",
               "Lists, checks, joins, selects, reduces and repairs NTS streams.", opts, argc, argv);
    memcpy(sel.layers, tool.layers, sizeof sel.layers);
    if (!tool.argc) die_usage("say what to do: ls, verify, cat, merge or salvage");
    const char *what = tool.argv[0];
    char **paths = tool.argc > 1 ? tool.argv + 1 : stdin_only;
    int n = tool.argc > 1 ? tool.argc - 1 : 1;
    if (!strcmp(what, "ls")) {
        bad = ls(paths, n, &e);
    } else if (!strcmp(what, "verify")) {
        verify(paths, n);
    } else if (!strcmp(what, "salvage")) {
        bad = salvage(paths, n, &e);
    } else if (!strcmp(what, "cat") || !strcmp(what, "merge")) {
        struct outfile *out = outfile_open(tool.out, &e);
        if (!out) die(&e);
        bad = *what == 'c' ? stream_cat(paths, n, &sel, out, &e) : stream_merge(paths, n, out, &e);
    } else {
        die_usage("'%s' is not ls, verify, cat, merge or salvage", what);
    }
    if (bad) die(&e);
    tool_finish(0);
}
