"""Two clients of each kind at a time, new for every operation: client.py PORT. Prints the answers."""

import concurrent.futures
import sys

import memcache
from pymemcache.client.base import Client

PORT = sys.argv[1]


def with_memcache(key):
    client = memcache.Client([f"127.0.0.1:{PORT}"], socket_timeout=10)
    client.set(key, f"value-of-{key}")
    value = client.get(key)
    client.disconnect_all()
    return value


def with_pymemcache(key):
    client = Client(("127.0.0.1", int(PORT)), timeout=10, connect_timeout=10)
    client.set(key, f"value-of-{key}", noreply=False)
    value = client.get(key).decode()
    client.close()
    return value


def look_up(number):
    return with_memcache(f"m{number}"), with_pymemcache(f"p{number}")


with concurrent.futures.ThreadPoolExecutor(2) as threads:
    print(list(threads.map(look_up, range(20))))
