"""The cycle: what a connection for every get costs, against one that stays open.

All on one processor, which is the hardest case for the shim: on two, the time to wake the other one
hides all costs.
"""

from instructions import instructions
from lib import machine
from lib.report import Report, quartiles
from lib.rounds import interleaved, ratios, spread
from lib.worker import TURNS as TURNS_PROGRAM
from lib.worker import Turns
from matrix import Twemproxy
from support import LIBRARY, Memcached, preloaded

ROUNDS = 100
TURNS = 300
COUNTED = 1000
SECONDS = 120

OPEN = "a get on a connection that stays open"
FLOOR = "the same with one TCP_INFO (the least any proof costs)"
LEAST = "the system calls that no pool can do without, and the get"
WITHOUT = "socket, connect, get, close: no shim"
WITH = "socket, connect, get, close: shim"
PROXY = "socket, connect, get, close: no shim, through twemproxy"
BOTH = "socket, connect, get, close: shim, through twemproxy"
OPEN_SHIM = "a get on a connection that stays open, under the shim"


def measure():
    with Memcached() as server, Twemproxy() as proxy, Turns(False, server.address) as plain, \
            Turns(True, server.address) as shim, Turns(False, proxy.address) as proxied, \
            Turns(True, proxy.address) as both:
        kinds = {OPEN: plain.open, OPEN_SHIM: shim.open, FLOOR: plain.floor, LEAST: plain.least,
                 WITHOUT: plain.cycle, WITH: shim.cycle, PROXY: proxied.cycle, BOTH: both.cycle}
        return interleaved(ROUNDS, {name: lambda turn=turn: turn(TURNS)
                                    for name, turn in kinds.items()})


def count_instructions():
    """{turn: [instructions of one without the shim, with it]}."""
    def count(what, library):
        less, more = (instructions([TURNS_PROGRAM, server.address],
                                   preloaded(library, server.address), input=f"{what} {turns}\n")
                      for turns in (COUNTED, 2 * COUNTED))
        return (more - less) / COUNTED

    with Memcached() as server:
        return {name: [count(what, library) for library in (None, LIBRARY)]
                for name, what in ((OPEN, "open"), ("socket, connect, get, close", "cycle"))}


def main():
    machine.stay_on(machine.ONE_CPU)
    with machine.bounded(SECONDS), Report("cycle", "The cycle") as report:
        times = measure()
        report.raw_rounds("cycle", times)
        report.say(f"{ROUNDS} rounds of {TURNS} turns each, interleaved; client, memcached and "
                   "proxy share one processor. Ratio to a get on a connection that stays open.")
        spreads = {name: spread(ratios(times[name], times[OPEN])) for name in times}
        report.table(["turn", "ratio", "quartiles", "µs"],
                     [[name, *quartiles(spreads[name]), f"{spread(times[name]).median:.1f}"]
                      for name in times])
        within = {what: spread(ratios(times[a], times[b])) for what, a, b in (
            ("shim to no shim, time of a cycle", WITH, WITHOUT),
            ("no shim to shim, times as fast", WITHOUT, WITH),
            ("through twemproxy to shim, times as fast", PROXY, WITH),
            ("the shim's price on a connection that stays open", OPEN_SHIM, OPEN))}
        report.table(["within a round", "ratio", "quartiles"],
                     [[what, *quartiles(ratio)] for what, ratio in within.items()])
        for what, ratio, goal in (
                ("socket, connect, get, close: no shim, by a get on a connection that stays open",
                 spreads[WITHOUT], ""),
                ("the same with the shim", spreads[WITH], "≤ 1.15"),
                ("one TCP_INFO and the get, the least any proof costs", spreads[FLOOR], ""),
                ("the four system calls that no pool can do without, and the get", spreads[LEAST], ""),
                ("a get on a connection that stays open, shim to no shim", spreads[OPEN_SHIM], ""),
                ("the shim, times as fast as without",
                 within["no shim to shim, times as fast"], "≥ 4.5"),
                ("the shim, times as fast as no shim through twemproxy",
                 within["through twemproxy to shim, times as fast"], "≥ 1.3")):
            report.headline(what, ratio, goal)
        counts = count_instructions()
        report.raw("cycle-instructions", ["turn", "no shim", "shim"],
                   [[name, *pair] for name, pair in counts.items()])
        report.say("Instructions of a turn in the program, its libc and the shim, without the "
                   "kernel's, by callgrind.")
        report.table(["turn", "no shim", "shim"],
                     [[name, *(f"{count:,.0f}" for count in pair)]
                      for name, pair in counts.items()])
        report.bars("cycle", "Time of a turn, by a get on a connection that stays open",
                    spreads, "ratio, median and quartiles")


if __name__ == "__main__":
    main()
