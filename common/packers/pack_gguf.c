/* SPDX-License-Identifier: Apache-2.0
 * A GGUF file after a template (gguf_template.h makes one where there is none): its keys and the order of its tensors stay, data and types are ours. Codes
 * are stored in a block type where that loses nothing, else as floats, and the counts are said. */
#include "common/ggml_encode.h"
#include "common/ggml_types.h"
#include "common/gguf_template.h"
#include "common/gguf_write.h"
#include "common/mem.h"
#include "common/pack.h"
#include "common/tool.h"
#include <string.h>

enum source { FROM_TEMPLATE, FROM_FILE, FROM_CODES, FROM_VALUES };

struct plan {
    const struct checkpoint_tensor *like;
    const struct pack_whole *w; /* NULL: a table that the template alone has */
    enum source source;
    enum dtype t;
    bool loose; /* codes that are stored as floats */
};

struct job {
    struct pack *p;
    struct checkpoint *like;
    struct pack_whole *wholes;
    size_t n_wholes;
    struct plan *plan;
    struct gguf_writer *w;
};

/* ---- planning ---- */

/* All values of a tensor; the caller frees. */
struct values {
    float *x;
    size_t n;
};

static int collect(void *ctx, const float *x, size_t n, struct err *e)
{
    struct values *v = ctx;
    (void)e;
    memcpy(v->x + v->n, x, n * sizeof *x);
    v->n += n;
    return 0;
}

/* Does the template hold these very values? Then its bytes are the smallest way to store them. */
static bool same_as_template(const struct tensor *t, const float *x)
{
    uint64_t cols = t->shape[t->rank - 1], rows = tensor_count(t) / cols, bytes = t->nbytes / rows;
    if (!dtype_is_float(t->dtype)) return false;
    float *row = mem_array((size_t)cols, sizeof *row);
    bool same = true;
    for (uint64_t r = 0; r < rows && same; r++) {
        dtype_to_f32(row, t->dtype, (char *)t->data + r * bytes, (size_t)cols);
        for (uint64_t i = 0; i < cols && same; i++) same = row[i] == x[r * cols + i];
    }
    mem_free(row);
    return same;
}

static int plan_values(struct job *j, struct plan *x, struct err *e)
{
    const struct tensor *t = &x->like->t;
    struct values v = {.x = mem_array((size_t)tensor_count(t), sizeof(float))};
    int rc = pack_whole_values(j->p, x->w, collect, &v, e);
    x->source = FROM_VALUES;
    if (rc == 0) {
        unsigned types = float_types_for(v.x, v.n);
        x->t = t->dtype == DT_BF16 && types & 2 ? DT_BF16 : float_type_of(types); /* of two bytes either way */
    }
    if (rc == 0 && same_as_template(t, v.x)) x->source = FROM_TEMPLATE, x->t = t->dtype;
    mem_free(v.x);
    return rc;
}

static int plan_codes(struct job *j, struct plan *x, struct err *e)
{
    struct qtensor q;
    const char *why;
    if (pack_whole_load(j->p, x->w, &q, &why, e) < 0) return -1;
    if (!why) x->t = ggml_encode_choose(&q);
    bool fits = !why && (dtype_block(x->t) > 1 || q.form == QF_PLAIN);
    qtensor_clear(&q);
    x->source = fits && dtype_block(x->t) > 1 ? FROM_CODES : FROM_VALUES;
    x->loose = !fits;
    if (!fits && !j->p->loose)
        return err_set(e, NT_EXIT_DATA,
                       "%s: tensor %s %s: --loose stores such tensors as floats; codes that fit come from "
                       "nt-quant with --sym and -g 32, or from -q kquant, which quantize anew",
                       j->p->stream, x->w->part[0]->name,
                       why ? why : "has codes that fit no block type of GGUF without loss");
    return why ? plan_values(j, x, e) : 0;
}

static bool fits_template(const struct pack_whole *w, const struct tensor *t)
{
    uint64_t count = w->shape[0] * (w->rank == 2 ? w->shape[1] : 1);
    if (w->part[0]->norm) return tensor_count(t) == count; /* of heads: [heads, E] there */
    if (t->rank == 3 && w->n > 1) /* experts one after the other */
        return t->shape[0] == (uint64_t)w->n && t->shape[2] == w->shape[1] && tensor_count(t) == count;
    if (t->rank == 1 && w->rank == 2 && w->shape[0] == 1) return t->shape[0] == count; /* the shared expert's gate */
    return t->rank == w->rank && t->shape[0] == w->shape[0] && (t->rank == 1 || t->shape[1] == w->shape[1]);
}

static int plan_one(struct job *j, struct plan *x, struct err *e)
{
    const struct tensor *t = &x->like->t;
    struct pack *p = j->p;
    for (size_t i = 0; i < j->n_wholes && !x->w; i++)
        if (strcmp(j->wholes[i].name, x->like->name) == 0) x->w = &j->wholes[i];
    if (!x->w) {
        x->source = FROM_TEMPLATE;
        x->t = t->dtype;
        return strcmp(x->like->name, "rope_freqs.weight") == 0 || strncmp(x->like->name, "rope_factors_", 13) == 0
                   ? 0
                   : err_set(e, NT_EXIT_DATA, "%s: tensor %s is no tensor of %s", j->like->path,
                             x->like->name, p->m->ck->path);
    }
    if (!fits_template(x->w, t))
        return err_set(e, NT_EXIT_DATA, "%s: tensor %s has another shape than in %s", j->like->path,
                       x->like->name, p->m->ck->path);
    x->source = FROM_VALUES;
    x->t = DT_F32;
    bool routing = x->w->part[0]->layer >= 0 && x->w->part[0]->role < 0; /* F32, as llama.cpp's converter has it */
    if (x->w->part[0]->norm || x->w->rank == 1 || routing) return 0;
    if (pack_whole_coded(p, x->w)) return plan_codes(j, x, e);
    for (int i = 0; i < x->w->n; i++)
        if (!p->m->gguf || x->w->part[i]->q >= 0) return plan_values(j, x, e);
    x->source = FROM_FILE;
    x->t = x->w->part[0]->part.t->t.dtype;
    return 0;
}

static int plan_all(struct job *j, struct err *e)
{
    struct pack *p = j->p;
    const char *arch = json_string_value(json_object_get(j->like->meta, "general.architecture")),
               *own = p->m->c.family->gguf_arch;
    if (strcmp(j->like->format, "gguf") != 0)
        return err_set(e, NT_EXIT_DATA, "%s: no GGUF file", j->like->path);
    if (!own)
        return err_set(e, NT_EXIT_DATA, "%s: llama.cpp has no architecture for %s models", j->like->path,
                       p->m->c.arch);
    if (!arch || strcmp(arch, own) != 0)
        return err_set(e, NT_EXIT_DATA, "%s: a template of architecture %.40s for a %s model", j->like->path,
                       arch ? arch : "(none)", p->m->c.arch);
    size_t bound = 0;
    int rc = 0;
    for (int i = 0; i < j->like->n_tensors && rc == 0; i++) {
        j->plan[i].like = &j->like->tensors[i];
        rc = plan_one(j, &j->plan[i], e);
        bound += j->plan[i].w != NULL;
    }
    if (rc == 0 && bound != j->n_wholes)
        rc = err_set(e, NT_EXIT_DATA, "%s: a template with %zu of the model's %zu tensors", j->like->path,
                     bound, j->n_wholes);
    return rc;
}

/* Said aloud: what is stored as what, and which codes found no block type. */
static enum dtype say_types(const struct job *j)
{
    int of[DT_COUNT] = {0}, linear[DT_COUNT] = {0}, loose = 0, most = DT_F32;
    char text[256] = "";
    for (int i = 0; i < j->like->n_tensors; i++) {
        const struct plan *x = &j->plan[i];
        of[x->t]++;
        if (!x->w || !x->w->part[0]->linear) continue;
        linear[x->t]++;
        loose += x->loose;
    }
    for (int t = 0; t < DT_COUNT; t++) {
        size_t n = strlen(text);
        if (of[t])
            snprintf(text + n, sizeof text - n, "%s%s %d", n ? ", " : "", dtype_name((enum dtype)t), of[t]);
        if (linear[t] > linear[most]) most = t;
    }
    note("tensors by type: %s", text);
    if (loose)
        warn("%d quantized tensors fit no block type of GGUF without loss and are stored as floats: their "
             "bits are not saved",
             loose);
    return (enum dtype)most;
}

/* ---- writing ---- */

static void put_keys(struct job *j, enum dtype most)
{
    static const struct {
        enum dtype t;
        uint32_t file_type;
    } table[] = {{DT_F32, 0},   {DT_F16, 1},   {DT_Q4_0, 2},  {DT_Q4_1, 3},  {DT_Q8_0, 7},
                 {DT_Q5_0, 8},  {DT_Q5_1, 9},  {DT_Q2_K, 10}, {DT_Q3_K, 12}, {DT_Q4_K, 15},
                 {DT_Q5_K, 17}, {DT_Q6_K, 18}, {DT_BF16, 32}};
    int n;
    bool same = true;
    const struct gguf_kv *kv = gguf_kvs(j->like, &n);
    for (int i = 0; i < n; i++)
        if (strncmp(kv[i].key, "split.", 6) != 0) gguf_put_kv(j->w, &kv[i]);
    for (int i = 0; i < j->like->n_tensors && same; i++) same = j->plan[i].t == j->like->tensors[i].t.dtype;
    if (same) return; /* the same mixture of types: its name stays */
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].t == most) gguf_put_u32(j->w, "general.file_type", table[i].file_type);
    gguf_put_u32(j->w, "general.quantization_version", 2);
}

static int put_rows_of_codes(struct job *j, const struct plan *x, struct err *e)
{
    struct qtensor q;
    const char *why;
    if (pack_whole_load(j->p, x->w, &q, &why, e) < 0) return -1;
    size_t bytes = (size_t)q.in / (size_t)dtype_block(x->t) * (size_t)dtype_block_bytes(x->t);
    uint8_t *out = mem_array((size_t)q.out, bytes);
#pragma omp parallel for schedule(static)
    for (int r = 0; r < q.out; r++) ggml_encode_row(&q, x->t, r, out + (size_t)r * bytes);
    int rc = gguf_put(j->w, out, (uint64_t)q.out * bytes, e);
    mem_free(out);
    qtensor_clear(&q);
    return rc;
}

struct put {
    struct job *j;
    const struct plan *x;
    void *buf;
    size_t cap;
};

static int put_values(void *ctx, const float *v, size_t n, struct err *e)
{
    struct put *o = ctx;
    size_t size = (size_t)dtype_block_bytes(o->x->t);
    o->buf = mem_grow(o->buf, &o->cap, n * size, 1);
    if (pack_round(o->buf, o->x->t, v, n, o->x->w->name, e) < 0) return -1;
    return gguf_put(o->j->w, o->buf, n * size, e);
}

static int put_tensor(struct job *j, const struct plan *x, struct err *e)
{
    struct put o = {.j = j, .x = x};
    const struct checkpoint_tensor *raw = x->source == FROM_FILE ? x->w->part[0]->part.t : x->like;
    if (x->source == FROM_CODES) return put_rows_of_codes(j, x, e);
    if (x->source != FROM_VALUES) {
        int rc = gguf_put(j->w, raw->t.data, raw->t.nbytes, e);
        checkpoint_release(x->source == FROM_FILE ? j->p->m->ck : j->like, raw);
        return rc;
    }
    int rc = pack_whole_values(j->p, x->w, put_values, &o, e);
    mem_free(o.buf);
    return rc;
}

static int write_file(struct job *j, struct outfile *f, struct err *e)
{
    j->w = gguf_create(f);
    put_keys(j, say_types(j));
    for (int i = 0; i < j->like->n_tensors; i++)
        gguf_tensor(j->w, j->plan[i].like->name, j->plan[i].t, j->plan[i].like->t.rank,
                    j->plan[i].like->t.shape);
    int rc = gguf_data(j->w, e);
    progress_start("pack", "tensors", j->like->n_tensors);
    for (int i = 0; i < j->like->n_tensors && rc == 0; i++) {
        rc = put_tensor(j, &j->plan[i], e);
        progress_at(i + 1, "%s", j->plan[i].like->name);
    }
    progress_end();
    if (rc == 0) return gguf_end(j->w, e);
    gguf_drop(j->w);
    return -1;
}

static int write_gguf(struct pack *p, struct err *e)
{
    struct outfile *made = NULL; /* a template of our own */
    if (p->norm_dtype != DT_NONE && p->norm_dtype != DT_F32)
        return err_set(e, NT_EXIT_USAGE, "--format gguf stores norms as F32, as llama.cpp demands");
    struct job j = {.p = p, .like = p->like ? checkpoint_open(p->like, e) : p->m->gguf ? p->m->ck : NULL};
    if (!p->like && !p->m->gguf) j.like = gguf_template(p, &made, e);
    if (!j.like) return -1;
    j.plan = MEM_NEW(struct plan, (size_t)j.like->n_tensors);
    j.wholes = pack_wholes(p, true, &j.n_wholes);
    struct outfile *f = plan_all(&j, e) < 0 ? NULL : outfile_open(p->out, e);
    int rc = f ? write_file(&j, f, e) : -1;
    if (rc == 0) rc = outfile_flush(f, e);
    if (rc == 0 && outfile_tmp(f)) rc = pack_verify(p, outfile_tmp(f), e);
    if (rc == 0)
        rc = outfile_commit(f, e);
    else
        outfile_discard(f);
    if (j.like != p->m->ck) checkpoint_close(j.like);
    outfile_discard(made);
    mem_free(j.plan), pack_wholes_free(j.wholes, j.n_wholes);
    return rc;
}

const struct packer pack_gguf = {
    .name = "gguf",
    .summary = "GGUF, from scratch or after a template (--like), low-bit where that loses nothing",
    .size = PACK_CODES,
    .write = write_gguf,
};
