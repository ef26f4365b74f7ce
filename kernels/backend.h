/* SPDX-License-Identifier: Apache-2.0
 * How fast: one struct of operations on opaque device memory. Knows addresses and shapes; nothing of models or streams.
 * Matrices are row-major f32 unless said. Operations do not depend on the number of threads: fixed tiles, fixed order of
 * every reduction, single-threaded BLAS calls inside. Gradients of parameters ADD into their output, gradients of
 * activations OVERWRITE theirs, unless said. Device failure and lack of memory die with exit 71.
 * Legend: R rows (= B sequences x T tokens), D channels, H query heads, G key/value heads, E head dimension, V vocabulary.
 * C11 and C++: no restrict, no VLA; tables are initialised in field order. */
#ifndef NT_BACKEND_H
#define NT_BACKEND_H
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* An address in the backend's memory. Not for the host to dereference; at == 0 means none. */
typedef struct { uintptr_t at; } dev;
static inline dev dev_at(dev p, size_t elems) { dev q; q.at = p.at + elems * sizeof(float); return q; } /* f32/i32 offset */
static inline bool dev_ok(dev p) { return p.at != 0; }
#define DEV_NONE ((dev){0})

/* Activations; GELU is the exact one (erf). */
enum act { ACT_SILU, ACT_GELU, ACT_GELU_TANH, ACT_RELU, ACT_QUICK_GELU, ACT_RELU2, ACT_COUNT };

/* Causal attention of B sequences of T tokens: q[R,H*E], k,v[R,G*E]; query head h uses key head h / (H/G). A logit is
 * z = scale q.k, with softcap > 0 softcap tanh(z / softcap), plus slopes[h] (key's position - query's) (ALiBi; DEV_NONE:
 * nothing). window > 0: only the last `window` keys, itself included. */
struct attention { int B, T, H, G, E; float scale, softcap; int window; dev slopes; /* f32[H] */ };

struct backend {
    const char *name;       /* "cpu", "cuda" */
    const char *core;       /* BLAS core type or device name, for provenance */
    int threads;
    bool bf16;              /* inputs of gemm and attention are rounded to bf16, sums are f32 (--precision bf16) */

    /* ---- memory ---- */
    dev (*alloc)(size_t bytes);                         /* 64-byte aligned, zeroed */
    void (*release)(dev p);                             /* DEV_NONE ok */
    void (*put)(dev dst, const void *src, size_t bytes);/* host to device */
    void (*get)(void *dst, dev src, size_t bytes);      /* device to host */
    void (*copy)(dev dst, dev src, size_t bytes);
    void (*fill)(dev dst, float value, size_t n);
    /* The n floats at p are weights: until p is released they change by put, copy, fill and adam alone. gemm may then
     * keep B in a form of its own. */
    void (*hold)(dev p, size_t n);

    /* ---- matrix products ---- */
    /* C[M,N] = alpha * op(A)[M,K] op(B)[K,N] + beta * C; ta: A is stored [K,M]; tb: B is stored [N,K].
     * A linear layer Y[R,out] = X[R,in] W[out,in]^T is gemm(false, true, R, out, in, 1, X, in, W, in, 0, Y, out). */
    void (*gemm)(bool ta, bool tb, int M, int N, int K, float alpha, dev A, int lda, dev B, int ldb, float beta, dev C, int ldc);
    /* The same in f32, whatever the precision: for statistics. */
    void (*gemm_f32)(bool ta, bool tb, int M, int N, int K, float alpha, dev A, int lda, dev B, int ldb, float beta, dev C,
                     int ldc);
    /* H[D,D] += X[R,D]^T X[R,D], in f32; only the lower triangle (column <= row) is valid afterwards */
    void (*gram)(int R, int D, dev X, dev H);

    /* ---- element-wise ---- */
    void (*add)(dev y, dev a, dev b, size_t n);         /* y = a + b; y may be a or b */
    void (*axpy)(dev y, float s, dev x, size_t n);      /* y += s x */
    void (*add_bias)(dev y, dev bias, int R, int D);    /* y[r,:] += bias */
    void (*sum_rows)(dev dbias, dev dy, int R, int D);  /* dbias[c] += sum_r dy[r,c] */
    void (*scale_rows)(dev y, dev x, dev s, int R, int D);  /* y[r,:] = s[r] x[r,:]; y may be x */
    void (*dot_rows)(dev out, dev a, dev b, int R, int D);  /* out[r] = sum_c a[r,c] b[r,c], in f64 */
    /* h = act(gate) * up; up DEV_NONE: act(gate). h may be gate. */
    void (*act)(enum act kind, dev h, dev gate, dev up, size_t n);
    void (*act_back)(enum act kind, dev dgate, dev dup, dev dh, dev gate, dev up, size_t n); /* dgate, dup may be gate, up */
    void (*softcap)(dev z, float cap, size_t n);               /* z = cap tanh(z / cap) */
    void (*softcap_back)(dev dz, dev z, float cap, size_t n);  /* dz times the slope at what softcap gave, z */
    void (*clamp)(dev x, float most, size_t n);                /* to -most .. most */
    void (*clamp_back)(dev dx, dev x, float most, size_t n);   /* dx = 0 where what clamp gave, x, is at an end */

    /* ---- norms: y = (x - mean) * rstd * gain + bias; RMS form when rms: mean = 0, rstd = 1/sqrt(mean(x^2) + eps) ----
     * Row r has row r % gains of gain[gains,D] and bias, which may be DEV_NONE. stat[R,2] receives mean, rstd for the
     * backward. y may be x; dx may be dy. */
    void (*norm)(bool rms, dev y, dev stat, dev x, dev gain, dev bias, int gains, int R, int D, float eps);
    void (*norm_back)(bool rms, dev dx /* overwritten; may be DEV_NONE */, dev dgain, dev dbias /* add; may be DEV_NONE */,
                      dev dy, dev x, dev stat, dev gain, int gains, int R, int D);

    /* ---- attention ---- */
    /* Rotary embedding in place on x[R, heads*E], the first `rot` dims of each head, half-split pairs (i, i+rot/2), or with
     * `pairs` neighbours (2i, 2i+1).
     * cossin[pos, rot] holds cos in the first rot/2 and sin in the rest; position of row r is pos0 + r % T.
     * sign +1 forward, -1 backward (the transpose). */
    void (*rope)(dev x, int R, int T, int heads, int E, int rot, bool pairs, dev cossin, int pos0, float sign);
    /* out[R,H*E], lse[R,H] (natural log of the softmax denominator incl. max; may be DEV_NONE), tiled, no T x T matrix. */
    void (*attention)(dev out, dev lse, dev q, dev k, dev v, const struct attention *a);
    void (*attention_back)(dev dq, dev dk, dev dv, dev dout, dev out, dev lse, dev q, dev k, dev v,
                           const struct attention *a);
    /* One new token for each of a->B sequences (a->T does not count): kc, vc[B, cap, G*E] already hold positions 0..n-1
     * (the new one included). */
    void (*attention_step)(dev out, dev q, dev kc, dev vc, int n, int cap, const struct attention *a);

    /* ---- embedding and head ---- */
    void (*embed)(dev x, dev table, dev ids /* i32[R] */, int R, int D);              /* x[r] = table[ids[r]] */
    void (*embed_back)(dev dtable, dev dx, dev ids, int R, int D);                    /* adds, rows in order */
    /* One tile of logits z[R,n] (columns v0..v0+n-1 of the vocabulary) folded into running per-row state st[R,4] =
     * {max, sum exp(z - max), logit of the target, unused} and best[R,2] = {argmax as i32, its logit as f32}.
     * targets i32[R], -1 = none. Start with head_init. Ties: the lowest index. */
    void (*head_init)(dev st, dev best, int R);
    void (*head_fold)(dev st, dev best, dev z, dev targets, int R, int n, int v0);
    /* KL(p || q) of teacher logits zp and student logits zq, one tile: st[R,6] = {max p, sum p, max q, sum q,
     * sum exp(zp - max p) (zp - zq), unused}, rescaled online; KL = st4/st1 - (lse p - lse q). */
    void (*kl_init)(dev st, int R);
    void (*kl_fold)(dev st, dev zp, dev zq, int R, int n);
    /* z[R,n] becomes the gradient of the loss: scale * (softmax - onehot(target)) for ce, with lse[R];
     * rows with target -1 become 0. */
    void (*ce_back)(dev z, dev lse, dev targets, int R, int n, int v0, float scale);
    /* zq[R,n] becomes scale * (softmax(zq) - softmax(zp)). */
    void (*kl_back)(dev zq, dev zp, dev lse_q, dev lse_p, int R, int n, float scale);

    /* ---- statistics over rows, per channel ---- */
    /* acc is f64[6, D] in device memory: sum x, sum |x|, sum x^2, sum x^3, sum x^4 are added to, row 5 = max |x| is
     * raised. Fixed order of rows. */
    void (*channel_stats)(dev acc, dev x, int R, int D);
    /* Two moments only, f64[2, D]: mean and (biased) variance of x[R,D], two passes. */
    void (*channel_moments)(dev out, dev x, int R, int D);
    /* dy[r,c] = a[c] + b[c] * y[r,c]; a, b are f32[D] */
    void (*channel_affine)(dev dy, dev y, dev a, dev b, int R, int D);
    /* Point-wise losses: err f64[D] is overwritten by sum_r |q - f|^p (p = 1 or 2); dq[r,c] = w[c] * d/dq |q - f|^p, w f32[D],
     * dq may be DEV_NONE. */
    void (*channel_diff)(dev err, dev dq, dev q, dev f, dev w, int p, int R, int D);

    /* ---- optimiser ---- Adam (Kingma & Ba) with bias correction at step t >= 1; decoupled weight decay wd */
    void (*adam)(dev p, dev g, dev m, dev v, size_t n, float lr, float b1, float b2, float eps, float wd, int t);

    void (*close)(struct backend *be);
};

/* name "cpu", "cuda" or "auto"; the only place that knows which are built in. threads 0 = all cores. Dies with 71 and
 * a sentence when the device or the precision is not there. */
struct backend *backend_open(const char *name, int threads, bool bf16);
static inline void backend_close(struct backend *be) { if (be) be->close(be); }

/* Must run before any BLAS call, first thing in main: when the CPU has AVX-512 (AVX2) and OpenBLAS would pick slower
 * kernels, sets OPENBLAS_CORETYPE and OPENBLAS_NUM_THREADS=1 and executes the program again. */
void backend_early(char **argv);

#ifdef __cplusplus
}
#endif
#endif
