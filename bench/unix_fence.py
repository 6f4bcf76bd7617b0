"""Unix sockets: what pooling them could gain, measured without the shim, which does not pool them.

A pool is worth its risk here if a cycle with a proof is at least WORTH times as fast as one without
a pool. The proof is a fence, as the kernel counts no bytes on these sockets; see unix_fence.c.

The calls alone are just above that (1.63). The shim's own work comes on top: release 0.1.0, which
pooled these sockets without a fence, took 18.3 µs for a cycle whose plain form took 41.8, and the fence
and the last row's calls add 11 to that, which makes 1.4.
"""

import os

from lib import machine
from lib.report import Report, quartiles
from lib.rounds import interleaved, ratios, spread
from lib.worker import PROGRAMS, Worker
from matrix import OverUnixSocket

ROUNDS = 100
TURNS = 300
SECONDS = 120
WORTH = 1.5

KINDS = {"open": "a get on a connection that stays open",
         "plain": "socket, connect, get, close",
         "fence": "a kept connection, a fence and its answer, get, close",
         "proof": "the same, with stat(), SO_PEERCRED and F_GETFL"}


def measure():
    with OverUnixSocket() as server, \
            Worker([os.path.join(PROGRAMS, "unix_fence"), server.address], None, "") as worker:
        return interleaved(ROUNDS, {kind: lambda kind=kind: worker.ask(kind, TURNS)
                                    for kind in KINDS})


def main():
    machine.stay_on(machine.ONE_CPU)
    with machine.bounded(SECONDS), Report("unix_fence", "Unix sockets") as report:
        times = measure()
        report.raw_rounds("unix_fence", times)
        report.say(f"{ROUNDS} rounds of {TURNS} turns each, interleaved; client and memcached share "
                   "one processor. The calls of a pool alone, without what a shim needs to make them. "
                   f"Worth it would be {WORTH}.")
        report.table(["turn", "times as fast as without a pool", "quartiles", "µs"],
                     [[name, *quartiles(spread(ratios(times["plain"], times[kind]))),
                       f"{spread(times[kind]).median:.1f}"] for kind, name in KINDS.items()])


if __name__ == "__main__":
    main()
