/* SPDX-License-Identifier: Apache-2.0
 * Which sequences and which rows a run of nt-collect takes. Its numbers are checked against another program's
 * in tests/cli/nt-collect/oracle.sh. */
#include "common/collect.h"

#include "common/mem.h"
#include "tests/check.h"

static int shard_ok(const char *text, int i, int n)
{
    struct collect_opts o = {0};
    struct err e = {0};
    int rc = collect_shard_parse(text, &o, &e);
    if (n == 0) return rc == -1 && e.code == NT_EXIT_USAGE && strstr(e.text, text);
    return rc == 0 && o.shard == i && o.n_shards == n;
}

static void test_shards(void)
{
    CHECK(shard_ok("0/1", 0, 1) && shard_ok("3/4", 3, 4), "I/N");
    CHECK(shard_ok("4/4", 0, 0) && shard_ok("-1/4", 0, 0) && shard_ok("0/0", 0, 0), "outside of the range");
    CHECK(shard_ok("", 0, 0) && shard_ok("1", 0, 0) && shard_ok("1/", 0, 0) && shard_ok("1/2x", 0, 0) &&
              shard_ok("/2", 0, 0),
          "no shard at all");
    struct tokens t = {.n = 19, .n_holdout = 2, .T = 3};
    for (int n = 1; n <= 17; n += 4) {
        int next = 0, good = 1, least = 17, most = 0;
        for (int i = 0; i < n; i++) {
            struct collect_opts o = {.shard = i, .n_shards = n};
            struct err e = {0};
            int first, count;
            good = good && collect_range(&t, &o, &first, &count, &e) == 0 && first == next;
            next += count;
            least = count < least ? count : least;
            most = count > most ? count : most;
        }
        CHECK(good && next == 17 && most - least <= 1,
              "%d shards are consecutive, even and hold all training data", n);
    }
    struct collect_opts o = {.shard = 0, .n_shards = 40};
    struct err e = {0}, e2 = {0};
    int first, count;
    CHECK(collect_range(&t, &o, &first, &count, &e) == -1 && e.code == NT_EXIT_USAGE, "an empty shard: %s",
          e.text);
    t.n_holdout = 19;
    CHECK(collect_range(&t, &o, &first, &count, &e2) == -1 && e2.code == NT_EXIT_DATA, "only holdout: %s",
          e2.text);
}

static void test_rows(void)
{
    int n, m;
    uint64_t *a = collect_choose_rows(1000, 50, 7, &n), *b = collect_choose_rows(1000, 50, 7, &m);
    int ascending = 1;
    for (int i = 1; i < n; i++) ascending = ascending && a[i] > a[i - 1];
    CHECK(n == 50 && ascending && a[49] < 1000, "50 distinct rows of 1000, ascending");
    CHECK(m == 50 && !memcmp(a, b, 50 * sizeof *a), "the same seed gives the same rows");
    mem_free(b);
    b = collect_choose_rows(1000, 50, 8, &m);
    CHECK(m == 50 && memcmp(a, b, 50 * sizeof *a) != 0, "another seed gives others");
    mem_free(a);
    mem_free(b);
    a = collect_choose_rows(20, 50, 7, &n);
    CHECK(n == 20 && a[0] == 0 && a[19] == 19, "all rows when there are fewer");
    mem_free(a);
    /* every tenth of the range gets its share: 300 draws of 100 from 1000, expected 3000 a tenth, sigma < 52
     */
    int tenth[10] = {0}, worst = 0;
    for (uint64_t seed = 0; seed < 300; seed++) {
        a = collect_choose_rows(1000, 100, seed, &n);
        for (int i = 0; i < n; i++) tenth[a[i] / 100]++;
        mem_free(a);
    }
    for (int i = 0; i < 10; i++) worst = abs(tenth[i] - 3000) > worst ? abs(tenth[i] - 3000) : worst;
    CHECK(worst < 260, "rows are spread evenly (largest deviation %d of 3000)", worst);
}

int main(void)
{
    test_shards();
    test_rows();
    return check_done();
}
