# SPDX-License-Identifier: Apache-2.0
"""kill.py MODEL TOKENS DIR KILLS SEED: the ring of three stages, one of which gets SIGKILL or SIGTERM at a random moment.
Prints TAP. A run that was hit must end at once, with a reason from whoever is left, and leave no output; one that was not
must leave the same bytes as an undisturbed one."""
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

STAGES = ("nt-collect", "nt-quant", "nt-tweak")


def start(model, tokens, d, asleep=None):
    """The three stages; the one of the index asleep has stopped itself before it is more than a shell."""
    ring, out = d / "ring", d / "q.nts"
    ring.unlink(missing_ok=True)
    os.mkfifo(ring)
    common = ["-m", model, "-j", "1", "--progress", "none"]
    commands = (["nt-collect", *common, "--tokens", tokens, "--want", "hessian", "--acts-in", str(ring)],
                ["nt-quant", *common, "-q", "gptq", "-b", "3", "-g", "16"],
                ["nt-tweak", *common, "--tokens", tokens, "--iters", "4", "--acts-out", str(ring), "-o",
                 str(out)])
    procs, upstream = [], subprocess.DEVNULL
    for i, c in enumerate(commands):
        if i == asleep:
            c = ["sh", "-c", 'kill -STOP $$; exec "$@"', "sh", *c]
        with open(d / f"err{i}", "wb") as err:
            procs.append(subprocess.Popen(c, stdin=upstream, stderr=err, stdout=subprocess.PIPE if i < 2 else subprocess.DEVNULL))
        if i:
            upstream.close()
        upstream = procs[-1].stdout
    return procs, out


def wait(procs, limit):
    """Seconds until all have ended; None: somebody still runs (and is ended here)."""
    begin = time.monotonic()
    while any(p.poll() is None for p in procs):
        if time.monotonic() - begin > limit:
            for p in procs:
                if p.poll() is None:
                    p.kill()
                    p.wait()
            return None
        time.sleep(0.002)
    return time.monotonic() - begin


def stopped(p):
    return Path(f"/proc/{p.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"


def main(model, tokens, d, kills, seed):
    d, rng, n, bad = Path(d), random.Random(int(seed)), 0, 0

    def ok(good, name):
        nonlocal n, bad
        n, bad = n + 1, bad + (not good)
        print(f"{'ok' if good else 'not ok'} {n} - {name}", flush=True)

    procs, out = start(model, tokens, d)
    duration = wait(procs, 600)
    reference = out.read_bytes() if out.exists() else b""
    ok([p.returncode for p in procs] == [0, 0, 0] and reference, f"undisturbed: {duration or 0:.2f} s")
    if bad:
        sys.exit(1)
    out.unlink(missing_ok=True)
    hit, slowest, k, wanted = 0, 0.0, 0, int(kills)
    while k < wanted or (hit < wanted // 5 and k < 50 * wanted):
        k += 1
        victim, sig, delay = rng.randrange(3), rng.choice((signal.SIGKILL, signal.SIGTERM)), rng.uniform(0, 1.05 * duration)
        procs, out = start(model, tokens, d)
        begin = time.monotonic()
        while time.monotonic() - begin < delay and procs[2].poll() is None:
            time.sleep(0.002)
        if procs[2].poll() == 0:
            duration = min(duration, time.monotonic() - begin)  # the first run may have been a slow one
        procs[victim].send_signal(sig)
        took = wait(procs, 120)
        codes = [p.returncode for p in procs]
        said = [(d / f"err{i}").read_text().strip() for i in range(3)]
        left = [f.name for f in d.glob(".q.nts*")]
        if codes[2] == 0 or out.exists():  # too late for what it hit, or between nt-tweak's rename and its exit
            good = out.exists() and out.read_bytes() == reference
        else:
            hit += 1
            good = not out.exists() and (any(said) or not any(c for i, c in enumerate(codes) if i != victim))
        good = good and took is not None and (not left or (victim == 2 and sig == signal.SIGKILL))
        slowest = max(slowest, took or 99)
        if not good:
            print(f"# {STAGES[victim]} {sig.name} after {delay:.3f} s: codes {codes}, took {took}, left {left}, said {said}")
            ok(False, f"kill {k}: {STAGES[victim]} {sig.name}")
        for f in [out, *d.glob(".q.nts*")]:
            f.unlink(missing_ok=True)
    ok(bad == 0, f"{k} kills, {hit} of them in time: each ended all of it, the slowest after {slowest:.2f} s")
    ok(hit >= wanted // 5, f"{hit} kills hit a run at work")
    # One stage sleeps from the start, so that the others get as far as they can; the victim dies; the sleeper wakes.
    for sleeper in range(3):
        for victim in range(3):
            procs, out = start(model, tokens, d, sleeper)
            while not stopped(procs[sleeper]):
                time.sleep(0.002)
            time.sleep(0.2)
            procs[victim].kill()
            time.sleep(0.1)
            procs[sleeper].send_signal(signal.SIGCONT)
            took = wait(procs, 120)
            said = [(d / f"err{i}").read_text().strip() for i in range(3)]
            ok(took is not None and not out.exists() and any(said) and all(p.returncode for p in procs),
               f"{STAGES[sleeper]} late, {STAGES[victim]} dead: all end ({took and round(took, 2)} s; {' | '.join(said)[:240]})")
    print(f"1..{n}")
    sys.exit(int(bad > 0))


main(*sys.argv[1:])
