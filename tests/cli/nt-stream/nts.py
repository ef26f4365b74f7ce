# SPDX-License-Identifier: Apache-2.0
"""NTS/1 written and walked by other means than ours: python3-msgpack and libxxhash (by ctypes). Made from man/nt-stream.5.

nts.py sample FILE          a small stats stream
nts.py walk <STREAM         walks it with msgpack.Unpacker, checks everything, prints kind, records, bytes, xxh3
nts.py big BYTES            one record of so many bytes, to stdout
nts.py shards PREFIX        shards for merge; check-merge PREFIX MERGED compares with sums by NumPy
nts.py damage FILE AT OUT   one bit of a copy flipped; offset FILE TEXT N: where a text is
"""
import ctypes
import struct
import sys

import msgpack
import numpy as np

xx = ctypes.CDLL("libxxhash.so.0")
for f, args, res in (("XXH3_createState", [], ctypes.c_void_p), ("XXH3_64bits_reset", [ctypes.c_void_p], ctypes.c_int),
                     ("XXH3_64bits_update", [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t], ctypes.c_int),
                     ("XXH3_64bits_digest", [ctypes.c_void_p], ctypes.c_uint64)):
    getattr(xx, f).argtypes, getattr(xx, f).restype = args, res

SYNC = msgpack.ExtType(0x53, bytes.fromhex("8ef24c2950439cad0301e0b27b6d2de1"))
SEGMENT = 64 << 20


class Hash:
    def __init__(self):
        self.s = xx.XXH3_createState()
        xx.XXH3_64bits_reset(self.s)

    def add(self, b):
        xx.XXH3_64bits_update(self.s, b, len(b))
        return self

    def value(self):
        return xx.XXH3_64bits_digest(self.s)

    def hex(self):
        return "%016x" % self.value()

    def bytes(self):
        return struct.pack(">Q", self.value())


class Writer:
    def __init__(self, f, header):
        self.f, self.pos = f, 0
        self.seq = self.layer_records = self.records = self.bytes = 0
        self.put(b"\xd7\x4eNTSTRM\x01\x00")
        h = msgpack.packb({"kind": "stats", **header, "align": 64})
        self.all = Hash().add(h)
        self.put(h)

    def put(self, b):
        self.f.write(b)
        self.pos += len(b)

    def record(self, kind, meta, dtype=None, shape=(), pieces=()):
        """pieces: the payload, cut as segments"""
        if dtype:
            pieces = list(pieces)
            meta = {**meta, "dtype": dtype, "shape": list(shape), "nbytes": sum(map(len, pieces)), "segs": len(pieces)}
        b = msgpack.packb([SYNC, self.seq, kind, meta])
        h, n = Hash().add(b), 0
        self.put(b)
        for p in pieces:
            self.put(b"\xc0" * (-(self.pos + 5) % 64) + b"\xc6" + struct.pack(">I", len(p)))
            self.put(p)
            h.add(p)
            n += len(p)
        self.put(msgpack.packb({"xxh3": h.hex(), "n": n}))
        self.all.add(h.bytes())
        self.seq += 1
        self.layer_records += 1
        self.records += 1
        self.bytes += n

    def tensor(self, kind, meta, a):
        names = {"float32": "F32", "float64": "F64", "int32": "I32", "int64": "I64", "uint8": "U8"}
        self.record(kind, meta, names[a.dtype.name], a.shape, [a.tobytes()] if a.size else [])

    def layer_end(self, layer):
        self.record("LayerEnd", {"layer": layer, "records": self.layer_records})
        self.seq = self.layer_records = 0

    def finish(self, **extra):
        t = msgpack.packb({"records": self.records, "bytes": self.bytes, "xxh3": self.all.hex(), "inputs": [],
                           "history": [{"tool": "nts.py", "version": "1"}], "status": "ok", **extra})
        self.put(t)
        pad = -(self.pos + 11) % 64
        self.put(b"\xc7" + bytes([8 + pad]) + b"\x45" + Hash().add(t).bytes() + b"\0" * pad)


def walk(f):
    """Every rule of the page, with msgpack.Unpacker and its tell() alone. Yields (kind, meta, payload pieces)."""
    data = f.read()
    u = msgpack.Unpacker(max_buffer_size=2**31 - 1, max_bin_len=2**31 - 1, strict_map_key=True)
    u.feed(data)
    at = 0

    def get():
        nonlocal at
        o, a = u.unpack(), at
        at = u.tell()
        return o, data[a:at]

    magic, raw = get()
    assert raw == b"\xd7\x4eNTSTRM\x01\x00", "magic"
    header, raw = get()
    assert header["align"] == 64 and isinstance(header["kind"], str)
    total = Hash().add(raw)
    yield "header", header, []
    seq = in_layer = records = size = 0
    while True:
        o, raw = get()
        if isinstance(o, dict):
            break
        sync, n, kind, meta = o
        assert sync == SYNC and n == seq, "sequence"
        h, pieces = Hash().add(raw), []
        for _ in range(meta.get("segs", 0)):
            while True:
                p, raw = get()
                if p is not None:
                    break
            assert isinstance(p, bytes) and raw[0] == 0xc6 and len(p) <= SEGMENT, "segment"
            assert (at - len(p)) % 64 == 0, "alignment"
            h.add(p)
            pieces.append(p)
        tail, _ = get()
        assert tail == {"xxh3": h.hex(), "n": sum(map(len, pieces))}, "tail"
        assert sum(map(len, pieces)) == meta.get("nbytes", 0)
        total.add(h.bytes())
        yield kind, meta, pieces
        seq, in_layer, records, size = seq + 1, in_layer + 1, records + 1, size + tail["n"]
        if kind == "LayerEnd":
            assert meta["records"] == in_layer - 1 and not pieces
            seq = in_layer = 0
    assert o["records"] == records and o["bytes"] == size and o["xxh3"] == total.hex() and o["status"] == "ok", "trailer"
    end, eraw = get()
    assert end.code == 0x45 and end.data[:8] == Hash().add(raw).bytes() and not any(end.data[8:]) and at % 64 == 0, "end"
    yield "trailer", o, []


def sample(f):
    w = Writer(f, {"params": {"bits": 3}, "seed": 7, "model": {"arch": "llama"}})
    for layer in range(3):
        w.tensor("sums", {"name": f"layers.{layer}.qkv.sums", "layer": layer, "merge": "sum", "count": 10},
                 np.arange(15, dtype=np.float32).reshape(3, 5) + layer)
        w.tensor("absmax", {"name": f"layers.{layer}.qkv.absmax", "layer": layer, "merge": "max", "count": 10},
                 np.array([1.5, -2, layer], np.float32))
        w.record("note", {"name": "no payload", "layer": layer})
        w.tensor("Empty", {"layer": layer}, np.zeros((0, 4), np.uint8))
        w.layer_end(layer)
    w.finish(verdict="none")


def shard(f, i, n, rng, drop=None, arch="llama", **more):
    """Returns what it wrote, so that the caller knows the sums."""
    w, out = Writer(f, {"params": {"want": "all", "shard": [i, n]}, "model": {"arch": arch}, **more}), {}
    for layer in range(2):
        for kind, merge, a in (("hessian", "sum", rng.standard_normal(70000).astype(np.float32)),
                               ("sums", "sum", rng.standard_normal((5, 9))), ("absmax", "max", rng.standard_normal(9).astype(np.float32)),
                               ("hits", "sum", rng.integers(0, 1 << 40, 5)), ("rows", "concat", rng.standard_normal((i + 1, 4)).astype(np.float32))):
            if (kind, layer) == drop:
                continue
            out[kind, layer] = a
            w.tensor(kind, {"name": f"layers.{layer}.{kind}", "layer": layer, "merge": merge, "count": 100 + i}, a)
        w.layer_end(layer)
    w.finish()
    return out


def test_merge(path):
    """Writes shards path0..2 and the expected result as text lines 'kind layer count sha'."""
    rng = np.random.default_rng(5)
    parts = []
    for i in range(3):
        with open(f"{path}{i}", "wb") as f:
            parts.append(shard(f, i, 3, rng))
    with open(path + "drop", "wb") as f:
        shard(f, 2, 3, rng, drop=("sums", 1))
    with open(path + "model", "wb") as f:
        shard(f, 2, 3, rng, arch="opt")
    with open(path + "tokens", "wb") as f:
        shard(f, 2, 3, rng, tokens="0123456789abcdef")
    return parts


def check_merge(path, merged):
    parts = test_merge(path)  # same seed, same numbers
    seen = 0
    with open(merged, "rb") as f:
        for kind, meta, pieces in walk(f):
            if kind == "header":
                assert meta["params"] == {"want": "all"}, meta
            if "merge" not in meta:
                continue
            a = [p[kind, meta["layer"]] for p in parts]
            if meta["merge"] == "sum":  # left to right in double, rounded once
                want = a[0].astype(np.float64 if a[0].dtype.kind == "f" else np.int64)
                for x in a[1:]:
                    want = want + x
                want = want.astype(a[0].dtype)
            else:
                want = np.maximum.reduce(a) if meta["merge"] == "max" else np.concatenate(a)
            assert b"".join(pieces) == want.tobytes(), (kind, meta)
            assert list(want.shape) == meta["shape"] and meta["count"] == 303, meta
            seen += 1
    assert seen == 10


def big(f, n):
    """[rows, 1 MiB + 4] of bytes: rows that do not divide a segment."""
    row = (1 << 20) + 4
    rows = -(-n // row)
    per = SEGMENT // row
    w = Writer(f, {})
    block = (np.arange(per * row, dtype=np.uint32) % 251).astype(np.uint8).tobytes()
    whole, rest = divmod(rows, per)

    class Pieces(list):  # the same bytes again and again: nothing is held twice
        def __init__(self):
            super().__init__([block] * whole + ([block[:rest * row]] if rest else []))

    w.record("hessian", {"name": "big", "layer": 0}, "U8", [rows, row], Pieces())
    w.layer_end(0)
    w.finish()


def main():
    cmd, args = sys.argv[1], sys.argv[2:]
    if cmd == "sample":
        with open(args[0], "wb") as f:
            sample(f)
    elif cmd == "shards":
        test_merge(args[0])
    elif cmd == "check-merge":
        check_merge(args[0], args[1])
    elif cmd == "big":
        big(sys.stdout.buffer, int(args[0]))
    elif cmd == "walk":
        items = list(walk(sys.stdin.buffer))
        print(items[0][1]["kind"], items[-1][1]["records"], items[-1][1]["bytes"], items[-1][1]["xxh3"])
    elif cmd == "damage":  # file offset: one byte changed
        b = bytearray(open(args[0], "rb").read())
        b[int(args[1])] ^= 0x10
        open(args[2], "wb").write(b)
    elif cmd == "offset":  # of the nth (from 0) occurrence of a text
        b, at = open(args[0], "rb").read(), -1
        for _ in range(int(args[2]) + 1):
            at = b.index(args[1].encode(), at + 1)
        print(at)
    else:
        sys.exit("nts.py: " + cmd + "?")


if __name__ == "__main__":
    main()
