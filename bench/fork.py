"""What a fork of a small process costs once a connection is idle, whose fd the kernel copies and the
child closes: against the same process without the library, and with the library when the connection
that it used was given up."""

import contextlib
import os
import statistics

from lib import machine
from lib.report import Report, number
from lib.rounds import interleaved, ratios, spread
from lib.worker import PROGRAMS, Worker
from support import LIBRARY, Memcached

ROUNDS = 200
FORKS = 100
SECONDS = 120


def main():
    machine.stay_on(machine.ONE_CPU)
    with machine.bounded(SECONDS), Report("fork", "Fork") as report, Memcached() as server, \
         contextlib.ExitStack() as stack:
        kinds = {"without the library": (None, []), "with it, none idle": (LIBRARY, ["flushed"]),
                 "with it, one idle": (LIBRARY, [])}
        processes = {name: stack.enter_context(Worker(
                         [os.path.join(PROGRAMS, "fork"), str(server.port), *more], library,
                         server.address))
                     for name, (library, more) in kinds.items()}
        times = interleaved(ROUNDS, {name: lambda process=process: process.ask(FORKS)
                                     for name, process in processes.items()})
        report.raw_rounds("fork", times)
        without, none, _ = times.values()
        report.say(f"fork(), _exit() and waitpid() of a process with three fds, time of the processor: "
                   f"{ROUNDS} rounds of {FORKS} forks each in turns.")
        report.table(["process", "µs", "of without", "of none idle", "quartiles"],
                     [[name, number(statistics.median(values)),
                       f"{spread(ratios(values, without)).median:.3f}",
                       *("{0.median:.3f}|{0.low:.3f} to {0.high:.3f}".format(
                           spread(ratios(values, none))).split("|"))]
                      for name, values in times.items()])


if __name__ == "__main__":
    main()
