"""A table of cases, as the subjects `faults` and `family` have: what a case is, and what all of them use. A case
runs in a process and a network namespace of its own."""

import contextlib
import dataclasses
import glob
import os
import time

from lib.worker import PROGRAMS
from matrix import Volatile
from support import connections

VALUES = {f"key-{number}": f"value-of-key-{number}" for number in range(1000)}

# What all seconds are multiplied with. The tests of the cases use less than 1, because their broken library
# does not depend on time.
PACE = float(os.environ.get("BENCH_PACE", "1"))

# The default of MCPOOL_IDLE_TIMEOUT and the two seconds that it may take longer.
AFTER_IDLE = 55 + 2

# A commit whose library is measured beside ours, and where that is built.
OLD = os.environ.get("BENCH_OLD", "")
OLD_LIBRARY = os.path.join(PROGRAMS, f"old-{OLD}", "build/libmcpool.so")


class Missing(Exception):
    """Why a case cannot be measured here."""


class Wrong(Exception):
    """An answer of another key: there is no number for that."""


@dataclasses.dataclass
class Row:
    """A number that a case gives. `must` says what it has to be, and `met` (with, without) whether it is; a
    row without `must` is context."""
    what: str
    must: str = ""
    met: object = None


@dataclasses.dataclass
class Case:
    rows: list
    run: object
    # Cases that count what happens, whatever the load, are measured side by side.
    alone: bool
    seconds: int
    # Measured in these columns only.
    columns: tuple


class Cases(dict):
    """{name: case} in the order of the table."""

    def case(self, name, *rows, alone=False, seconds=110, columns=("plain", "old", "shim")):
        """Registers a function of a library, or None, that returns a number for each of ROWS."""
        def register(function):
            self[name] = Case(list(rows), function, alone, seconds, columns)
            return function
        return register


def at_most(most):
    return str(most), lambda shim, plain: shim <= most


def as_plain(slack=0.0, more=0.0):
    """As without the library, with a tolerance."""
    return "as plain", lambda shim, plain: shim <= plain * (1 + slack) + more


def rest(seconds):
    time.sleep(seconds * PACE)


def rest_until(start, seconds):
    """Until SECONDS have passed since START."""
    time.sleep(max(0, start + seconds * PACE - time.monotonic()))


class Server(Volatile):
    """A memcached with the values of all keys."""

    def __init__(self, *options):
        super().__init__(*options)
        self.store(VALUES)


def held(port):
    """How many connections to PORT are established."""
    return len(connections(port))


def held_by(pid, port):
    """How many of them PID has."""
    links = {f"socket:[{inode}]" for inode in connections(port)}
    count = 0
    for path in glob.glob(f"/proc/{pid}/fd/*"):
        with contextlib.suppress(OSError):
            count += os.readlink(path) in links
    return count
