/* SPDX-License-Identifier: Apache-2.0
 * Every way to cut a stream and every flipped bit is noticed, with one sentence and code 65; hostile headers
 * are refused before anything is allocated. */
#include "common/mem.h"
#include "common/stream_priv.h"
#include "tests/check.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

static uint8_t sample[8192];
static size_t sample_n;

static char *memory_file(const void *p, size_t n, int *fd)
{
    static char path[64];
    *fd = memfd_create("nts", 0);
    if (write(*fd, p, n) != (ssize_t)n) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", *fd);
    return path;
}

/* Reads a stream with all payloads; returns the code (0: whole). */
static int read_code(const void *p, size_t n, struct err *e)
{
    struct record rec;
    int fd, k = -1;
    memset(e, 0, sizeof *e);
    struct stream_reader *r = stream_open(memory_file(p, n, &fd), NULL, e);
    while (r && (k = stream_next(r, &rec, e)) > 0)
        if (rec.has_payload && rec.seq == 0) {
            if (stream_payload(r, &rec, NULL, e)) break;
            mem_free(rec.t.data);
        }
    stream_close(r);
    close(fd);
    return k == 0 && !e->code ? 0 : e->code ? e->code : -1;
}

static int write_sample(const char *path, struct err *e)
{
    struct outfile *out = outfile_open(path, e);
    json_t *h = json_pack("{s:s, s:{s:i}}", "kind", "stats", "params", "bits", 3);
    json_t *m = json_pack("{s:s, s:i}", "name", "a", "layer", 0);
    float x[50] = {1, 2, 3, 4};
    struct tensor t = {.dtype = DT_F32, .rank = 2, .shape = {5, 10}, .nbytes = 200, .data = x};
    struct stream_writer *w = out ? stream_create(out, h, e) : NULL;
    int bad = !w;
    if (w && (stream_write(w, "sums", m, &t, e) || stream_write(w, "sums", m, &t, e) ||
              stream_write(w, "note", m, NULL, e) || stream_layer_end(w, 0, e))) {
        stream_abort(w, e);
        bad = 1;
    } else if (w) {
        bad = stream_finish(w, NULL, e);
    }
    json_decref(h);
    json_decref(m);
    return bad;
}

static void make_sample(void)
{
    struct err e = {0};
    char dir[] = "/tmp/nt-test-XXXXXX", path[64];
    if (!mkdtemp(dir)) abort();
    snprintf(path, sizeof path, "%s/s.nts", dir);
    int bad = write_sample(path, &e);
    FILE *f = fopen(path, "rb");
    sample_n = f ? fread(sample, 1, sizeof sample, f) : 0;
    if (f) fclose(f);
    unlink(path);
    CHECK(!bad && sample_n > 500 && sample_n < sizeof sample, "a sample of %zu bytes", sample_n);
    CHECK(read_code(sample, sample_n, &e) == 0, "is whole: %s", e.text);

    /* a disk that is full after n bytes, for every n: 74, a sentence, nothing left behind */
    size_t wrong = 0, left = 0;
    struct rlimit old;
    getrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_IGN);
    for (size_t n = 0; n < sample_n; n++) {
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){n, old.rlim_max});
        memset(&e, 0, sizeof e);
        wrong += !write_sample(path, &e) || e.code != NT_EXIT_IO || !strstr(e.text, "File too large");
        left += access(path, F_OK) == 0;
    }
    setrlimit(RLIMIT_FSIZE, &old);
    CHECK(!wrong && !left && !rmdir(dir), "full after any of %zu bytes: 74, no file (%zu wrong, %zu left)",
          sample_n, wrong, left);
}

static bool one_sentence(const struct err *e)
{
    return e->text[0] && !strchr(e->text, '\n') && strstr(e->text, "/proc/self/fd/");
}

static void cuts(void)
{
    struct err e;
    size_t bad = 0, trunc = 0;
    for (size_t n = 0; n < sample_n; n++) {
        int code = read_code(sample, n, &e);
        bad += code != NT_EXIT_DATA || !one_sentence(&e);
        trunc += strstr(e.text, n ? "truncated" : "empty") != NULL;
    }
    CHECK(!bad, "cut at any of %zu places: 65 and a sentence", sample_n);
    CHECK(trunc == sample_n, "every sentence says truncated (%zu)", trunc);
}

static void flips(void)
{
    struct err e;
    size_t missed = 0, other = 0, silent = 0;
    for (size_t i = 0; i < sample_n; i++)
        for (int b = 0; b < 8; b++) {
            if (i == 9) continue; /* the minor version may differ */
            sample[i] ^= (uint8_t)(1 << b);
            int code = read_code(sample, sample_n, &e);
            missed += code == 0;
            other += code != 0 && code != NT_EXIT_DATA;
            silent += code && !one_sentence(&e);
            sample[i] ^= (uint8_t)(1 << b);
        }
    CHECK(!missed && !other && !silent,
          "each of %zu flipped bits is noticed (%zu missed, %zu other codes, %zu silent)", sample_n * 8,
          missed, other, silent);
}

/* A hand-made stream: magic, a header map, a record's meta, then whatever. */
static size_t hostile(uint8_t *p, const char *header, const char *meta, const char *rest, size_t rest_n)
{
    msgpack_sbuffer b;
    msgpack_packer k;
    msgpack_sbuffer_init(&b);
    msgpack_packer_init(&k, &b, msgpack_sbuffer_write);
    msgpack_sbuffer_write(&b, (const char *)nts_magic, 10);
    json_t *h = json_loads(header, 0, NULL), *m = meta ? json_loads(meta, 0, NULL) : NULL;
    nts_pack_json(&k, h);
    if (m) {
        msgpack_pack_array(&k, 4);
        msgpack_sbuffer_write(&b, (const char *)nts_sync, sizeof nts_sync);
        msgpack_pack_uint64(&k, 0);
        msgpack_pack_str_with_body(&k, "hessian", 7);
        nts_pack_json(&k, m);
    }
    if (rest) msgpack_sbuffer_write(&b, rest, rest_n);
    memcpy(p, b.data, b.size);
    size_t n = b.size;
    msgpack_sbuffer_destroy(&b);
    json_decref(h);
    json_decref(m);
    return n;
}

static void refuse(const char *why, const char *header, const char *meta, const char *rest, size_t rest_n)
{
    static uint8_t p[1 << 16];
    struct err e;
    size_t n = hostile(p, header ? header : "{\"kind\":\"stats\",\"align\":64}", meta, rest, rest_n);
    int code = read_code(p, n, &e);
    CHECK(code == NT_EXIT_DATA && strstr(e.text, why), "refused: %s", e.text);
}

static void hostile_streams(void)
{
    char deep[400], *long_name = mem_printf("{\"name\":\"%05000d\"}", 0);
    memset(deep, 0x91, sizeof deep);
    refuse("no kind", "{\"align\":64}", NULL, NULL, 0);
    refuse("align", "{\"kind\":\"stats\",\"align\":32}", NULL, NULL, 0);
    refuse("needs the feature 'x'", "{\"kind\":\"stats\",\"align\":64,\"need\":[\"x\"]}", NULL, NULL, 0);
    refuse("unknown dtype", NULL, "{\"dtype\":\"F33\",\"shape\":[1],\"nbytes\":4,\"segs\":1}", NULL, 0);
    refuse("overflows", NULL,
           "{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,4294967296],\"nbytes\":4,\"segs\":1}", NULL,
           0);
    refuse("not what dtype and shape make", NULL, "{\"dtype\":\"F32\",\"shape\":[2],\"nbytes\":4,\"segs\":1}",
           NULL, 0);
    refuse("dimensions", NULL, "{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"nbytes\":4,\"segs\":1}",
           NULL, 0);
    refuse("not made of sizes", NULL, "{\"dtype\":\"F32\",\"shape\":[-1],\"nbytes\":4,\"segs\":1}", NULL, 0);
    refuse("segs", NULL, "{\"dtype\":\"F32\",\"shape\":[1],\"nbytes\":4,\"segs\":9}", NULL, 0);
    refuse("segs", NULL, "{\"dtype\":\"F32\",\"shape\":[1],\"nbytes\":4,\"segs\":0}", NULL, 0);
    refuse("name", NULL, long_name, NULL, 0);
    refuse("layer", NULL, "{\"layer\":\"x\"}", NULL, 0);
    refuse("layer", NULL, "{\"layer\":99999999999}", NULL, 0);
    refuse("nested", NULL, NULL, deep, sizeof deep);
    refuse("twice", NULL, NULL,
           "\x82\xa1"
           "a\x01\xa1"
           "a\x02",
           7);
    refuse("not msgpack", NULL, NULL, "\xc1", 1);
    refuse("not UTF-8", NULL, NULL,
           "\x81\xa1"
           "a\xa1\xff",
           5);
    refuse("non-finite", NULL, NULL,
           "\x81\xa1"
           "a\xcb\x7f\xf8\0\0\0\0\0\0",
           12);
    refuse("above 2^63", NULL, NULL,
           "\x81\xa1"
           "a\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
           12);
    refuse("not an array of four", NULL, NULL, "\x93\x01\x02\x03", 4);
    refuse("no sync mark", NULL, NULL, "\x94\x01\x02\x03\x04", 5);
    refuse("truncated", NULL, NULL, "\xdf\xff\xff\xff\xff", 5); /* a map that claims 2^32 - 1 entries */
    refuse("truncated", NULL, NULL, "\xdd\x7f\xff\xff\xff", 5);
    refuse("a map of more than", NULL, NULL, "\x81\xdb\xff\xff\xff\xff", 6);
    /* a payload of 8 EiB in a stream of 200 bytes: nothing near that is allocated (RLIMIT_AS below) */
    refuse("not nil", NULL,
           "{\"dtype\":\"U8\",\"shape\":[9000000000000000000],\"nbytes\":9000000000000000000,\"segs\":3}",
           deep, 200);
    char pads[130];
    memset(pads, 0xc0, sizeof pads);
    refuse("no bin32", NULL,
           "{\"dtype\":\"U8\",\"shape\":[9000000000000000000],\"nbytes\":9000000000000000000,\"segs\":3}",
           pads, 130);
    mem_free(long_name);
}

/* The padding of the sample with something else than nil, checksums untouched. */
static void padding(void)
{
    struct err e;
    uint8_t *pad = memchr(sample, 0xc6, sample_n);
    while (pad && pad[-1] != 0xc0) pad = memchr(pad + 1, 0xc6, sample_n - (size_t)(pad + 1 - sample));
    if (!CHECK(pad, "the sample has padding")) return;
    pad[-1] = 0x01;
    CHECK(read_code(sample, sample_n, &e) == NT_EXIT_DATA && strstr(e.text, "not nil"), "%s", e.text);
    pad[-1] = 0xc0;
}

static void limits(void)
{
    struct err e;
    mem_set_limit(100);
    CHECK(read_code(sample, sample_n, &e) == NT_EXIT_REFUSED && strstr(e.text, "--max-mem"), "%s", e.text);
    mem_set_limit(0);
}

int main(void)
{
#ifndef __SANITIZE_ADDRESS__
    setrlimit(RLIMIT_AS, &(struct rlimit){4ull << 30, 4ull << 30});
#endif
    make_sample();
    cuts();
    flips();
    hostile_streams();
    padding();
    limits();
    return check_done();
}
