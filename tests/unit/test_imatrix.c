/* SPDX-License-Identifier: Apache-2.0
 * The importance matrix file, byte by byte: the expected bytes are put together here from GGUF's layout, not
 * read back by the reader of this project. */
#include "common/imatrix.h"

#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/check.h"

static unsigned char want[4096];
static size_t n;

static void put(const void *p, size_t size)
{
    memcpy(want + n, p, size);
    n += size;
}

static void put_u32(uint32_t v)
{
    put(&v, 4);
}
static void put_u64(uint64_t v)
{
    put(&v, 8);
}
static void put_f32(float v)
{
    put(&v, 4);
}

static void put_str(const char *s)
{
    put_u64(strlen(s));
    put(s, strlen(s));
}

static void pad(void)
{
    while (n % 32) want[n++] = 0;
}

static void put_info(const char *name, uint64_t ne0, uint64_t offset)
{
    put_str(name);
    put_u32(2); /* dimensions, innermost first */
    put_u64(ne0);
    put_u64(1);
    put_u32(0); /* F32 */
    put_u64(offset);
}

static void expected(void)
{
    put("GGUF", 4);
    put_u32(3);
    put_u64(4); /* tensors */
    put_u64(4); /* keys */
    put_str("general.type"), put_u32(8), put_str("imatrix");
    put_str("imatrix.datasets"), put_u32(9), put_u32(8), put_u64(1), put_str("prose");
    put_str("imatrix.chunk_count"), put_u32(4), put_u32(12);
    put_str("imatrix.chunk_size"), put_u32(4), put_u32(512);
    put_info("blk.0.attn_q.weight.in_sum2", 3, 0);
    put_info("blk.0.attn_q.weight.counts", 1, 32);
    put_info("blk.0.ffn_down.weight.in_sum2", 9, 64);
    put_info("blk.0.ffn_down.weight.counts", 1, 128);
    pad();
    put_f32(1.5f), put_f32(0), put_f32(1e10f), pad();
    put_f32(6144), pad();
    for (int i = 0; i < 9; i++) put_f32((float)i / 3);
    pad();
    put_f32(6144), pad();
}

int main(void)
{
    char dir[] = "/tmp/nt-test-imatrix-XXXXXX", path[64];
    unsigned char got[8192];
    double down[9], q[3] = {1.5, 0, 1e10};
    struct err e = {0};
    struct stat st;
    if (!mkdtemp(dir)) return 1;
    snprintf(path, sizeof path, "%s/m.gguf", dir);
    for (int i = 0; i < 9; i++) down[i] = i / 3.0;

    struct imatrix *im = imatrix_open(path, "prose", 12, 512, &e);
    imatrix_add(im, "blk.0.ffn_down.weight", 0, down, 9, 6144);
    imatrix_add(im, "blk.0.attn_q.weight", 0, q, 3, 6144);
    CHECK(stat(path, &st) != 0, "no file before the end");
    CHECK(imatrix_finish(im, &e) == 0, "written %s", e.text);
    FILE *f = fopen(path, "rb");
    size_t size = f ? fread(got, 1, sizeof got, f) : 0;
    if (f) fclose(f);
    expected();
    CHECK(size == n && !memcmp(got, want, n),
          "names sorted, sums and counts in place (%zu bytes, %zu expected)", size, n);
    unlink(path);

    down[4] = 1e39; /* more than a float holds */
    im = imatrix_open(path, "prose", 12, 512, &e);
    imatrix_add(im, "blk.1.ffn_down.weight", 0, down, 9, 6144);
    CHECK(imatrix_finish(im, &e) == -1 && e.code == NT_EXIT_DATA && strstr(e.text, "blk.1.ffn_down.weight") &&
              strstr(e.text, "channel 4"),
          "overflow is named: %s", e.text);
    CHECK(stat(path, &st) != 0, "and leaves no file");
    struct err e2 = {0};
    im = imatrix_open("/nonexistent/x.gguf", "", 1, 1, &e2);
    CHECK(!im && e2.code == NT_EXIT_IO, "no directory: %s", e2.text);
    rmdir(dir);
    return check_done();
}
