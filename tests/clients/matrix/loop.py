"""A new client for every operation. Usage: loop.py CLIENT WAY

The WAY is how operations run: one after the other, in threads or greenlets, or each in a thread of
its own with a client in threading.local, which is given up as the thread ends.
"""

import sys

if sys.argv[2] == "gevent":
    from gevent import monkey
    monkey.patch_all()
elif sys.argv[2] == "eventlet":
    import eventlet
    eventlet.monkey_patch()

import concurrent.futures
import contextlib
import functools
import socket
import threading
import time

from echo import looked_up, value_of
from tally import CONCURRENCY, KEYS, SERVER, Tally


def memcache_client():
    import memcache
    if SERVER.startswith("/"):
        return memcache.Client([f"unix:{SERVER}"], socket_timeout=10)
    return memcache.Client([f"inet6:{SERVER}" if "[" in SERVER else SERVER], socket_timeout=10)


def with_memcache(key):
    client = memcache_client()
    try:
        return looked_up(client, key)
    finally:
        client.disconnect_all()


def pylibmc_client(binary=False, **behaviors):
    import pylibmc
    return pylibmc.Client([SERVER], binary=binary, behaviors=behaviors)


def with_pylibmc(key, binary=False):
    client = pylibmc_client(binary)
    try:
        return looked_up(client, key)
    finally:
        client.disconnect_all()


def with_pylibmc_buffering(key):
    """pylibmc takes "buffered", which is what was asked for, for an error."""
    from pylibmc import Error
    client = pylibmc_client(no_block=True, buffer_requests=True)
    try:
        with contextlib.suppress(Error):
            client.set(key, value_of(key))
        return client.get(key)
    finally:
        client.disconnect_all()


def with_pylibmc_noreply(key, binary=False):
    client = pylibmc_client(binary, _noreply=True)
    try:
        return looked_up_and_written(client, key)
    finally:
        client.disconnect_all()


def with_pymemcache(key):
    from pymemcache.client.base import Client
    host, port = SERVER.rsplit(":", 1)
    client = Client((host, int(port)), timeout=10, connect_timeout=10)
    try:
        return looked_up_and_written(client, key)
    finally:
        client.close()


def with_pymemcache_kind(make):
    """MAKE is given the address and what all of them are told, and gives a client."""
    def look_up(key):
        host, port = SERVER.rsplit(":", 1)
        client = make((host, int(port)), timeout=10, connect_timeout=10, default_noreply=False)
        try:
            return looked_up(client, key)
        finally:
            client.close()
    return look_up


def pymemcache_client():
    from pymemcache.client.base import Client
    return with_pymemcache_kind(Client)


def pymemcache_pooled():
    from pymemcache.client.base import PooledClient
    return with_pymemcache_kind(functools.partial(PooledClient, max_pool_size=4))


def pymemcache_hash():
    from pymemcache.client.hash import HashClient
    return with_pymemcache_kind(lambda server, **told: HashClient([server], **told))


def pymemcache_retrying():
    from pymemcache.client.base import Client
    from pymemcache.client.retrying import RetryingClient
    return with_pymemcache_kind(
        lambda server, **told: RetryingClient(Client(server, **told), attempts=2))


def with_bmemcached(key):
    import bmemcached
    client = bmemcached.Client([SERVER], socket_timeout=10)
    try:
        return looked_up(client, key)
    finally:
        client.disconnect_all()


def with_limits():
    """A limit is a count: each key has one of its own, so that it names its key as well."""
    from limits.storage import MemcachedStorage
    # limits imports its client at first use, and two threads must not do so at once.
    import pymemcache

    def look_up(key):
        storage = MemcachedStorage(f"memcached://{SERVER}")
        count = int(key.rpartition("-")[2]) + 1
        storage.incr(key, 60, amount=count)
        found = storage.get(key)
        # limits closes no connection.
        storage.storage.close()
        return value_of(key) if found == count else f"{found} of {count}"
    return look_up


def looked_up_and_written(client, key):
    """The client's writes are not answered, so that its connection ends with an unanswered one."""
    value = looked_up(client, key)
    client.set(f"last-{key}", value_of(f"last-{key}"))
    return value


def stored(keys):
    """What the server has, asked past all clients."""
    host, port = SERVER.rsplit(":", 1)
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(f"get {' '.join(keys)}\r\n".encode())
        answers = iter(connection.makefile().readline, "END\n")
        return {header.split()[1]: next(answers).strip() for header in answers}


def find_last_writes():
    """None may be lost; the server may still be busy with some."""
    wanted = {f"last-{key}": value_of(f"last-{key}") for key in KEYS}
    deadline = time.monotonic() + 3
    while stored(wanted) != wanted:
        if time.monotonic() > deadline:
            print("a write without an answer was lost or went wrong", file=sys.stderr)
            tally.wrong += 1
            break
        time.sleep(0.05)


def oslo_region(backend):
    from oslo_cache import core
    from oslo_config import cfg
    configuration = cfg.ConfigOpts()
    core.configure(configuration)
    configuration([])
    for name, value in (("enabled", True), ("backend", backend), ("memcache_servers", [SERVER]),
                        ("memcache_socket_timeout", 10)):
        configuration.set_override(name, value, "cache")
    return core.configure_cache_region(configuration, core.create_region())


def with_oslo(backend):
    region = oslo_region(backend)

    def look_up(key):
        region.get_or_create(key, lambda: value_of(key))
        return region.get(key)
    return look_up


CLIENTS = {
    "memcache": lambda: with_memcache,
    "pylibmc": lambda: with_pylibmc,
    "pylibmc-binary": lambda: functools.partial(with_pylibmc, binary=True),
    "pylibmc-buffering": lambda: with_pylibmc_buffering,
    "pylibmc-noreply": lambda: with_pylibmc_noreply,
    "pylibmc-binary-noreply": lambda: functools.partial(with_pylibmc_noreply, binary=True),
    "pymemcache-noreply": lambda: with_pymemcache,
    "pymemcache": pymemcache_client,
    "pymemcache-pooled": pymemcache_pooled,
    "pymemcache-hash": pymemcache_hash,
    "pymemcache-retrying": pymemcache_retrying,
    "bmemcached": lambda: with_bmemcached,
    "limits": with_limits,
    "oslo": lambda: with_oslo("dogpile.cache.memcached"),
    "oslo-pool": lambda: with_oslo("oslo_cache.memcache_pool"),
}


def in_order(look_up):
    for key in KEYS:
        look_up(key)


def in_threads(look_up):
    with concurrent.futures.ThreadPoolExecutor(CONCURRENCY) as threads:
        list(threads.map(look_up, KEYS))


def in_fresh_threads(look_up):
    for first in range(0, len(KEYS), CONCURRENCY):
        threads = [threading.Thread(target=look_up, args=(key,))
                   for key in KEYS[first:first + CONCURRENCY]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def in_gevent(look_up):
    from gevent.pool import Pool
    Pool(CONCURRENCY).map(look_up, KEYS)


def in_eventlet(look_up):
    list(eventlet.GreenPool(CONCURRENCY).imap(look_up, KEYS))


WAYS = {"order": in_order, "threads": in_threads, "fresh-threads": in_fresh_threads,
        "gevent": in_gevent, "eventlet": in_eventlet}

client, way = sys.argv[1:]
lookup = CLIENTS[client]()
tally = Tally()
WAYS[way](tally.counted(lookup))
if client.endswith("-noreply"):
    find_last_writes()
tally.end()
