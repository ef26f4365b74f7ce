# SPDX-License-Identifier: Apache-2.0
"""Writes a tokens stream (NTS/1) from a JSON array of arrays of ids, independently of the project's own writer:
tokens.py IDS.json HOLDOUT OUT.nts [KIND]. The last HOLDOUT sequences are marked as held out."""
import ctypes
import json
import struct
import sys

import msgpack

xxhash = ctypes.CDLL("libxxhash.so.0")
xxhash.XXH3_64bits.restype = ctypes.c_uint64
xxhash.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
SYNC = bytes.fromhex("8ef24c2950439cad0301e0b27b6d2de1")


def xxh3(data):
    return xxhash.XXH3_64bits(data, len(data))


class Writer:
    def __init__(self, header):
        self.out = bytearray(b"\xd7NNTSTRM\x01\x00")
        packed = msgpack.packb(header)
        self.out += packed
        self.hashed, self.records, self.bytes = packed, 0, 0

    def record(self, kind, meta, payload, dtype, shape):
        meta = dict(meta, dtype=dtype, shape=shape, nbytes=len(payload), segs=1)
        head = b"\x94\xd8\x53" + SYNC + b"".join(msgpack.packb(x) for x in (self.records, kind, meta))
        self.out += head
        self.out += b"\xc0" * (-(len(self.out) + 5) % 64)
        self.out += b"\xc6" + struct.pack(">I", len(payload)) + payload
        digest = xxh3(head + payload)
        self.out += msgpack.packb({"xxh3": "%016x" % digest, "n": len(payload)})
        self.hashed += struct.pack(">Q", digest)
        self.records += 1
        self.bytes += len(payload)

    def finish(self, path):
        trailer = msgpack.packb({"records": self.records, "bytes": self.bytes, "xxh3": "%016x" % xxh3(self.hashed),
                                 "inputs": [], "history": [], "status": "ok"})
        self.out += trailer
        end = struct.pack(">Q", xxh3(trailer)) + bytes(-(len(self.out) + 11) % 64)
        self.out += b"\xc7" + bytes([len(end)]) + b"E" + end
        with open(path, "wb") as f:
            f.write(self.out)


def main(ids_path, holdout, out, kind="tokens"):
    with open(ids_path) as f:
        ids = json.load(f)
    n = len(ids)
    w = Writer({"kind": kind, "params": {"scheme": "test", "n": n}, "align": 64})
    for i, row in enumerate(ids):
        split = "train" if i < n - int(holdout) else "holdout"
        w.record("Tokens", {"seq": i, "split": split}, struct.pack("<%di" % len(row), *row), "I32", [len(row)])
    w.finish(out)


main(*sys.argv[1:])
