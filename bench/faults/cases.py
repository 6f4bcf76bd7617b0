"""What a case is, and what all cases use: the client, a memcached that is full of values, and the count of
connections. A case runs in a process and a network namespace of its own."""

import collections
import contextlib
import dataclasses
import glob
import os
import subprocess
import tempfile
import time

from lib.worker import PROGRAMS
from matrix import Volatile
from support import die_with_parent, preloaded

CLIENT = os.path.join(PROGRAMS, "faults", "client")
ESTABLISHED = "01"
VALUES = {f"key-{number}": f"value-of-key-{number}" for number in range(1000)}

# The default of MCPOOL_IDLE_TIMEOUT and the two seconds that it may take longer.
AFTER_IDLE = 55 + 2

# What all seconds are multiplied with. The tests of the cases use less than 1, because their broken library
# does not depend on time.
PACE = float(os.environ.get("FAULTS_PACE", "1"))

# A commit whose library is measured beside ours, and where that is built.
OLD = os.environ.get("FAULTS_OLD", "")
OLD_LIBRARY = os.path.join(PROGRAMS, f"old-{OLD}", "build/libmcpool.so")

CASES = {}


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


def at_most(most):
    return str(most), lambda shim, plain: shim <= most


def as_plain(slack=0.0, more=0.0):
    """As without the library, with a tolerance."""
    return "as plain", lambda shim, plain: shim <= plain * (1 + slack) + more


def case(name, *rows, alone=False, seconds=110, columns=("plain", "old", "shim")):
    """Registers a function of a library, or None, that returns a number for each of ROWS."""
    def register(function):
        CASES[name] = Case(list(rows), function, alone, seconds, columns)
        return function
    return register


def rest(seconds):
    time.sleep(seconds * PACE)


def rest_until(start, seconds):
    """Until SECONDS have passed since START."""
    time.sleep(max(0, start + seconds * PACE - time.monotonic()))


Counts = collections.namedtuple("Counts", "right failed refused wrong")


# What the quickest pace leaves a client to wait for an answer, in milliseconds.
LEAST_PATIENCE = 500


class Client:
    """client.c, which waits PATIENCE milliseconds for an answer and is quiet in the way QUIET."""

    def __init__(self, library, address, quiet="poll", patience=1000, **more):
        self.directory = tempfile.TemporaryDirectory()
        environment = preloaded(library, address, **{"MCPOOL_STATS": self.directory.name, **more})
        wait = max(LEAST_PATIENCE, int(patience * PACE))
        self.process = subprocess.Popen([CLIENT, address, quiet, str(wait)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env=environment,
                                        preexec_fn=die_with_parent)

    def tell(self, word, first, second):
        self.process.stdin.write(f"{word} {first} {second}\n")
        self.process.stdin.flush()

    def hear(self):
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the client ended with {self.process.wait()}")
        counts = Counts(*map(int, answer.split()))
        if counts.wrong:
            raise Wrong(f"{counts.wrong} wrong answers")
        return counts

    def ask(self, word, first, second):
        self.tell(word, first, second)
        return self.hear()

    def failed(self, word, first, second):
        counts = self.ask(word, first, second)
        return counts.failed + counts.refused

    def burst(self, width=32):
        """Has WIDTH connections at once, and closes them."""
        return self.ask("batch", width, width)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.directory.cleanup()


class Server(Volatile):
    """A memcached with the values of all keys."""

    def __init__(self, *options):
        super().__init__(*options)
        self.store(VALUES)


def connections(port):
    """The inodes of the established connections to PORT. memcached cannot be asked: it may be full."""
    inodes = []
    for name in ("tcp", "tcp6"):
        with open(f"/proc/net/{name}", encoding="ascii") as file:
            inodes += [words[9] for words in map(str.split, list(file)[1:])
                       if words[3] == ESTABLISHED and int(words[2].rpartition(":")[2], 16) == port]
    return inodes


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


def switches(pid):
    """How often the threads of PID went to sleep."""
    total = 0
    for path in glob.glob(f"/proc/{pid}/task/*/status"):
        with open(path, encoding="utf-8") as file:
            total += sum(int(line.split()[1]) for line in file
                         if line.startswith("voluntary_ctxt_switches"))
    return total
