/* SPDX-License-Identifier: Apache-2.0
 * The stream reader and salvage on arbitrary bytes. */
#include "common/mem.h"
#include "common/stream_ops.h"
#include "tests/fuzz/fuzz.h"
#include <assert.h>
#include <malloc.h>
#include <sys/mman.h>

static void silent(const char *fmt, ...)
{
    (void)fmt;
}

static void read_all(const char *path)
{
    struct err e = {0};
    struct record rec;
    int k = -1, n = 0;
    struct stream_reader *r = stream_open(path, NULL, &e);
    while (r && (k = stream_next(r, &rec, &e)) > 0)
        if (rec.has_payload && n++ % 2) { /* read every other payload, skip the rest */
            if (stream_payload(r, &rec, NULL, &e)) break;
            mem_free(rec.t.data);
        }
    assert((k == 0) == (e.code == 0) && (!e.code || e.text[0]));
    stream_close(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    struct err e = {0};
    struct salvage_report rep;
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (write(fd, data, size) != (ssize_t)size) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    read_all(path);
    struct outfile *out = outfile_open("/dev/null", &e);
    if (!out) abort();
    if (stream_salvage(path, size & 1, out, silent, &rep, &e)) assert(e.code && e.text[0]);
    close(fd);
    return 0;
}

static void write_layer(struct stream_writer *w, int layer, struct err *e)
{
    float x[40] = {1, 2, 3};
    struct tensor t = {.dtype = DT_F32, .rank = 2, .shape = {5, 8}, .nbytes = 160, .data = x};
    struct tensor z = {.dtype = DT_I8, .rank = 3, .shape = {5, 0, 3}};
    json_t *m = json_pack("{s:s, s:i, s:s, s:{s:[i,f,n,b]}}", "name", "layers.0.attn.hessian", "layer", layer,
                          "merge", "sum", "deep", "list", 70000, 0.5, 1);
    if (stream_write(w, "hessian", m, &t, e) || stream_write(w, "Empty", m, &z, e) ||
        stream_write(w, "note", m, NULL, e) || stream_layer_end(w, layer, e))
        abort();
    json_decref(m);
}

/* 0: two layers; 1: none; 2: two streams; 3: an error trailer in the middle of a record */
bool fuzz_seed(int i, uint8_t **data, size_t *size)
{
    struct err e = {0};
    char path[64];
    int streams = i == 2 ? 2 : 1;
    if (i > 3) return false;
    mallopt(M_MMAP_THRESHOLD, 1 << 28); /* buffers come back without new pages: three times the runs */
    mallopt(M_TRIM_THRESHOLD, 1 << 28);
    *size = 0;
    *data = malloc(1 << 16);
    for (int s = 0; s < streams; s++) {
        int p[2];
        if (pipe(p)) abort();
        snprintf(path, sizeof path, "/proc/self/fd/%d", p[1]);
        json_t *h = json_pack("{s:s, s:{s:i}}", "kind", "stats", "params", "n", s);
        struct stream_writer *w = stream_create(outfile_open(path, &e), h, &e);
        if (!w) abort();
        json_decref(h);
        for (int layer = 0; i != 1 && layer < 2; layer++) write_layer(w, layer, &e);
        uint64_t shape[1] = {100};
        if (i == 3 &&
            (stream_write_begin(w, "rows", NULL, DT_U8, 1, shape, &e) || stream_write_put(w, "abc", 3, &e)))
            abort();
        if (i == 3)
            stream_abort(w, &(struct err){NT_EXIT_DATA, "told to"});
        else if (stream_finish(w, NULL, &e))
            abort();
        close(p[1]);
        ssize_t k;
        while ((k = read(p[0], *data + *size, 4096)) > 0) *size += (size_t)k;
        close(p[0]);
    }
    return true;
}
