/* SPDX-License-Identifier: Apache-2.0
 * The llama family against PyTorch in float64 (tests/data/model/make.py): hidden states, logits, nll and norm
 * gradients, from safetensors and from GGUF; configuration keys, identity and bad files. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/mem.h"
#include "common/model.h"
#include "tests/check.h"

#define DATA "tests/data/model/"

static struct backend *be;

/* ---- expected values ---- */

static const struct tensor *expected(const struct checkpoint *x, const char *name)
{
    const struct checkpoint_tensor *t = checkpoint_find(x, name);
    return t ? &t->t : NULL;
}

static double rel_to(const float *got, const struct tensor *want)
{
    size_t n = want ? tensor_count(want) : 0;
    if (!want || want->dtype != DT_F32) return INFINITY;
    double *w = MEM_NEW(double, n), d;
    for (size_t i = 0; i < n; i++) w[i] = ((const float *)want->data)[i];
    d = check_rel(got, w, n);
    mem_free(w);
    return d;
}

static double rel_dev(dev got, const struct tensor *want)
{
    size_t n = want ? tensor_count(want) : 0;
    float *host = MEM_NEW(float, n);
    be->get(host, got, n * sizeof(float));
    double d = rel_to(host, want);
    mem_free(host);
    return d;
}

/* ---- one model, forward and backward over all blocks ---- */

struct run {
    struct model *m;
    const struct checkpoint *want;
    int B, T, R;
    const int32_t *ids;
    struct block *blk[8];
    struct block_work *work;
    dev x[9]; /* boundaries */
    struct head *head;
    const char *name;
};

static void forward(struct run *r)
{
    struct err e = {0};
    size_t bytes = (size_t)r->R * (size_t)r->m->c.block.D * sizeof(float);
    int L = r->m->c.n_layers;
    char name[64];
    r->work = block_work_alloc(be, &r->m->c.block, r->R, true);
    for (int l = 0; l <= L; l++) r->x[l] = be->alloc(bytes);
    CHECK(!model_embed(r->m, r->ids, r->B, r->T, 0, r->x[0], &e), "%s: embed %s", r->name, e.text);
    for (int l = 0; l < L; l++) {
        r->blk[l] = block_alloc(r->m, r->T);
        CHECK(!block_load(r->m, r->blk[l], l, &e), "%s: load block %d %s", r->name, l, e.text);
        block_forward(be, r->blk[l], r->work, r->B, r->T, 0, r->x[l], r->x[l + 1], NULL, NULL);
    }
    for (int l = 0; l <= L; l++) {
        snprintf(name, sizeof name, "hidden.%d", l);
        double d = rel_dev(r->x[l], expected(r->want, name));
        CHECK(d < 1e-5, "%s: hidden.%d differs by %.1e", r->name, l, d);
    }
}

static void check_head(struct run *r)
{
    struct err e = {0};
    int V = r->m->c.vocab;
    float *z = MEM_NEW(float, (size_t)r->R *(size_t)V), sums[16] = {0};
    double *nll = MEM_NEW(double, r->R), *kl = MEM_NEW(double, r->R);
    int32_t *target = MEM_NEW(int32_t, r->R), *best = MEM_NEW(int32_t, r->R), *best2 = MEM_NEW(int32_t, r->R);
    int wrong = 0;
    r->head = head_open(r->m, NULL, &e);
    CHECK(r->head != NULL, "%s: head %s", r->name, e.text);
    head_logits(r->head, r->x[r->m->c.n_layers], r->R, z);
    double d = rel_to(z, expected(r->want, "logits"));
    CHECK(d < 1e-5, "%s: logits differ by %.1e", r->name, d);
    for (int i = 0; i < r->R; i++) target[i] = i % r->T == r->T - 1 ? -1 : r->ids[i + 1];
    head_nll(r->head, r->x[r->m->c.n_layers], target, r->R, nll, best);
    for (int i = 0; i < r->R; i++) {
        int top = 0;
        for (int v = 1; v < V; v++)
            if (z[(size_t)i * (size_t)V + (size_t)v] > z[(size_t)i * (size_t)V + (size_t)top]) top = v;
        wrong += top != best[i];
        sums[i / r->T] += (float)nll[i];
    }
    CHECK(!wrong, "%s: argmax of every row", r->name);
    d = rel_to(sums, expected(r->want, "nll"));
    CHECK(d < 1e-5, "%s: nll differs by %.1e", r->name, d);
    struct head *same = head_share(r->m, r->head, NULL, &e);
    head_kl(r->head, r->x[r->m->c.n_layers], same, r->x[r->m->c.n_layers], r->R, kl, best, best2);
    double worst = 0;
    for (int i = 0; i < r->R; i++) worst = fmax(worst, fabs(kl[i])), wrong += best[i] != best2[i];
    CHECK(worst < 1e-5 && !wrong, "%s: KL of a model to itself is 0", r->name);
    head_free(same);
    mem_free(z), mem_free(nll), mem_free(kl), mem_free(target), mem_free(best), mem_free(best2);
}

/* KL against a head with another final norm, from the logits of both. */
static void check_kl(struct run *r)
{
    struct err e = {0};
    int D = r->m->c.block.D, V = r->m->c.vocab, R = r->R;
    size_t n = (size_t)R * (size_t)V;
    float *gain = MEM_NEW(float, D), *zp = MEM_NEW(float, n), *zq = MEM_NEW(float, n),
          *kl_f = MEM_NEW(float, R);
    double *kl = MEM_NEW(double, R), *want = MEM_NEW(double, R), *nll = MEM_NEW(double, R), d;
    int32_t *bt = MEM_NEW(int32_t, R), *bs = MEM_NEW(int32_t, R);
    dev x = r->x[r->m->c.n_layers];
    CHECK(!model_read_final_norm(r->m, gain, NULL, &e), "%s: final norm", r->name);
    for (int c = 0; c < D; c++) gain[c] *= 1.0f + 0.2f * (float)(c % 3);
    struct head *other = head_share(r->m, r->head, gain, &e);
    head_logits(r->head, x, R, zp), head_logits(other, x, R, zq);
    head_compare(r->head, x, other, x, r->ids, R, nll, kl, bt, bs);
    for (int i = 0; i < R; i++) {
        double sp = 0, sq = 0, dot = 0;
        for (int v = 0; v < V; v++) sp += exp(zp[i * V + v]), sq += exp(zq[i * V + v]);
        for (int v = 0; v < V; v++)
            dot +=
                exp(zp[i * V + v]) / sp * ((double)zp[i * V + v] - log(sp) - (double)zq[i * V + v] + log(sq));
        want[i] = dot, kl_f[i] = (float)kl[i], nll[i] -= log(sq) - zq[i * V + r->ids[i]];
    }
    d = check_rel(kl_f, want, (size_t)R);
    CHECK(d < 1e-4, "%s: KL differs by %.1e", r->name, d);
    for (int i = 0; i < R; i++) d = fmax(i ? d : 0, fabs(nll[i]));
    CHECK(d < 1e-4, "%s: nll beside KL differs by %.1e", r->name, d);
    head_free(other);
    mem_free(gain), mem_free(zp), mem_free(zq), mem_free(kl_f), mem_free(kl), mem_free(want), mem_free(nll);
    mem_free(bt), mem_free(bs);
}

static void backward(struct run *r)
{
    const struct block_shape *s = &r->m->c.block;
    size_t bytes = (size_t)r->R * (size_t)s->D * sizeof(float);
    dev dy = be->alloc(bytes), dx = be->alloc(bytes), grad = be->alloc((size_t)s->D * sizeof(float));
    int32_t *target = MEM_NEW(int32_t, r->R);
    char name[300], key[256];
    for (int i = 0; i < r->R; i++) target[i] = i % r->T == r->T - 1 ? -1 : r->ids[i + 1];
    head_ce_back(r->head, r->x[r->m->c.n_layers], target, r->R, 1.0f / (float)(r->B * (r->T - 1)), dy, grad,
                 DEV_NONE);
    double d = rel_dev(grad, expected(r->want, "grad.model.norm.weight"));
    CHECK(d < 2e-5, "%s: gradient of the final norm differs by %.1e", r->name, d);
    for (int l = r->m->c.n_layers - 1; l >= 0; l--) {
        struct block_grads g = {0};
        for (int n = 0; n <= NORM_MLP; n++) g.gain[n] = be->alloc((size_t)s->D * sizeof(float));
        block_forward(be, r->blk[l], r->work, r->B, r->T, 0, r->x[l], dx, NULL, NULL);
        block_backward(be, r->blk[l], r->work, r->B, r->T, 0, r->x[l], dy, l ? dx : DEV_NONE, &g, NULL, NULL);
        for (int n = 0; n <= NORM_MLP; n++) {
            model_norm_name(r->m, l, n, key);
            snprintf(name, sizeof name, "grad.%s", key);
            d = rel_dev(g.gain[n], expected(r->want, name));
            CHECK(d < 2e-5, "%s: %s differs by %.1e", r->name, name, d);
            be->release(g.gain[n]);
        }
        be->copy(dy, dx, bytes);
    }
    be->release(dy), be->release(dx), be->release(grad);
    mem_free(target);
}

static void test_model(const char *path, const char *values)
{
    struct err e = {0};
    struct run r = {.name = path + strlen(DATA)};
    struct checkpoint *want = checkpoint_open(values, &e);
    r.m = model_open(path, be, &e);
    CHECK(want && r.m, "%s opens %s", r.name, e.text);
    if (!want || !r.m) return;
    const struct tensor *ids = expected(want, "ids");
    r.want = want, r.B = (int)ids->shape[0], r.T = (int)ids->shape[1], r.R = r.B * r.T, r.ids = ids->data;
    forward(&r);
    check_head(&r);
    check_kl(&r);
    backward(&r);
    for (int l = 0; l <= r.m->c.n_layers; l++) be->release(r.x[l]), block_free(r.m, r.blk[l]);
    block_work_free(r.work);
    head_free(r.head);
    model_close(r.m);
    checkpoint_close(want);
}

/* ---- identity ---- */

static json_t *identity(const char *path)
{
    struct err e = {0};
    struct model *m = model_open(path, NULL, &e);
    if (!m) return NULL;
    json_t *id = model_identity(m);
    json_object_del(id, "name");
    model_close(m);
    return id;
}

static void test_identity(void)
{
    json_t *a = identity(DATA "bias"), *b = identity(DATA "bias.gguf"), *c = identity(DATA "llama3");
    json_t *d = identity(DATA "llama3.gguf");
    CHECK(a && b && json_equal(a, b), "a directory and the GGUF file of the same values are one model");
    CHECK(c && d && json_equal(c, d), "the same with scaled rotary frequencies from a table");
    CHECK(a && c && !json_equal(a, c), "two models differ");
    struct err e = {0}, e2 = {0}, e3 = {0};
    struct model *m = model_open(DATA "bias", NULL, &e);
    json_t *ours = json_pack("{s:O}", "model", a), *theirs = json_pack("{s:O}", "model", c),
           *none = json_object();
    CHECK(!model_check_identity(m, ours, "s.nts", &e), "a stream of this model is accepted");
    CHECK(model_check_identity(m, theirs, "s.nts", &e2) && e2.code == NT_EXIT_DATA &&
              strstr(e2.text, "s.nts") && strstr(e2.text, "bias"),
          "a stream of another model is refused: %s", e2.text);
    CHECK(model_check_identity(m, none, "s.nts", &e3) && e3.code == NT_EXIT_DATA,
          "a header without a model is refused");
    model_close(m);
    json_decref(a), json_decref(b), json_decref(c), json_decref(d), json_decref(ours), json_decref(theirs),
        json_decref(none);
}

/* ---- configuration ---- */

#define BASE                                                                                                 \
    "\"model_type\":\"llama\",\"hidden_size\":64,\"num_attention_heads\":4,\"num_hidden_layers\":2,"         \
    "\"intermediate_size\":96,\"vocab_size\":100"

static int read_config(const char *extra, struct model_config *c, struct err *e)
{
    char *text = mem_printf("{" BASE "%s}", extra);
    json_t *j = json_loads(text, 0, NULL);
    int rc = model_config_read(c, j, e);
    json_decref(j);
    mem_free(text);
    return rc;
}

static void accepted(void)
{
    struct model_config a, b;
    struct err e = {0};
    CHECK(!read_config("", &a, &e), "defaults are accepted %s", e.text);
    CHECK(a.block.G == 4 && a.block.E == 16 && a.block.eps == 1e-6f && a.rope[0].theta == 10000 && !a.tied &&
              a.max_pos == 2048 && a.bos == -1,
          "missing keys mean the class defaults");
    model_config_clear(&a);
    CHECK(!read_config(
              ",\"rope_theta\":5e5,\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,"
              "\"high_freq_factor\":4,\"original_max_position_embeddings\":32}",
              &a, &e) &&
              !read_config(",\"rope_parameters\":{\"rope_type\":\"llama3\",\"rope_theta\":500000.0,"
                           "\"factor\":8.0,\"low_freq_factor\":"
                           "1.0,\"high_freq_factor\":4.0,\"original_max_position_embeddings\":32}",
                           &b, &e),
          "both spellings %s", e.text);
    CHECK(a.rope[0].type == b.rope[0].type && a.rope[0].theta == b.rope[0].theta &&
              a.rope[0].factor == b.rope[0].factor && a.rope[0].orig == b.rope[0].orig,
          "and they mean the same");
    model_config_clear(&a), model_config_clear(&b);
    CHECK(!read_config(",\"rope_scaling\":null,\"eos_token_id\":[7,8],\"head_dim\":20,\"pretraining_tp\":1",
                       &a, &e) &&
              a.eos == 7 && a.block.E == 20 && a.block.rot == 20,
          "null scaling, a list of EOS, an explicit head_dim");
    model_config_clear(&a);
}

static void refused(const char *extra, const char *key)
{
    struct model_config c;
    struct err e = {0};
    CHECK(read_config(extra, &c, &e) && e.code == NT_EXIT_DATA && strstr(e.text, key),
          "%s is refused by name: %s", key, e.text);
}

static void test_config(void)
{
    accepted();
    refused(",\"rope_scaling\":{\"type\":\"spiral\",\"factor\":2}", "rope_type");
    refused(",\"rope_parameters\":{\"rope_type\":\"linear\"}", "rope_type");
    refused(",\"hidden_act\":\"mish\"", "hidden_act");
    refused(",\"partial_rotary_factor\":0.5", "partial_rotary_factor");
    refused(",\"quantization_config\":{\"bits\":4}", "quantization_config");
    refused(",\"num_key_value_heads\":3", "num_key_value_heads");
    refused(",\"head_dim\":15", "head_dim");
    refused(",\"residual_multiplier\":0.2", "residual_multiplier");
    refused(",\"layer_types\":[\"sliding_attention\"]", "layer_types");
    refused(",\"rms_norm_eps\":\"x\"", "rms_norm_eps");
    refused(",\"num_hidden_layers\":-1", "num_hidden_layers");
    refused(",\"tie_word_embeddings\":\"yes\"", "tie_word_embeddings");
}

/* ---- bad files: the bias model with one thing changed ---- */

static void copy_file(const char *from, const char *to, const char *find, const char *replace)
{
    FILE *f = fopen(from, "rb"), *g = fopen(to, "wb");
    static char buf[1 << 20];
    size_t n = fread(buf, 1, sizeof buf, f), len = strlen(find);
    for (size_t i = 0; i + len <= n; i++)
        if (!memcmp(buf + i, find, len)) memcpy(buf + i, replace, len);
    if (fwrite(buf, 1, n, g) != n) abort();
    fclose(f), fclose(g);
}

static void broken(const char *config_from, const char *config_to, const char *find, const char *replace,
                   const char *says)
{
    char dir[] = "/tmp/nt-test-XXXXXX", a[64], b[64];
    struct err e = {0};
    if (!mkdtemp(dir)) abort();
    snprintf(a, sizeof a, "%s/config.json", dir), snprintf(b, sizeof b, "%s/model.safetensors", dir);
    copy_file(DATA "bias/config.json", a, config_from, config_to);
    copy_file(DATA "bias/model.safetensors", b, find, replace);
    struct model *m = model_open(dir, NULL, &e);
    CHECK(!m && e.code == NT_EXIT_DATA && strstr(e.text, says), "%s: %s", says, e.text);
    model_close(m);
    unlink(a), unlink(b), rmdir(dir);
}

static void test_bad_files(void)
{
    broken("\"llama\"", "\"lemma\"", "?", "?", "model_type");
    broken("\"vocab_size\": 67", "\"vocab_size\": 68", "?", "?", "model.embed_tokens.weight");
    broken("\"intermediate_size\": 44", "\"intermediate_size\": 40", "?", "?", "mlp.gate_proj.weight");
    broken("?", "?", "layers.1.mlp.up_proj.weight", "layers.1.mlp.XX_proj.weight",
           "layers.1.mlp.up_proj.weight");
    broken("\"mlp_bias\": true", "\"mlp_bias\":false", "?", "?", "is no part of a llama model");
}

static void test_nonfinite(void)
{
    struct err e = {0};
    char dir[] = "/tmp/nt-test-XXXXXX", a[64], b[64];
    if (!mkdtemp(dir)) abort();
    snprintf(a, sizeof a, "%s/config.json", dir), snprintf(b, sizeof b, "%s/model.safetensors", dir);
    copy_file(DATA "bias/config.json", a, "?", "?");
    copy_file(DATA "bias/model.safetensors", b, "", "");
    struct model *m = model_open(dir, be, &e);
    const struct checkpoint_tensor *t = m->layers[1].w[ROLE_UP].t;
    uint32_t nan = 0x7fc00000;
    FILE *f = fopen(b, "r+b");
    if (fseek(f, (long)t->offset + 40, SEEK_SET) || fwrite(&nan, 4, 1, f) != 1) abort();
    fclose(f);
    struct block *blk = block_alloc(m, 8);
    CHECK(!block_load(m, blk, 0, &e), "the other layer loads");
    CHECK(block_load(m, blk, 1, &e) && e.code == NT_EXIT_DATA &&
              strstr(e.text, "layers.1.mlp.up_proj.weight"),
          "a NaN weight is refused by name: %s", e.text);
    block_free(m, blk);
    model_close(m);
    unlink(a), unlink(b), rmdir(dir);
}

int main(int argc, char **argv)
{
    (void)argc;
    backend_early(argv);
    be = backend_open("cpu", 0, false);
    test_model(DATA "bias", DATA "bias.expected.safetensors");
    test_model(DATA "bias.gguf", DATA "bias.expected.safetensors");
    test_model(DATA "llama3", DATA "llama3.expected.safetensors");
    test_model(DATA "llama3.gguf", DATA "llama3.expected.safetensors");
    test_model(DATA "linear", DATA "linear.expected.safetensors");
    test_identity();
    test_config();
    test_bad_files();
    test_nonfinite();
    backend_close(be);
    return check_done();
}
