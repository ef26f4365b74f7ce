# SPDX-License-Identifier: Apache-2.0
"""table.py EXPECTED.json GPTQ.tsv LLAMA.json: compares nt-eval's rows with the stored float64 values."""
import json
import sys

want = json.load(open(sys.argv[1]))
lines = [line.rstrip("\n").split("\t") for line in open(sys.argv[2])]
rows = [dict(zip(lines[0], line)) for line in lines[1:]] + json.load(open(sys.argv[3]))
seen, bad = set(), 0


def compare(key, got, expected, tol):
    global bad
    seen.add(key)
    if not abs(float(got) - expected) <= tol * abs(expected) + 1e-9:
        bad = 1
        print(key, got, "expected", expected)


for r in rows:
    w, m = want.get(r["protocol"]), r["metric"]
    if m == "lambada":
        compare("lambada", r["value"], want["lambada"], 1e-6)
        compare("items", r["n"], want["items"], 0)
    elif m in w:
        compare((r["protocol"], m), r["value"], w[m][0], 2e-5)
        compare((r["protocol"], m, "stderr"), r["stderr"], w[m][1], 1e-2)
        compare((r["protocol"], m, "n"), r["n"], w["n"], 0)
    elif str(r["layer"]) == "0":
        compare((r["protocol"], m), r["value"], w[m + ".0"], 1e-4)
assert len(seen) == 2 * (3 * 3 + 2) + 2, seen
sys.exit(bad)
