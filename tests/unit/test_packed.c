/* SPDX-License-Identifier: Apache-2.0
 * Layouts of quantized weights: each part of each layout missing, of another shape or type, or with another
 * rank is refused with a sentence; values are tested by tests/cli/import. */
#include <sys/stat.h>
#include <unistd.h>
#include "common/checkpoint.h"
#include "common/mem.h"
#include "tests/check.h"
#include "tests/fuzz/packed_seed.h"

static char dir[] = "/tmp/nt-test-packed-XXXXXX";

static void store(const char *name, const void *p, size_t n)
{
    char *path = mem_printf("%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(p, 1, n, f) != n || fclose(f)) exit(99);
    mem_free(path);
}

static struct checkpoint *open_parts(const struct seed *s, const struct seed_part *part, struct err *e)
{
    size_t n;
    uint8_t *f = seed_file(part, &n);
    *e = (struct err){0};
    store("config.json", s->config, strlen(s->config));
    store("model.safetensors", f, n);
    free(f);
    return checkpoint_open(dir, e);
}

static int n_packed(const struct checkpoint *c)
{
    int n = 0;
    for (int i = 0; c && i < c->n_tensors; i++) n += c->tensors[i].packed != NULL;
    return n;
}

static void valid(int k)
{
    struct err e;
    float row[64];
    struct checkpoint *c = open_parts(&seeds[k], seeds[k].part, &e);
    CHECK(c && n_packed(c) == 1 && c->n_tensors == 1 && c->n_stored > 1 &&
              !strcmp(c->layout, seeds[k].layout),
          "%s, case %d: one weight: %s", seeds[k].layout, k, e.text);
    if (c)
        CHECK(!checkpoint_rows(c, &c->tensors[0], 31, 1, row, &e) && row[5] == row[5],
              "its last row is read");
    if (c)
        CHECK(checkpoint_find_stored(c, seeds[k].part[0].name) && !checkpoint_find(c, seeds[k].part[1].name),
              "its parts are hidden, and found where they lie");
    checkpoint_close(c);
}

/* 65 and a sentence; or, where the part that tells the layout went, nothing that is taken for a weight. */
static void refused(int k, int i, const struct seed_part *part, const char *what)
{
    struct err e;
    struct checkpoint *c = open_parts(&seeds[k], part, &e);
    bool ok = c ? n_packed(c) == 0 : e.code == NT_EXIT_DATA && strstr(e.text, dir) && !strchr(e.text, '\n');
    CHECK(ok, "%s %s: %s", seeds[k].part[i].name, what, c ? "opened" : e.text + strlen(dir));
    checkpoint_close(c);
}

static void hostile(int k)
{
    for (int i = 0; i < SEED_PARTS && seeds[k].part[i].name; i++) {
        struct seed_part part[SEED_PARTS];
        memcpy(part, seeds[k].part, sizeof part);
        if (!(part[i].flags & SEED_OPTIONAL)) part[i].name = NULL, refused(k, i, part, "missing");
        memcpy(part, seeds[k].part, sizeof part);
        part[i].shape[0]++, refused(k, i, part, "a row too many");
        part[i].shape[0] -= 2;
        if (!(part[i].flags & SEED_LOOSE)) refused(k, i, part, "a row too few");
        part[i].shape[0]++, part[i].dtype = "F64", part[i].size = 8, refused(k, i, part, "of type F64");
        memcpy(part, seeds[k].part, sizeof part);
        if (part[i].rank == 2 && part[i].shape[1] > 1 && !(part[i].flags & SEED_LOOSE))
            part[i].shape[1]--, refused(k, i, part, "a column too few");
        memcpy(part, seeds[k].part, sizeof part);
        if (part[i].rank == 2 && part[i].shape[1] > 1)
            part[i].rank = 1, refused(k, i, part, "of one dimension");
    }
}

int main(void)
{
    if (!mkdtemp(dir)) return 99;
    for (int k = 0; k < N_SEEDS; k++) valid(k), hostile(k);
    char *config = mem_printf("%s/config.json", dir), *model = mem_printf("%s/model.safetensors", dir);
    unlink(config), unlink(model), rmdir(dir);
    mem_free(config), mem_free(model);
    return check_done();
}
