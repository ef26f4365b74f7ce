/* SPDX-License-Identifier: Apache-2.0
 * A Hugging Face directory in the GPTQ layout, version 1: what vLLM, SGLang, transformers and llama.cpp's
 * converter read. */
#include "common/gptq_file.h"
#include "common/mem.h"
#include "common/pack.h"
#include "common/tool.h"
#include <string.h>

enum what { WEIGHTS, ZEROS, SCALES, GROUPS, PLAIN };

struct source {
    const struct pack_item *it;
    enum what what;
    char name[264];
};

struct job {
    struct pack *p;
    struct safetensors_entry *list;
    struct source *src;
    size_t n;
    int bits, group;
    bool sym, order;
    json_t *skip;                /* "-:regex" rules for linears that stay float */
    uint64_t wrapped;
};

/* ---- planning ---- */

static void add(struct job *j, const struct pack_item *it, enum what what, const char *suffix, enum dtype t,
                int rank, uint64_t a, uint64_t b)
{
    struct source *s = &j->src[j->n];
    size_t n = strlen(it->name) - (what == PLAIN ? 0 : strlen(".weight"));
    s->it = it;
    s->what = what;
    snprintf(s->name, sizeof s->name, "%.*s%s", (int)n, it->name, suffix);
    j->list[j->n++] =
        (struct safetensors_entry){.name = s->name, .dtype = t, .rank = rank, .shape = {a, b}, .user = s};
}

/* A rule that keeps loaders from looking for codes of a linear that has none. */
static void skip_linear(struct job *j, const char *name)
{
    char rule[600] = "-:^", *o = rule + 3;
    for (size_t i = 0; i + strlen(".weight") < strlen(name); i++) {
        if (name[i] == '.') *o++ = '\\';
        *o++ = name[i];
    }
    strcpy(o, "$");
    json_object_set_new(j->skip, rule, json_object());
}

static int plan_linear(struct job *j, const struct pack_item *it, struct err *e)
{
    struct qtensor q;
    if (pack_load(j->p, it->q, &q, e) < 0) return -1;
    const char *why = gptq_refusal(&q);
    bool first = j->bits == 0, same = j->bits == q.bits && j->group == q.group && j->sym == q.sym;
    uint64_t in = (uint64_t)q.in, out = (uint64_t)q.out, b = (uint64_t)q.bits, groups = (uint64_t)q.n_groups;
    if (first) j->bits = q.bits, j->group = q.group, j->sym = q.sym;
    j->order |= q.gidx != NULL;
    qtensor_clear(&q);
    if (why)
        return err_set(e, NT_EXIT_DATA, "%s: tensor %s %s: not possible in --format gptq", j->p->stream,
                       it->name, why);
    if (!first && !same)
        return err_set(
            e, NT_EXIT_DATA,
            "%s: tensor %s has other bits, group or symmetry than those before: --format gptq needs one "
            "setting for all",
            j->p->stream, it->name);
    add(j, it, WEIGHTS, ".qweight", DT_I32, 2, in * b / 32, out);
    add(j, it, ZEROS, ".qzeros", DT_I32, 2, groups, out * b / 32);
    add(j, it, SCALES, ".scales", DT_F16, 2, groups, out);
    add(j, it, GROUPS, ".g_idx", DT_I32, 1, in, 0);
    return 0;
}

static int plan(struct job *j, struct err *e)
{
    struct pack *p = j->p;
    j->list = MEM_NEW(struct safetensors_entry, 4 * p->n_items);
    j->src = MEM_NEW(struct source, 4 * p->n_items);
    j->skip = json_object();
    for (size_t i = 0; i < p->n_items; i++) {
        const struct pack_item *it = &p->items[i];
        bool coded = it->q >= 0 && p->q[it->q].head.form != QF_PLAIN;
        if (coded && !it->linear)
            return err_set(e, NT_EXIT_DATA,
                           "%s: tensor %s is quantized: --format gptq stores embeddings and heads as floats",
                           p->stream, it->name);
        if (coded) {
            if (plan_linear(j, it, e) < 0) return -1;
            continue;
        }
        if (it->linear) skip_linear(j, it->name);
        add(j, it, PLAIN, "", it->norm ? p->norm_dtype : p->dtype, it->rank, it->shape[0], it->shape[1]);
    }
    return j->bits ? 0 : err_set(e, NT_EXIT_DATA, "%s: holds no quantized linear", p->stream);
}

/* ---- writing ---- */

static int put(struct pack_file *f, struct err *e)
{
    struct job *j = f->ctx;
    const struct source *s = f->entry->user;
    if (s->what == PLAIN) return pack_values(j->p, s->it, pack_put_floats, f, e);
    struct qtensor q;
    struct gptq_linear g;
    uint64_t wrapped = 0;
    if (pack_load(j->p, s->it->q, &q, e) < 0) return -1;
    gptq_encode(&q, &g, &wrapped);
    int rc = s->what == WEIGHTS  ? safetensors_put(f->w, g.qweight, g.n_qweight * 4, e)
             : s->what == ZEROS  ? safetensors_put(f->w, g.qzeros, g.n_qzeros * 4, e)
             : s->what == SCALES ? safetensors_put(f->w, g.scales, g.n_scales * 2, e)
                                 : safetensors_put(f->w, g.g_idx, (uint64_t)q.in * 4, e);
    if (s->what == ZEROS) j->wrapped += wrapped;
    gptq_clear(&g);
    qtensor_clear(&q);
    return rc;
}

static json_t *quantize_config(const struct job *j)
{
    json_t *c = json_pack("{s:i, s:i, s:b, s:b, s:b, s:s, s:s, s:s}", "bits", j->bits, "group_size",
                          j->group > 0 ? j->group : -1, "desc_act", j->order, "sym", j->sym, "lm_head", 0,
                          "quant_method", "gptq", "checkpoint_format", "gptq", "pack_dtype", "int32");
    json_object_set_new(c, "meta", json_pack("{s:[s]}", "quantizer", "nt-pack:" NT_VERSION));
    if (json_object_size(j->skip)) json_object_set(c, "dynamic", j->skip);
    return c;
}

/* ---- checking ---- */

struct compare {
    const float *want;
    const char *name;
    size_t at;
};

static int same(void *ctx, const float *x, size_t n, struct err *e)
{
    struct compare *c = ctx;
    for (size_t i = 0; i < n; i++)
        if (x[i] != c->want[c->at + i])
            return err_set(e, NT_EXIT_DATA,
                           "verification failed: tensor %s: value %zu reads back as %.9g, should be %.9g",
                           c->name, c->at + i, (double)c->want[c->at + i], (double)x[i]);
    c->at += n;
    return 0;
}

/* Every value of the directory against its source; floats as rounded to the type they are stored in. */
struct rounded {
    enum dtype t;
    const uint8_t *raw;
    const char *name;
    uint64_t at;
};

static int same_rounded(void *ctx, const float *x, size_t n, struct err *e)
{
    struct rounded *r = ctx;
    size_t size = (size_t)dtype_block_bytes(r->t);
    for (size_t i = 0; i < n; i++) {
        uint8_t b[4];
        dtype_from_f32(b, r->t, x + i, 1);
        if (memcmp(b, r->raw + (r->at + i) * size, size) != 0)
            return err_set(e, NT_EXIT_DATA, "verification failed: tensor %s: value %llu differs", r->name,
                           (unsigned long long)(r->at + i));
    }
    r->at += n;
    return 0;
}

static int verify_item(struct job *j, const struct checkpoint *c, const struct source *s, struct err *e)
{
    if (s->what == PLAIN) {
        const struct checkpoint_tensor *t = checkpoint_find(c, s->name);
        if (!t) return err_set(e, NT_EXIT_DATA, "verification failed: tensor %s is missing", s->name);
        struct rounded r = {.t = t->t.dtype, .raw = t->t.data, .name = s->name};
        return pack_values(j->p, s->it, same_rounded, &r, e);
    }
    if (s->what != WEIGHTS) return 0;
    char *base = mem_printf("%.*s", (int)(strlen(s->name) - strlen(".qweight")), s->name);
    float *w = mem_array((size_t)(s->it->shape[0] * s->it->shape[1]), sizeof *w);
    struct compare cmp = {.want = w, .name = s->name};
    int rc = gptq_read_linear(c, base, j->bits, (int)s->it->shape[0], (int)s->it->shape[1], w, e);
    if (rc == 0) rc = pack_values(j->p, s->it, same, &cmp, e);
    mem_free(w);
    mem_free(base);
    return rc;
}

static int verify(struct job *j, const char *dir, struct err *e)
{
    struct checkpoint *c = checkpoint_open(dir, e);
    int bits = c ? gptq_checkpoint_bits(c, e) : -1, rc = bits < 0 ? -1 : 0;
    if (rc == 0 && bits != j->bits)
        rc = err_set(e, NT_EXIT_DATA, "verification failed: %d bits read back", bits);
    for (size_t i = 0; i < j->n && rc == 0; i++) rc = verify_item(j, c, &j->src[i], e);
    checkpoint_close(c);
    return rc;
}

static int write_all(struct job *j, const char *dir, struct err *e)
{
    json_t *q = quantize_config(j), *extra = json_pack("{s:O}", "quantization_config", q);
    int rc = pack_write_safetensors(j->p, dir, j->list, j->n, put, j, e);
    if (rc == 0) rc = pack_write_config(j->p, dir, j->p->dtype, extra, e);
    if (rc == 0) rc = pack_write_json(dir, "quantize_config.json", q, e);
    if (rc == 0) rc = pack_copy_side_files(j->p, dir, e);
    if (rc == 0) rc = verify(j, dir, e);
    if (rc == 0 && j->wrapped)
        warn("%llu zeros are 0, which GPTQ version 1 stores as all ones: some old loaders read them as 2^%d",
             (unsigned long long)j->wrapped, j->bits);
    json_decref(q);
    json_decref(extra);
    return rc;
}

static int write_gptq(struct pack *p, struct err *e)
{
    if (p->dtype == DT_NONE) p->dtype = DT_F16;
    if (p->norm_dtype == DT_NONE) p->norm_dtype = DT_F32;
    struct job j = {.p = p};
    struct outdir *d = NULL;
    int rc = plan(&j, e);
    if (rc == 0) rc = (d = outdir_open(p->out, e)) ? write_all(&j, outdir_tmp(d), e) : -1;
    if (rc == 0) rc = outdir_commit(d, e);
    else if (d) outdir_discard(d);
    json_decref(j.skip);
    mem_free(j.list);
    mem_free(j.src);
    return rc;
}

const struct packer pack_gptq = {
    .name = "gptq",
    .summary = "GPTQ directory, version 1: 2, 3, 4 or 8 bits",
    .directory = true,
    .size = PACK_CODES,
    .write = write_gptq,
};
