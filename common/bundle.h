/* SPDX-License-Identifier: Apache-2.0
 * A run as one file, to be continued elsewhere: tar in zstd, by libarchive. The first member, manifest.json,
 * names every other one with its size and SHA-256, in the order in which they follow: streams (.nts) and
 * stamps (.stamp, the options of pipelines/norm-tweak.mk). Equal members give equal bytes. */
#ifndef NT_BUNDLE_H
#define NT_BUNDLE_H
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include "common/err.h"
#include "common/outfile.h"

#define BUNDLE_MANIFEST "manifest.json"
#define BUNDLE_MANIFEST_MAX (16u << 20)
#define BUNDLE_STAMP_MAX (64u << 10)

struct bundle_member {
    char *name, *path; /* in the archive; where it lies (NULL when read from a manifest) */
    char sha256[65];
    uint64_t bytes;
    struct timespec mtime;
    bool left_out; /* older than what it was made from: make would do it again */
    json_t *about; /* its object in the manifest */
};

struct bundle {
    struct bundle_member *m;
    int n;
    size_t cap;
    json_t *model, *tools, *options; /* of all streams, sorted; stamps' texts by name */
};

/* ---- writing ---- */
/* The streams and stamps of directories and single streams, each read to its end and hashed. Of a directory
 * that norm-tweak.mk works in, what is out of date is left out; say is told. */
int bundle_list(struct bundle *b, char **paths, int n, void (*say)(const char *fmt, ...),
                struct err *e) NT_MUST_CHECK;
uint64_t bundle_bytes(const struct bundle *b); /* of all members */
/* out is taken over. SOURCE_DATE_EPOCH sets the members' time. */
int bundle_write(struct bundle *b, struct outfile *out, struct err *e) NT_MUST_CHECK;
void bundle_clear(struct bundle *b);

/* ---- reading ---- */
struct bundle_reader;
/* Opens the archive ("-": stdin) and reads its manifest, which is believed only where it is harmless. */
struct bundle_reader *bundle_open(const char *path, struct err *e) NT_MUST_CHECK;
const struct bundle *bundle_manifest(const struct bundle_reader *r);
/* Does dir hold what was unpacked from this very bundle (and maybe more, made since)? */
bool bundle_is_unpacked(const struct bundle_reader *r, const char *dir);
/* Unpacks all of it to a new directory, all files with the same time; or nothing. */
int bundle_extract(struct bundle_reader *r, const char *dir, struct err *e) NT_MUST_CHECK;
void bundle_close(struct bundle_reader *r); /* NULL ok */

/* ---- both ---- */
bool bundle_name_ok(const char *name); /* a plain name that ends in .nts or .stamp */
/* A stamp's text may come from anybody and becomes part of command lines: harmless characters, and no option
 * that names a file to write. */
int bundle_check_stamp(const char *name, const char *text, size_t n, struct err *e) NT_MUST_CHECK;
#endif
