# SPDX-License-Identifier: Apache-2.0
"""watch.py DIR COMMAND...: runs it. DIR/limits holds lines "PROGRAM BYTES": that much writable private memory
(RLIMIT_DATA) it may have. Its largest RssAnon goes to the file DIR/peaks as "PROGRAM BYTES"; the exit status is its."""
import os
import resource
import subprocess
import sys
import time


def rss_anon(pid):
    try:
        with open(f"/proc/{pid}/status") as f:
            for line in f:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def main(where, *command):
    name = os.path.basename(command[0])
    with open(f"{where}/limits") as f:
        limit = dict(line.split() for line in f).get(name)

    def limits():
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit), int(limit)))
    p = subprocess.Popen(command, preexec_fn=limits if limit else None)
    peak = 0
    while p.poll() is None:
        peak = max(peak, rss_anon(p.pid))
        time.sleep(0.002)
    with open(f"{where}/peaks", "a") as f:
        f.write(f"{name} {peak}\n")
    return p.returncode if p.returncode >= 0 else 128 - p.returncode


sys.exit(main(*sys.argv[1:]))
