"""Web servers of several workers that share: the load wanders, workers are recycled and reloaded."""

import collections
import concurrent.futures
import glob
import os
import signal
import threading
import time

from faults.graceful import reload
from faults.quiet import FRESH, PYTHON_WEB
from lib import each_worker
from lib.cases import AFTER_IDLE, PACE, Row, Server, Wrong, as_plain, at_most, held, rest
from lib.counted import Counted
from lib.servers import checked_load, serving
from matrix import FPM, gunicorn, nginx_before_fpm
from soak import Scenario
from support import in_queues

from family.cases import case

HERE = os.path.dirname(os.path.abspath(__file__))
WORKERS = 8
# The workers' own ports. The namespace of the case has no others.
OWN_PORT = 29000
WIDTH = 32
# An idle worker has given away what it held by then.
GAP = 1.5
# A user without rights.
USER = 65534


def gevent(app, workers, *options):
    return gunicorn(app, "-k", "gevent", "-w", str(workers), "--pythonpath", HERE, *options), PYTHON_WEB, None


@case("wander-gunicorn-gevent", Row(f"failed, of {WORKERS * WIDTH}", *at_most(0)),
      Row("connections at a time, at most", *at_most(WIDTH + 2 * WORKERS)),
      Row("idle 1.5 s after the last burst", *at_most(WIDTH + 2 * WORKERS)),
      Row("of these in queues"), Row("opened"), alone=True)
def wander(library):
    """Bursts of 32 requests at a time, each for the next of 8 workers."""
    settings = gevent("held_app", WORKERS, "-c", each_worker.__file__)
    with Server() as memcached, serving(settings, library, memcached.address, APP_PORT=str(OWN_PORT)):
        each_worker.wait_for_workers(OWN_PORT, WORKERS)
        failed = 0
        with Counted(memcached) as during:
            for number in range(WORKERS):
                failed += checked_load(OWN_PORT + number, WIDTH, WIDTH)
                rest(GAP)
            idle, queued = during.ask()[1], in_queues(memcached.port)
        return failed, during.most, idle, queued, during.opened


@case("recycled-gunicorn-gevent", Row("failed, of 10000", *as_plain(0.5, 20)), Row("opened", *at_most(60)), alone=True,
      seconds=300)
def recycled(library):
    """8 workers, each of which ends after 50 requests; 20 requests at a time."""
    with Server() as memcached, \
            serving(gevent(FRESH, WORKERS, "--max-requests", "50"), library, memcached.address) as (_, port):
        with Counted(memcached) as during:
            failed = checked_load(port, int(10000 * PACE), 20)
        return failed, during.opened


class Load:
    """Requests on CONCURRENCY threads while the block runs."""

    def __init__(self, port, concurrency):
        self.scenario = Scenario("load", port, ())
        self.ended = threading.Event()
        self.outcomes = collections.Counter()
        self.threads = concurrent.futures.ThreadPoolExecutor(concurrency)
        self.waiting = [self.threads.submit(self.load, first) for first in range(concurrency)]

    def load(self, first):
        outcomes = collections.Counter()
        number = 40 * first
        while not self.ended.is_set():
            outcomes[self.scenario.ask(f"key-{number % 1000}", lambda: False)] += 1
            number += 1
        return outcomes

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ended.set()
        for one in self.waiting:
            self.outcomes += one.result()
        self.threads.shutdown()
        if self.outcomes["wrong"]:
            raise Wrong(f"{self.outcomes['wrong']} wrong answers")


@case("reload-gunicorn-gevent", Row("right answers"), Row("failed", *as_plain(0.5, 20)), Row("opened", *at_most(40)),
      alone=True, seconds=240)
def reloaded(library):
    """SIGHUP, 10 times, to 8 workers that answer 20 requests at a time; and 200 requests after it."""
    with Server() as memcached, serving(gevent(FRESH, WORKERS), library, memcached.address) as (server, port):
        with Counted(memcached) as during:
            with Load(port, 20) as load:
                for _ in range(max(1, round(10 * PACE))):
                    rest(1)
                    reload(server, signal.SIGHUP)
            failed = checked_load(port, 200, 20)
        return load.outcomes["right"], load.outcomes["failed"] + failed, during.opened


@case("gunicorn-sync", Row("failed, of 400", *at_most(0)), Row("connections at a time, at most", *at_most(4)),
      Row("opened"), alone=True)
def sync(library):
    """8 workers, 2 requests at a time."""
    settings = gunicorn(FRESH, "-w", "8"), PYTHON_WEB, None
    with Server() as memcached, serving(settings, library, memcached.address) as (_, port):
        with Counted(memcached) as during:
            failed = checked_load(port, 400, 2)
        return failed, during.most, during.opened


def unprivileged_fpm(running):
    """16 workers under a master that is no root: one identity."""
    os.chmod(running.directory, 0o777)
    configuration = running.write("fpm.conf", f"""
        [global]
        error_log = {running.directory}/fpm.log
        [www]
        listen = 127.0.0.1:{running.port}
        pm = static
        pm.max_children = 16
        clear_env = no
        """)
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--pdeathsig", "KILL",
            sorted(glob.glob("/usr/sbin/php-fpm*"))[-1], "-F", "-y", configuration]


@case("php-fpm-unprivileged", Row("failed, of 400", *at_most(0)), Row("connections at a time, at most", *at_most(6)),
      Row("opened"), Row("idle after the idle time-out and 2 s", *at_most(0)), alone=True, seconds=120)
def fpm(library):
    """16 workers that block in accept(), 4 requests at a time; their master waits."""
    with Server() as memcached, \
            serving((unprivileged_fpm, FPM, nginx_before_fpm), library, memcached.address) as (_, port):
        with Counted(memcached) as during:
            failed = checked_load(port, 400, 4)
        if library:
            rest(AFTER_IDLE)
        return failed, during.most, during.opened, held(memcached.port)


@case("shrinks-gunicorn-gevent", Row("failed", *at_most(0)), Row("connections after a burst of 32, at most"),
      Row("connections after 30 s at 4 at a time, at most", *at_most(12)), alone=True)
def shrinks(library):
    """4 workers: a peak, and then a load of an eighth."""
    with Server() as memcached, serving(gevent("held_app", 4), library, memcached.address) as (_, port):
        with Counted(memcached) as peak:
            failed = checked_load(port, WIDTH, WIDTH)
        end = time.monotonic() + 30 * PACE
        while time.monotonic() < end:
            failed += checked_load(port, 40, 4)
        with Counted(memcached) as small:
            failed += checked_load(port, 40, 4)
        return failed, peak.most, small.most
