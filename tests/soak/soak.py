"""Servers under load for minutes, while everything around them is restarted.

Usage: soak.py LIBRARY SECONDS. gunicorn with gevent and python-memcached, php-fpm with php-memcached, and
node, all with the shim and on one memcached, which is killed and started again; so are workers of
gunicorn, and all of them run other programs meanwhile. A request may fail while memcached is away. The
last line counts like a test's.
"""

import collections
import concurrent.futures
import contextlib
import http.client
import os
import random
import signal
import statistics
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, ".."), os.path.join(HERE, "../clients")]
from matrix import Running, nginx_before_fpm, php_fpm
from support import PYTHON, Memcached, Process, free_port, preloaded

CONCURRENCY = 4
# For how many seconds a client may still fail after memcached is back.
AFTERMATH = 3
# The number of fds varies with the load; a leak of one in a hundred requests is far above this.
MORE_DESCRIPTORS = 4
# Memory in KiB that an allocator may still take after a quarter of the time; node takes 800 without the shim
# as well. Compared when the programs are warm, after tens of thousands of requests.
MORE_MEMORY = 1024
WARM = 60


class SamePort(Memcached):
    """A memcached that can be restarted at the same port."""

    def start_again(self):
        self.process.kill()
        self.process.wait()
        Process.__init__(self, self.process.args, self.port)


def children(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]
    return []


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Anonymous:"))


class Scenario:
    """A server, its requests, and which of its processes live long."""

    def __init__(self, name, port, lasting):
        self.name, self.port, self.lasting = name, port, lasting
        self.outcomes = collections.Counter()
        self.failures = []
        self.samples = []

    def ask(self, key, memcached_is_away):
        was_away, began = memcached_is_away(), time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", f"/?{key}")
            body = connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException) as error:
            body = repr(error)
        finally:
            connection.close()
        if body == f"value-of-{key}":
            return "right"
        if "value-of-" in body:
            return "wrong"
        if was_away or memcached_is_away():
            return "excused"
        self.failures.append(f"{key}, begun at {began:.3f}, ended at {time.monotonic():.3f}: {body[:200]!r}")
        return "failed"

    def load(self, goes_on, memcached_is_away):
        while goes_on():
            key = f"key-{random.randrange(1000)}"
            self.outcomes[self.ask(key, memcached_is_away)] += 1
            time.sleep(0.002)

    def sample(self):
        """Fds and memory of the processes that were there from the beginning."""
        self.samples.append([(descriptors(pid), memory(pid)) for pid in self.lasting])

    def growth(self):
        """Fds and memory that the process which grew most gained, from the second quarter to the last."""
        quarter = max(1, len(self.samples) // 4)
        early, late = self.samples[quarter:2 * quarter], self.samples[-quarter:]
        return [max(statistics.median(sample[i][what] for sample in late)
                    - statistics.median(sample[i][what] for sample in early)
                    for i in range(len(self.lasting))) for what in (0, 1)]


def soak(scenarios, memcached, gunicorn, seconds):
    """Loads all servers at once; returns the connections that memcached saw."""
    end = time.monotonic() + seconds
    away_until = [0]
    opened = []

    def goes_on():
        return time.monotonic() < end

    def memcached_is_away():
        return time.monotonic() < away_until[0]

    def restart_memcached():
        every = max(5, min(20, seconds / 3))
        while end - time.monotonic() > every + AFTERMATH:
            time.sleep(every)
            opened.append(int(memcached.stats()["total_connections"]))
            away_until[0] = float("inf")
            memcached.start_again()
            away_until[0] = time.monotonic() + AFTERMATH
            print(f"memcached was away until {away_until[0] - AFTERMATH:.3f}", flush=True)

    def restart_a_worker():
        while end - time.monotonic() > 3:
            time.sleep(3)
            for pid in set(children(gunicorn)) - set(scenarios[0].lasting):
                os.kill(pid, signal.SIGTERM)

    with concurrent.futures.ThreadPoolExecutor(2 + CONCURRENCY * len(scenarios)) as threads:
        waiting = [threads.submit(restart_memcached), threads.submit(restart_a_worker)]
        waiting += [threads.submit(scenario.load, goes_on, memcached_is_away)
                    for scenario in scenarios for _ in range(CONCURRENCY)]
        while goes_on():
            time.sleep(1)
            for scenario in scenarios:
                scenario.sample()
        for one in waiting:
            one.result()
        # While the threads are there: memcached dies with the one that has started it, unless it changed its user.
        return sum(opened) + int(memcached.stats()["total_connections"])


def checks(scenario, is_warm):
    fds, pages = scenario.growth()
    count = scenario.outcomes
    good = [count["right"] > 0, count["wrong"] == 0, count["failed"] == 0, fds <= MORE_DESCRIPTORS,
            *([pages <= MORE_MEMORY] if is_warm else [])]
    print(f"{'' if all(good) else 'FAILED '}{scenario.name:10}{count['right']:8} right{count['wrong']:4} wrong"
          f"{count['failed']:4} failed, {count['excused']} while memcached was away; {fds:+.0f} descriptors, {pages:+.0f} KiB",
          *scenario.failures[:5], sep=f"\nFAILED {scenario.name}: ")
    return good


def main():
    library, seconds = os.path.abspath(sys.argv[1]), int(sys.argv[2])
    with contextlib.ExitStack() as stack:
        memcached = stack.enter_context(SamePort("-c", "4096"))
        environment = preloaded(library, memcached.address, APP_SERVER=memcached.address,
                                APP_CLIENT="text")
        directory = stack.enter_context(tempfile.TemporaryDirectory())

        def serve(make, **more):
            port = free_port()
            running = Running(directory, port, memcached.address, **more)
            return stack.enter_context(Process(make(running), port, environment, cwd=HERE))

        gunicorn = serve(lambda running: [PYTHON, "-m", "gunicorn", "-k", "gevent", "-w", "2", "-b",
                                          f"127.0.0.1:{running.port}", "soak_app:app"])
        fpm = serve(php_fpm)
        front = serve(nginx_before_fpm, behind=fpm.port)
        node = serve(lambda running: ["node", "--expose-gc", os.path.join(HERE, "page.js"),
                                      str(running.port)])
        time.sleep(1)
        scenarios = [Scenario("gunicorn", gunicorn.port, [min(children(gunicorn.process.pid))]),
                     Scenario("php-fpm", front.port, children(fpm.process.pid)),
                     Scenario("node", node.port, [node.process.pid])]
        opened = soak(scenarios, memcached, gunicorn.process.pid, seconds)
        results = [good for scenario in scenarios for good in checks(scenario, seconds >= WARM)]
    requests = sum(sum(scenario.outcomes.values()) for scenario in scenarios)
    results.append(opened < requests / 5)
    print(f"{'' if results[-1] else 'FAILED '}{opened} connections opened for {requests} requests")
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
