# SPDX-License-Identifier: Apache-2.0
"""Reads a stats stream with python3-msgpack, knowing nothing of nt-collect but the documented format.

stats.py compare STREAM EXPECTED.npz    largest differences against the statistics of another program
stats.py same STREAM STREAM             largest differences between two streams, record by record
stats.py rows STREAM                    largest difference between X'X of the sample rows and the Hessian
stats.py subset FEW ALL                 whether the sample rows of one stream lie in order among those of another
stats.py merged WHOLE PART...           largest differences between a stream and the merge of its shards
stats.py status STREAM                  status and error of the trailer
stats.py names STREAM                   one line per record: name, count"""
import sys

import msgpack
import numpy as np

DTYPES = {"F32": np.float32, "F64": np.float64}


def records(path):
    """name -> (meta, array) in the order of the stream."""
    with open(path, "rb") as f:
        unpacker = msgpack.Unpacker(f, raw=False, strict_map_key=False, max_buffer_size=2**31)
        out, current, data = {}, None, b""
        for item in unpacker:
            if isinstance(item, list):
                current, data = item, b""
            elif isinstance(item, bytes):
                data += item
            elif isinstance(item, dict) and "xxh3" in item and "n" in item and current is not None:
                meta = current[3]
                if "dtype" in meta and meta.get("nbytes"):
                    out[meta["name"]] = (meta, np.frombuffer(data, DTYPES[meta["dtype"]]).reshape(meta["shape"]))
                current = None
        return out


def difference(a, b):
    """Largest difference, relative to the largest value of each row (each kind of sum has its own scale)."""
    a, b = np.atleast_2d(a.astype(np.float64)), np.atleast_2d(b.astype(np.float64))
    a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    return float(np.max(np.abs(a - b).max(1) / np.maximum(np.abs(b).max(1), 1e-300)))


def compare(stream, expected):
    got, want = records(stream), np.load(expected)
    missing = sorted(set(want.files) - set(got))
    worst = {}
    for name in set(want.files) - set(missing):
        stat = name.split(".")[-1]
        shape_ok = got[name][1].shape == want[name].shape
        worst[stat] = max(worst.get(stat, 0), difference(got[name][1], want[name]) if shape_ok else np.inf)
    print("missing", len(missing))
    for stat in sorted(worst):
        print(stat, "%.3g" % worst[stat])


def same(one, two):
    a, b = records(one), records(two)
    print("names", "equal" if list(a) == list(b) else "differ")
    print("counts", "equal" if all(a[n][0]["count"] == b[n][0]["count"] for n in a if n in b) else "differ")
    print("worst", "%.3g" % max(difference(a[n][1], b[n][1]) if a[n][1].shape == b[n][1].shape else np.inf
                               for n in a if n in b))


def rows(stream):
    got, worst = records(stream), 0
    for name in got:
        if name.endswith(".rows"):
            x = got[name][1].astype(np.float64)
            worst = max(worst, difference((x.T @ x)[np.tril_indices(x.shape[1])], got[name[:-4] + "hessian"][1]))
    print("worst", "%.3g" % worst if worst else "none")


def subset(few, every):
    a, b = records(few), records(every)
    for name in (n for n in a if n.endswith(".rows")):
        rest = iter(row.tobytes() for row in b[name][1])
        if not all(any(row.tobytes() == r for r in rest) for row in a[name][1]):  # a subsequence
            return print(name, "differs")
        n = len(a[name][1])
    print(n, "rows, ascending, all found")


def merged(whole, *parts):
    """Merges by the rule in each record's meta."""
    rules = {"sum": sum, "max": lambda a: np.max(a, axis=0), "concat": np.concatenate}
    want, got, worst, counts = records(whole), [records(p) for p in parts], 0, True
    for name, (meta, array) in want.items():
        pieces = [g[name] for g in got if name in g]
        worst = max(worst, difference(rules[meta["merge"]]([a.astype(np.float64) for _, a in pieces]), array))
        counts = counts and sum(m["count"] for m, _ in pieces) == meta["count"]
    print("counts", "equal" if counts else "differ")
    print("worst", "%.3g" % worst)


def status(stream):
    with open(stream, "rb") as f:
        last = [x for x in msgpack.Unpacker(f, raw=False, max_buffer_size=2**31) if isinstance(x, dict)][-1]
    print(last.get("status"), last.get("error"))


def names(stream):
    for name, (meta, _) in records(stream).items():
        print(name, meta["count"])


{"compare": compare, "same": same, "rows": rows, "merged": merged, "subset": subset, "status": status, "names": names}[sys.argv[1]](*sys.argv[2:])
