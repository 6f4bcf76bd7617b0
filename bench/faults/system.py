"""System calls, wake-ups and the balance between workers."""

import collections
import concurrent.futures
import http.client
import os
import re
import shutil
import subprocess
import tempfile
import time

from lib.cases import Missing, Row, Server, as_plain, at_most, rest
from support import PYTHON, Process, die_with_parent, free_port, preloaded

from faults.cases import CLIENT, Client, case, switches

HERE = os.path.dirname(os.path.abspath(__file__))
WORKERS = 16


class Traced:
    """The client under strace: calls are counted between two orders."""

    def __init__(self, library, address, quiet="poll"):
        if not shutil.which("strace"):
            raise Missing("no such program: strace")
        self.directory = tempfile.TemporaryDirectory()
        self.trace = os.path.join(self.directory.name, "trace")
        environment = preloaded(library, address, MCPOOL_STATS="off")
        preload = environment.pop("LD_PRELOAD", None)
        self.process = subprocess.Popen(
            ["strace", "-f", "-o", self.trace, *(["-E", f"LD_PRELOAD={preload}"] if preload else []),
             CLIENT, address, quiet, "4000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment, preexec_fn=die_with_parent)

    def ask(self, order):
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        if self.process.stdout.readline().split()[1:] != ["0", "0", "0"]:
            raise RuntimeError("not all answers are right")
        time.sleep(0.3)

    def calls(self):
        """{system call: how often} until now; one that has not returned counts once strace writes it."""
        with open(self.trace, encoding="utf-8", errors="replace") as file:
            return collections.Counter(re.findall(r"^(?:\d+ +)?(\w+)\(", file.read(), re.M))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.directory.cleanup()


# Release 0.1.0 makes 11.07 of them: no more are allowed.
CALLS_OF_A_HIT = 11.1


@case("calls-of-a-hit", Row("system calls of a cycle", *at_most(CALLS_OF_A_HIT)), alone=True)
def calls_of_a_hit(library):
    with Server() as server, Traced(library, server.address) as client:
        client.ask("batch 20 1")
        counts = []
        # The least of three: now and then the counters are written as well.
        for _ in range(3):
            before = client.calls()
            client.ask("batch 200 1")
            counts.append(sum((client.calls() - before).values()) / 200)
        return min(counts)


# The pieces of a wait.
PIECES = ("poll", "ppoll", "select", "pselect6", "epoll_wait", "epoll_pwait", "epoll_pwait2")


def calls_of_a_wait(library, way):
    with Server() as server, Traced(library, server.address, way) as client:
        client.ask("batch 4 4")
        rest(15)
        with open(client.trace, encoding="utf-8", errors="replace") as file:
            # The answer to the order was the last call before the wait.
            quiet = file.read().rpartition("write(1, ")[2]
        calls = collections.Counter(re.findall(r"^(?:\d+ +)?(\w+)\(", quiet, re.M))
        return sum(calls[name] for name in PIECES), calls["rt_sigprocmask"]


for wait in ("poll", "select", "epoll"):
    case(f"calls-of-a-wait-{wait}", Row("pieces that began within 15 s"),
         Row("calls that set the signal mask", "2", lambda shim, plain: shim <= plain + 2), alone=True)(
             lambda library, wait=wait: calls_of_a_wait(library, wait))


@case("wake-ups", Row("of a process with 1 waiting thread, in 14 s"), Row("with 200 waiting threads"),
      Row("with 200, beyond those with 1", "0", lambda shim, plain: shim <= 0))
def wake_ups(library):
    results = []
    for threads in (0, 200):
        with Server() as server, Client(library, server.address) as client:
            client.burst(32)
            if threads:
                # They begin to wait when connections are idle.
                client.ask("wait", threads, 0)
            time.sleep(0.5)
            before = switches(client.process.pid)
            rest(14)
            results.append(switches(client.process.pid) - before)
    return results[0], results[1], max(0, results[1] - results[0])


@case("shares", Row("requests of the busiest of 16 workers, by those of the idlest", *as_plain(0.2, 0.5)),
      alone=True)
def shares(library):
    port = free_port()

    def one(_):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/")
        pid = connection.getresponse().read().decode()
        connection.close()
        return pid

    with Server() as server:
        environment = preloaded(library, server.address, APP_SERVER=server.address, MCPOOL_STATS="off")
        with Process([PYTHON, os.path.join(HERE, "prefork.py"), str(port), str(WORKERS)], port, environment), \
                concurrent.futures.ThreadPoolExecutor(8) as threads:
            counts = collections.Counter(threads.map(one, range(3200)))
    return max(counts.values()) / min(counts.values()) if len(counts) == WORKERS else float("inf")
