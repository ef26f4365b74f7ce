/* SPDX-License-Identifier: Apache-2.0
 * The one writer of directories in which a quantized linear is several tensors: see pack_codes.h. */
#include "common/pack_codes.h"
#include "common/bitwords.h"
#include "common/mem.h"
#include "common/tool.h"
#include <string.h>

/* Where the bytes of one tensor of the file come from. */
struct codes_entry {
    const struct pack_whole *w;
    size_t setting;
    int part; /* -1: its values as floats */
    char name[272];
};

/* ---- helpers of formats ---- */

int codes_groups(int in, int group)
{
    return group ? (in + group - 1) / group : 1;
}

size_t codes_param(const struct qtensor *q, int group, int o, int k)
{
    int width = q->n_groups == 1 ? q->in : q->group, first = k * (group ? group : q->in);
    return (size_t)o * (size_t)q->n_groups + (size_t)(q->gidx ? k : first / width);
}

int codes_zero(const struct qtensor *q, size_t param)
{
    return q->zero ? q->zero[param] : 1 << (q->bits - 1);
}

void codes_fill(const struct qtensor *q, uint32_t *words, size_t row, size_t step)
{
    size_t in = (size_t)q->in;
    for (size_t n = 0; n < (size_t)q->out * in; n++)
        bits_put(words + n / in * row, step, n % in, q->bits, q->codes[n]);
}

void codes_fill_scales(const struct qtensor *q, int group, const struct codes_part *part, bool across, void *data)
{
    size_t out = (size_t)q->out, groups = (size_t)part->shape[!across], size = (size_t)dtype_block_bytes(part->dtype);
    for (size_t o = 0; o < out; o++)
        for (size_t k = 0; k < groups; k++)
            dtype_from_f32((uint8_t *)data + (across ? k * out + o : o * groups + k) * size, part->dtype,
                           &q->scale[codes_param(q, group, (int)o, (int)k)], 1);
}

int codes_group(const struct qtensor *q, int most, bool rows)
{
    if (q->n_groups == 1 && rows) return 0;
    int width = q->n_groups == 1 ? q->in : q->group;
    if (q->gidx) return q->in % width ? -1 : width;
    for (int g = most && most < width ? most : width; g >= 32; g--)
        if (g % 32 == 0 && width % g == 0 && q->in % g == 0) return g;
    return -1;
}

void codes_module(const struct pack_whole *w, char out[256])
{
    snprintf(out, 256, "%.*s", (int)(strlen(w->name) - strlen(".weight")), w->name);
}

size_t codes_most(const struct codes_job *j)
{
    size_t most = 0;
    for (size_t i = 1; i < j->n_settings; i++)
        if (j->settings[i].uses > j->settings[most].uses) most = i;
    return most;
}

bool codes_scales_exact(const struct qtensor *q, enum dtype t)
{
    for (size_t i = 0; i < (size_t)q->out * (size_t)q->n_groups; i++) {
        uint8_t raw[4];
        float back;
        dtype_from_f32(raw, t, &q->scale[i], 1);
        dtype_to_f32(&back, t, raw, 1);
        if (back != q->scale[i]) return false;
    }
    return true;
}

const char *codes_no_integers(const struct qtensor *q, const char **anew)
{
    *anew = "-q gptq";
    if (q->form != QF_UNIFORM) return "is not quantized uniformly";
    return q->minimum ? "has float minima where the format has integer zeros" : NULL;
}

const char *codes_no_index(const struct qtensor *q, const char **anew)
{
    *anew = "-q gptq --act-order, which leaves groups in place,";
    return q->gidx ? "has its columns in groups by activation order, for which there is no index" : NULL;
}

const char *codes_no_group(int group, const char **anew)
{
    *anew = "-g 32";
    return group < 0 ? "has groups that cannot be cut into equal ones of a multiple of 32" : NULL;
}

const char *codes_no_f16(const struct qtensor *q, const char **anew)
{
    *anew = "--scale-dtype f16";
    return codes_scales_exact(q, DT_F16) ? NULL : "has scales that F16 cannot hold exactly";
}

const char *codes_no_linear(const struct pack *p)
{
    return p->m->c.transposed ? "lies as [in, out] in this family (Conv1D), where loaders expect floats" : NULL;
}

/* ---- planning ---- */

static void add(struct codes_job *j, const struct pack_whole *w, size_t setting, int part,
                const struct codes_part *x)
{
    struct codes_entry *s = &j->entries[j->n_list];
    *s = (struct codes_entry){.w = w, .setting = setting, .part = part};
    if (part >= 0)
        codes_module(w, s->name), strcat(s->name, x->suffix);
    else
        strcpy(s->name, w->name);
    j->list[j->n_list++] = (struct safetensors_entry){
        .name = s->name, .dtype = x->dtype, .rank = x->rank, .shape = {x->shape[0], x->shape[1]}, .user = s};
}

static size_t add_setting(struct codes_job *j, const struct qtensor *q, int group)
{
    struct codes_setting s = {.bits = q->bits, .group = group, .sym = q->sym, .order = q->gidx != NULL};
    size_t i = 0;
    while (i < j->n_settings && (j->settings[i].bits != s.bits || j->settings[i].group != s.group ||
                                 j->settings[i].sym != s.sym || j->settings[i].order != s.order))
        i++;
    if (i == j->n_settings) {
        j->settings = mem_grow(j->settings, &j->settings_cap, i + 1, sizeof s);
        j->settings[j->n_settings++] = s;
    }
    j->settings[i].uses++;
    return i;
}

static int plan_linear(struct codes_job *j, const struct pack_whole *w, struct err *e)
{
    struct codes_part part[CODES_PARTS];
    struct qtensor q;
    const char *why, *anew = NULL;
    int group = 0, n = 0;
    size_t setting = 0;
    if (pack_whole_load(j->p, w, &q, &why, e) < 0) return -1;
    if (!why && q.n_rows) why = "has groups that run across rows", anew = "-q gptq";
    if (!why) why = j->f->refusal(j->p, &q, &group, &anew);
    if (!why) {
        setting = add_setting(j, &q, group);
        n = j->f->list(j->p, &q, group, part);
    }
    qtensor_clear(&q);
    if (why)
        return err_set(e, NT_EXIT_DATA, "%s: tensor %s %s: not possible in --format %s%s%s%s", j->p->stream,
                       w->name, why, j->p->packer->name, anew ? " (nt-quant " : "", anew ? anew : "",
                       anew ? " would quantize anew)" : "");
    if (setting && !j->f->mixed)
        return err_set(e, NT_EXIT_DATA,
                       "%s: tensor %s has other bits, group or symmetry than those before: --format %s needs "
                       "one setting for all",
                       j->p->stream, w->name, j->p->packer->name);
    j->linears[j->n_linears++] = (struct codes_linear){w, setting};
    for (int i = 0; i < n; i++) add(j, w, setting, i, &part[i]);
    return 0;
}

static int plan(struct codes_job *j, struct err *e)
{
    struct pack *p = j->p;
    for (size_t i = 0; i < j->n_wholes; i++) {
        const struct pack_whole *w = &j->wholes[i];
        const struct pack_item *it = w->part[0];
        char module[256];
        if (pack_whole_coded(p, w)) {
            if (!it->linear && !j->f->embeddings)
                return err_set(
                    e, NT_EXIT_DATA,
                    "%s: tensor %s is quantized: --format %s stores embeddings and heads as floats",
                    p->stream, it->name, p->packer->name);
            if (plan_linear(j, w, e) < 0) return -1;
            continue;
        }
        codes_module(w, module);
        if (it->linear) json_array_append_new(j->floats, json_string(module));
        struct codes_part x = {.dtype = it->norm ? p->norm_dtype : p->dtype,
                               .rank = w->rank,
                               .shape = {w->shape[0], w->shape[1]}};
        add(j, w, 0, -1, &x);
    }
    return j->n_linears ? 0 : err_set(e, NT_EXIT_DATA, "%s: holds no quantized linear", p->stream);
}

/* ---- writing ---- */

static int put(struct pack_file *f, struct err *e)
{
    struct codes_job *j = f->ctx;
    const struct codes_entry *s = f->entry->user;
    struct codes_part part[CODES_PARTS];
    struct qtensor q;
    const char *why;
    uint64_t bytes;
    if (s->part < 0) return pack_whole_values(j->p, s->w, pack_put_floats, f, e);
    if (pack_whole_load(j->p, s->w, &q, &why, e) < 0) return -1;
    int group = j->settings[s->setting].group;
    j->f->list(j->p, &q, group, part);
    int rc = tensor_nbytes(f->entry->dtype, f->entry->rank, f->entry->shape, &bytes, e);
    if (rc == 0) {
        void *data = mem_array(bytes, 1);
        j->f->fill(j, &q, group, &part[s->part], s->part, data);
        rc = safetensors_put(f->w, data, bytes, e);
        mem_free(data);
    }
    qtensor_clear(&q);
    return rc;
}

/* ---- reading back ---- */

/* One part against its rows of the whole. */
struct compare {
    const float *got;
    const char *name;
    struct weight_part file;
    uint64_t row;
};

static int same(void *ctx, const float *x, size_t n, struct err *e)
{
    struct compare *c = ctx;
    uint64_t cols = c->file.cols;
    for (size_t i = 0; i < n; i += cols, c->row++) {
        const float *got = c->got + model_part_row(&c->file, c->row) * cols;
        for (uint64_t k = 0; k < cols; k++)
            if (x[i + k] != got[k])
                return err_set(e, NT_EXIT_DATA,
                               "verification failed: tensor %s: row %llu, column %llu reads back as %.9g, "
                               "should be %.9g",
                               c->name, (unsigned long long)c->row, (unsigned long long)k, (double)got[k],
                               (double)x[i + k]);
    }
    return 0;
}

static int same_parts(struct codes_job *j, const struct pack_whole *w, const float *got, struct err *e)
{
    int rc = 0;
    for (int i = 0; i < w->n && rc == 0; i++) {
        const struct pack_item *it = w->part[i];
        struct weight_part all = {
            .rows = it->shape[0], .cols = it->shape[1], .run = it->shape[0], .stride = it->shape[0]};
        struct compare c = {.got = got, .name = it->name, .file = all};
        if (it->role >= 0) model_part_layout(&j->p->m->c, it->role, false, &c.file);
        rc = pack_values(j->p, it, same, &c, e);
    }
    return rc;
}

/* Floats as rounded to the type they are stored in. */
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

static const struct checkpoint_tensor *find(const struct checkpoint *c, const char *name, enum dtype t,
                                            int rank, const uint64_t *shape, struct err *e)
{
    const struct checkpoint_tensor *x = checkpoint_find_stored(c, name);
    bool ok = x && x->t.dtype == t && x->t.rank == rank;
    for (int i = 0; ok && i < rank; i++) ok = x->t.shape[i] == shape[i];
    if (!ok) err_set(e, NT_EXIT_DATA, "verification failed: tensor %s is missing or has changed", name);
    return ok ? x : NULL;
}

static int verify_float(struct codes_job *j, const struct checkpoint *c, const struct safetensors_entry *x,
                        struct err *e)
{
    const struct codes_entry *s = x->user;
    const struct checkpoint_tensor *t = find(c, s->name, x->dtype, x->rank, x->shape, e);
    struct rounded r = {.t = x->dtype, .raw = t ? t->t.data : NULL, .name = s->name};
    return t ? pack_whole_values(j->p, s->w, same_rounded, &r, e) : -1;
}

static int verify_linear(struct codes_job *j, const struct checkpoint *c, const struct codes_linear *l,
                         struct err *e)
{
    struct codes_part part[CODES_PARTS];
    const struct codes_setting *s = &j->settings[l->setting];
    const void *data[CODES_PARTS] = {0};
    struct qtensor q;
    const char *why;
    char module[256];
    if (pack_whole_load(j->p, l->w, &q, &why, e) < 0) return -1;
    int n = j->f->list(j->p, &q, s->group, part), rc = 0;
    codes_module(l->w, module);
    for (int i = 0; i < n && rc == 0; i++) {
        char *name = mem_printf("%s%s", module, part[i].suffix);
        const struct checkpoint_tensor *t = find(c, name, part[i].dtype, part[i].rank, part[i].shape, e);
        if (t)
            data[i] = t->t.data;
        else
            rc = -1;
        mem_free(name);
    }
    float *got = mem_array((size_t)q.out * (size_t)q.in, sizeof *got);
    if (rc == 0) j->f->decode(s, part, data, q.out, q.in, got);
    if (rc == 0) rc = same_parts(j, l->w, got, e);
    mem_free(got);
    qtensor_clear(&q);
    return rc;
}

static int verify(struct codes_job *j, const char *dir, struct err *e)
{
    struct checkpoint *c = checkpoint_open(dir, e);
    int rc = c ? 0 : -1;
    int n = !c ? 0 : c->stored ? c->n_stored : c->n_tensors;
    if (rc == 0 && (size_t)n != j->n_list)
        rc = err_set(e, NT_EXIT_DATA, "verification failed: %d tensors read back, %zu should be there", n,
                     j->n_list);
    for (size_t i = 0; i < j->n_list && rc == 0; i++)
        if (((const struct codes_entry *)j->list[i].user)->part < 0) rc = verify_float(j, c, &j->list[i], e);
    for (size_t i = 0; i < j->n_linears && rc == 0; i++) rc = verify_linear(j, c, &j->linears[i], e);
    checkpoint_close(c);
    return rc;
}

static int write_all(struct codes_job *j, const char *dir, struct err *e)
{
    json_t *extra = j->f->configure(j);
    int rc = pack_write_safetensors(j->p, dir, j->list, j->n_list, put, j, e);
    if (rc == 0) rc = pack_write_config(j->p, dir, j->p->dtype, extra, e);
    if (rc == 0 && j->f->files) rc = j->f->files(j, dir, e);
    if (rc == 0) rc = pack_copy_side_files(j->p, dir, e);
    if (rc == 0) rc = verify(j, dir, e);
    json_decref(extra);
    return rc;
}

/* What was imported leaves as it came, in the float types that it had. */
static void keep_dtypes(struct pack *p)
{
    for (size_t i = 0; i < p->n_items; i++) {
        const struct pack_item *it = &p->items[i];
        enum dtype t = it->part.t->t.dtype, *slot = it->norm ? &p->norm_dtype : &p->dtype;
        bool usual = t == DT_F32 || t == DT_F16 || t == DT_BF16;
        if (!it->linear && !it->part.t->packed && usual && *slot == DT_NONE) *slot = t;
    }
}

int codes_write(struct pack *p, struct err *e)
{
    struct codes_job j = {.p = p, .f = p->packer->codes, .floats = json_array()};
    struct outdir *d = NULL;
    if (p->rest) keep_dtypes(p);
    if (p->dtype == DT_NONE) p->dtype = DT_F16;
    if (p->norm_dtype == DT_NONE) p->norm_dtype = j.f->norms_too ? p->dtype : DT_F32;
    j.wholes = pack_wholes(p, false, &j.n_wholes);
    j.list = MEM_NEW(struct safetensors_entry, CODES_PARTS * j.n_wholes);
    j.entries = MEM_NEW(struct codes_entry, CODES_PARTS * j.n_wholes);
    j.linears = MEM_NEW(struct codes_linear, j.n_wholes);
    int rc = plan(&j, e);
    if (rc == 0) rc = (d = outdir_open(p->out, e)) ? write_all(&j, outdir_tmp(d), e) : -1;
    if (rc == 0)
        rc = outdir_commit(d, e);
    else if (d)
        outdir_discard(d);
    json_decref(j.floats);
    mem_free(j.settings);
    mem_free(j.linears);
    mem_free(j.entries);
    mem_free(j.list);
    pack_wholes_free(j.wholes, j.n_wholes);
    return rc;
}
