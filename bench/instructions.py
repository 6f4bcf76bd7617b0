"""Instructions, by callgrind: of a turn under the shim, those it adds to a dialogue on a connection that
stays open, to a call on a descriptor that is none of its own, and to the start of a process.

Usage: instructions.py LIBRARY CALLS_PROGRAM TURNS_PROGRAM DIALOGUES_PROGRAM. Each figure is the
instructions of so many turns less those of half as many, so that everything else cancels out. Fails when
one is above its bound. The bounds of turns, dialogues and starts hold for one compiler and one kind of
processor; with others they are printed and not judged. The last line counts like a test's.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile

import lib  # finds what tests share
from support import Memcached, preloaded

FUNCTIONS = ("read", "write", "send", "recv", "close", "poll")
CALLS = 10000
LIMIT = 10

# What a turn had when the bounds were set, plus 2 %; and how many turns of its kind came before. After
# 4096 requests of one user a connection is not followed any more (LONG_USE in hooks/send.c).
TURNS = 1000
BOUNDS = {("cycle", 0): 1534, ("open", 0): 500, ("open", 5000): 243}
# What the library added to a dialogue of bench/dialogues.c, plus 2 %.
DIALOGUE_TURNS = 200
DIALOGUES = {"one": 309, "missing": 257, "keys": 10926, "pipeline": 17930, "get_long": 346, "set": 560,
             "set_long": 609, "meta": 805, "binary": 622}
# What the library added to a start of `true` beyond an empty library, plus 2 %; it was 88,582 when the
# constructor did all at once. ld.so and the library look at each variable of the environment (60 instructions for
# one more), and at each letter of the library's path: both are always the same here.
START = 31750
START_ENVIRONMENT = {"PATH": "/usr/bin:/bin"}
START_FOLDER = "/tmp"
# Without AVX2 the client's own strlen() and memcmp() are others.
JUDGED = ("x86_64", "gcc (Debian 12.2.0", " avx2 ")


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


def per_turn(program, what, before, server, library):
    """The instructions of a turn, BEFORE others: a get on a connection that stays open, or a whole cycle."""
    less, more = (instructions([program, server.address], preloaded(library, server.address),
                               input=f"{what} {before + turns}\n") for turns in (TURNS, 2 * TURNS))
    return (more - less) / TURNS


def per_dialogue(program, what, server, library):
    """The instructions that the library adds to a dialogue."""
    counts = [[instructions([program, server.address, what, str(turns)],
                            preloaded(preload, server.address))
               for turns in (DIALOGUE_TURNS, 2 * DIALOGUE_TURNS)] for preload in (library, None)]
    with_library, without = ((more - less) / DIALOGUE_TURNS for less, more in counts)
    return with_library - without


def show(what, count, bound, judged=True):
    """1 when COUNT is too large."""
    failed = judged and count > bound
    print(f"{'FAILED ' if failed else '  '}{what:10}{count:9.1f}, bound {bound}")
    return int(failed)


def per_start(library):
    """The instructions that the library adds to the start and end of a program that opens no socket, beyond
    those of a library with nothing in it."""
    with tempfile.TemporaryDirectory(dir=START_FOLDER) as folder:
        full, empty = (os.path.join(folder, name) for name in ("full.so", "none.so"))
        shutil.copy(library, full)
        subprocess.run(["gcc", "-shared", "-o", empty, "-x", "c", "/dev/null"], check=True)
        more, less = (instructions(["/bin/true"], dict(START_ENVIRONMENT, LD_PRELOAD=which,
                                                       MCPOOL_SERVERS="11211")) for which in (full, empty))
    return more - less


def is_judged():
    compiler = subprocess.run(["gcc", "--version"], stdout=subprocess.PIPE, text=True, check=True)
    with open("/proc/cpuinfo") as file:
        return (platform.machine() == JUDGED[0] and compiler.stdout.startswith(JUDGED[1])
                and JUDGED[2] in file.read())


def main():
    library = os.path.abspath(sys.argv[1])
    if not os.path.exists(library):
        sys.exit(f"no {library}: ld.so would preload nothing, and nothing would be counted")
    failed = 0
    print("instructions added to a call on an untracked descriptor")
    rows = added(library, sys.argv[2])
    for function, more in rows:
        failed += show(function, more, LIMIT)
    judged = is_judged()
    print(f"instructions of a turn{'' if judged else '; not judged with this compiler or processor'}")
    with Memcached() as server:
        for (what, before), bound in BOUNDS.items():
            count = per_turn(sys.argv[3], what, before, server, library)
            failed += show(f"{what} {before or ''}", count, bound, judged)
        print("instructions added to a dialogue on an open connection")
        for what, bound in DIALOGUES.items():
            failed += show(what, per_dialogue(sys.argv[4], what, server, library), bound, judged)
    print("instructions added to a start, beyond an empty library")
    failed += show("true", per_start(library), START, judged)
    bounds = len(BOUNDS) + len(DIALOGUES) + 1
    passed = len(rows) + (bounds if judged else 0) - failed
    print(f"{passed} passed, {failed} failed{'' if judged else f', {bounds} skipped'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
