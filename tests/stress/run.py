"""Threads that do everything at once, with pauses at every point where they may meet.

Usage: run.py BUILD_DIRECTORY SECONDS
       run.py BUILD_DIRECTORY --taken CONNECTIONS

The first form stops a thread under the pool's lock, in every way. Then it runs half of the time with the key-echo
oracle alone and half of it under ThreadSanitizer, one process and a family of them by turns. The second form runs
families until so many connections have gone from one process to another.

A run takes at most 20 seconds and has a seed, which is printed. The last line counts runs like tests.
"""

import itertools
import os
import random
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from support import Memcached, die_with_parent, preloaded

LONGEST = 20
TAKEN = re.compile(r"(\d+) connections from another process$")


def run(program, folder, server, seconds, seed):
    """The last line of the program's output; None when something failed."""
    library = os.path.abspath(os.path.join(folder, "libmcpool.so"))
    environment = preloaded(library, server.address, TSAN_OPTIONS="die_after_fork=0 exitcode=66")
    command = [os.path.join(folder, program), str(server.port), str(seconds), str(seed)]
    try:
        done = subprocess.run(command, env=environment, timeout=10 * seconds + 60, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              preexec_fn=die_with_parent)
    except subprocess.TimeoutExpired as late:
        print(f"FAILED {' '.join(command)}: hangs", late.stdout, sep="\n")
        return None
    last = (done.stdout.splitlines() or [""])[-1]
    print(f"{program}, {os.path.basename(folder)}, seed {seed}: {last}", flush=True)
    if done.returncode != 0:
        print(f"FAILED {' '.join(command)}: exit code {done.returncode}", done.stdout, sep="\n")
        return None
    return last


def run_stopped(name, folder, server):
    """How many scenes with a stopped thread passed, and how many failed."""
    library = os.path.abspath(os.path.join(folder, "libmcpool.so"))
    done = subprocess.run([os.path.join(folder, name), str(server.port)],
                          env=preloaded(library, server.address), text=True, stdout=subprocess.PIPE,
                          preexec_fn=die_with_parent)
    lines = done.stdout.splitlines() or ["0 passed, 1 failed"]
    print(*lines[:-1], sep="\n", flush=True)
    passed, failed = (int(number) for number in re.findall(r"\d+", lines[-1]))
    return passed, failed or int(done.returncode != 0)


def run_for(build, server, seconds):
    """(passed, failed) of all programs."""
    passed = failed = 0
    for name in "stopped", "stopped_swap":
        more_passed, more_failed = run_stopped(name, os.path.join(build, "stressed"), server)
        passed += more_passed
        failed += more_failed
    while seconds > 0:
        length = max(1, min(LONGEST, seconds // 4))
        for program, kind in itertools.product(("stress", "families"), ("stressed", "tsan")):
            good = run(program, os.path.join(build, kind), server, length, random.randrange(10 ** 6)) is not None
            passed += good
            failed += not good
        seconds -= 4 * length
    return passed, failed


def run_until_taken(build, server, connections):
    """(passed, failed) of the runs, which end with the first that fails."""
    passed = taken = 0
    for kind in itertools.cycle(("stressed", "tsan")):
        last = run("families", os.path.join(build, kind), server, LONGEST, random.randrange(10 ** 6))
        if last is None:
            return passed, 1
        passed += 1
        taken += int(TAKEN.search(last).group(1))
        if taken >= connections:
            print(f"{taken} connections from another process in all")
            return passed, 0


def main():
    build, count = sys.argv[1], int(sys.argv[-1])
    with Memcached("-c", "8192") as server:
        form = run_until_taken if sys.argv[2] == "--taken" else run_for
        passed, failed = form(build, server, count)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
