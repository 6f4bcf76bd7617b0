"""`make demo`: gunicorn, gevent and python-memcached under ab, without and with the shim.

Usage: demo.py LIBRARY. Starts servers of its own on free loopback ports and stops them. The exit
code is 1 when a request failed, a value was wrong, or the shim did not help.
"""

import collections
import json
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.join(HERE, "..", "..", "tests")
sys.path.insert(0, TESTS)
from support import PYTHON, Memcached, Process, free_port, preloaded

WORKERS = {
    "gevent": "gevent",
    "GeventPyWSGIWorker": "gunicorn.workers.ggevent.GeventPyWSGIWorker",
}
LOADS = ((100, 1), (2000, 20))

Row = collections.namedtuple("Row", "opened established time_wait close_wait rate p50 p99 failed")


def sockets(port):
    """How many sockets of each state have PORT at either end, as ss shows them."""
    lines = subprocess.run(["ss", "-Htan", f"( sport = :{port} or dport = :{port} )"],
                           stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    return collections.Counter(line.split()[0] for line in lines)


def ab(port, requests, concurrency):
    """Runs ab; returns requests per second, p50, p99 (ms) and failed requests."""
    text = subprocess.run(["ab", "-q", f"-n{requests}", f"-c{concurrency}",
                           f"http://127.0.0.1:{port}/"], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True, timeout=120, check=True).stdout

    def number(pattern):
        return re.search(pattern, text, re.MULTILINE).group(1)

    return (float(number(r"^Requests per second:\s+([\d.]+)")), int(number(r"^\s+50%\s+(\d+)")),
            int(number(r"^\s+99%\s+(\d+)")), int(number(r"^Failed requests:\s+(\d+)")))


def measure(worker, library, requests, concurrency):
    """One line of the table, with a memcached and a gunicorn of its own."""
    port = free_port()
    with Memcached() as server:
        command = [PYTHON, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "-k", WORKERS[worker],
                   "app:app"]
        environment = preloaded(library, server.address, DEMO_SERVER=server.address)
        with Process(command, port, environment, cwd=HERE):
            before = server.stats()
            ours = sockets(server.port)
            rate, p50, p99, failed = ab(port, requests, concurrency)
            states = sockets(server.port) - ours
            opened = server.connections_since(before)
    return Row(opened, states["ESTAB"] // 2, states["TIME-WAIT"], states["CLOSE-WAIT"], rate, p50,
               p99, failed)


def show_loads(library):
    """Prints the table; true when the shim did what it is for."""
    good = True
    print(f"{'':24}{'connections':>12}{'ESTAB':>7}{'TIME_':>7}{'CLOSE_':>7}{'requests':>10}"
          f"{'p50':>6}{'p99':>6}{'failed':>8}")
    print(f"{'':24}{'opened':>12}{'':>7}{'WAIT':>7}{'WAIT':>7}{'/second':>10}{'ms':>6}{'ms':>6}")
    for worker in WORKERS:
        for requests, concurrency in LOADS:
            print(f"gunicorn -k {worker}, ab -n{requests} -c{concurrency}")
            for name, preload in (("without", None), ("libmcpool", library)):
                row = measure(worker, preload, requests, concurrency)
                print(f"    {name:20}{row.opened:12}{row.established:7}{row.time_wait:7}"
                      f"{row.close_wait:7}{row.rate:10.0f}{row.p50:6}{row.p99:6}{row.failed:8}",
                      flush=True)
                good &= row.failed == 0
                good &= row.opened <= 2 * concurrency if preload else row.opened >= requests
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
    good &= show_stall(library)
    print()
    print("libmcpool: as many connections as requests at a time, every value right." if good else
          "libmcpool: something is wrong, see above.")
    print("Try it: LD_PRELOAD=" + library + " gunicorn ...")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
