/* SPDX-License-Identifier: Apache-2.0
 * Inside the CPU backend: the operations of each cpu_*.c, the table of vector loops, and shared helpers.
 * A dev address of this backend is a host pointer. */
#ifndef NT_CPU_H
#define NT_CPU_H
#include "kernels/backend.h"

#define CPU_ALIGN 64

static inline float *cpu_f(dev p)
{
    return (float *)p.at;
}
static inline double *cpu_d(dev p)
{
    return (double *)p.at;
}
static inline const int32_t *cpu_i(dev p)
{
    return (const int32_t *)p.at;
}

/* Prints "program: text" and exits with 71. */
_Noreturn void cpu_die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void *cpu_bytes(size_t n); /* aligned, uninitialised, dies when there is none */
/* Work space shared by the operations, grown on demand; valid until the next call. Operations are not
 * reentrant. */
float *cpu_scratch(size_t floats);
void cpu_scratch_free(void);

/* Plain loops over rows, compiled once per instruction set (vec_*.c) from vec_ops.h. */
struct vec_ops {
    const char *name;
    int panel, cols; /* of panel_product: rows of a panel, columns of a block */
    void (*panel_product)(float *c, size_t ldc, float alpha, float beta, int m, const float *xt,
                          const float *w, size_t wj, size_t wk, int K, int cols, bool ahead);
    void (*panel_rows)(float *c, size_t ldc, float alpha, float beta, int m, const float *xt, const float *w,
                       size_t wj, size_t wk, int K, int rows);
    void (*copy_strip)(float *to, const float *w, size_t wk,
                       int K); /* `cols` neighbouring numbers of each of K rows */
    void (*pack_panel)(float *xt, const float *x, size_t ldx, bool transposed, int m, int K);
    void (*scores)(float *s, const float *q, const float *k, size_t ldk, int n, int E, float scale);
    void (*mix)(float *o, const float *p, const float *v, size_t ldv, int n, int E);
    void (*add)(float *y, const float *a, const float *b, size_t n);
    void (*axpy)(float *y, float s, const float *x, size_t n);
    float (*dot)(const float *a, const float *b, size_t n);
    void (*scale)(float *y, float s, const float *x, size_t n);
    void (*exp)(float *y, const float *x, size_t n);
    float (*max)(const float *x, size_t n);
    float (*exp_sum)(float *y, const float *x, float scale, float sub,
                     size_t n); /* y = exp(scale x - sub), y may be x */
    void (*act)(enum act kind, float *h, const float *gate, const float *up, size_t n); /* up may be NULL */
    void (*act_back)(enum act kind, float *dgate, float *dup, const float *dh, const float *gate,
                     const float *up, size_t n);
    void (*softcap)(float *z, float cap, size_t n);
    void (*softcap_back)(float *dz, const float *z, float cap, size_t n);
    void (*ramp)(float *s, float slope, float first, size_t n); /* s[i] += slope (first + i) */
    void (*norm_row)(bool rms, float *y, float *stat, const float *x, const float *gain, const float *bias,
                     int D, float eps);
    /* dgain, dbias: this chunk's sums, may be NULL; dx may be NULL */
    void (*norm_back_row)(bool rms, float *dx, float *dgain, float *dbias, const float *dy, const float *x,
                          const float *stat, const float *gain, int D);
    void (*rope_row)(float *x, int heads, int E, int rot, bool pairs, const float *cossin, float sign);
    float (*sum_exp)(const float *z, float sub, size_t n); /* sum exp(z - sub) */
    float (*sum_exp_diff)(const float *p, const float *q, float sub, float *dot,
                          size_t n);                            /* dot = sum exp(p-sub)(p-q) */
    void (*ce_row)(float *z, float lse, float scale, size_t n); /* z = scale exp(z - lse) */
    void (*kl_row)(float *zq, const float *zp, float lse_q, float lse_p, float scale, size_t n);
    /* Attention on panels: s[n, panel], a query in every column. */
    void (*panel_mask)(float *s, int n, int key, const int32_t *first, const int32_t *last);
    void (*panel_logits)(float *s, int n, int key, float scale, float cap, const float *slope,
                         const int32_t *at);
    void (*panel_softmax)(float *s, int n, float scale, float *max, float *sum, float *factor);
    void (*panel_softmax_back)(float *s, float *ds, int n, float scale, const float *lse, const float *delta);
    void (*panel_slopes)(float *d, const float *s, int n, float scale, float cap);
    void (*panel_scale)(float *s, int n, const float *factor);
    void (*stats_cols)(double *acc, size_t ld, const float *x, size_t ldx, int R, int n);
    void (*moments_cols)(double *mean, double *var, const float *x, size_t ldx, int R, int n);
    void (*affine_row)(float *dy, const float *y, const float *a, const float *b, int D);
    void (*diff_cols)(double *err, float *dq, const float *q, const float *f, const float *w, int p,
                      size_t ld, int R, int n);
    void (*adam)(float *p, const float *g, float *m, float *v, size_t n, float step, float b1, float b2,
                 float root_bc2, float eps, float decay);
};
extern const struct vec_ops vec_base, vec_avx2, vec_avx512;
extern const struct vec_ops *vec; /* the best one for this machine; set by backend_open */
const struct vec_ops *vec_choose(void);

struct backend *cpu_open(int threads);
const char *cpu_blas_core(void);
/* The core type that OpenBLAS should use here instead of `core`, or NULL when that is good. */
const char *backend_better_core(const char *core);

void cpu_gemm(bool ta, bool tb, int M, int N, int K, float alpha, dev A, int lda, dev B, int ldb, float beta,
              dev C, int ldc);
void cpu_gram(int R, int D, dev X, dev H);
void cpu_add(dev y, dev a, dev b, size_t n);
void cpu_axpy(dev y, float s, dev x, size_t n);
void cpu_add_bias(dev y, dev bias, int R, int D);
void cpu_sum_rows(dev dbias, dev dy, int R, int D);
void cpu_scale_rows(dev y, dev x, dev s, int R, int D);
void cpu_dot_rows(dev out, dev a, dev b, int R, int D);
void cpu_act(enum act kind, dev h, dev gate, dev up, size_t n);
void cpu_act_back(enum act kind, dev dgate, dev dup, dev dh, dev gate, dev up, size_t n);
void cpu_softcap(dev z, float cap, size_t n);
void cpu_softcap_back(dev dz, dev z, float cap, size_t n);
void cpu_clamp(dev x, float most, size_t n);
void cpu_clamp_back(dev dx, dev x, float most, size_t n);
void cpu_norm(bool rms, dev y, dev stat, dev x, dev gain, dev bias, int gains, int R, int D, float eps);
void cpu_norm_back(bool rms, dev dx, dev dgain, dev dbias, dev dy, dev x, dev stat, dev gain, int gains, int R,
                   int D);
void cpu_rope(dev x, int R, int T, int heads, int E, int rot, bool pairs, dev cossin, int pos0, float sign);
void cpu_attention(dev out, dev lse, dev q, dev k, dev v, const struct attention *a);
void cpu_attention_back(dev dq, dev dk, dev dv, dev dout, dev out, dev lse, dev q, dev k, dev v,
                        const struct attention *a);
void cpu_attention_step(dev out, dev q, dev kc, dev vc, int n, int cap, const struct attention *a);
void cpu_embed(dev x, dev table, dev ids, int R, int D);
void cpu_embed_back(dev dtable, dev dx, dev ids, int R, int D);
void cpu_head_init(dev st, dev best, int R);
void cpu_head_fold(dev st, dev best, dev z, dev targets, int R, int n, int v0);
void cpu_kl_init(dev st, int R);
void cpu_kl_fold(dev st, dev zp, dev zq, int R, int n);
void cpu_ce_back(dev z, dev lse, dev targets, int R, int n, int v0, float scale);
void cpu_kl_back(dev zq, dev zp, dev lse_q, dev lse_p, int R, int n, float scale);
void cpu_channel_stats(dev acc, dev x, int R, int D);
void cpu_channel_moments(dev out, dev x, int R, int D);
void cpu_channel_affine(dev dy, dev y, dev a, dev b, int R, int D);
void cpu_channel_diff(dev err, dev dq, dev q, dev f, dev w, int p, int R, int D);
void cpu_adam(dev p, dev g, dev m, dev v, size_t n, float lr, float b1, float b2, float eps, float wd, int t);
#endif
