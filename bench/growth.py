"""Growth: a cycle must cost as much with many greenlets, threads, endpoints and connections as with
one. More and more of them, without and with the shim; and how long the pool's lock is held and waited
for.
"""

import os
import tempfile

from lib import machine
from lib.report import Report, number, quartiles
from lib.rounds import interleaved, ratios, spread
from lib.worker import PROGRAMS, Turns, Worker
from matrix import Volatile
from support import LIBRARY, PYTHON, Memcached, free_port

HERE = os.path.dirname(os.path.abspath(__file__))
SECONDS = 300

ROUNDS = 10
TURNS = 300

GREENLETS = (1, 10, 100, 1000)
GREENLET_CYCLES = 1000

THREADS = (1, 2, 4, 16, 64)
THREAD_MILLISECONDS = 150
MANY = 64  # processors that we do not have

ENDPOINTS = (1, 3, 10, 30, 100)

HELD = (1, 10, 100, 1000, 10000)

WITHOUT, WITH = "no shim", "shim"


def show(report, name, what, costs, explanation):
    """COSTS is {kind: {size: [a value each round]}}; ratios are within the round."""
    report.raw(f"growth-{name}", ["round", *(f"{kind}, {size}" for kind, sizes in costs.items()
                                             for size in sizes)],
               [[count, *row] for count, row in enumerate(
                   zip(*(values for sizes in costs.values() for values in sizes.values())))])
    spreads = {kind: {size: spread(values) for size, values in sizes.items()}
               for kind, sizes in costs.items()}
    smallest = min(costs[WITH])
    report.say(f"**{what}.** {explanation}")
    report.table([what, WITHOUT, "quartiles", WITH, "quartiles", f"shim, to that with {smallest}"],
                 [[f"{size:,}", *quartiles(spreads[WITHOUT][size]), *quartiles(spreads[WITH][size]),
                   number(spreads[WITH][size].median / spreads[WITH][smallest].median)]
                  for size in costs[WITH]])
    most = max(costs[WITH])
    report.headline(f"a cycle with {most:,} {what.lower()}, to one with {smallest}: shim",
                    spread(ratios(costs[WITH][most], costs[WITH][smallest])), "flat")
    report.lines(f"growth-{name}", f"Cost of a cycle: {what.lower()}", spreads, what.lower(),
                 "ratio, median and quartiles")


def greenlets(report):
    script = os.path.join(HERE, "growth", "greenlets.py")
    with Volatile("-c", "4096") as server, \
            Worker([PYTHON, script, server.address], None, None) as plain, \
            Worker([PYTHON, script, server.address], LIBRARY, server.address) as shim:
        times = interleaved(ROUNDS, {
            (kind, size): lambda worker=worker, size=size: worker.ask(size, GREENLET_CYCLES)
            for size in GREENLETS for kind, worker in ((WITHOUT, plain), (WITH, shim))})
    base = times[WITHOUT, 1]
    show(report, "greenlets", "Greenlets",
         {kind: {size: ratios(times[kind, size], base) for size in GREENLETS}
          for kind in (WITHOUT, WITH)},
         f"gevent and python-memcached, {GREENLET_CYCLES} cycles shared by so many greenlets, on "
         "one processor with memcached; ratio to one greenlet without the shim, in Python nearly "
         "all of it spent in the program.")


def turns(report, name, what, costs, explanation):
    show(report, name, what, costs, explanation + " One processor; ratio to a get on a connection "
         "that stays open, measured in the same round with as many of them.")


def cycle_to_open(plain, shim):
    """{kind: [the ratio of a cycle to a get on an open connection, each round]}."""
    times = interleaved(ROUNDS, {"open": lambda: plain.open(TURNS),
                                 WITHOUT: lambda: plain.cycle(TURNS),
                                 WITH: lambda: shim.cycle(TURNS)})
    return {kind: ratios(times[kind], times["open"]) for kind in (WITHOUT, WITH)}


def endpoints(report):
    costs = {WITHOUT: {}, WITH: {}}
    addresses = sorted({f"127.0.0.1:{free_port()}" for _ in range(3 * max(ENDPOINTS))})
    with Memcached("-l", ",".join(addresses[:max(ENDPOINTS)])):
        for size in ENDPOINTS:
            with Turns(False, *addresses[:size]) as plain, Turns(True, *addresses[:size]) as shim:
                for kind, values in cycle_to_open(plain, shim).items():
                    costs[kind][size] = values
    turns(report, "endpoints", "Endpoints", costs, "One memcached at so many ports, in turns.")


def connections(report):
    costs = {WITHOUT: {}, WITH: {}}
    room = machine.want_descriptors(2 * max(HELD))
    options = ("-c", str(max(HELD) + 1000))
    with Volatile(*options) as one, Volatile(*options) as other, \
            Turns(False, one.address) as plain, Turns(True, other.address) as shim:
        for size in HELD:
            if size + 1000 > room:
                report.say(f"{size} descriptors cannot be had here, only {room}.")
                continue
            plain.hold(size)
            shim.hold(size)
            for kind, values in cycle_to_open(plain, shim).items():
                costs[kind][size] = values
    turns(report, "connections", "Connections", costs,
          "So many connections in use, all of them tracked, while one more is opened and closed.")


def lock_times(size):
    """What lock_times.so says of SIZE threads: cycles, locks, contended, ns waited, ns held."""
    with Volatile("-c", "4096") as server, tempfile.NamedTemporaryFile("r") as file:
        with Worker([os.path.join(PROGRAMS, "growth", "threads"), server.address], LIBRARY,
                    server.address, LOCK_TIMES=file.name,
                    LD_PRELOAD=f"{LIBRARY}:{os.path.join(PROGRAMS, 'growth', 'lock_times.so')}"
                    ) as worker:
            rate = worker.ask("cycle", size, 1000)
        return [rate, *map(int, file.read().split())]


def threads(report):
    command = os.path.join(PROGRAMS, "growth", "threads")
    with Volatile("-c", "4096") as server, Worker([command, server.address], None, None) as plain, \
            Worker([command, server.address], LIBRARY, server.address) as shim:
        rates = interleaved(ROUNDS, {
            (kind, size): lambda worker=worker, what=what, size=size:
            worker.ask(what, size, THREAD_MILLISECONDS)
            for size in THREADS for kind, worker, what in (
                ("open", plain, "open"), (WITHOUT, plain, "cycle"), (WITH, shim, "cycle"))})
    show(report, "threads", "Threads",
         {kind: {size: ratios(rates["open", size], rates[kind, size]) for size in THREADS}
          for kind in (WITHOUT, WITH)},
         "So many threads of a C program, on all processors with memcached; the rate of gets on "
         "connections that stay open to the rate of cycles of as many threads.")
    rows = []
    for size in THREADS:
        cycles, locks, contended, waited, held = lock_times(size)
        rows.append([size, cycles, locks, contended, waited, held])
    report.raw("growth-lock", ["threads", "cycles", "locks", "contended", "ns waited", "ns held"],
               rows)
    report.say("The pool's lock in the same program, by a library that measures it (a second run; "
               "a thread that loses its processor while it has the lock, or waits, counts with all "
               "of that):")
    report.table(["threads", "held, ns each time", "taken, times a cycle",
                  "found taken, of 1,000 times", "waited, ns a cycle", "% of a cycle's time"],
                 [[str(size), f"{held / locks:.0f}", f"{locks / cycles:.1f}",
                   f"{contended / locks * 1000:.2f}", f"{waited / cycles:.1f}",
                   f"{waited / size / 1e9 * 100:.3f}"]
                  for size, cycles, locks, contended, waited, held in rows])
    _, cycles, locks, _, _, held = rows[0]
    each_cycle = held / cycles
    busy = MANY * cycles * each_cycle / 1e9
    report.say(f"One thread holds the lock for {each_cycle:.0f} ns of a cycle of "
               f"{1e6 / cycles:.0f} µs. As one lock serves the process, it allows at most "
               f"{1e3 / each_cycle:.1f} million cycles a second. {MANY} processors that do nothing "
               f"but such cycles would want {MANY * cycles / 1e6:.1f} million, which would keep it "
               f"busy for {busy * 100:.0f} % of the time, before what it costs to move its cache "
               "lines between them.")


def main():
    with machine.bounded(SECONDS), Report("growth", "Growth") as report:
        threads(report)
        machine.stay_on(machine.ONE_CPU)
        greenlets(report)
        endpoints(report)
        connections(report)


if __name__ == "__main__":
    main()
