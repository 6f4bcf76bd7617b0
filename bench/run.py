"""`make bench`: the cycle, the footprint and the instructions, with a memcached of its own.

Usage: run.py BUILD_DIRECTORY. Raw numbers go to BUILD_DIRECTORY/bench/*.csv.
"""

import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tests"))
from support import PYTHON, Memcached

ROUNDS = 100


def main():
    build = os.path.abspath(sys.argv[1])
    library = os.path.join(build, "libmcpool.so")
    folder = os.path.join(build, "bench")
    # All on one processor: where the scheduler puts two of them otherwise decides the result.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with Memcached() as server:
        before = server.stats()
        subprocess.run([os.path.join(folder, "cycle"), str(server.port), library, str(ROUNDS),
                        os.path.join(folder, "cycle.csv")], check=True, timeout=300)
        print(f"connections opened at the server: {server.connections_since(before)}")
    print(flush=True)
    subprocess.run([PYTHON, os.path.join(HERE, "footprint.py"), library,
                    os.path.join(folder, "footprint"), os.path.join(folder, "footprint.csv")],
                   check=True, timeout=300)
    print(flush=True)
    return subprocess.run([PYTHON, os.path.join(HERE, "instructions.py"), library,
                           os.path.join(folder, "instructions"),
                           os.path.join(folder, "instructions.csv")], timeout=300,
                          check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
