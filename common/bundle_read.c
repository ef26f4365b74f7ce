/* SPDX-License-Identifier: Apache-2.0
 * Unpacking a bundle that may be damaged or hostile: every member must be the next one of the manifest, a
 * plain file of that size with that hash; nothing else is created, and nothing remains of an archive that
 * breaks a rule. */
#include <archive.h>
#include <archive_entry.h>
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

#define MEMBERS_MAX 1000000

struct bundle_reader {
    char *path;
    int fd;
    struct archive *a;
    char *text; /* the manifest's bytes */
    size_t text_n;
    struct bundle b;
};

static int bad_archive(struct bundle_reader *r, struct err *e)
{
    const char *why = archive_error_string(r->a);
    if (err_stopped(e)) return -1;
    return err_set(e, NT_EXIT_DATA, "%s: damaged, or no bundle: %s", r->path,
                   why ? why : "it ends too early");
}

/* The next member must be this plain file of this size (UINT64_MAX: any). */
static int next_member(struct bundle_reader *r, const char *name, uint64_t bytes, uint64_t *size,
                       struct err *e)
{
    struct archive_entry *entry;
    int k = archive_read_next_header(r->a, &entry);
    if (k == ARCHIVE_EOF) return err_set(e, NT_EXIT_DATA, "%s: %s is missing", r->path, name);
    if (k != ARCHIVE_OK) return bad_archive(r, e);
    const char *have = archive_entry_pathname(entry);
    if (!have || strcmp(have, name))
        return err_set(e, NT_EXIT_DATA, "%s: holds '%.100s' where %s should be", r->path, have ? have : "?",
                       name);
    if (archive_entry_filetype(entry) != AE_IFREG || archive_entry_hardlink(entry) ||
        archive_entry_symlink(entry) || !archive_entry_size_is_set(entry) || archive_entry_size(entry) < 0)
        return err_set(e, NT_EXIT_DATA, "%s: %s is no plain file", r->path, name);
    *size = (uint64_t)archive_entry_size(entry);
    if (bytes != UINT64_MAX && *size != bytes)
        return err_set(e, NT_EXIT_DATA, "%s: %s has %llu bytes where the manifest says %llu", r->path, name,
                       (unsigned long long)*size, (unsigned long long)bytes);
    return 0;
}

/* ---- manifest ---- */

static bool is_hash(const char *s)
{
    return s && strlen(s) == 64 && strspn(s, "0123456789abcdef") == 64;
}

static int read_member(struct bundle_reader *r, const json_t *j, struct err *e)
{
    struct bundle *b = &r->b;
    const char *name = json_string_value(json_object_get(j, "name"));
    const char *hash = json_string_value(json_object_get(j, "sha256"));
    const json_t *bytes = json_object_get(j, "bytes");
    if (!name || !bundle_name_ok(name))
        return err_set(e, NT_EXIT_DATA,
                       "%s: the manifest names '%.100s', which is neither a stream nor a stamp", r->path,
                       name ? name : "?");
    bool stamp = !strcmp(strrchr(name, '.'), ".stamp");
    if (!is_hash(hash) || !json_is_integer(bytes) || json_integer_value(bytes) < 0 ||
        json_integer_value(bytes) > INT64_MAX / MEMBERS_MAX ||
        (stamp && json_integer_value(bytes) > BUNDLE_STAMP_MAX))
        return err_set(e, NT_EXIT_DATA, "%s: the manifest gives %s no size or hash that could be true",
                       r->path, name);
    if (b->n && strcmp(b->m[b->n - 1].name, name) >= 0) /* so that none is there twice */
        return err_set(e, NT_EXIT_DATA, "%s: the manifest's names are not in order at %s", r->path, name);
    b->m = mem_grow(b->m, &b->cap, (size_t)b->n + 1, sizeof *b->m);
    struct bundle_member *m = &b->m[b->n++];
    *m = (struct bundle_member){.name = mem_strdup(name), .bytes = (uint64_t)json_integer_value(bytes)};
    snprintf(m->sha256, sizeof m->sha256, "%s", hash);
    return 0;
}

static int parse_manifest(struct bundle_reader *r, struct err *e)
{
    json_error_t where;
    json_t *j = json_loadb(r->text, r->text_n, JSON_REJECT_DUPLICATES, &where), *files, *v;
    size_t i;
    int bad = 0;
    if (!j) return err_set(e, NT_EXIT_DATA, "%s: %s: %.100s", r->path, BUNDLE_MANIFEST, where.text);
    const char *format = json_string_value(json_object_get(j, "format"));
    files = json_object_get(j, "files");
    if (!format || strcmp(format, "nt-bundle/1"))
        bad = err_set(e, NT_EXIT_DATA, "%s: %s: the format is %.40s, not nt-bundle/1", r->path,
                      BUNDLE_MANIFEST, format ? format : "missing");
    else if (!json_array_size(files) || json_array_size(files) > MEMBERS_MAX)
        bad = err_set(e, NT_EXIT_DATA, "%s: %s: no list of files", r->path, BUNDLE_MANIFEST);
    json_array_foreach(files, i, v) if (bad || (bad = read_member(r, v, e))) break;
    r->b.model = json_incref(json_object_get(j, "model"));
    r->b.tools = json_incref(json_object_get(j, "tools"));
    r->b.options = json_incref(json_object_get(j, "options"));
    json_decref(j);
    return bad ? -1 : 0;
}

static int read_manifest(struct bundle_reader *r, struct err *e)
{
    uint64_t n;
    if (next_member(r, BUNDLE_MANIFEST, UINT64_MAX, &n, e)) return -1;
    if (n > BUNDLE_MANIFEST_MAX)
        return err_set(e, NT_EXIT_DATA, "%s: a manifest of %llu bytes", r->path, (unsigned long long)n);
    r->text = MEM_NEW(char, n + 1);
    while (r->text_n < n) {
        la_ssize_t k = archive_read_data(r->a, r->text + r->text_n, n - r->text_n);
        if (k <= 0) return bad_archive(r, e);
        r->text_n += (size_t)k;
    }
    return parse_manifest(r, e);
}

struct bundle_reader *bundle_open(const char *path, struct err *e)
{
    struct bundle_reader *r = MEM_NEW(struct bundle_reader, 1);
    bool std = !strcmp(path, "-");
    r->path = mem_strdup(std ? "<stdin>" : path);
    r->a = archive_read_new();
    r->fd = std ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    int bad = r->fd < 0 ? err_set(e, NT_EXIT_IO, "%s: %s", path, strerror(errno)) : 0;
    if (!bad && (archive_read_support_format_tar(r->a) != ARCHIVE_OK ||
                 archive_read_support_filter_zstd(r->a) != ARCHIVE_OK))
        bad = err_set(e, NT_EXIT_DEVICE, "this libarchive reads no tar in zstd: %s",
                      archive_error_string(r->a));
    if (!bad && archive_read_open_fd(r->a, r->fd, 1 << 16) != ARCHIVE_OK) bad = bad_archive(r, e);
    if (!bad && !read_manifest(r, e)) return r;
    bundle_close(r);
    return NULL;
}

const struct bundle *bundle_manifest(const struct bundle_reader *r)
{
    return &r->b;
}

void bundle_close(struct bundle_reader *r)
{
    if (!r) return;
    archive_read_free(r->a);
    if (r->fd > STDIN_FILENO) close(r->fd);
    bundle_clear(&r->b);
    mem_free(r->path), mem_free(r->text);
    mem_free(r);
}

bool bundle_is_unpacked(const struct bundle_reader *r, const char *dir)
{
    char *name = mem_printf("%s/%s", dir, BUNDLE_MANIFEST), *have = MEM_NEW(char, r->text_n + 1);
    FILE *f = fopen(name, "rb");
    size_t n = f ? fread(have, 1, r->text_n + 1, f) : 0;
    bool same = f && n == r->text_n && !memcmp(have, r->text, n);
    if (f) fclose(f);
    mem_free(name), mem_free(have);
    return same;
}

/* ---- members ---- */

static int copy_member(struct bundle_reader *r, const struct bundle_member *m, struct outfile *out,
                       char hex[65], struct err *e)
{
    static char buf[1 << 18]; /* as large as a stamp at least */
    uint64_t left = m->bytes;
    struct sha256 *h = sha256_start(e);
    int bad = h ? 0 : -1;
    bool stamp = !strcmp(strrchr(m->name, '.'), ".stamp");
    while (left && !bad) {
        size_t want = left < sizeof buf ? (size_t)left : sizeof buf, got = 0;
        while (got < want) {
            la_ssize_t k = archive_read_data(r->a, buf + got, want - got);
            if (k <= 0) {
                bad = bad_archive(r, e);
                break;
            }
            got += (size_t)k;
        }
        sha256_add(h, buf, got);
        left -= got;
        if (!bad && stamp && bundle_check_stamp(m->name, buf, got, e)) bad = err_prefix(e, "%s", r->path);
        bad = bad || err_stopped(e) || outfile_write(out, buf, got, e);
    }
    sha256_end(h, hex);
    return bad ? -1 : 0;
}

/* Everything gets the same time, so that make finds nothing older than what it was made from. bad: what was
 * to be written is not whole. */
static int finish_member(const char *path, struct outfile *out, int bad, const struct timespec *now,
                         struct err *e)
{
    struct timespec both[2] = {*now, *now};
    if (bad) outfile_discard(out);
    if (bad || outfile_commit(out, e)) return -1;
    return utimensat(AT_FDCWD, path, both, 0) ? err_set(e, NT_EXIT_IO, "%s: %s", path, strerror(errno)) : 0;
}

static int extract_member(struct bundle_reader *r, const struct bundle_member *m, const char *dir,
                          const struct timespec *now, struct err *e)
{
    char hex[65] = "";
    uint64_t size;
    if (next_member(r, m->name, m->bytes, &size, e)) return -1;
    char *path = mem_printf("%s/%s", dir, m->name);
    struct outfile *out = outfile_open(path, e);
    int bad = out ? copy_member(r, m, out, hex, e) : -1;
    if (!bad && strcmp(hex, m->sha256))
        bad = err_set(e, NT_EXIT_DATA, "%s: damaged: %s has another hash than the manifest says", r->path,
                      m->name);
    bad = finish_member(path, out, bad, now, e);
    mem_free(path);
    return bad;
}

static int write_manifest(struct bundle_reader *r, const char *dir, const struct timespec *now, struct err *e)
{
    char *path = mem_printf("%s/%s", dir, BUNDLE_MANIFEST);
    struct outfile *out = outfile_open(path, e);
    int bad = out ? outfile_write(out, r->text, r->text_n, e) : -1;
    bad = finish_member(path, out, bad, now, e);
    mem_free(path);
    return bad;
}

int bundle_extract(struct bundle_reader *r, const char *dir, struct err *e)
{
    struct timespec now;
    struct archive_entry *more;
    clock_gettime(CLOCK_REALTIME, &now);
    struct outdir *d = outdir_open(dir, e);
    if (!d) return -1;
    int bad = write_manifest(r, outdir_tmp(d), &now, e);
    for (int i = 0; i < r->b.n && !bad; i++) bad = extract_member(r, &r->b.m[i], outdir_tmp(d), &now, e);
    int k = bad ? ARCHIVE_EOF : archive_read_next_header(r->a, &more);
    if (k == ARCHIVE_OK)
        bad = err_set(e, NT_EXIT_DATA, "%s: holds '%.100s', which is not in the manifest", r->path,
                      archive_entry_pathname(more) ? archive_entry_pathname(more) : "?");
    else if (k != ARCHIVE_EOF)
        bad = bad_archive(r, e);
    if (!bad) return outdir_commit(d, e);
    outdir_discard(d);
    return -1;
}
