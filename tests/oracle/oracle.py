"""Greenlets that are given up at random moments; every value must name its key.

Usage: oracle.py HOST:PORT SEED OPERATIONS KEYS. Prints one line of JSON. A greenlet makes a client of
its own, asks for some keys and is ended by a gevent.Timeout, a kill, its client's socket timeout,
or not at all. Half of them are python-memcached's clients, half pymemcache's.
"""

from gevent import monkey

monkey.patch_all()

import json
import random
import sys

import gevent
import gevent.pool
import memcache
from pymemcache.client.base import Client

SERVER = sys.argv[1]
SEED, OPERATIONS, KEYS = map(int, sys.argv[2:5])
HOST, PORT = SERVER.split(":")
CONCURRENCY = 20

chance = random.Random(SEED)
seen = {"operations": 0, "right": 0, "missing": 0, "given_up": 0, "mismatches": 0}


def check(key, value):
    if isinstance(value, bytes):
        value = value.decode()
    if value is None:
        seen["missing"] += 1
    elif value == f"value-of-{key}":
        seen["right"] += 1
    else:
        seen["mismatches"] += 1


class Plain:
    """python-memcached; errors look like misses to it."""

    def __init__(self, timeout):
        self.client = memcache.Client([SERVER], socket_timeout=timeout or 30, dead_retry=0)
        self.get = self.client.get
        self.close = self.client.disconnect_all


class Other:
    """pymemcache; errors are raised."""

    def __init__(self, timeout):
        self.client = Client((HOST, int(PORT)), timeout=timeout, connect_timeout=timeout,
                             default_noreply=False, ignore_exc=True)
        self.get = self.client.get
        self.close = self.client.close


def look_up(kind, timeout, keys):
    """Asks for KEYS with a client of its own, which is given up whatever happens."""
    client = kind(timeout)
    try:
        for key in keys:
            seen["operations"] += 1
            check(key, client.get(key))
    finally:
        client.close()


def someone():
    keys = [f"key-{chance.randrange(KEYS)}" for _ in range(chance.randint(1, 4))]
    kind = chance.choice((Plain, Other))
    patience = chance.uniform(0.001, 0.05)
    way = chance.random()
    if way < 0.3:
        with gevent.Timeout(patience, False):
            look_up(kind, None, keys)
            return
        seen["given_up"] += 1
    elif way < 0.45:
        victim = gevent.spawn(look_up, kind, None, keys)
        gevent.sleep(patience)
        seen["given_up"] += not victim.dead
        victim.kill()
    elif way < 0.6:
        look_up(kind, patience, keys)
    else:
        look_up(kind, None, keys)


def main():
    pool = gevent.pool.Pool(CONCURRENCY)
    while seen["operations"] < OPERATIONS:
        pool.spawn(someone)
    pool.join(timeout=60)
    print(json.dumps(dict(seen, seed=SEED)))


if __name__ == "__main__":
    main()
