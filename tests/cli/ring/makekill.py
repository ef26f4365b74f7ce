# SPDX-License-Identifier: Apache-2.0
"""makekill.py MODEL TOKENS DIR EXPECTED.nts LAYERS KILLS SEED: runs pipelines/norm-tweak.mk and kills (-9) make, a stage, or
all of it at a random moment, again and again. Layers that were whole must never be done again, and the result must have the
expected bytes."""
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path


def group(pgid):
    """Processes of a process group: [(pid, name)]"""
    found = []
    for p in Path("/proc").iterdir():
        if p.name.isdigit():
            try:
                name, rest = (p / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
            except OSError:
                continue
            if int(rest.split()[2]) == pgid and rest.split()[0] != "Z":
                found.append((int(p.name), name))
    return found


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def main(model, tokens, d, expected, layers, kills, seed):
    d, rng, want = Path(d), random.Random(int(seed)), Path(expected).read_bytes()
    command = [os.environ.get("MAKE", "make"), "-f", "pipelines/norm-tweak.mk", f"MODEL={model}", f"TOKENS={tokens}", "GROUP=16",
               f"DIR={d}", "COLLECT_OPTS=--progress none", "QUANT_OPTS=--progress none"]
    done, whole, finished, failures, hits = 0, {}, 0, 0, {}
    begin = time.monotonic()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    usual = time.monotonic() - begin
    shutil.rmtree(d)

    def bad(text):
        nonlocal failures
        failures += 1
        print("#", text)

    while done < int(kills) or finished == 0:
        before, delay = done, rng.uniform(0, 0.6 * usual)
        p = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        if done < int(kills):
            try:
                p.wait(delay)
                usual *= 0.9  # the first run may have been a slow one
            except subprocess.TimeoutExpired:
                name, stages = rng.choice(["all", "make", "stage", "stage"]), []
                while name == "stage" and not stages and p.poll() is None:
                    stages = [m for m in group(p.pid) if m[1].startswith("nt-")]
                victims = {"all": group(p.pid), "make": [(p.pid, "make")], "stage": stages[:1]}[name]
                name = victims[0][1] if name == "stage" and victims else name
                hits[name] = hits.get(name, 0) + 1
                for pid, _ in victims:
                    kill(pid)
                done += 1
        else:
            p.wait()
        p.wait()
        while group(p.pid):  # a stage whose make was killed goes on; whoever starts make again meanwhile does its work twice
            time.sleep(0.01)
        said = p.stderr.read().decode()
        now = {l: (d / f"q.{l}.nts").stat().st_mtime_ns for l in range(int(layers)) if (d / f"q.{l}.nts").exists()}
        if any(now.get(l) != t for l, t in whole.items()):
            bad(f"after {done} kills: layers {sorted(whole)} were whole, now {sorted(now)}, some of them new")
        whole = now
        if p.returncode == 0:
            finished += 1
            if (d / "q.nts").read_bytes() != want:
                bad(f"after {done} kills: other bytes")
            shutil.rmtree(d)
            whole = {}
        elif p.returncode > 0 and done == before:  # no kill in this round
            bad(f"make fails: {said[-300:]}")
            break
    names = ", ".join(f"{k} {v}" for k, v in sorted(hits.items()))
    print(f"{done} kills ({names}), {finished} results, all with the same bytes, no whole layer done twice")
    sys.exit(int(failures > 0))


main(*sys.argv[1:])
