"""What the library takes of the program's own processor time, for each connection that it reuses or opens
and for each further get, and what a real connection takes. `mcpool doctor` estimates with these (COST_ in
shim/cli/doctor.c).
"""

from lib import machine
from lib.report import Report, quartiles
from lib.rounds import interleaved, spread
from lib.worker import TURNS as TURNS_PROGRAM
from lib.worker import Turns, Worker
from support import LIBRARY, Memcached

ROUNDS = 100
TURNS = 300
WARM_UP = 10  # turns that turns.c makes before each batch
SECONDS = 120


class DryRun(Turns):
    """turns.c in a dry run, where each connection is opened."""

    def __init__(self, address):
        Worker.__init__(self, [TURNS_PROGRAM, address], LIBRARY, address, MCPOOL_DRY_RUN="on")


def processor_time(worker):
    """Microseconds that the process has had a processor for."""
    with open(f"/proc/{worker.process.pid}/schedstat", encoding="ascii") as file:
        return int(file.read().split()[0]) / 1000


def turn(worker, kind):
    """Microseconds of processor time for a turn."""
    before = processor_time(worker)
    getattr(worker, kind)(TURNS)
    return (processor_time(worker) - before) / (TURNS + WARM_UP)


def main():
    machine.stay_on(machine.ONE_CPU)
    with machine.bounded(SECONDS), Report("cost", "What the library takes") as report, \
            Memcached() as server, Turns(False, server.address) as plain, \
            Turns(True, server.address) as shim, DryRun(server.address) as dry:
        workers = {"no shim": plain, "shim": shim, "dry run": dry}
        times = interleaved(ROUNDS, {(kind, name): lambda kind=kind, worker=worker: turn(worker, kind)
                                     for kind in ("open", "cycle") for name, worker in workers.items()})
        report.raw_rounds("cost", {" ".join(name): rows for name, rows in times.items()})
        report.say(f"Processor time of the program itself, µs, {ROUNDS} rounds of {TURNS} turns.")
        differences = [
            ("a get on a connection that stays open", times["open", "no shim"], None),
            ("the shim, for a reused connection and its get", times["cycle", "shim"], times["open", "no shim"]),
            ("the shim, for an opened connection and its get", times["cycle", "dry run"], times["cycle", "no shim"]),
            ("the shim, for a further get", times["open", "shim"], times["open", "no shim"]),
            ("a reused connection, less than a real one", times["cycle", "no shim"], times["cycle", "shim"])]
        report.table(["what", "µs", "quartiles"],
                     [[what, *quartiles(spread([a - b for a, b in zip(one, other)] if other else one), 2)]
                      for what, one, other in differences])


if __name__ == "__main__":
    main()
