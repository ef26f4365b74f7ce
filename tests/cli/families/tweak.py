# SPDX-License-Identifier: Apache-2.0
"""What one step of training did to the norms of a model. tweak.py one NAME.calib OUT: its first sequence alone.
tweak.py step Q.nts GRADIENTS [qk] [final] [relative]: the first step of Adam moves every trained value by the rate (relative:
times its norm's gain) against the sign of its gradient; the values trained are those of GRADIENTS (nt-eval --dump norm-grads),
but for norms of q and k and the final one unless named. tweak.py moved Q.nts GRADIENTS [qk]: the same of the names alone, and something moved."""
import json
import re
import sys

import numpy as np

sys.path.insert(0, "tests/cli")
sys.path.insert(0, "tests/cli/families")
import families  # noqa: E402
import nts  # noqa: E402

QK = re.compile(r"(q|k)_(norm|layernorm)\.(weight|bias)$")


def is_final(name):
    return not re.search(r"\.\d+\.", name)


def norms(path):
    records, trailer = nts.walk(path)
    assert trailer["status"] == "ok", trailer
    out = {}
    for kind, meta, payload in records:
        if kind == "Norm":
            assert (meta["name"], meta["which"]) not in out, "%s comes twice" % meta["name"]
            out[meta["name"], meta["which"]] = np.frombuffer(payload, "<f4").astype(np.float64)
    return out


def expected(path, options):
    grads = {n[len("grad."):]: g.reshape(-1).astype(np.float64) for n, g in families.load(path).items()
             if n.startswith("grad.")}
    return {n: g for n, g in grads.items()
            if ("qk" in options or not QK.search(n)) and ("final" in options or not is_final(n))}


def main(what, a, b, *options):
    if what == "one":
        with open(a) as f, open(b, "w") as out:
            json.dump(json.load(f)[:1], out)
        return
    grads, values = expected(b, options), norms(a)
    new = {n for n, which in values if which == "new"}
    assert new == set(grads), (sorted(new ^ set(grads)), "trained or expected alone")
    if what == "moved":
        assert any(np.any(values[n, "new"] != values[n, "old"]) for n in new)
        return
    unit = {n: np.abs(values[n.replace(".bias", ".weight"), "old"]) if "relative" in options else 1.0 for n in new}
    moves = {n: (values[n, "new"] - values[n, "old"]) / unit[n] for n in new}
    rate = max(np.abs(m).max() for m in moves.values())
    assert 0.009 < rate < 0.011, rate
    for n in sorted(new):
        move, sure = moves[n], np.abs(grads[n] * unit[n]) > 1e-5
        assert sure.any() or np.abs(grads[n] * unit[n]).max() < 1e-5, n
        worst = np.abs(move + rate * np.sign(grads[n]))[sure].max(initial=0)
        assert worst < 0.003 * rate, "%s: a value moved otherwise than its gradient says (%g)" % (n, worst)


main(*sys.argv[1:])
