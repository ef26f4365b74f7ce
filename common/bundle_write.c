/* SPDX-License-Identifier: Apache-2.0
 * Members to a tar file in zstd: no owner, no mode, no time but a fixed one, names in order. */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/bundle.h"
#include "common/mem.h"
#include "common/sha256.h"

#define FIXED_TIME 315532800 /* 1980-01-01: tar programs find zero implausible */

struct sink {
    struct outfile *out;
    struct err *e;
};

static la_ssize_t to_outfile(struct archive *a, void *ctx, const void *p, size_t n)
{
    struct sink *s = ctx;
    if (!outfile_write(s->out, p, n, s->e)) return (la_ssize_t)n;
    archive_set_error(a, EIO, "%s", s->e->text);
    return -1;
}

static int failed(struct archive *a, const struct outfile *out, struct err *e)
{
    const char *why = archive_error_string(a);
    return err_set(e, NT_EXIT_IO, "%s: %s", outfile_name(out), why ? why : "libarchive failed");
}

static int member_head(struct archive *a, const struct outfile *out, const char *name, uint64_t bytes,
                       struct err *e)
{
    const char *epoch = getenv("SOURCE_DATE_EPOCH");
    struct archive_entry *entry = archive_entry_new();
    archive_entry_set_pathname(entry, name);
    archive_entry_set_size(entry, (la_int64_t)bytes);
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_mtime(entry, epoch && *epoch ? atoll(epoch) : FIXED_TIME, 0);
    int bad = archive_write_header(a, entry) == ARCHIVE_OK ? 0 : failed(a, out, e);
    archive_entry_free(entry);
    return bad;
}

static int member_data(struct archive *a, const struct outfile *out, const void *p, size_t n, struct err *e)
{
    return archive_write_data(a, p, n) == (la_ssize_t)n ? 0 : failed(a, out, e);
}

/* The file once more; it must still be what the manifest says. */
static int member_file(struct archive *a, const struct outfile *out, const struct bundle_member *m,
                       struct err *e)
{
    static char buf[1 << 18];
    char hex[65];
    uint64_t left = m->bytes;
    if (member_head(a, out, m->name, m->bytes, e)) return -1;
    int fd = open(m->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return err_set(e, NT_EXIT_IO, "%s: %s", m->path, strerror(errno));
    struct sha256 *h = sha256_start(e);
    int bad = h ? 0 : -1;
    while (left && !bad) {
        ssize_t k = read(fd, buf, left < sizeof buf ? (size_t)left : sizeof buf);
        if (k < 0 && errno == EINTR && !err_stopped(e)) continue;
        if (k < 0) bad = err_set(e, NT_EXIT_IO, "%s: %s", m->path, strerror(errno));
        if (k <= 0) break;
        sha256_add(h, buf, (size_t)k);
        left -= (uint64_t)k;
        bad = err_stopped(e) || member_data(a, out, buf, (size_t)k, e);
    }
    close(fd);
    sha256_end(h, hex);
    if (!bad && strcmp(hex, m->sha256))
        bad = err_set(e, NT_EXIT_DATA, "%s: changed while it was being read", m->path);
    return bad ? -1 : 0;
}

static char *manifest_text(const struct bundle *b)
{
    json_t *files = json_array();
    for (int i = 0; i < b->n; i++) json_array_append(files, b->m[i].about);
    json_t *j = json_pack("{s:s, s:{s:s, s:s}, s:O*, s:O, s:O, s:o}", "format", "nt-bundle/1", "producer",
                          "tool", "nt-pack", "version", NT_VERSION, "model", b->model, "tools", b->tools,
                          "options", b->options, "files", files);
    char *text = json_dumps(j, JSON_SORT_KEYS | JSON_INDENT(1));
    json_decref(j);
    return text;
}

int bundle_write(struct bundle *b, struct outfile *out, struct err *e)
{
    struct sink sink = {out, e};
    char *text = manifest_text(b);
    size_t n = text ? strlen(text) : 0;
    struct archive *a = archive_write_new();
    int bad = 0;
    if (!text || n > BUNDLE_MANIFEST_MAX) bad = err_set(e, NT_EXIT_DATA, "too many files for a bundle");
    if (!bad && (archive_write_set_format_pax_restricted(a) != ARCHIVE_OK ||
                 archive_write_add_filter_zstd(a) != ARCHIVE_OK ||
                 archive_write_set_bytes_in_last_block(a, 1) != ARCHIVE_OK ||
                 archive_write_open(a, &sink, NULL, to_outfile, NULL) != ARCHIVE_OK))
        bad = failed(a, out, e);
    bad = bad || member_head(a, out, BUNDLE_MANIFEST, n, e) || member_data(a, out, text, n, e);
    for (int i = 0; i < b->n && !bad; i++) bad = member_file(a, out, &b->m[i], e);
    if (!bad && archive_write_close(a) != ARCHIVE_OK) bad = failed(a, out, e);
    if (bad) archive_write_fail(a);
    archive_write_free(a);
    free(text);
    if (!bad) return outfile_commit(out, e);
    outfile_discard(out);
    return -1;
}
