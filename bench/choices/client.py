"""The worker of choices.py for python-memcached alone, under gevent: what a get costs.

Usage: client.py SERVER. Answers every line "WAY COUNT" with the microseconds of one of COUNT gets:
`fresh` with a client of its own, as in a request; `object` the same on a connection that was open
already, so that only the client is new; `kept` with a client that was used before.
"""

from gevent import monkey
monkey.patch_all()

import sys
import time

import memcache

SERVER = sys.argv[1]
KEYS = 97

kept = memcache.Client([SERVER])


def get(client, number):
    value = client.get(f"bench-{number % KEYS}")
    assert value == f"value-of-{number % KEYS}", value


def get_fresh(number):
    client = memcache.Client([SERVER])
    get(client, number)
    client.disconnect_all()


def get_with_new_object(number):
    client = memcache.Client([SERVER])
    client.servers[0].socket = kept.servers[0].socket
    get(client, number)
    client.servers[0].socket = None


def get_kept(number):
    get(kept, number)


WAYS = {"fresh": get_fresh, "object": get_with_new_object, "kept": get_kept}


def run(way, count):
    start = time.perf_counter()
    for number in range(count):
        way(number)
    return (time.perf_counter() - start) / count * 1e6


for key in range(KEYS):
    assert kept.set(f"bench-{key}", f"value-of-{key}")
for line in sys.stdin:
    name, times = line.split()
    print(run(WAYS[name], int(times)), flush=True)
