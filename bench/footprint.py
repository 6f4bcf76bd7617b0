"""What the library costs a process that has it loaded: time to start, and memory.

Usage: footprint.py LIBRARY VICTIM CSV. The time is the difference of medians over STARTS starts of
`true` without and with the library, taken in turns; beside it that of a library with nothing in it,
as loading any costs something. Memory is pages of the process itself, less what it has
without the library.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tests"))
from support import Memcached, preloaded

STARTS = 200
CONNECTIONS = 1000


def start(environment):
    """Microseconds that /bin/true takes from its start to its end."""
    begin = time.perf_counter()
    os.waitpid(os.posix_spawn("/bin/true", ["true"], environment), 0)
    return (time.perf_counter() - begin) * 1e6


def start_up(library, empty):
    """What STARTS starts take in the middle, more than without a library: ours, an empty one."""
    environments = [preloaded(which, "11211") for which in (None, library, empty)]
    rounds = [[start(environment) for environment in environments] for _ in range(STARTS)]
    taken = [statistics.median(times) for times in zip(*rounds)]
    return taken[0], taken[1] - taken[0], taken[2] - taken[0]


def memory(library, victim, server, connections):
    environment = preloaded(library, server.address)
    run = subprocess.run([victim, str(connections), str(server.port)], env=environment,
                         stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    return int(run.stdout)


def main():
    library, victim, csv = map(os.path.abspath, sys.argv[1:4])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4 * CONNECTIONS), most))
    with tempfile.TemporaryDirectory() as folder:
        empty = os.path.join(folder, "empty.so")
        subprocess.run(["gcc", "-shared", "-o", empty, "-x", "c", "/dev/null"], check=True)
        alone, ours, nothing = start_up(library, empty)
    with Memcached("-c", str(4 * CONNECTIONS)) as server:
        more = {n: memory(library, victim, server, n) - memory(None, victim, server, n)
                for n in (0, 1, CONNECTIONS)}
    rows = [("start of `true` alone", alone, "µs"),
            ("more with the library", ours, "µs"),
            ("more with an empty library", nothing, "µs"),
            ("memory, never a connection", more[0] / 1024, "KiB"),
            ("memory, one connection", more[1] / 1024, "KiB"),
            ("memory for each connection", (more[CONNECTIONS] - more[1]) / CONNECTIONS, "bytes")]
    for name, value, unit in rows:
        print(f"  {name:30}{value:8.0f} {unit}")
    with open(csv, "w", encoding="utf-8") as file:
        file.write("what,value,unit\n")
        file.writelines(f"{name},{value:.1f},{unit}\n" for name, value, unit in rows)


if __name__ == "__main__":
    main()
