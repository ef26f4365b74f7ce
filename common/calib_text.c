/* SPDX-License-Identifier: Apache-2.0
 * Texts for calibration, and the line protocol of --encode and --decode. */
#include "common/calib.h"
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/mem.h"
#include "common/sha256.h"
#include "common/tokenizer_impl.h"

#define MAX_TEXT ((size_t)1 << 30)

static int read_all(const char *path, struct buf *out, struct err *e)
{
    FILE *f = strcmp(path, "-") ? fopen(path, "rb") : stdin;
    char chunk[65536];
    size_t n;
    if (!f) return err_set(e, errno == ENOENT ? NT_EXIT_DATA : NT_EXIT_IO, "%s: %s", path, strerror(errno));
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0 && out->n <= MAX_TEXT) buf_put(out, chunk, n);
    int bad = ferror(f) ? errno : 0;
    if (f != stdin) fclose(f);
    if (err_stopped(e)) return -1;
    if (bad) return err_set(e, NT_EXIT_IO, "%s: %s", path, strerror(bad));
    if (out->n > MAX_TEXT)
        return err_set(e, NT_EXIT_DATA, "%s: more than 1 GiB of text; give a part of it", path);
    if (!out->p) buf_put(out, "", 0);
    return 0;
}

/* {"text": "..."} a line -> the texts, each followed by an empty line. */
static int join_jsonl(const char *path, const struct buf *in, struct buf *out, struct err *e)
{
    int line = 0;
    for (size_t i = 0; i < in->n;) {
        const char *end = memchr(in->p + i, '\n', in->n - i);
        size_t n = end ? (size_t)(end - in->p) - i : in->n - i;
        line++;
        bool blank = true;
        for (size_t k = 0; k < n && blank; k++) blank = isspace((unsigned char)in->p[i + k]);
        json_error_t je;
        json_t *j = blank ? NULL : json_loadb(in->p + i, n, JSON_ALLOW_NUL, &je);
        const json_t *text = json_object_get(j, "text");
        i += n + 1;
        if (blank) continue;
        if (!json_is_string(text)) {
            json_decref(j);
            return err_set(e, NT_EXIT_DATA, "%s: line %d is no JSON object with \"text\"", path, line);
        }
        buf_put(out, json_string_value(text), json_string_length(text));
        buf_put(out, "\n\n", 2);
        json_decref(j);
    }
    return 0;
}

/* The first line that is not blank is a JSON object: one text a line. */
static bool is_jsonl(const struct buf *in)
{
    size_t i = 0;
    while (i < in->n && isspace((unsigned char)in->p[i])) i++;
    if (i == in->n || in->p[i] != '{') return false;
    const char *end = memchr(in->p + i, '\n', in->n - i);
    json_t *j = json_loadb(in->p + i, end ? (size_t)(end - in->p) - i : in->n - i, JSON_ALLOW_NUL, NULL);
    bool yes = json_is_object(j);
    json_decref(j);
    return yes;
}

/* What the windows were cut from, for the trailer. */
static void note_text(struct stream_writer *w, const struct buf *in)
{
    char hex[65];
    sha256_of(in->p, in->n, hex);
    stream_note_file(w, "text", "sha256", hex, in->n);
}

int calib_read_text(const struct tokenizer *t, const struct calib_opts *o, struct stream_writer *w,
                    int32_t **ids, struct err *e)
{
    struct buf in = {0}, text = {0};
    const char *name = strcmp(o->text, "-") ? o->text : "<stdin>";
    size_t n = 0, each = (size_t)o->T - (o->bos >= 0), want = (size_t)o->n * each;
    int r = read_all(o->text, &in, e);
    *ids = NULL;
    bool jsonl = !r && is_jsonl(&in);
    if (!r) note_text(w, &in);
    if (jsonl) r = join_jsonl(name, &in, &text, e);
    const struct buf *use = jsonl ? &text : &in;
    if (!r) r = tokenizer_encode(t, use->p ? use->p : "", use->n, false, ids, &n, e);
    buf_clear(&in);
    buf_clear(&text);
    if (r) return -1;
    if (n >= want) return 0;
    mem_free(*ids);
    return err_set(e, NT_EXIT_DATA, "%s: %zu tokens of text, but %d sequences of %zu need %zu", name, n, o->n,
                   each, want);
}

/* ---- lines ---- */

/* The JSON value of the next line: 1, 0 at the end, -1. Bytes that are no UTF-8 become U+FFFD before JSON
 * sees them. */
static int next_line(FILE *in, char **line, size_t *cap, int number, json_t **j, struct err *e)
{
    json_error_t je;
    struct buf fixed = {0};
    errno = 0;
    ssize_t n = getline(line, cap, in);
    if (err_stopped(e)) return -1;
    if (n < 0) return ferror(in) ? err_set(e, NT_EXIT_IO, "<stdin>: %s", strerror(errno)) : 0;
    text_repair(&fixed, *line, (size_t)n);
    *j = json_loadb(fixed.p, fixed.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &je);
    buf_clear(&fixed);
    return *j ? 1 : err_set(e, NT_EXIT_DATA, "<stdin>: line %d is not JSON: %s", number, je.text);
}

static int put_line(json_t *j, FILE *out, struct err *e)
{
    int bad =
        json_dumpf(j, out, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_ENCODE_ANY) || putc('\n', out) == EOF;
    json_decref(j);
    return bad ? err_set(e, NT_EXIT_IO, "<stdout>: %s", strerror(errno)) : 0;
}

static int encode_line(const struct tokenizer *t, bool special, const json_t *j, int number, FILE *out,
                       struct err *e)
{
    int32_t *ids;
    size_t n;
    if (!json_is_string(j)) return err_set(e, NT_EXIT_DATA, "<stdin>: line %d is no JSON string", number);
    if (tokenizer_encode(t, json_string_value(j), json_string_length(j), special, &ids, &n, e)) return -1;
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(list, json_integer(ids[i]));
    mem_free(ids);
    return put_line(list, out, e);
}

static int decode_line(const struct tokenizer *t, const json_t *j, int number, FILE *out, struct err *e)
{
    size_t n = json_array_size(j), len;
    char *text;
    if (!json_is_array(j))
        return err_set(e, NT_EXIT_DATA, "<stdin>: line %d is no JSON array of ids", number);
    int32_t *ids = MEM_NEW(int32_t, n + 1);
    bool ok = true;
    for (size_t i = 0; i < n && ok; i++) {
        const json_t *v = json_array_get(j, i);
        json_int_t id = json_is_integer(v) ? json_integer_value(v) : -1;
        ok = id >= 0 && id < tokenizer_size(t);
        ids[i] = ok ? (int32_t)id : -1;
        if (!ok)
            (void)err_set(e, NT_EXIT_DATA, "<stdin>: line %d: item %zu is no token id below %d", number, i,
                          tokenizer_size(t));
    }
    int r = ok ? tokenizer_decode(t, ids, n, &text, &len, e) : -1;
    mem_free(ids);
    if (r) return -1;
    json_t *s = json_stringn(text, len);
    mem_free(text);
    return put_line(s, out, e);
}

static int each_line(const struct tokenizer *t, int mode, FILE *in, FILE *out, struct err *e)
{
    char *line = NULL;
    size_t cap = 0;
    int r;
    json_t *j = NULL;
    for (int number = 1; (r = next_line(in, &line, &cap, number, &j, e)) == 1; number++) {
        r = mode == 2 ? decode_line(t, j, number, out, e) : encode_line(t, mode == 1, j, number, out, e);
        json_decref(j);
        if (r) break;
    }
    free(line);
    return r;
}

int calib_encode_lines(const struct tokenizer *t, bool special, FILE *in, FILE *out, struct err *e)
{
    return each_line(t, special, in, out, e);
}

int calib_decode_lines(const struct tokenizer *t, FILE *in, FILE *out, struct err *e)
{
    return each_line(t, 2, in, out, e);
}
