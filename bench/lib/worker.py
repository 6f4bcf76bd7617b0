"""Workers: programs that do a batch when told to, one line each way, so that batches of several workers can
alternate."""

import os
import subprocess

from support import BUILD, LIBRARY, die_with_parent, preloaded

PROGRAMS = os.path.abspath(os.path.join(BUILD, "bench"))
TURNS = os.path.join(PROGRAMS, "lib", "turns")


class Worker:
    """A program of ours that answers every line on its input with a line."""

    def __init__(self, command, library, servers, **more):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, env=preloaded(library, servers, **more),
                                        preexec_fn=die_with_parent)

    def tell(self, *words):
        """Sends WORDS to the worker, which is busy with them until it answers."""
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def hear(self):
        """The next line that the worker says, in words."""
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.process.args} ended with {self.process.wait()}")
        return answer.split()

    def ask(self, *words):
        """The number that the worker answers to WORDS."""
        self.tell(*words)
        return float(self.hear()[0])

    def stop(self):
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Turns(Worker):
    """turns.c against SERVERS, addresses; microseconds for each turn of a batch."""

    def __init__(self, shim, *servers, prefix=()):
        super().__init__([*prefix, TURNS, *servers], LIBRARY if shim else None,
                         servers[0] if len(servers) == 1 else "*")

    def open(self, count):
        """A get on a connection that stays open."""
        return self.ask("open", count)

    def floor(self, count):
        """The same with one TCP_INFO: the least that any check of a connection costs."""
        return self.ask("floor", count)

    def least(self, count):
        """The same with the four system calls that no pool can do without."""
        return self.ask("least", count)

    def cycle(self, count):
        """socket, connect, get, close."""
        return self.ask("cycle", count)

    def hold(self, count):
        """Has COUNT connections that were used open from then on."""
        return self.ask("hold", count)
