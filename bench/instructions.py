"""Instructions the shim adds to a call on a descriptor that is none of its own, by callgrind.

Usage: instructions.py LIBRARY VICTIM. For each function the instructions of 20,000 calls less those
of 10,000, with and without the library, so that everything but the calls cancels out. Fails when a function has more than LIMIT. The last line counts like a test's.
"""

import os
import re
import subprocess
import sys

import lib  # finds what tests share
from support import preloaded

FUNCTIONS = ("read", "write", "send", "recv", "close", "poll")
CALLS = 10000
LIMIT = 10


def instructions(command, environment, **more):
    """What callgrind counts of COMMAND."""
    text = subprocess.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
                           *command], env=environment, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True, check=True, **more).stderr
    return int(re.search(r"Collected : (\d+)", text).group(1))


def per_call(victim, function, library):
    less, more = (instructions([victim, function, str(calls)], preloaded(library, "11211"))
                  for calls in (CALLS, 2 * CALLS))
    return (more - less) / CALLS


def added(library, victim):
    """(function, instructions that the library adds to a call of it)."""
    return [(function, per_call(victim, function, library) - per_call(victim, function, None))
            for function in FUNCTIONS]


def main():
    rows = added(os.path.abspath(sys.argv[1]), sys.argv[2])
    print("instructions added to a call on an untracked descriptor")
    for function, more in rows:
        print(f"  {function:8}{more:6.1f}")
    failed = sum(more > LIMIT for _, more in rows)
    print(f"{len(rows) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
