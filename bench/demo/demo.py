"""`make demo`: gunicorn, gevent and python-memcached under ab, without and with the shim.

Usage: demo.py LIBRARY. sharing.py shows several workers. Starts servers of its own on free loopback ports and stops
them. The exit code is 1 when a request failed, a value was wrong, or the shim did not help.
"""

import collections
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.join(HERE, "..", "..", "tests")
sys.path.insert(0, TESTS)
from sharing import show_sharing
from states import sockets
from support import PYTHON, Memcached, Process, free_port, preloaded

WORKERS = {
    "gevent": "gevent",
    "GeventPyWSGIWorker": "gunicorn.workers.ggevent.GeventPyWSGIWorker",
}
REQUESTS, CONCURRENCY = 1000, 20    # of one round
WARM_UP, ROUNDS = 200, 5

Round = collections.namedtuple("Round", "rate p50 p99 failed processor")


def ab(port, requests):
    """Runs ab; returns requests per second, p50, p99 (ms) and failed requests."""
    text = subprocess.run(["ab", "-q", f"-n{requests}", f"-c{CONCURRENCY}",
                           f"http://127.0.0.1:{port}/"], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True, timeout=120, check=True).stdout

    def number(pattern):
        return re.search(pattern, text, re.MULTILINE).group(1)

    return (float(number(r"^Requests per second:\s+([\d.]+)")), int(number(r"^\s+50%\s+(\d+)")),
            int(number(r"^\s+99%\s+(\d+)")), int(number(r"^Failed requests:\s+(\d+)")))


def processor_time(pid):
    """Seconds of processor time of a process and its children, so far."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        children = file.read().split()
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return ((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") +
            sum(processor_time(int(child)) for child in children))


class Site:
    """gunicorn and a memcached, both for one row of the table."""

    def __init__(self, worker, library, stack):
        self.server = stack.enter_context(Memcached())
        self.port = free_port()
        command = [PYTHON, "-m", "gunicorn", "-b", f"127.0.0.1:{self.port}", "-k", WORKERS[worker], "app:app"]
        environment = preloaded(library, self.server.address, DEMO_SERVER=self.server.address)
        self.process = stack.enter_context(Process(command, self.port, environment, cwd=HERE)).process
        self.before, self.ours = self.server.stats(), sockets(self.server.port)
        self.rounds = []
        ab(self.port, WARM_UP)

    def run(self):
        used = processor_time(self.process.pid)
        found = ab(self.port, REQUESTS)
        self.rounds.append(Round(*found, processor_time(self.process.pid) - used))

    def median(self, name):
        return statistics.median(getattr(one, name) for one in self.rounds)

    def opened(self):
        return self.server.connections_since(self.before)

    def failed(self):
        return sum(one.failed for one in self.rounds)

    def show(self, name):
        states = sockets(self.server.port)
        print(f"    {name:20}{self.opened():11}{states['ESTAB'] // 2:7}"
              f"{states['TIME-WAIT'] - self.ours['TIME-WAIT']:11}"
              f"{1e6 * self.median('processor') / REQUESTS:11.0f}{self.median('rate'):10.0f}"
              f"{self.median('p50'):6.0f}{self.median('p99'):6.0f}{self.failed():8}", flush=True)


def show_loads(library):
    """Prints the table; true when the shim did what it is for."""
    good = True
    print(f"gunicorn and python-memcached, {ROUNDS} rounds of ab -n{REQUESTS} -c{CONCURRENCY}, in turns:")
    print(f"{'':24}{'connections':>11}{'ESTAB':>7}{'TIME_WAIT':>11}{'processor':>11}{'requests':>10}"
          f"{'p50':>6}{'p99':>6}{'failed':>8}")
    print(f"{'':24}{'opened':>11}{'':>7}{'':>11}{'us/request':>11}{'/second':>10}{'ms':>6}{'ms':>6}")
    for worker in WORKERS:
        print(f"gunicorn -k {worker}", flush=True)
        with contextlib.ExitStack() as stack:
            without, pooled = (Site(worker, preload, stack) for preload in (None, library))
            for number in range(ROUNDS):
                for site in (without, pooled) if number % 2 else (pooled, without):
                    site.run()
            without.show("without")
            pooled.show("libmcpool")
            good &= without.failed() == pooled.failed() == 0
            good &= pooled.opened() <= 2 * CONCURRENCY and without.opened() >= ROUNDS * REQUESTS
    return good


def wrong_values(environment_of):
    """How many of twenty greenlets got a value of another key after twenty others gave up."""
    with Memcached() as server:
        result = subprocess.run([PYTHON, os.path.join(TESTS, "e2e", "stall.py"), server.address,
                                 str(server.process.pid)], env=environment_of(server), timeout=60,
                                stdout=subprocess.PIPE, check=True)
    return json.loads(result.stdout)["wrong"]


def compile_naive(folder):
    """The pool one would write by hand."""
    library = os.path.join(folder, "naive.so")
    subprocess.run(["gcc", "-D_GNU_SOURCE", "-shared", "-fPIC", "-O2", "-o", library,
                    os.path.join(TESTS, "e2e", "naive_pool.c"), "-ldl"], check=True)
    return library


def show_stall(library):
    """Prints the warning; true when the shim mixed nothing up."""
    print("A warning to those who would write such a pool by hand. memcached stands still, 20 "
          "greenlets\ngive up waiting, 20 others ask for other keys, memcached goes on. Values of "
          "another key\nhanded to those 20:")
    with tempfile.TemporaryDirectory() as folder:
        naive = compile_naive(folder)
        found = {
            "without": wrong_values(lambda server: preloaded(None, None)),
            "naive pool": wrong_values(lambda server: preloaded(
                None, None, LD_PRELOAD=naive, NAIVE_PORT=str(server.port))),
            "libmcpool": wrong_values(lambda server: preloaded(library, server.address)),
        }
    for name, wrong in found.items():
        print(f"    {name:20}{wrong:12}")
    return found["libmcpool"] == 0 and found["without"] == 0


def main():
    library = os.path.abspath(sys.argv[1])
    good = show_loads(library)
    print()
    good &= show_sharing(library)
    print()
    good &= show_stall(library)
    print()
    print("libmcpool: as many connections as requests at a time, shared by workers, every value right." if good else
          "libmcpool: something is wrong, see above.")
    print("Try it: LD_PRELOAD=" + library + " gunicorn ...")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
