/* SPDX-License-Identifier: Apache-2.0
 * The work of nt-quant on one layer (quantize.h). What a method does is in common/quantizers, what is
 * stored in qtensor. */
#include "common/quantize.h"
#include <string.h>
#include "common/mem.h"
#include "common/tool.h"
#include "common/triangle.h"

int quantize_init(struct quantize *z, struct model *m, struct plan *plan, const struct backend *be, int64_t a,
                  int64_t b, struct err *e)
{
    if (a >= m->c.n_layers)
        return err_set(e, NT_EXIT_USAGE, "--layers: %s has only %d layers", m->ck->path, m->c.n_layers);
    *z = (struct quantize){
        .m = m, .plan = plan, .be = be, .first = (int)a, .import = !plan, .dead = DEAD_ERROR, .dead_below = 1};
    z->end = b < m->c.n_layers ? (int)b : m->c.n_layers;
    z->done = MEM_NEW(bool, (size_t)m->c.n_layers);
    z->cache = quantizer_cache_alloc();
    return 0;
}

void quantize_clear(struct quantize *z)
{
    mem_free(z->done);
    quantizer_cache_free(z->cache);
    memset(z, 0, sizeof *z);
}

/* No linear after this one has the same input. */
static bool last_of_site(const struct block_shape *s, int linear)
{
    return linear + 1 == block_linears(s) || linear_site(linear + 1) != linear_site(linear);
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Per site: X'X, of the later ones too; its factor, and while that is made the triangle in f64. Per linear:
 * the weights, their error, codes, packed codes. */
uint64_t quantize_bytes(const struct model_config *c, bool hessian, bool f64)
{
    uint64_t peak = 0, later = 0;
    for (int r = block_linears(&c->block) - 1; r >= 0; r--) {
        int out, in;
        if (!block_has_role(&c->block, r)) continue;
        role_dims(&c->block, r, &out, &in);
        uint64_t n = (uint64_t)out * in, square = (uint64_t)in * in, factor = square * (f64 ? 8 : 4),
                 work = n * 10;
        if (hessian && last_of_site(&c->block, r)) later += square * sizeof(float);
        if (hessian) work = factor + max_u64(work, triangle_doubles(in) * sizeof(double));
        peak = max_u64(peak, later + work);
    }
    return TOOL_BASE_BYTES + peak;
}

json_t *quantize_header(const struct quantize *z, const json_t *stats_header)
{
    json_t *params = z->import ? json_pack("{s:s}", "method", "import") : plan_json(z->plan), *j;
    if (z->first > 0 || z->end < z->m->c.n_layers)
        json_object_set_new(params, "layers", json_pack("[i,i]", z->first, z->end));
    j = json_pack("{s:s, s:o, s:o}", "kind", "qweights", "params", params, "model", model_identity(z->m));
    const json_t *tokens = json_object_get(stats_header, "tokens"),
                 *precision = json_object_get(json_object_get(stats_header, "params"), "precision");
    if (precision) json_object_set_new(params, "stats_precision", json_deep_copy(precision));
    if (tokens) json_object_set_new(j, "tokens", json_deep_copy(tokens));
    if (z->m->hf_config) json_object_set(j, "config", z->m->hf_config);
    if (z->import) { /* its values are not those of the float model: only the configuration must agree */
        const struct checkpoint *ck = z->m->ck;
        json_t *model = json_object_get(j, "model"), *sample = json_object_get(model, "sample_xxh3");
        const char *format = ck->layout ? ck->layout : ck->format;
        json_object_set_new(j, "import", json_pack("{s:s, s:O}", "format", format, "sample_xxh3", sample));
        json_object_del(model, "sample_xxh3");
    }
    return j;
}

/* What a person should hear at once; everything is in info. */
static void tell(const struct qtensor *q, const struct site_stats *st)
{
    const json_t *damp = json_object_get(q->info, "damp_raised_to"),
                 *dead = json_object_get(q->info, "dead_columns");
    const char *dtype = json_string_value(json_object_get(q->info, "scale_dtype_raised"));
    if (damp) note("%s: damping raised to %g of the mean diagonal", q->name, json_real_value(damp));
    if (dead)
        note("%s: %lld of %d inputs are always zero; their weights are set to 0", q->name,
             (long long)json_integer_value(dead), q->in);
    if (dtype) note("%s: scales do not fit their type and are stored as %s", q->name, dtype);
    if (st && st->count < (uint64_t)q->in && site_expert(st->site) < 0) /* of experts: tell_experts */
        warn("%s: statistics of %llu tokens for %d inputs: the Hessian is singular, collect more", q->name,
             (unsigned long long)st->count, q->in);
}

static int float_linear(struct quantize *z, int layer, int r, const struct site_stats *st,
                        struct qtensor *q, struct err *e)
{
    int out, in, rc;
    role_dims(&z->m->c.block, r, &out, &in);
    struct plan_rule *rule = plan_find(z->plan, q->name);
    const struct site_stats *use = rule->method && rule->method->needs[0] && st ? &st[linear_site(r)] : NULL;
    if (rule->method && quantizer_prepare(rule->method, z->cache, in, use, &rule->o, q->name, e)) return -1;
    float *weights = MEM_NEW(float, (size_t)out *in);
    rc = model_read_linear(z->m, layer, r, weights, e);
    if (!rc && rule->method)
        rc = quantizer_run(rule->method, z->cache, z->be, weights, out, in, use, &rule->o, q, e);
    else if (!rc)
        qtensor_init_plain(q, out, in, weights);
    mem_free(weights);
    if (!rc && use && site_expert(use->site) >= 0 && q->info)
        json_object_set_new(q->info, "tokens", json_integer((json_int_t)use->count));
    if (!rc) tell(q, use);
    return rc;
}

static int one_linear(struct quantize *z, struct stream_writer *w, int layer, int r,
                      const struct site_stats *st, struct err *e)
{
    struct qtensor q = {.layer = layer};
    model_tensor_name(z->m, layer, r, q.name);
    if (r < ROLE_COUNT)
        strcpy(q.role, role_name(r));
    else
        snprintf(q.role, sizeof q.role, "%s.%d", role_name(r), linear_expert(r));
    int rc = z->import ? quantize_import(z->m, layer, r, &q, e) : float_linear(z, layer, r, st, &q, e);
    if (!rc) {
        z->stored_bits += 8.0 * (double)qtensor_stored_bytes(&q);
        z->weights += (double)q.out * q.in;
        rc = qtensor_write(w, &q, e);
    }
    qtensor_clear(&q);
    return rc;
}

static int write_norm_part(struct stream_writer *w, int layer, const char *name, float *v, int D,
                           struct err *e)
{
    struct tensor t = {
        .dtype = DT_F32, .rank = 1, .shape = {(uint64_t)D}, .nbytes = 4 * (uint64_t)D, .data = v};
    json_t *meta = json_pack("{s:s, s:i, s:s}", "name", name, "layer", layer, "which", "old");
    int rc = stream_write(w, "Norm", meta, &t, e);
    json_decref(meta);
    return rc;
}

static int write_norms(struct quantize *z, struct stream_writer *w, int layer, struct err *e)
{
    int D = z->m->c.block.D, rc = 0;
    float *gain = MEM_NEW(float, (size_t)D), *bias = MEM_NEW(float, (size_t)D);
    for (int n = 0; n < NORM_COUNT && !rc; n++) {
        char name[256];
        if (!z->m->layers[layer].gain[n].t || !norm_tweaked(n)) continue;
        bool has_bias = z->m->layers[layer].norm_bias[n].t != NULL;
        model_norm_name(z->m, layer, n, name);
        rc = model_read_norm(z->m, layer, n, gain, has_bias ? bias : NULL, e);
        if (!rc) rc = write_norm_part(w, layer, name, gain, D, e);
        char *dot = strrchr(name, '.');
        if (rc || !has_bias || !dot) continue;
        strcpy(dot, ".bias"); /* shorter than ".weight" */
        rc = write_norm_part(w, layer, name, bias, D, e);
    }
    mem_free(gain);
    mem_free(bias);
    return rc;
}

int quantize_layer(struct quantize *z, struct stream_writer *w, int layer, struct site_stats *st,
                   struct err *e)
{
    if (layer < 0 || layer >= z->m->c.n_layers)
        return err_set(e, NT_EXIT_DATA, "statistics of layer %d: the model has layers 0 to %d", layer,
                       z->m->c.n_layers - 1);
    if (layer < z->first || layer >= z->end) return 0;
    if (z->done[layer])
        return err_set(e, NT_EXIT_DATA, "layer %d is there twice; merge shards with nt-stream merge", layer);
    if (st && quantize_experts(z, layer, st, e)) return -1;
    for (int r = 0; r < block_linears(&z->m->c.block); r++) {
        if (model_has_linear(z->m, layer, r) && one_linear(z, w, layer, r, st, e)) return -1;
        if (!last_of_site(&z->m->c.block, r)) continue;
        quantizer_cache_clear(z->cache);
        if (st) site_stats_clear(&st[linear_site(r)]);
    }
    if (write_norms(z, w, layer, e)) return -1;
    z->done[layer] = true;
    return stream_layer_end(w, layer, e);
}

int quantize_check_complete(const struct quantize *z, const char *stream, struct err *e)
{
    for (int l = z->first; l < z->end; l++)
        if (!z->done[l])
            return err_set(e, NT_EXIT_DATA, "%s: there are no statistics of layer %d (wanted: %d to %d)",
                           stream, l, z->first, z->end - 1);
    return 0;
}

double quantize_bits(const struct quantize *z)
{
    return z->weights > 0 ? z->stored_bits / z->weights : 0;
}
