"""Instructions the shim adds to a call on a descriptor that is none of its own, by callgrind.

Usage: instructions.py LIBRARY VICTIM. For each function the instructions of 20,000 calls
less those of 10,000, with and without the library, so that everything but the calls cancels out.
Fails when a function has more than LIMIT. The last line counts like a test's.
"""

import os
import re
import subprocess
import sys
import tempfile

FUNCTIONS = ("read", "write", "send", "recv", "close", "poll")
CALLS = 10000
LIMIT = 10


def instructions(victim, function, calls, library):
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    if library:
        environment["LD_PRELOAD"] = library
    with tempfile.TemporaryDirectory() as folder:
        text = subprocess.run(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", victim,
             function, str(calls)], env=environment, stderr=subprocess.PIPE, text=True,
            check=True).stderr
    return int(re.search(r"Collected : (\d+)", text).group(1))


def per_call(victim, function, library):
    more = instructions(victim, function, 2 * CALLS, library)
    less = instructions(victim, function, CALLS, library)
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
