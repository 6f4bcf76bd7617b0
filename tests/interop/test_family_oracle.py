"""No user ever gets another one's bytes, whatever befalls the workers of a family: the value of a key names the key,
requests give up at random, and the server is slow or stands still."""

import collections
import contextlib
import glob
import http.client
import itertools
import os
import random
import signal
import subprocess
import threading
import time

import pytest

from beside import BUILD, HERE, LIBRARY, PYTHON, TESTS, preloaded
from kin import SHARES, VALUES
from support import Memcached, Process, free_port, in_queues

COMMAND = os.path.abspath(os.environ.get("MCPOOL_COMMAND", os.path.join(BUILD, "mcpool")))
WORKERS = 4
THREADS = 8
# Longer, and everything with everything, in a night.
SECONDS = float(os.environ.get("FAMILY_SECONDS", "4"))


class SlowServer(Process):
    """tests/e2e/slow_server.py, which answers every key with its value."""

    def __init__(self):
        port = free_port()
        super().__init__([PYTHON, os.path.join(TESTS, "e2e", "slow_server.py"), str(port), "7"], port)

    address = Memcached.address


class Full(Memcached):
    """A memcached with the values of all keys."""

    def __init__(self):
        super().__init__()
        self.store(VALUES)


class Stalled(Full):
    """One that stands still for a moment again and again."""

    def __enter__(self):
        self.over = threading.Event()
        self.stopper = threading.Thread(target=self.stop_and_go)
        self.stopper.start()
        return super().__enter__()

    def stop_and_go(self):
        while not self.over.wait(0.05):
            self.pause()
            time.sleep(0.06)
            self.go_on()

    def __exit__(self, *error):
        self.over.set()
        self.stopper.join()
        super().__exit__(*error)


SERVERS = {"slow": SlowServer, "stalled": Stalled, "quick": Full}


class Load:
    """Requests in threads while the block runs, with pauses of all lengths in between."""

    def __init__(self, port):
        self.port = port
        self.outcomes = collections.Counter()
        self.wrong = []
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.ask_all, args=(number,)) for number in range(THREADS)]

    def ask(self, key):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", f"/?{key}")
            body = connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            return "failed"
        finally:
            connection.close()
        if body == f"value-of-{key}":
            return "right"
        if body.startswith("value-of-"):
            self.wrong.append((key, body))
        return body if body in ("gave up", "missing") else "failed"

    def ask_all(self, number):
        chance = random.Random(number)
        outcomes = collections.Counter()
        while not self.over.is_set():
            outcomes[self.ask(f"key-{chance.randrange(len(VALUES))}")] += 1
            if chance.random() < 0.02:
                time.sleep(chance.uniform(0, 1.5))    # so that workers go quiet
        self.outcomes += outcomes

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()
        print(dict(self.outcomes))


def children(pid):
    found = []
    for path in glob.glob("/proc/[0-9]*/stat"):
        with contextlib.suppress(OSError), open(path, encoding="ascii", errors="replace") as file:
            words = file.read().rpartition(")")[2].split()
            if int(words[1]) == pid:
                found.append(int(path.split("/")[2]))
    return found


@contextlib.contextmanager
def gunicorn(server, stats, *options, library=LIBRARY, app="giving_up_app:app", workers=WORKERS):
    port = free_port()
    environment = preloaded(library, server.address, APP_SERVER=server.address, MCPOOL_STATS=str(stats))
    command = [PYTHON, "-m", "gunicorn", "-k", "gevent", "-w", str(workers), "-b", f"127.0.0.1:{port}",
               "--graceful-timeout", "2", *options, app]
    with Process(command, port, environment, HERE) as running:
        deadline = time.monotonic() + 20
        while len(children(running.process.pid)) < workers and time.monotonic() < deadline:
            time.sleep(0.05)
        yield running


def kill_one(master, chance):
    workers = children(master)
    if workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(workers), signal.SIGKILL)


def end_one(master, chance):
    workers = children(master)
    if workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(workers), signal.SIGTERM)


def nothing(*_):
    pass


# What befalls the workers: options of gunicorn, what is done again and again, and how many seconds apart.
FATES = {
    "killed": ((), kill_one, 0.4),
    "ended": ((), end_one, 0.4),
    "recycled": (("--max-requests", "40"), nothing, 1),
    "reloaded": ((), lambda master, _: os.kill(master, signal.SIGHUP), 2.5),
}


TOGETHER = [("killed", "slow"), ("killed", "stalled"), ("ended", "stalled"), ("recycled", "slow"),
            ("reloaded", "quick")]
if "FAMILY_SECONDS" in os.environ:
    TOGETHER = list(itertools.product(FATES, SERVERS))


@pytest.mark.parametrize("fate, kind", TOGETHER)
def test_workers_of_a_family(tmp_path, fate, kind):
    """gevent workers are killed, ended, recycled or reloaded under load: no value belongs to another key, and no
    connection outlives the family."""
    pytest.importorskip("gevent")
    options, befall, seconds = FATES[fate]
    chance = random.Random(11)
    with SERVERS[kind]() as server:
        with gunicorn(server, tmp_path, *options) as running, Load(running.port) as load:
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                time.sleep(seconds)
                befall(running.process.pid, chance)
        assert load.wrong == []
        assert load.outcomes["right"] > 5 * SECONDS
        assert load.outcomes["gave up"] > 0 or kind == "quick"
        # Where requests fail without the library, because the worker was ended, they fail with it.
        assert load.outcomes["failed"] < load.outcomes["right"]
        deadline = time.monotonic() + 10
        while in_queues(server.port):
            assert time.monotonic() < deadline, "connections in a queue that no process has"
            time.sleep(0.1)


def test_recycled_workers_leave_their_connections(tmp_path):
    """Workers that end after 10 requests each: their successors go on with the same connections."""
    pytest.importorskip("gevent")
    with Full() as server, gunicorn(server, tmp_path, "--max-requests", "10", app="kept_app:app", workers=2) as running:
        before = server.stats()
        one_by_one = Load(running.port)
        outcomes = collections.Counter(one_by_one.ask(f"key-{number}") for number in range(100))
        opened = server.connections_since(before)
    assert one_by_one.wrong == [] and outcomes["right"] > 80
    # Ten and more workers had their turn.
    assert opened <= (4 if SHARES else 100)


def wait_for_queue(server, least, seconds=10):
    """Until LEAST connections are in a queue, or the time is over."""
    deadline = time.monotonic() + seconds
    while in_queues(server.port) < least and time.monotonic() < deadline:
        time.sleep(0.1)
    return in_queues(server.port)


@pytest.fixture
def family(tmp_path):
    pytest.importorskip("gevent")
    with Full() as server, gunicorn(server, tmp_path, app="kept_app:app") as running:
        yield server, running


def switch(stats, *words):
    done = subprocess.run([COMMAND, *map(str, words)], env=preloaded(None, None, MCPOOL_STATS=str(stats)),
                          capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done


def assert_empty(server):
    """After a while."""
    deadline = time.monotonic() + 10
    while in_queues(server.port) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert in_queues(server.port) == 0


def ask_some(running):
    """Lookups that are all right."""
    with Load(running.port) as load:
        time.sleep(1)
    assert load.wrong == [] and load.outcomes["right"] > 0
    assert load.outcomes["failed"] == load.outcomes["missing"] == 0


def ask_all_workers(running, stats):
    """Until each has counters: else it cannot be switched."""
    deadline = time.monotonic() + 30
    while len(os.listdir(stats)) < WORKERS:
        assert time.monotonic() < deadline, "a worker has no counters"
        ask_some(running)
    counted = {int(name.split("-")[0]) for name in os.listdir(stats) if name[0].isdigit()}
    return sorted(counted & set(children(running.process.pid)))


def test_off_of_one_member(family, tmp_path):
    """`mcpool off` of a worker: it shares nothing more, the others go on, and their queue stays."""
    server, running = family
    members = ask_all_workers(running, tmp_path)
    if SHARES:
        assert wait_for_queue(server, 1) > 0
    switch(tmp_path, "off", members[0])
    if SHARES:
        assert in_queues(server.port) > 0
    ask_some(running)
    switch(tmp_path, "on", members[0])
    ask_some(running)


def test_off_of_all_members(family, tmp_path):
    """`mcpool off` of all workers: they are right as ever, and take nothing from a queue, which the last one
    of them empties."""
    server, running = family
    members = ask_all_workers(running, tmp_path)
    if SHARES:
        assert wait_for_queue(server, 1) > 0
    switch(tmp_path, "off", *members)
    assert_empty(server)
    before = server.stats()
    ask_some(running)
    assert server.connections_since(before) > 10
    switch(tmp_path, "on", *members)
    ask_some(running)


def test_flush_of_one_member_empties_the_queue(family, tmp_path):
    """`mcpool flush` of a worker closes what its family has in the queue as well."""
    server, running = family
    members = ask_all_workers(running, tmp_path)
    if SHARES:
        assert wait_for_queue(server, 1) > 0
    time.sleep(1.5)  # what the others have is in the queue as well
    switch(tmp_path, "flush", members[0])
    assert_empty(server)
    ask_some(running)
