# SPDX-License-Identifier: Apache-2.0
"""Bundles without libarchive or nt: reads them, and makes bad ones.

bundle.py check B.tar [EPOCH]   the tar inside: order, owner, mode, time; every member as the manifest says, by hashlib
bundle.py bad CASE IN.tar OUT.tar   the same with one thing wrong
"""
import hashlib
import io
import json
import sys
import tarfile


def read(path):
    with tarfile.open(path, "r:") as t:
        return [(m, t.extractfile(m).read() if m.isreg() else b"") for m in t.getmembers()]


def check(path, epoch="315532800"):
    members = read(path)
    names = [m.name for m, _ in members]
    assert names[0] == "manifest.json" and names[1:] == sorted(names[1:]), names
    for m, _ in members:
        assert (m.uid, m.gid, m.uname, m.gname, m.mode, m.mtime, m.type) == (0, 0, "", "", 0o644, int(epoch), b"0"), m.name
    manifest = json.loads(members[0][1])
    assert manifest["format"] == "nt-bundle/1" and manifest["producer"]["tool"] == "nt-pack"
    assert [f["name"] for f in manifest["files"]] == names[1:]
    for f, (m, data) in zip(manifest["files"], members[1:]):
        assert (f["bytes"], f["sha256"]) == (len(data), hashlib.sha256(data).hexdigest()), m.name
        assert (f["kind"] == "stamp") == m.name.endswith(".stamp") and ("xxh3" in f) == m.name.endswith(".nts")
    assert manifest["model"]["layers"] == 3 and any(t.startswith("nt-tweak ") for t in manifest["tools"])
    print(len(names) - 1, "members;", manifest["options"])


def bad(case, source, target):
    members = [(m.name, data, {}) for m, data in read(source)]
    manifest = json.loads(members[0][1])
    files = manifest["files"]
    first = members[1]

    def put(name, data, **how):
        members.append((name, data, how))

    def entry(name, data, **more):
        files.append(dict({"name": name, "kind": "stamp", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}, **more))

    if case in ("../escape.nts", "/tmp/nt-escape.nts", "sub/q.9.nts", ".hidden.nts", "evil.mk", "zz..", "-rf.nts"):
        entry(case, b"x"), put(case, b"x")
    elif case == "unlisted":
        put("zz.nts", b"x")
    elif case == "unlisted ..":
        put("../nt-escape", b"x")
    elif case in ("symlink", "hardlink", "directory", "fifo", "device"):
        kind = {"symlink": tarfile.SYMTYPE, "hardlink": tarfile.LNKTYPE, "directory": tarfile.DIRTYPE, "fifo": tarfile.FIFOTYPE,
                "device": tarfile.CHRTYPE}[case]
        entry("zz.nts", b""), put("zz.nts", b"", type=kind, linkname="/etc/passwd" if "link" in case else "")
    elif case == "huge in the manifest":
        files[0]["bytes"] = 2**60
    elif case == "huge disk":  # believable, but nobody has it
        files[0]["bytes"] = 2**42
    elif case == "negative":
        files[0]["bytes"] = -1
    elif case == "too many stamps' bytes":
        data = b"-" * 70000
        entry("zz.stamp", data), put("zz.stamp", data)
    elif case == "longer than told":
        members[1] = (first[0], first[1] + bytes(1 << 20), {})
    elif case == "shorter than told":
        members[1] = (first[0], first[1][:-1], {})
    elif case == "hash":
        files[0]["sha256"] = "0" * 64
    elif case == "no hash":
        del files[0]["sha256"]
    elif case == "twice":
        files.insert(0, files[0])
        members.insert(1, first)
    elif case == "order":
        members[1], members[2] = members[2], members[1]
    elif case == "missing":
        del members[-1]
    elif case == "no manifest":
        del members[0]
    elif case == "manifest later":
        members.append(members.pop(0))
    elif case == "empty":
        members.clear()
    elif case == "format":
        manifest["format"] = "nt-bundle/2"
    elif case == "no files":
        manifest["files"] = []
    elif case == "manifest is no JSON":
        members[0] = ("manifest.json", b"{,", {})
    elif case == "manifest is a bomb":
        members[0] = ("manifest.json", b"[" * (17 << 20), {})
    elif case == "deep manifest":
        members[0] = ("manifest.json", b"[" * (1 << 20), {})
    elif case.startswith("stamp "):
        data = case[6:].encode() + b"\n"
        i = next(i for i, m in enumerate(members) if m[0] == "tweak.stamp")
        members[i] = ("tweak.stamp", data, {})
        files[i - 1].update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    else:
        raise SystemExit(f"unknown case {case}")
    if members and members[0][0] == "manifest.json" and not members[0][1].startswith((b"{,", b"[")):
        members[0] = ("manifest.json", json.dumps(manifest).encode(), {})
    with tarfile.open(target, "w:", format=tarfile.USTAR_FORMAT) as t:
        for name, data, how in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in how.items():
                setattr(info, key, value)
            t.addfile(info, io.BytesIO(data))


globals()[sys.argv[1]](*sys.argv[2:])
