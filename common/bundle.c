/* SPDX-License-Identifier: Apache-2.0
 * What may be in a bundle, and which files of a run are worth putting there. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "common/bundle.h"
#include "common/mem.h"
#include "common/sha256.h"
#include "common/stream.h"

typedef void say_fn(const char *fmt, ...);

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), k = strlen(end);
    return n > k && !strcmp(s + n - k, end);
}

bool bundle_name_ok(const char *name)
{
    if (!isalnum((unsigned char)*name) || strlen(name) > 200) return false;
    for (const char *p = name; *p; p++)
        if (!isalnum((unsigned char)*p) && !strchr("._-+", *p)) return false;
    return ends_with(name, ".nts") || ends_with(name, ".stamp");
}

/* Long options of the stages that name files on this machine. getopt takes any beginning of a name. */
static bool names_file(const char *word, size_t n)
{
    static const char *const options[] = {"acts-in", "acts-out", "checkpoint", "imatrix",
                                          "model",   "output",   "report",     "tokens"};
    if (word[1] != '-') return n > 1 && isalpha((unsigned char)word[1]) && !strchr("bgjq", word[1]);
    size_t k = strcspn(word + 2, "= \t\n");
    if (k > n - 2) k = n - 2;
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (k && !strncmp(options[i], word + 2, k)) return true;
    return false;
}

int bundle_check_stamp(const char *name, const char *text, size_t n, struct err *e)
{
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)text[i]) && (!text[i] || !strchr(" \n_.,:=+%@/-", text[i])))
            return err_set(e, NT_EXIT_DATA,
                           "%s: holds a character that options in a bundle must not have (byte 0x%02x)", name,
                           (unsigned char)text[i]);
    for (size_t i = 0, k; i < n; i += k + 1) {
        k = 0;
        while (i + k < n && !strchr(" \n", text[i + k])) k++;
        if (k && text[i] == '-' && names_file(text + i, k))
            return err_set(e, NT_EXIT_DATA,
                           "%s: '%.*s' names a file of one machine: it cannot be in a bundle", name,
                           (int)(k < 80 ? k : 80), text + i);
    }
    return 0;
}

void bundle_clear(struct bundle *b)
{
    for (int i = 0; i < b->n; i++) {
        mem_free(b->m[i].name), mem_free(b->m[i].path);
        json_decref(b->m[i].about);
    }
    mem_free(b->m);
    json_decref(b->model), json_decref(b->tools), json_decref(b->options);
    *b = (struct bundle){0};
}

uint64_t bundle_bytes(const struct bundle *b)
{
    uint64_t sum = 0;
    for (int i = 0; i < b->n; i++) sum += b->m[i].bytes;
    return sum;
}

/* ---- which files ---- */

static struct bundle_member *find(const struct bundle *b, const char *name)
{
    for (int i = 0; i < b->n; i++)
        if (!strcmp(b->m[i].name, name)) return &b->m[i];
    return NULL;
}

static int add(struct bundle *b, const char *name, const char *path, const struct stat *st, struct err *e)
{
    const struct bundle_member *other = find(b, name);
    if (other)
        return err_set(e, NT_EXIT_USAGE, "%s and %s would have the same name in the bundle", other->path,
                       path);
    b->m = mem_grow(b->m, &b->cap, (size_t)b->n + 1, sizeof *b->m);
    b->m[b->n++] = (struct bundle_member){.name = mem_strdup(name),
                                          .path = mem_strdup(path),
                                          .bytes = (uint64_t)st->st_size,
                                          .mtime = st->st_mtim};
    return 0;
}

/* Streams and stamps; not where things lie on this machine, not the empty statistics of methods that need
 * none. */
static int add_directory(struct bundle *b, const char *dir, struct err *e)
{
    DIR *d = opendir(dir);
    struct dirent *f;
    int bad = d ? 0 : err_set(e, NT_EXIT_IO, "%s: %s", dir, strerror(errno));
    while (!bad && (f = readdir(d))) {
        struct stat st;
        if (!bundle_name_ok(f->d_name) || !strcmp(f->d_name, "paths.stamp")) continue;
        char *path = mem_printf("%s/%s", dir, f->d_name);
        if (!stat(path, &st) && S_ISREG(st.st_mode) && (st.st_size || ends_with(path, ".stamp")))
            bad = add(b, f->d_name, path, &st, e);
        mem_free(path);
    }
    if (d) closedir(d);
    return bad;
}

static int add_path(struct bundle *b, const char *path, struct err *e)
{
    struct stat st;
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (stat(path, &st)) return err_set(e, NT_EXIT_IO, "%s: %s", path, strerror(errno));
    if (S_ISDIR(st.st_mode)) return add_directory(b, path, e);
    if (!S_ISREG(st.st_mode) || !ends_with(name, ".nts") || !bundle_name_ok(name))
        return err_set(e, NT_EXIT_USAGE,
                       "%s: a bundle takes directories, and streams in files called NAME.nts", path);
    struct stream_reader *r = stream_open(path, NULL, e);
    if (!r) return -1;
    const char *kind = json_string_value(json_object_get(stream_header(r), "kind"));
    int bad = add(b, !strcmp(kind, "tokens") ? "tokens.nts" : name, path, &st, e);
    stream_close(r);
    return bad;
}

/* ---- what make would do again ---- */

static struct bundle_member *of_layer(const struct bundle *b, const char *kind, int layer)
{
    char name[64];
    snprintf(name, sizeof name, "%s.%d.nts", kind, layer);
    return find(b, name);
}

/* t was made from `from`, which is newer or itself out of date */
static void made_from(struct bundle_member *t, const struct bundle_member *from)
{
    if (!t || !from) return;
    const struct timespec *a = &t->mtime, *f = &from->mtime;
    if (from->left_out || f->tv_sec > a->tv_sec || (f->tv_sec == a->tv_sec && f->tv_nsec > a->tv_nsec))
        t->left_out = true;
}

/* The rules of pipelines/norm-tweak.mk: once unpacked all files have the same time, so that what is older
 * than its prerequisite must not come along. Where a file is gone, what it was made from stands in for it. */
static void leave_out_layer(const struct bundle *b, int layer)
{
    struct bundle_member *collect = find(b, "collect.stamp"), *needs = find(b, "needs.stamp"),
                         *quant = find(b, "quant.stamp"), *tweak = find(b, "tweak.stamp"),
                         *input = find(b, "input.stamp");
    struct bundle_member *acts = layer ? of_layer(b, "acts", layer) : NULL, *s = of_layer(b, "stats", layer),
                         *c = of_layer(b, "quant", layer), *q = of_layer(b, "q", layer),
                         *next = of_layer(b, "acts", layer + 1),
                         *before = layer ? of_layer(b, "q", layer - 1) : NULL;
    struct bundle_member *all[] = {acts, s, c, q, next};
    for (size_t i = 0; before && before->left_out && i < 5; i++)
        if (all[i]) all[i]->left_out = true;
    made_from(s, collect), made_from(s, needs), made_from(s, input), made_from(s, acts);
    made_from(c, quant), made_from(c, s);
    if (!s) made_from(c, collect), made_from(c, needs), made_from(c, input), made_from(c, acts);
    struct bundle_member *made[] = {q, next};
    for (int i = 0; i < 2; i++) {
        struct bundle_member *t = made[i];
        made_from(t, tweak), made_from(t, input), made_from(t, acts), made_from(t, c);
        if (!c) made_from(t, quant), made_from(t, s);
        if (!c && !s) made_from(t, collect), made_from(t, needs);
    }
    if (q && next) made_from(next, q->left_out ? q : NULL);
    made_from(find(b, "q.nts"), q);
}

static void leave_out(struct bundle *b, say_fn *say)
{
    int layers = 0, kept = 0;
    for (int i = 0; i < b->n; i++) {
        const char *dot = strchr(b->m[i].name, '.');
        int l = isdigit((unsigned char)dot[1]) && strlen(dot) < 12 ? atoi(dot + 1) : 0;
        if (l >= layers) layers = l + 1;
    }
    for (int l = 0; l < layers; l++) leave_out_layer(b, l);
    for (int i = 0; i < b->n; i++) {
        struct bundle_member m = b->m[i];
        if (m.left_out) {
            say("%s: out of date, left out", m.path);
            mem_free(m.name), mem_free(m.path);
        } else {
            b->m[kept++] = m;
        }
    }
    b->n = kept;
}

/* ---- what is in them ---- */

static int sha256_file(const char *path, char hex[65], uint64_t *bytes, struct err *e)
{
    static char buf[1 << 18];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return err_set(e, NT_EXIT_IO, "%s: %s", path, strerror(errno));
    struct sha256 *h = sha256_start(e);
    ssize_t k;
    *bytes = 0;
    int bad = h ? 0 : -1;
    while (!bad && (k = read(fd, buf, sizeof buf)) != 0) {
        if (k < 0 && errno == EINTR && !err_stopped(e)) continue;
        if (k < 0) bad = err_set(e, NT_EXIT_IO, "%s: %s", path, strerror(errno));
        if (k > 0) sha256_add(h, buf, (size_t)k), *bytes += (uint64_t)k;
        bad = bad || err_stopped(e);
    }
    sha256_end(h, hex);
    close(fd);
    return bad ? -1 : 0;
}

static void note_tool(struct bundle *b, const json_t *entry)
{
    const char *tool = json_string_value(json_object_get(entry, "tool"));
    const char *version = json_string_value(json_object_get(entry, "version"));
    if (!tool || !version) return;
    char *text = mem_printf("%s %s", tool, version);
    size_t i = 0;
    while (i < json_array_size(b->tools) && strcmp(json_string_value(json_array_get(b->tools, i)), text) < 0)
        i++;
    const char *there = json_string_value(json_array_get(b->tools, i));
    if (!there || strcmp(there, text)) json_array_insert_new(b->tools, i, json_string(text));
    mem_free(text);
}

/* All streams must be whole and of one model. */
static int describe_stream(struct bundle *b, struct bundle_member *m, struct err *e)
{
    struct record rec;
    size_t i;
    json_t *v;
    int k = -1, bad = -1;
    struct stream_reader *r = stream_open(m->path, NULL, e);
    while (r && (k = stream_next(r, &rec, e)) > 0) continue;
    if (!k) {
        const json_t *h = stream_header(r);
        json_t *model = json_deep_copy(json_object_get(h, "model"));
        if (model) json_object_del(model, "name"); /* the same values may go by several */
        bad = 0;
        /* another model may have written the calibration text */
        bool tokens = !strcmp(json_string_value(json_object_get(h, "kind")), "tokens");
        if (tokens) json_decref(model), model = NULL;
        if (model && b->model && !json_equal(model, b->model))
            bad = err_set(e, NT_EXIT_DATA, "%s was made from another model than the streams before it",
                          m->path);
        if (model && !b->model) b->model = json_incref(model);
        json_decref(model);
        m->about = json_pack("{s:O, s:s, s:O*}", "kind", json_object_get(h, "kind"), "xxh3", stream_hash(r),
                             "params", json_object_get(h, "params"));
        json_array_foreach(json_object_get(stream_trailer(r), "history"), i, v) note_tool(b, v);
        note_tool(b, json_object_get(h, "producer"));
    }
    stream_close(r);
    return bad;
}

static int describe_stamp(struct bundle *b, struct bundle_member *m, struct err *e)
{
    char text[BUNDLE_STAMP_MAX + 1];
    int fd = open(m->path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);
    int no = errno;
    if (fd >= 0) close(fd);
    if (n < 0) return err_set(e, NT_EXIT_IO, "%s: %s", m->path, strerror(no));
    if (n > (ssize_t)BUNDLE_STAMP_MAX)
        return err_set(e, NT_EXIT_DATA, "%s: more than %u bytes of options", m->path, BUNDLE_STAMP_MAX);
    if (bundle_check_stamp(m->path, text, (size_t)n, e)) return -1;
    size_t line = 0;
    while (line < (size_t)n && text[line] != '\n') line++;
    char *stem = mem_printf("%.*s", (int)(strlen(m->name) - strlen(".stamp")), m->name);
    if (strcmp(stem, "input")) json_object_set_new(b->options, stem, json_stringn(text, line));
    mem_free(stem);
    m->about = json_pack("{s:s}", "kind", "stamp");
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct bundle_member *)a)->name, ((const struct bundle_member *)b)->name);
}

int bundle_list(struct bundle *b, char **paths, int n, say_fn *say, struct err *e)
{
    *b = (struct bundle){.tools = json_array(), .options = json_object()};
    for (int i = 0; i < n; i++)
        if (add_path(b, paths[i], e)) return -1;
    leave_out(b, say);
    if (!b->n) return err_set(e, NT_EXIT_DATA, "%s: no streams there that could be bundled", paths[0]);
    qsort(b->m, (size_t)b->n, sizeof *b->m, by_name);
    for (int i = 0; i < b->n; i++) {
        struct bundle_member *m = &b->m[i];
        bool stamp = ends_with(m->name, ".stamp");
        if (stamp ? describe_stamp(b, m, e) : describe_stream(b, m, e)) return -1;
        if (sha256_file(m->path, m->sha256, &m->bytes, e)) return -1;
        json_object_set_new(m->about, "name", json_string(m->name));
        json_object_set_new(m->about, "bytes", json_integer((json_int_t)m->bytes));
        json_object_set_new(m->about, "sha256", json_string(m->sha256));
    }
    return 0;
}
