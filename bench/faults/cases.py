"""What the cases of `faults` have in common: the client. A case runs in a process and a network namespace of its
own."""

import collections
import glob
import os
import subprocess
import tempfile

from lib.cases import PACE, Cases, Wrong
from lib.worker import PROGRAMS
from support import die_with_parent, preloaded

CLIENT = os.path.join(PROGRAMS, "faults", "client")

CASES = Cases()
case = CASES.case

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


def switches(pid):
    """How often the threads of PID went to sleep."""
    total = 0
    for path in glob.glob(f"/proc/{pid}/task/*/status"):
        with open(path, encoding="utf-8") as file:
            total += sum(int(line.split()[1]) for line in file
                         if line.startswith("voluntary_ctxt_switches"))
    return total
