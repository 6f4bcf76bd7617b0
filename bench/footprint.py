"""The footprint: what the library costs a process that has it loaded, in time to start and memory.

The time is the difference of the shortest of STARTS starts of
`true` without and with the library, taken in turns; beside it that of a library with nothing in it,
as loading any costs something. Memory is pages of the process itself, less what it has without the
library.
"""

import os
import subprocess
import tempfile
import time

from lib import machine
from lib.report import Report, number
from lib.rounds import interleaved
from lib.worker import PROGRAMS
from support import LIBRARY, Memcached, preloaded

STARTS = 1000
CONNECTIONS = 1000
SECONDS = 120


def start(environment):
    """Microseconds that /bin/true takes from its start to its end."""
    begin = time.perf_counter()
    os.waitpid(os.posix_spawn("/bin/true", ["true"], environment), 0)
    return (time.perf_counter() - begin) * 1e6


def start_up(report):
    """The shortest of STARTS starts: alone, the difference with the library, and with an empty library."""
    with tempfile.TemporaryDirectory() as folder:
        empty = os.path.join(folder, "empty.so")
        subprocess.run(["gcc", "-shared", "-o", empty, "-x", "c", "/dev/null"], check=True)
        times = interleaved(STARTS, {
            name: lambda environment=preloaded(library, "11211"): start(environment)
            for name, library in (("alone", None), ("library", LIBRARY), ("empty", empty))})
    report.raw_rounds("footprint", times)
    alone, ours, nothing = map(min, times.values())
    return alone, ours - alone, nothing - alone


def memory(library, server, connections):
    """Bytes that a process with so many connections has to itself."""
    run = subprocess.run([os.path.join(PROGRAMS, "footprint"), str(connections), str(server.port)],
                         env=preloaded(library, server.address), stdout=subprocess.PIPE, text=True,
                         check=True, timeout=60)
    return int(run.stdout)


def main():
    machine.stay_on(machine.ONE_CPU)
    machine.want_descriptors(4 * CONNECTIONS)
    with machine.bounded(SECONDS), Report("footprint", "Footprint") as report:
        alone, ours, nothing = start_up(report)
        with Memcached("-c", str(4 * CONNECTIONS)) as server:
            more = {n: memory(LIBRARY, server, n) - memory(None, server, n)
                    for n in (0, 1, CONNECTIONS)}
        rows = [("start of `true` alone, the shortest", alone, "µs"),
                ("more with the library", ours, "µs"),
                ("more with an empty library", nothing, "µs"),
                ("memory, never a connection", more[0] / 1024, "KiB"),
                ("memory, one connection", more[1] / 1024, "KiB"),
                ("memory for each connection", (more[CONNECTIONS] - more[1]) / CONNECTIONS,
                 "bytes")]
        report.say(f"A process that has the library loaded: {STARTS} starts of `true` in turns, "
                   "and pages of its own beyond those it has without.")
        report.table(["what", "", "unit"], [[name, number(value), unit]
                                            for name, value, unit in rows])


if __name__ == "__main__":
    main()
