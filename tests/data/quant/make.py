#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Expected codes of RTN and GPTQ, in NumPy and float64, by plain loops over columns without blocking. Run by hand
(NumPy 1.24.2 made the committed files); writes matrices.bin, cases.bin and cases.txt beside itself.

Two implementations must agree before anything is written: GPTQ as published (upper Cholesky factor of the inverse
Hessian) and, where scales are fixed beforehand, LDLQ (feedback through H = (M) D (M)'; QuIP's theorem says that the
codes are the same). matrices.bin: for each matrix W [out, in] F32, H [in, in] F32. cases.bin: for each case codes
[out, in] U8, scales [out, groups] F32, zeros [out, groups] U8 (also for symmetric ones)."""
import os
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))


def round_scale(s, dtype):
    s = np.float32(s)
    return np.float64(np.float16(s)) if dtype == "F16" else np.float64(s)


def grid(w, bits, sym, p, dtype):
    top = 2**bits - 1
    lo, hi = min(w.min(), 0.0), max(w.max(), 0.0)
    exact = 2 * (p * max(-lo, hi)) / top if sym else (p * hi - p * lo) / top
    mid = 2.0 ** (bits - 1)
    if exact == 0:
        return 1.0, mid if sym else 0.0
    s = round_scale(exact, dtype)
    return s, mid if sym else min(np.rint(-(p * lo) / s), top)


def code(w, s, z, bits):
    return np.clip(np.rint(w / s) + z, 0, 2**bits - 1)


def find(w, c):
    """Scale and zero of one group of one row."""
    best = None
    for i in range(33 if c["clip"] else 1):
        s, z = grid(w, c["bits"], c["sym"], 1 - i / 40, c["scale"])
        err = 0.0
        for x in w:
            err += abs(s * (code(x, s, z, c["bits"]) - z) - x) ** 2.4
        if best is None or err < best[0]:
            best = (err, s, z)
    return best[1:]


def groups_of(n, group):
    g = n if group == 0 else group
    return g, (n + g - 1) // g


def all_grids(W, c):
    g, n = groups_of(W.shape[1], c["group"])
    sz = np.array([[find(row[k * g:(k + 1) * g], c) for k in range(n)] for row in W])
    return sz[:, :, 0], sz[:, :, 1]


def rtn(W, c):
    S, Z = all_grids(W, c)
    g, _ = groups_of(W.shape[1], c["group"])
    k = np.arange(W.shape[1]) // g
    return code(W, S[:, k], Z[:, k], c["bits"]), S, Z


def prepare(W, H, c):
    """Dead columns, processing order, damping."""
    W, H = W.copy(), H.copy()
    d = np.diag(H).copy()
    dead = d == 0
    mean = d[~dead].mean()
    W[:, dead] = 0
    H[dead, dead] = mean
    order = np.argsort(-np.diag(H), kind="stable") if c["act"] else np.arange(len(d))
    return W, H[order][:, order] + c["damp"] * mean * np.eye(len(d)), order


def gptq(W, H, c):
    W0, A, order = prepare(W, H, c)
    g, n = groups_of(W.shape[1], c["group"])
    fixed = c["act"] or c["static"]
    S, Z = all_grids(W0, c) if fixed else (np.zeros((len(W), n)), np.zeros((len(W), n)))
    U = np.linalg.cholesky(np.linalg.inv(A)).T
    W = W0[:, order].copy()
    Q = np.zeros_like(W)
    for j in range(W.shape[1]):
        k = order[j] // g
        if not fixed and j % g == 0:
            for r in range(len(W)):
                S[r, k], Z[r, k] = find(W[r, j:j + g], c)
        q = code(W[:, j], S[:, k], Z[:, k], c["bits"])
        Q[:, order[j]] = q
        e = (W[:, j] - S[:, k] * (q - Z[:, k])) / U[j, j]
        W[:, j + 1:] -= np.outer(e, U[j, j + 1:])
    return Q, S, Z


def ldlq(W, H, c):
    """The same by feedback of past errors; scales fixed beforehand."""
    W0, A, order = prepare(W, H, c)
    g, _ = groups_of(W.shape[1], c["group"])
    S, Z = all_grids(W0, c)
    R = np.linalg.cholesky(A[::-1, ::-1])[::-1, ::-1]  # A = R R', R upper
    M = R / np.diag(R)
    W = W0[:, order]
    D = np.zeros_like(W)
    Q = np.zeros_like(W)
    for j in range(W.shape[1]):
        k = order[j] // g
        q = code(W[:, j] + D[:, :j] @ M[:j, j], S[:, k], Z[:, k], c["bits"])
        Q[:, order[j]] = q
        D[:, j] = W[:, j] - S[:, k] * (q - Z[:, k])
    return Q, S, Z


def matrix(rng, out, n, tokens, dead):
    mix = rng.standard_normal((n, n)) / np.sqrt(n) + np.eye(n)
    gain = np.exp(rng.standard_normal(n))
    gain[rng.choice(n, 4, replace=False)] *= 12
    X = (rng.standard_normal((tokens, n)) @ mix * gain).astype(np.float32)
    X[:, dead] = 0
    W = (rng.standard_normal((out, n)) * 0.05 * np.exp(0.3 * rng.standard_normal((out, 1)))).astype(np.float32)
    W[3] = 0  # a row of zeros
    W[5] = np.abs(W[5])  # one without negative weights
    X = X.astype(np.float64)
    return W, (X.T @ X).astype(np.float32)


def case(method, m, bits, group, sym=False, act=False, static=False, clip=False, damp=0.01, scale="F16"):
    return dict(method=method, matrix=m, bits=bits, group=group, sym=sym, act=act, static=static, clip=clip, damp=damp,
                scale=scale)


CASES = [
    case("rtn", 0, 3, 32), case("rtn", 0, 4, 40, sym=True, clip=True), case("rtn", 0, 2, 0, scale="F32"),
    case("gptq", 0, 4, 32), case("gptq", 0, 3, 32, sym=True), case("gptq", 0, 2, 64, sym=True, act=True),
    case("gptq", 0, 4, 0), case("gptq", 0, 3, 40, damp=0.1), case("gptq", 0, 8, 32, sym=True),
    case("gptq", 0, 4, 32, clip=True), case("gptq", 0, 3, 32, act=True, clip=True), case("gptq", 0, 4, 128, static=True),
    case("gptq", 1, 3, 64), case("gptq", 1, 2, 32, sym=True, act=True), case("gptq", 1, 4, 0, act=True),
    case("gptq", 1, 3, 150, static=True, scale="F32"), case("gptq", 1, 3, 150, clip=True),
]


def main():
    rng = np.random.default_rng(20230902)
    mats = [matrix(rng, 48, 96, 300, []), matrix(rng, 64, 160, 120, [0, 77, 159])]
    with open(os.path.join(HERE, "matrices.bin"), "wb") as f:
        for W, H in mats:
            f.write(W.tobytes() + H.tobytes())
    with open(os.path.join(HERE, "cases.bin"), "wb") as f, open(os.path.join(HERE, "cases.txt"), "w") as t:
        for c in CASES:
            W, H = (x.astype(np.float64) for x in mats[c["matrix"]])
            Q, S, Z = rtn(W, c) if c["method"] == "rtn" else gptq(W, H, c)
            if c["act"] or c["static"]:
                assert np.array_equal(Q, ldlq(W, H, c)[0]), c
            f.write(Q.astype(np.uint8).tobytes() + S.astype(np.float32).tobytes() + Z.astype(np.uint8).tobytes())
            t.write("{method} {matrix} {bits} {group} {sym:d} {act:d} {static:d} {clip:d} {damp} {scale}\n".format(**c))


main()
