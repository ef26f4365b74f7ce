# SPDX-License-Identifier: Apache-2.0
"""decode.py tokenizer DIR: a tokenizer of single letters for a tiny model. decode.py ids STREAM FILE: the sequences of a
tokens stream for nt-eval --ids. decode.py compare DIR: a line 'STATUS NAME: ...' for each NAME on stdin: every token of
DIR/NAME.nts is what the logits of the whole sequence (DIR/NAME.dump, from one forward without a cache) and the random
number say."""
import json
import os
import string
import sys

import numpy as np

import families

sys.path.insert(0, os.path.join("tests", "cli", "nt-gen-calib"))
import check  # noqa: E402

LETTERS = string.ascii_letters[:40]


def tokenizer(directory):
    model = {"type": "BPE", "vocab": {c: i for i, c in enumerate(LETTERS)}, "merges": []}
    with open(os.path.join(directory, "tokenizer.json"), "w") as f:
        json.dump({"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
                   "post_processor": None, "decoder": None, "model": model}, f)


def ids(stream, path):
    with open(path, "w") as f:
        json.dump([x for _, x in check.read_stream(stream)[1]], f)


def compare_one(at):
    header, records = check.read_stream(at + ".nts")
    par, logits = header["params"], families.load(at + ".dump")["logits"].astype(np.float64)
    banned, wrong, kinds = list(range(len(LETTERS), logits.shape[-1])), 0, set()
    logits = logits.reshape(len(records), par["T"], -1)
    for i, (meta, x) in enumerate(records):
        for pos in range(1, par["T"]):
            u = (check.philox(header["seed"], i, pos) >> 11) / 2.0 ** 53
            wrong += check.wrong(logits[i, pos - 1], banned, meta["greedy"], pos, x[pos], u, par["top_k"], par["temperature"])
        kinds.update(x)
    assert len(kinds) > 5, "always the same tokens"
    return wrong, len(records) * (par["T"] - 1)


def main():
    if sys.argv[1] != "compare":
        return {"tokenizer": tokenizer, "ids": ids}[sys.argv[1]](*sys.argv[2:])
    for name in sys.stdin.read().split():
        try:
            wrong, n = compare_one(os.path.join(sys.argv[2], name))
            print(int(wrong > 0), "%s: %d of %d decoded tokens are not those of a whole forward" % (name, wrong, n))
        except Exception as e:  # whatever is wrong with this one
            print(1, "%s: %s" % (name, str(e) or type(e).__name__))


if __name__ == "__main__":
    main()
