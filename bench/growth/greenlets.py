"""The worker of growth.py for greenlets: gevent and python-memcached, a client for every get.

Usage: greenlets.py SERVER. Answers every line "cycle GREENLETS COUNT" with the microseconds that one of
COUNT cycles took, when so many greenlets share them; "open GREENLETS COUNT" with those of a get, when
each greenlet has a client that is connected before.
"""

from gevent import monkey
monkey.patch_all()

import sys
import time

import gevent
import memcache
from gevent.event import Event

SERVER = sys.argv[1]
KEYS = 97


def store():
    client = memcache.Client([SERVER])
    for number in range(KEYS):
        assert client.set(f"bench-{number}", f"value-of-{number}")
    client.disconnect_all()


def get(client, number):
    value = client.get(f"bench-{number % KEYS}")
    assert value == f"value-of-{number % KEYS}", value


def cycles(first, count):
    for number in range(first, first + count):
        client = memcache.Client([SERVER])
        get(client, number)
        client.disconnect_all()


class Gate:
    """Where greenlets wait for each other and for the word to go on."""

    def __init__(self, count):
        self.missing = count
        self.all_there, self.is_open = Event(), Event()

    def wait(self):
        self.missing -= 1
        if self.missing == 0:
            self.all_there.set()
        self.is_open.wait()


def gets(first, count, begin, end):
    """A client belongs to the greenlet that uses it first."""
    client = memcache.Client([SERVER])
    get(client, first)
    begin.wait()
    for number in range(first, first + count):
        get(client, number)
    end.wait()


def spawn(greenlets, work, *arguments):
    return [gevent.spawn(work, 7 * number, *arguments) for number in range(greenlets)]


def time_cycles(greenlets, each):
    start = time.perf_counter()
    gevent.joinall(spawn(greenlets, cycles, each), raise_error=True)
    return time.perf_counter() - start


def time_gets(greenlets, each):
    begin, end = Gate(greenlets), Gate(greenlets)
    running = spawn(greenlets, gets, each, begin, end)
    begin.all_there.wait()
    start = time.perf_counter()
    begin.is_open.set()
    end.all_there.wait()
    taken = time.perf_counter() - start
    end.is_open.set()
    gevent.joinall(running, raise_error=True)
    return taken


TIMED = {"cycle": time_cycles, "open": time_gets}

store()
for line in sys.stdin:
    what, *numbers = line.split()
    among, shared = map(int, numbers)
    print(TIMED[what](among, shared // among) / (shared // among * among) * 1e6, flush=True)
