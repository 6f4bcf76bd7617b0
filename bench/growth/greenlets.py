"""The worker of growth.py for greenlets: gevent and python-memcached, a client for every get.

Usage: greenlets.py SERVER. Answers every line "GREENLETS COUNT" with the microseconds that one of
COUNT cycles took, when so many greenlets share them.
"""

from gevent import monkey
monkey.patch_all()

import sys
import time

import gevent
import memcache

SERVER = sys.argv[1]
KEYS = 97


def store():
    client = memcache.Client([SERVER])
    for number in range(KEYS):
        assert client.set(f"bench-{number}", f"value-of-{number}")
    client.disconnect_all()


def cycles(first, count):
    for number in range(first, first + count):
        client = memcache.Client([SERVER])
        value = client.get(f"bench-{number % KEYS}")
        client.disconnect_all()
        assert value == f"value-of-{number % KEYS}", value


def run(greenlets, count):
    start = time.perf_counter()
    running = [gevent.spawn(cycles, 7 * number, count // greenlets)
               for number in range(greenlets)]
    gevent.joinall(running, raise_error=True)
    return (time.perf_counter() - start) / (count // greenlets * greenlets) * 1e6


store()
for line in sys.stdin:
    print(run(*map(int, line.split())), flush=True)
