/* SPDX-License-Identifier: Apache-2.0
 * Forward over all layers, head, backward over all layers, Adam. */
#include "common/scope_model.h"
#include <math.h>
#include <string.h>
#include "common/mem.h"
#include "common/tweak_block.h"
#include "common/tool.h"

static size_t role_size(const struct model_config *c, int r, int *out)
{
    int in;
    role_dims(&c->block, r, out, &in);
    return (size_t)*out * (size_t)in;
}

static size_t largest_role(const struct model_config *c)
{
    size_t most = 0;
    for (int r = 0, out; r < block_linears(&c->block); r++)
        if (role_size(c, r, &out) > most) most = role_size(c, r, &out);
    return most;
}

uint64_t scope_bytes(const struct model_config *c, const struct scope_opts *o, const struct scope_input *in)
{
    uint64_t R = (uint64_t)o->batch * (uint64_t)o->seq, D = (uint64_t)c->block.D, L = (uint64_t)c->n_layers;
    uint64_t bytes =
        block_bytes(c) + block_work_bytes(&c->block, (int)R, true) + (L + 4) * R * D * sizeof(float);
    uint64_t norms = D;
    for (int i = 0; i < NORM_COUNT; i++) norms += L * (uint64_t)norm_dim(&c->block, i);
    uint64_t n = norms * (c->norm_bias ? 2 : 1) + (o->scales ? in->n_scales + in->n_minima : 0) +
                 (o->all ? scope_all_values(c) : 0);
    bytes += 8 * n * sizeof(float) + (in->n_scales + in->n_minima) * (sizeof(float) + 1);
    bytes += largest_role(c) * (sizeof(float) + 2);
    for (int r = 0, out; r < block_linears(&c->block) && o->scales; r++)
        bytes += role_size(c, r, &out) * sizeof(float);
    /* the two heads share their weights; each has rows of its own; of bf16 forms there are two, for W^T and W
     */
    bytes += block_back_bytes(c) + head_kept_bytes(c) * (o->kl > 0 ? 2 : 1);
    return bytes + 3 * head_bytes(c) - 2 * (uint64_t)c->vocab * D * sizeof(float) - head_back_bytes(c);
}

/* ---- the vector of values ---- */

static bool trains(const struct scope *s, int layer)
{
    return layer >= s->o->layers[0] && layer < s->o->layers[1];
}

static void place_values(struct scope *s)
{
    size_t n = 0;
    bool trained[NORM_VECTORS];
    model_trained_norms(s->m, s->o->qk || s->o->all, trained);
    s->norm_at = MEM_NEW(size_t, (size_t)s->in->n_norms);
    s->scale_at = MEM_NEW(size_t, (size_t)s->L * s->in->per);
    s->min_at = MEM_NEW(size_t, (size_t)s->L * s->in->per);
    for (int i = 0; i < s->in->n_norms; i++) {
        bool final = i >= s->L * NORM_VECTORS;
        size_t size = s->in->at[i + 1] - s->in->at[i];
        bool has =
            size && (final ? s->o->final_norm : trains(s, i / NORM_VECTORS) && trained[i % NORM_VECTORS]);
        s->norm_at[i] = has ? n : SCOPE_NONE;
        n += has ? size : 0;
    }
    s->final_at = s->norm_at[s->L * NORM_VECTORS];
    s->n_norms = n;
    for (int kind = 0; kind < 2; kind++)
        for (int i = 0; i < s->L * s->in->per; i++) {
            const struct qtensor *q = &s->in->t[i].q;
            bool has = s->o->scales && trains(s, i / s->in->per) && q->out && q->form == QF_UNIFORM &&
                       (!kind || q->minimum);
            (kind ? s->min_at : s->scale_at)[i] = has ? n : SCOPE_NONE;
            if (has) n += qtensor_params(q);
        }
    s->n = s->o->all ? scope_all_place(s, n) : n;
}

const float *scope_norm(const struct scope *s, int i)
{
    if (s->in->at[i + 1] == s->in->at[i]) return NULL;
    return s->norm_at[i] == SCOPE_NONE ? s->in->norms + s->in->at[i] : s->value + s->norm_at[i];
}

static void put_final_norm(struct scope *s)
{
    int final = s->L * NORM_VECTORS;
    head_put_norm(s->student, scope_norm(s, final), scope_norm(s, final + 1));
}

void scope_put(struct scope *s, const float *value)
{
    memcpy(s->value, value, s->n * sizeof *value);
    s->be->put(s->p, value, s->n * sizeof *value);
    put_final_norm(s);
}

/* The input's gains of the norm that vector i belongs to. Order of model_norm_part: NORM_COUNT gains of a
 * layer, then their biases; the final gain and its bias. */
static const float *gains_of(const struct scope *s, int i)
{
    int final = s->L * NORM_VECTORS, gain = i < final ? i - i % NORM_VECTORS + i % NORM_COUNT : final;
    return s->in->norms + s->in->at[gain];
}

void scope_apply(const struct scope *s, float *value)
{
    for (int i = 0; i < s->in->n_norms && s->o->relative; i++) {
        const float *start = s->in->norms + s->in->at[i], *gain = gains_of(s, i);
        for (size_t k = 0; s->norm_at[i] != SCOPE_NONE && k < s->in->at[i + 1] - s->in->at[i]; k++)
            value[s->norm_at[i] + k] = start[k] + gain[k] * value[s->norm_at[i] + k];
    }
    if (s->o->norm_dtype == DT_NONE) return;
    tweak_round_norms(value, s->n_norms, s->o->norm_dtype, s->m->gguf ? 0 : s->m->c.family->norm_offset);
}

/* dL/dr = gain dL/dgain, dL/dd = gain dL/dbias */
static void relative_gradient(struct scope *s)
{
    for (int i = 0; i < s->in->n_norms; i++)
        for (size_t k = 0; s->norm_at[i] != SCOPE_NONE && k < s->in->at[i + 1] - s->in->at[i]; k++)
            s->grad[s->norm_at[i] + k] *= gains_of(s, i)[k];
}

void scope_start(struct scope *s)
{
    float *v = MEM_NEW(float, s->n);
    const size_t *from = s->in->at;
    for (int i = 0; i < s->in->n_norms; i++)
        if (s->norm_at[i] != SCOPE_NONE)
            memcpy(v + s->norm_at[i], s->in->norms + from[i], (from[i + 1] - from[i]) * sizeof *v);
    for (int i = 0; i < s->L * s->in->per; i++)
        for (size_t k = 0; s->scale_at[i] != SCOPE_NONE && k < qtensor_params(&s->in->t[i].q); k++)
            v[s->scale_at[i] + k] = 1;
    if (s->o->all) memcpy(v + s->n_norms, s->first, (s->n - s->n_norms) * sizeof *v);
    scope_put(s, v);
    if (s->o->relative) s->be->fill(s->p, 0, s->n_norms);
    s->be->fill(s->am, 0, s->n);
    s->be->fill(s->av, 0, s->n);
    mem_free(v);
}

/* ---- opening ---- */

static size_t most_groups(const struct scope_input *in)
{
    size_t most = 0;
    for (int i = 0; i < in->n_layers * in->per; i++) {
        size_t n = qtensor_params(&in->t[i].q);
        if (n > most) most = n;
    }
    return most;
}

static void alloc_buffers(struct scope *s)
{
    const struct backend *be = s->be;
    size_t R = (size_t)s->R, D = (size_t)s->D, rows = R * D * sizeof(float);
    s->bound = be->alloc(rows * ((size_t)s->L + 1));
    s->xt = be->alloc(rows);
    s->dy = be->alloc(rows);
    s->dx = be->alloc(rows);
    for (int r = 0, out; r < s->in->per && s->o->scales; r++)
        s->dw[r] = be->alloc(role_size(&s->m->c, r, &out) * sizeof(float));
    dev *vectors[] = {&s->p, &s->g, &s->am, &s->av};
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
        *vectors[i] = be->alloc(s->n * sizeof(float));
    s->value = MEM_NEW(float, s->n);
    s->grad = MEM_NEW(float, s->n);
    s->w = MEM_NEW(float, largest_role(&s->m->c));
    s->scale = MEM_NEW(float, most_groups(s->in));
    s->minimum = MEM_NEW(float, most_groups(s->in));
    s->kl_row = MEM_NEW(double, R);
    s->nll_row = MEM_NEW(double, R);
    s->target = MEM_NEW(int32_t, R);
}

struct scope *scope_open(struct model *m, struct scope_input *in, const struct scope_opts *o, int max_pos,
                         struct err *e)
{
    struct scope *s = MEM_NEW(struct scope, 1);
    *s = (struct scope){.m = m, .be = m->be, .o = o, .in = in, .L = m->c.n_layers, .D = m->c.block.D};
    s->R = o->batch * o->seq;
    place_values(s);
    alloc_buffers(s);
    s->blk = block_alloc(m, max_pos);
    s->work = block_work_alloc(m->be, &m->c.block, s->R, true);
    s->teacher = head_open(m, NULL, e);
    if (s->teacher) s->student = head_share(m, s->teacher, NULL, e);
    if (s->student && (!o->all || !scope_all_open(s, e))) {
        scope_start(s);
        return s;
    }
    scope_close(s);
    return NULL;
}

void scope_close(struct scope *s)
{
    if (!s) return;
    dev held[] = {s->bound, s->xt, s->dy, s->dx, s->p, s->g, s->am, s->av, s->ids};
    void *host[] = {s->norm_at, s->scale_at, s->min_at,  s->matrix_at, s->value,   s->grad,  s->first,
                    s->w,       s->scale,    s->minimum, s->kl_row,    s->nll_row, s->target};
    head_free(s->student);
    head_free(s->teacher);
    block_free(s->m, s->blk);
    block_work_free(s->work);
    for (size_t i = 0; i < sizeof held / sizeof *held; i++) s->be->release(held[i]);
    for (int r = 0; r < LINEARS_MAX; r++) s->be->release(s->dw[r]);
    for (size_t i = 0; i < sizeof host / sizeof *host; i++) mem_free(host[i]);
    mem_free(s);
}

/* ---- one layer on the device ---- */

int scope_load_float(struct scope *s, int layer, struct err *e)
{
    return block_load(s->m, s->blk, layer, e);
}

static int round_to(enum dtype t, float *v, size_t n)
{
    enum { CHUNK = 256 };
    uint8_t stored[CHUNK * sizeof(float)];
    for (size_t i = 0; i < n; i += CHUNK) {
        size_t k = n - i < CHUNK ? n - i : CHUNK;
        dtype_from_f32(stored, t, v + i, k);
        dtype_to_f32(v + i, t, stored, k);
    }
    return f32_first_nonfinite(v, n) < n ? -1 : 0;
}

int scope_scales(struct scope *s, int layer, int r, struct err *e)
{
    const struct qtensor *q = &s->in->t[layer * s->in->per + r].q;
    size_t n = qtensor_params(q), at = s->scale_at[layer * s->in->per + r],
           min_at = s->min_at[layer * s->in->per + r];
    int rc = 0;
    if (at == SCOPE_NONE) return 0;
    for (size_t i = 0; i < n; i++) s->scale[i] = q->scale[i] * s->value[at + i];
    rc |= round_to(q->scale_dtype, s->scale, n);
    for (size_t i = 0; i < n && min_at != SCOPE_NONE; i++)
        s->minimum[i] = q->minimum[i] + q->scale[i] * s->value[min_at + i];
    if (min_at != SCOPE_NONE) rc |= round_to(q->scale_dtype, s->minimum, n);
    return rc ? err_set(e, NT_EXIT_DATA, "%s: %s: a trained scale left the range of %s", s->in->src.given,
                        q->name, dtype_name(q->scale_dtype))
              : 0;
}

static int load_linear(struct scope *s, int layer, int r, struct err *e)
{
    int out, i = layer * s->in->per + r;
    size_t n = role_size(&s->m->c, r, &out);
    bool own = s->scale_at[i] == SCOPE_NONE;
    int rc = !s->in->t[i].q.out ? model_read_linear(s->m, layer, r, s->w, e)
             : scope_scales(s, layer, r, e)
                 ? -1
                 : scope_input_weights(s->in, layer, r, own ? NULL : s->scale,
                                       s->min_at[i] == SCOPE_NONE ? NULL : s->minimum, s->w, e);
    if (rc) return -1;
    s->be->put(s->blk->w[r], s->w, n * sizeof(float));
    rc = model_read_bias(s->m, layer, r, s->w, e);
    if (rc > 0) s->be->put(s->blk->b[r], s->w, (size_t)out * sizeof(float));
    return rc < 0 ? -1 : 0;
}

int scope_load(struct scope *s, int layer, struct err *e)
{
    for (int r = 0; r < s->in->per && !s->o->all; r++)
        if (model_has_linear(s->m, layer, r) && load_linear(s, layer, r, e)) return -1;
    for (int i = layer * NORM_VECTORS; i < (layer + 1) * NORM_VECTORS; i++)
        if (scope_norm(s, i))
            s->be->put(block_norm_vector(s->blk, i % NORM_VECTORS), scope_norm(s, i),
                       (s->in->at[i + 1] - s->in->at[i]) * sizeof(float));
    block_set_layer(s->m, s->blk, layer);
    if (!s->o->all) return block_load_routing(s->m, s->blk, layer, e);
    scope_all_load(s, layer);
    return 0;
}

/* ---- gradient ---- */

static dev boundary_at(const struct scope *s, int layer)
{
    return dev_at(s->bound, (size_t)layer * (size_t)s->R * (size_t)s->D);
}

static int forward(struct scope *s, const int32_t *ids, struct err *e)
{
    if (s->o->all)
        scope_all_embed(s, ids, s->bound);
    else if (model_embed(s->m, ids, s->o->batch, s->o->seq, 0, s->bound, e))
        return -1;
    for (int l = 0; l < s->L; l++) {
        if (err_stopped(e) || scope_load(s, l, e)) return -1;
        block_forward(s->be, s->blk, s->work, s->o->batch, s->o->seq, 0, boundary_at(s, l),
                      boundary_at(s, l + 1), NULL, NULL);
    }
    return 0;
}

/* dL/dr = s0 sum_i dW[o,i] (code - zero) over the columns of a group, dL/dd = s0 sum_i dW[o,i]. */
static void reduce_row(const struct qtensor *q, const float *dw, int o, float *dscale, float *dmin)
{
    const uint8_t *c = q->codes + (size_t)o * (size_t)q->in;
    size_t row = qtensor_param(q, o);
    double sum[2] = {0, 0};
    int group = q->n_groups == 1 ? q->in : q->group;
    for (int i = 0, g = 0; i < q->in; i++) {
        int next = q->gidx ? q->gidx[i] : i / group;
        if (next != g || !i) {
            if (i) dscale[row + (size_t)g] += (float)sum[0], dmin[row + (size_t)g] += (float)sum[1];
            sum[0] = sum[1] = 0;
            g = next;
        }
        int zero = q->zero ? q->zero[row + (size_t)g] : q->minimum ? 0 : 1 << (q->bits - 1);
        sum[0] += (double)dw[i] * (c[i] - zero);
        sum[1] += dw[i];
        if (i == q->in - 1) dscale[row + (size_t)g] += (float)sum[0], dmin[row + (size_t)g] += (float)sum[1];
    }
}

/* Of all rows that share row `row` of the scales. */
static void reduce_rows(const struct qtensor *q, const float *dw, size_t row, float *dscale, float *dmin)
{
    int from = q->n_rows ? 0 : (int)row, end = q->n_rows ? q->out : from + 1;
    size_t first = row * (size_t)q->n_groups;
    for (int o = from; o < end; o++)
        if (qtensor_row(q, o) == row) reduce_row(q, dw + (size_t)o * (size_t)q->in, o, dscale, dmin);
    for (size_t g = first; g < first + (size_t)q->n_groups; g++)
        dscale[g] *= q->scale[g], dmin[g] *= q->scale[g];
}

static int scale_gradients(struct scope *s, int layer, struct err *e)
{
    for (int r = 0; r < s->in->per; r++) {
        int i = layer * s->in->per + r, out;
        struct qtensor q;
        if (s->scale_at[i] == SCOPE_NONE) continue;
        if (scope_input_view(s->in, layer, r, &q, e)) return -1;
        size_t n = qtensor_params(&q);
        s->be->get(s->w, s->dw[r], role_size(&s->m->c, r, &out) * sizeof(float));
        memset(s->scale, 0, n * sizeof(float));
        memset(s->minimum, 0, n * sizeof(float));
#pragma omp parallel for schedule(static)
        for (size_t row = 0; row < qtensor_rows(&q); row++)
            reduce_rows(&q, s->w, row, s->scale, s->minimum);
        memcpy(s->grad + s->scale_at[i], s->scale, n * sizeof(float));
        if (s->min_at[i] != SCOPE_NONE) memcpy(s->grad + s->min_at[i], s->minimum, n * sizeof(float));
    }
    return 0;
}

static int backward_layer(struct scope *s, int l, int first, struct err *e)
{
    const struct backend *be = s->be;
    struct block_grads g = {{DEV_NONE}, {DEV_NONE}, {DEV_NONE}, {DEV_NONE}, DEV_NONE, DEV_NONE};
    if (l < s->L - 1) { /* of the last layer all is still there */
        if (err_stopped(e) || scope_load(s, l, e)) return -1;
        block_forward(be, s->blk, s->work, s->o->batch, s->o->seq, 0, boundary_at(s, l), DEV_NONE, NULL, NULL);
    }
    for (int i = 0; i < NORM_VECTORS; i++)
        if (s->norm_at[l * NORM_VECTORS + i] != SCOPE_NONE)
            *grad_norm_vector(&g, i) = dev_at(s->g, s->norm_at[l * NORM_VECTORS + i]);
    for (int r = 0, out; r < s->in->per; r++)
        if (s->scale_at[l * s->in->per + r] != SCOPE_NONE) {
            be->fill(s->dw[r], 0, role_size(&s->m->c, r, &out));
            g.w[r] = s->dw[r];
        }
    if (s->o->all) scope_all_grads(s, l, &g);
    block_backward(be, s->blk, s->work, s->o->batch, s->o->seq, 0, boundary_at(s, l), s->dy,
                   l > first || s->o->all ? s->dx : DEV_NONE, &g, NULL, NULL);
    dev swap = s->dy;
    s->dy = s->dx, s->dx = swap;
    return 0;
}

static void set_targets(struct scope *s, const int32_t *ids)
{
    int T = s->o->seq;
    for (int i = 0; i < s->R; i++) s->target[i] = i % T == T - 1 ? -1 : ids[i + 1];
}

static double mean(const double *x, int n, int count)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i];
    return sum / count;
}

/* Gradient of the final norm's gain or bias, if it is trained. */
static dev final_grad(const struct scope *s, int bias)
{
    size_t at = s->norm_at[s->L * NORM_VECTORS + bias];
    return at == SCOPE_NONE ? DEV_NONE : dev_at(s->g, at);
}

int scope_gradient(struct scope *s, const int32_t *ids, double *kl, double *ce, struct err *e)
{
    int first = (int)s->o->layers[0], count = s->o->batch * (s->o->seq - 1);
    bool use_kl = s->o->kl > 0, use_ce = s->o->ce > 0;
    if (forward(s, ids, e)) return -1;
    set_targets(s, ids);
    s->be->fill(s->g, 0, s->n);
    head_kl_back(use_kl ? s->teacher : NULL, s->xt, s->student, boundary_at(s, s->L),
                 use_ce ? s->target : NULL, s->R, (float)(s->o->kl / s->R), (float)(s->o->ce / count),
                 s->kl_row, s->nll_row, s->dy, final_grad(s, 0), final_grad(s, 1));
    *kl = use_kl ? mean(s->kl_row, s->R, s->R) : NAN;
    *ce = use_ce ? mean(s->nll_row, s->R, count) : NAN;
    memset(s->grad + s->n_norms, 0, (s->n - s->n_norms) * sizeof(float));
    for (int l = s->L - 1; l >= first; l--)
        if (backward_layer(s, l, first, e) || scale_gradients(s, l, e)) return -1;
    if (s->o->all) scope_all_embed_back(s, s->dy);
    s->be->get(s->grad, s->g, (s->o->all ? s->n : s->n_norms) * sizeof(float));
    return 0;
}

double scope_step(struct scope *s, int step, double lr)
{
    double square = 0, norm;
    if (s->o->relative) relative_gradient(s);
    for (size_t i = 0; i < s->n; i++) square += (double)s->grad[i] * s->grad[i];
    norm = sqrt(square);
    if (!isfinite(norm)) return norm;
    double shrink = s->o->clip > 0 ? s->o->clip / (norm + 1e-6) : 1; /* the small number is PyTorch's */
    for (size_t i = 0; i < s->n && shrink < 1; i++) s->grad[i] = (float)(s->grad[i] * shrink);
    s->be->put(s->g, s->grad, s->n * sizeof(float));
    size_t from[] = {0, s->n_norms, s->n};
    /* weights decay where they are matrices; without any, norms do; scales never */
    for (int k = 0; k < 2; k++)
        if (from[k + 1] > from[k])
            s->be->adam(dev_at(s->p, from[k]), dev_at(s->g, from[k]), dev_at(s->am, from[k]),
                        dev_at(s->av, from[k]), from[k + 1] - from[k],
                        (float)(k && !s->o->all ? s->o->scales_step * lr : lr), 0.9f, 0.999f, 1e-8f,
                        (float)(k == (int)s->o->all ? s->o->weight_decay : 0), step);
    s->be->get(s->value, s->p, s->n * sizeof(float));
    scope_apply(s, s->value);
    put_final_norm(s);
    return norm;
}
