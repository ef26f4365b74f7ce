# SPDX-License-Identifier: Apache-2.0
"""pages.py MODEL TEXT LENGTH PREFIX: what lm-evaluation-harness makes of a WikiText file: the pages and their spelling by
Python's re, its rolling windows (of LENGTH, the first behind the token PREFIX), perplexity per word and byte. The model runs by
nt-eval --dump nll, which other tests compare with PyTorch. Prints word_ppl, words, byte_ppl, bytes, bits_per_byte."""
import json
import math
import os
import re
import struct
import subprocess
import sys
import tempfile

model, path, longest, prefix = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
PLAIN = [(" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", "."), (" : ", ": "), (" ; ", "; "), (" . ", ". "), (" ! ", "! "),
         (" ? ", "? "), (" , ", ", ")]
PAIRS = [r"(\()\s*([^\)]*?)\s*(\))", r"(\[)\s*([^\]]*?)\s*(\])", r"({)\s*([^}]*?)\s*(})", r"(\")\s*([^\"]*?)\s*(\")", r"(')\s*([^']*?)\s*(')"]
LAST = [("= = = =", "===="), ("= = =", "==="), ("= =", "=="), (" \u00b0 ", "\u00b0"), (" \n", "\n"), ("\n ", "\n"), (" N ", " 1 "),
        (" 's", "'s")]


def read_pages():
    pages, page = [], []
    for line in open(path, encoding="utf-8").read().split("\n"):
        title = line.replace("= = =", "===").replace("= =", "==").strip()
        if title.startswith("= ") and title.endswith(" ="):
            if "\n".join(page).strip():
                pages.append("\n".join(page))
            page = []
        page.append(line)
    return pages + ["\n".join(page)]


def spell(s):
    s = re.sub(r"/' [0-9]/", r"/'[0-9]/", s.replace("s '", "s'"))
    for a, b in PLAIN:
        s = s.replace(a, b)
    for pair in PAIRS:
        s = re.sub(pair, r"\1\2\3", s)
    for a, b in LAST:
        s = s.replace(a, b)
    return s


def windows(ids):
    """(inputs, how many predictions count)"""
    n = min(longest, len(ids))
    yield [prefix] + ids[:n], n
    done = n
    while done < len(ids):
        k = min(len(ids) - done, longest)
        yield ids[done + k - longest - 1:done + k], k
        done += k


def nll(sequences):
    with tempfile.TemporaryDirectory() as d:
        json.dump(sequences, open(d + "/ids.json", "w"))
        subprocess.run(["nt-eval", "-m", model, "--ids", d + "/ids.json", "--dump", "nll", "-o", d + "/nll", "--progress", "none"], check=True)
        data = open(d + "/nll", "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    start = json.loads(data[8:8 + n])["nll"]["data_offsets"][0] + 8 + n
    return struct.unpack("<%df" % len(sequences), data[start:start + 4 * len(sequences)])


pages = read_pages()
text = "".join(json.dumps(spell(p)) + "\n" for p in pages)
out = subprocess.run(["nt-gen-calib", "-m", model, "--encode"], input=text, stdout=subprocess.PIPE, universal_newlines=True, check=True).stdout
total = 0
for line in out.splitlines():
    for ids, k in windows(json.loads(line)):
        total += nll([ids])[0]
        if k + 1 < len(ids):
            total -= nll([ids[:len(ids) - k]])[0]
words = sum(len(re.split(r"\s+", p)) for p in pages)
count = sum(len(p.encode()) for p in pages)
print(math.exp(total / words), words, math.exp(total / count), count, total / count / math.log(2))
