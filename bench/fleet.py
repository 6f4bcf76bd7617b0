"""The fleet: many processes with idle connections on one memcached; what they cost it at rest, and
what happens when it is restarted under load. Beside what is measured stands what FLEET.md computes.
"""

import collections
import contextlib
import os
import time

from lib import machine
from lib.report import Report, number
from lib.rounds import Spread
from lib.worker import PROGRAMS, Worker
from matrix import Twemproxy
from soak import SamePort
from support import LIBRARY

SECONDS = 150

PROCESSES = 200
CONNECTIONS = 32
RATE = 10  # cycles in a second for each process
REST = 3
BEFORE = 2  # seconds of load before the restart
AFTER = 4
LOAD = BEFORE + AFTER + 1
TICK = 0.25

# For the proxy, which has a descriptor for each connection of the fleet.
DESCRIPTORS = 4 * PROCESSES * CONNECTIONS // 3

AtRest = collections.namedtuple(
    "AtRest", "connections memory kernel cpu proxy_memory")
UnderLoad = collections.namedtuple(
    "UnderLoad", "handshakes time_wait away done failed ticks")


def connections(memcached):
    """(now, ever), without the one that asks."""
    stats = memcached.stats()
    return int(stats["curr_connections"]) - 1, int(stats["total_connections"])


def rest(fleet, memcached, proxy):
    """Opens the connections, lets them idle, and says what they cost."""
    pid = memcached.process.pid
    time.sleep(0.5)
    memory, kernel = machine.resident(pid), machine.kernel_memory()
    proxy_memory = machine.resident(proxy.process.pid) if proxy else 0
    fleet.ask("fill", 0, 0)
    time.sleep(0.5)
    cpu = machine.cpu_seconds(pid)
    time.sleep(REST)
    return AtRest(connections(memcached)[0], machine.resident(pid) - memory,
                  machine.kernel_memory() - kernel, (machine.cpu_seconds(pid) - cpu) / REST,
                  machine.resident(proxy.process.pid) - proxy_memory if proxy else 0)


def ticks(memcached, seconds, last):
    """Connections that were opened in each TICK, the first of them after LAST had been."""
    opened = []
    due = time.monotonic()
    for _ in range(round(seconds / TICK)):
        due += TICK
        time.sleep(max(0, due - time.monotonic()))
        _, total = connections(memcached)
        opened.append(total - last - 1)
        last = total
    return opened


def load(fleet, memcached):
    """Loads for LOAD seconds and restarts memcached meanwhile."""
    fleet.tell("load", RATE, LOAD)
    before = sum(ticks(memcached, BEFORE, connections(memcached)[1]))
    waiting = machine.time_wait(memcached.port)
    start = time.monotonic()
    memcached.start_again()
    away = time.monotonic() - start
    # One connection was ours: the one that found the server listening.
    after = ticks(memcached, AFTER, 1)
    done, failed = map(int, fleet.hear())
    return UnderLoad(before / BEFORE, waiting, away, done, failed, after)


@contextlib.contextmanager
def fleet_of(address, shim):
    command = [os.path.join(PROGRAMS, "fleet"), address, str(PROCESSES), str(CONNECTIONS)]
    with Worker(command, LIBRARY if shim else None, address) as fleet:
        yield fleet


def measure(shim):
    with SamePort("-c", "8192") as memcached, fleet_of(memcached.address, shim) as fleet:
        return rest(fleet, memcached, None), load(fleet, memcached)


def measure_proxy():
    with Twemproxy() as proxy, fleet_of(proxy.address, True) as fleet:
        return rest(fleet, proxy.behind, proxy)


def kib(value, count):
    return number(max(0, value) / count / 1024)


def show_rest(report, rows):
    report.say(f"{PROCESSES} processes, each of which had {CONNECTIONS} connections at a time and "
               f"closed them; then {REST} seconds of rest.")
    report.table(["at rest", "connections at memcached", "memcached's memory, MiB",
                  "the kernel's, both ends, MiB", "memcached's CPU, %", "proxy's memory, MiB"],
                 [[name, row.connections, f"{row.memory / 2**20:.1f}", f"{row.kernel / 2**20:.0f}",
                   f"{row.cpu * 100:.1f}", f"{row.proxy_memory / 2**20:.1f}"]
                  for name, row in rows.items()])


def show_load(report, rows):
    report.say(f"The same fleet under load, {RATE} cycles a second for each process, with "
               f"memcached killed and started again after {BEFORE} seconds.")
    report.table(["under load", "handshakes a second before", "TIME_WAIT before",
                  "in the first second after", "in the second", "in the third", "cycles",
                  "memcached was away for, ms", "failed meanwhile"],
                 [[name, number(row.handshakes), row.time_wait,
                   *(sum(row.ticks[round(i / TICK):round((i + 1) / TICK)]) for i in range(3)),
                   row.done, f"{row.away * 1000:.0f}", row.failed] for name, row in rows.items()])
    report.raw("fleet", ["seconds after the restart", *rows],
               [[(i + 1) * TICK, *(row.ticks[i] for row in rows.values())]
                for i in range(round(AFTER / TICK))])
    report.lines("fleet", "Connections opened after a restart, in a second",
                 {name: {(i + 1) * TICK: Spread(*[opened / TICK] * 3)
                         for i, opened in enumerate(row.ticks)} for name, row in rows.items()},
                 "seconds after memcached listens again", "connections a second", log=False)


def show_formulas(report, at_rest, under_load, proxied):
    """What FLEET.md computes for this fleet, beside what was measured."""
    without, shim = under_load.values()
    idle = PROCESSES * CONNECTIONS
    kept = at_rest["shim"]
    report.say("What [FLEET.md](FLEET.md) computes for this fleet (1 host, "
               f"{PROCESSES} workers and the process that started them, {CONNECTIONS} at a time, "
               "1 server):")
    report.table(["", "formula", "computed", "measured"], [
        ["connections at rest, shim", "hosts · workers · concurrency", idle, kept.connections],
        ["memcached's memory for one, KiB", "", "", kib(kept.memory, idle)],
        ["the kernel's memory for one, both ends, KiB", "", "", kib(kept.kernel, idle)],
        ["handshakes a second, no shim", "hosts · workers · rate", PROCESSES * RATE,
         number(without.handshakes)],
        ["handshakes a second, shim", "0 while idle connections last", 0, number(shim.handshakes)],
        [f"TIME_WAIT after {BEFORE} s, no shim",
         "(idle + rate · seconds), less what loopback reuses", PROCESSES * RATE * BEFORE + idle,
         without.time_wait],
        ["handshakes after a restart, shim", "hosts · workers · busy at a time", PROCESSES,
         sum(shim.ticks)],
        ["connections at memcached, shim before twemproxy", "proxies · server_connections", 1,
         proxied.connections],
    ])


def main():
    machine.want_descriptors(DESCRIPTORS)
    with machine.bounded(SECONDS), Report("fleet", "A fleet") as report:
        measured = {"no shim": measure(False), "shim": measure(True)}
        proxied = measure_proxy()
        at_rest = {name: row for name, (row, _) in measured.items()}
        under_load = {name: row for name, (_, row) in measured.items()}
        show_rest(report, {**at_rest, "shim, through twemproxy": proxied})
        show_load(report, under_load)
        show_formulas(report, at_rest, under_load, proxied)


if __name__ == "__main__":
    main()
