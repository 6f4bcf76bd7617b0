"""Growth: a cycle must cost as much with many greenlets, threads, endpoints and connections as with
one. More and more of them, without and with the shim; and how long the pool's lock is held and
waited for.
"""

import functools
import os
import tempfile

from lib import machine
from lib.report import Report, number, quartiles
from lib.rounds import interleaved, ratios, spread
from lib.worker import PROGRAMS, Turns, Worker
from matrix import Volatile
from support import BUILD, LIBRARY, PYTHON, Memcached, free_port

TIMED = os.path.abspath(os.path.join(BUILD, "timed", "libmcpool.so"))

HERE = os.path.dirname(os.path.abspath(__file__))
SECONDS = 300

ROUNDS = 10
TURNS = 300

GREENLETS = (1, 10, 100, 1000)
GREENLET_CYCLES = 1000

THREADS = (1, 2, 4, 16, 64)
THREAD_MILLISECONDS = 250
MANY = 64  # more processors than we have

ENDPOINTS = (1, 3, 10, 30, 100)

HELD = (1, 10, 100, 1000, 10000)

OPEN, WITHOUT, WITH = "open", "no shim", "shim"


def growth(costs, size):
    """By what factors the costs of SIZE are larger than the first COSTS, one a round."""
    first, *_ = costs.values()
    return ratios(costs[size], first)


def show(report, name, what, measured, cost, explanation):
    """MEASURED is {(kind, size): [a number each round]}; COST makes of a kind and a size the ratios
    that are shown."""
    report.raw_rounds(f"growth-{name}", {f"{kind}, {size}": values
                                         for (kind, size), values in measured.items()})
    sizes = [size for kind, size in measured if kind == WITH]
    costs = {kind: {size: cost(kind, size) for size in sizes} for kind in (WITHOUT, WITH, OPEN)}
    spreads = {kind: {size: spread(costs[kind][size]) for size in sizes} for kind in (WITHOUT, WITH)}
    to_plain, to_open = ({size: spread(ratios(growth(costs[WITH], size), growth(costs[kind], size)))
                          for size in sizes} for kind in (WITHOUT, OPEN))
    smallest, largest = sizes[0], sizes[-1]
    report.say(f"**{what}.** {explanation}")
    report.table([what, WITHOUT, "quartiles", WITH, "quartiles", f"shim, to that with {smallest}", "the same, to no shim's",
                  "quartiles", "the same, to open connections'", "quartiles"],
                 [[f"{size:,}", *quartiles(spreads[WITHOUT][size]), *quartiles(spreads[WITH][size]),
                   number(spreads[WITH][size].median / spreads[WITH][smallest].median),
                   *quartiles(to_plain[size]), *quartiles(to_open[size])]
                  for size in sizes])
    for other, growths in ("without", to_plain), ("of a get on connections that stay open", to_open):
        report.headline(f"a cycle with {largest:,} {what.lower()}, to one with {smallest}: shim's growth, to that "
                        f"{other}", growths[largest], "at most 1.05")
    report.lines(f"growth-{name}", f"Cost of a cycle: {what.lower()}", spreads, what.lower(),
                 "ratio, median and quartiles")


def greenlets(report):
    command = [PYTHON, os.path.join(HERE, "growth", "greenlets.py")]
    with Volatile("-c", "4096") as server, \
            Worker([*command, server.address], None, None) as plain, \
            Worker([*command, server.address], LIBRARY, server.address) as shim:
        times = interleaved(ROUNDS, {
            (kind, size): functools.partial(worker.ask, what, size, GREENLET_CYCLES)
            for size in GREENLETS for kind, worker, what in (
                (OPEN, plain, "open"), (WITHOUT, plain, "cycle"), (WITH, shim, "cycle"))})
    show(report, "greenlets", "Greenlets", times,
         lambda kind, size: ratios(times[kind, size], times[WITHOUT, 1]),
         f"gevent and python-memcached, {GREENLET_CYCLES} cycles shared by so many greenlets, on "
         "one processor with memcached; ratio to one greenlet without the shim. Most of a cycle is "
         "the program's own work, and more greenlets cost the program itself more. That is a larger part of a "
         "cycle that is shorter: the last columns compare with greenlets that keep their connections open, "
         "where no pool has anything to do.")


def turns(plain, shim, size):
    """Microseconds, {(kind, SIZE): [a number each round]}."""
    return interleaved(ROUNDS, {(kind, size): functools.partial(turn, TURNS) for kind, turn in (
        (OPEN, plain.open), (WITHOUT, plain.cycle), (WITH, shim.cycle))})


def show_turns(report, name, what, times, explanation):
    show(report, name, what, times, lambda kind, size: ratios(times[kind, size], times[OPEN, size]),
         explanation + " One processor; ratio to a get on a connection that stays open, in the "
         "same round and with as many of them.")


def endpoints(report):
    addresses = sorted({f"127.0.0.1:{free_port()}" for _ in range(3 * max(ENDPOINTS))})
    times = {}
    with Memcached("-l", ",".join(addresses[:max(ENDPOINTS)])):
        for size in ENDPOINTS:
            with Turns(False, *addresses[:size]) as plain, Turns(True, *addresses[:size]) as shim:
                times.update(turns(plain, shim, size))
    show_turns(report, "endpoints", "Endpoints", times, "One memcached at so many ports, in turns.")


def connections(report):
    room = machine.want_descriptors(2 * max(HELD))
    options = ("-c", str(max(HELD) + 1000))
    times = {}
    with Volatile(*options) as one, Volatile(*options) as other, \
            Turns(False, one.address) as plain, Turns(True, other.address) as shim:
        for size in HELD:
            if size + 1000 > room:
                report.say(f"{size} descriptors cannot be had here, only {room}.")
                break
            plain.hold(size)
            shim.hold(size)
            times.update(turns(plain, shim, size))
    show_turns(report, "connections", "Connections", times,
               "So many connections in use, all of them tracked, while one more is opened and "
               "closed.")


def lock_times(size):
    """Cycles of SIZE threads in about a second, the processor time that they took the program in
    ns, and what growth/lock_times.c says: how often the lock was taken and how often found taken, and
    for how many ns it was waited for and held."""
    with Volatile("-c", "4096") as server, tempfile.NamedTemporaryFile("r") as file:
        with Worker([os.path.join(PROGRAMS, "growth", "threads"), server.address], TIMED,
                    server.address, LOCK_TIMES=file.name) as worker:
            before = machine.cpu_seconds(worker.process.pid)
            cycles = worker.ask("cycle", size, 1000)
            taken = machine.cpu_seconds(worker.process.pid) - before
        return [cycles, taken * 1e9, *map(int, file.read().split())]


def threads(report):
    command = os.path.join(PROGRAMS, "growth", "threads")
    with Volatile("-c", "4096") as server, Worker([command, server.address], None, None) as plain, \
            Worker([command, server.address], LIBRARY, server.address) as shim:
        rates = interleaved(ROUNDS, {
            (kind, size): functools.partial(worker.ask, what, size, THREAD_MILLISECONDS)
            for size in THREADS for kind, worker, what in (
                (OPEN, plain, "open"), (WITHOUT, plain, "cycle"), (WITH, shim, "cycle"))})
    show(report, "threads", "Threads", rates,
         lambda kind, size: ratios(rates[OPEN, size], rates[kind, size]),
         "So many threads of a C program, on all processors with memcached; the rate of gets on "
         "connections that stay open to the rate of cycles of as many threads.")
    rows = [[size, *lock_times(size)] for size in THREADS]
    report.raw("growth-lock", ["threads", "cycles", "ns of processor", "locks", "contended",
                               "ns waited", "ns held"], rows)
    report.say("The pool's lock in the same program, by a library built to measure it (a second run; "
               "a thread that loses its processor while it has the lock, or waits, counts with all "
               "of that):")
    report.table(["threads", "held, ns each time", "taken, times a cycle",
                  "found taken, of 1,000 times", "waited, ns a cycle", "% of a cycle's time"],
                 [[str(size), f"{held / locks:.0f}", f"{locks / cycles:.1f}",
                   f"{contended / locks * 1000:.2f}", f"{waited / cycles:.1f}",
                   f"{waited / size / 1e9 * 100:.3f}"]
                  for size, cycles, _, locks, contended, waited, held in rows])
    _, cycles, taken, _, _, _, held = rows[0]
    report.say(f"One thread takes {taken / cycles / 1000:.0f} µs of processor time for a cycle, and "
               f"has the lock for {held / cycles:.0f} ns of it. One lock serves the process: it "
               f"allows {1e3 / (held / cycles):.1f} million cycles a second, which "
               f"{taken / held:.0f} processors would make that do nothing else; fewer, as its cache "
               "lines have to move between them. A program that does something with what it gets "
               "stays far below; and processes have a lock each.")


def main():
    with machine.bounded(SECONDS), Report("growth", "Growth") as report:
        threads(report)
        machine.stay_on(machine.ONE_CPU)
        greenlets(report)
        endpoints(report)
        connections(report)


if __name__ == "__main__":
    main()
