"""Instructions, by callgrind: of a turn under the shim, and those it adds to a call on a descriptor
that is none of its own.

Usage: instructions.py LIBRARY CALLS_PROGRAM TURNS_PROGRAM. Each figure is the instructions of so many
turns less those of half as many, so that everything else cancels out. Fails when one is above its
bound. The bounds of turns hold for one compiler; with another one they are printed and not judged. The
last line counts like a test's.
"""

import os
import platform
import re
import subprocess
import sys

import lib  # finds what tests share
from support import Memcached, preloaded

FUNCTIONS = ("read", "write", "send", "recv", "close", "poll")
CALLS = 10000
LIMIT = 10

# What a turn had when the bounds were set, plus 2 %.
TURNS = 1000
BOUNDS = {"cycle": 3389, "open": 1159}
JUDGED = ("x86_64", "gcc (Debian 12.2.0")


def instructions(command, environment, **more):
    """What callgrind counts of COMMAND."""
    text = subprocess.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
                           *command], env=environment, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True, check=True, **more).stderr
    return int(re.search(r"Collected : (\d+)", text).group(1))


def per_call(program, function, library):
    less, more = (instructions([program, function, str(calls)], preloaded(library, "11211"))
                  for calls in (CALLS, 2 * CALLS))
    return (more - less) / CALLS


def added(library, program):
    """(function, instructions that the library adds to a call of it)."""
    return [(function, per_call(program, function, library) - per_call(program, function, None))
            for function in FUNCTIONS]


def per_turn(program, what, server, library):
    """The instructions of a turn: a get on a connection that stays open, or a whole cycle."""
    less, more = (instructions([program, server.address], preloaded(library, server.address),
                               input=f"{what} {turns}\n") for turns in (TURNS, 2 * TURNS))
    return (more - less) / TURNS


def is_judged():
    compiler = subprocess.run(["gcc", "--version"], stdout=subprocess.PIPE, text=True, check=True)
    return platform.machine() == JUDGED[0] and compiler.stdout.startswith(JUDGED[1])


def main():
    library = os.path.abspath(sys.argv[1])
    if not os.path.exists(library):
        sys.exit(f"no {library}: ld.so would preload nothing, and nothing would be counted")
    failed = 0
    print("instructions added to a call on an untracked descriptor")
    rows = added(library, sys.argv[2])
    for function, more in rows:
        print(f"  {function:8}{more:8.1f}")
        failed += more > LIMIT
    judged = is_judged()
    print(f"instructions of a turn{'' if judged else '; not judged with this compiler'}")
    with Memcached() as server:
        for what, bound in BOUNDS.items():
            count = per_turn(sys.argv[3], what, server, library)
            print(f"  {what:8}{count:8.1f}, bound {bound}")
            failed += judged and count > bound
    passed = len(rows) + (len(BOUNDS) if judged else 0) - failed
    print(f"{passed} passed, {failed} failed{'' if judged else f', {len(BOUNDS)} skipped'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
