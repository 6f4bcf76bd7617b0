"""A process for every operation, made by fork(); each has a client of its own, as its parent."""

import os
import sys

import memcache

from echo import looked_up
from tally import CONCURRENCY, KEYS, SERVER, Tally


def look_up(key):
    client = memcache.Client([SERVER], socket_timeout=10)
    try:
        return looked_up(client, key)
    finally:
        client.disconnect_all()


def in_child(key):
    """A pipe that ends with what the child found."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        with os.fdopen(writing, "w") as answer:
            answer.write(str(look_up(key)))
        os._exit(0)
    os.close(writing)
    return os.fdopen(reading)


look_up("first")
tally = Tally()
for first in range(0, len(KEYS), CONCURRENCY):
    children = {key: in_child(key) for key in KEYS[first:first + CONCURRENCY]}
    for key, answer in children.items():
        with answer:
            tally.count(key, answer.read())
        os.wait()
tally.end()
