"""python-memcached in 8 threads, which shuns a server for 30 seconds times PACE after a failure. Usage: shunning.py
HOST:PORT SECONDS PACE. First it leaves 32 idle connections, says so by a line, and waits for one. Prints
"REQUESTS FAILURES MISSES WRONG"."""

import collections
import sys
import threading
import time

import memcache

SERVER = sys.argv[1]
SECONDS, PACE = map(float, sys.argv[2:])
THREADS = 8
seen = collections.Counter()


def client():
    return memcache.Client([SERVER], socket_timeout=PACE, dead_retry=30 * PACE)


def leave_idle():
    clients = [client() for _ in range(32)]
    for number, one in enumerate(clients):
        one.get(f"key-{number}")
    for one in clients:
        one.disconnect_all()


def ask(thread, end):
    mine = client()
    marked = []
    for server in mine.servers:
        server.mark_dead = lambda reason, mark=server.mark_dead: (marked.append(reason), mark(reason))
    number = thread
    while time.monotonic() < end:
        key = f"key-{number % 1000}"
        number += THREADS
        before = len(marked)
        value = mine.get(key)
        seen["requests"] += 1
        if value is None:
            seen["failures" if len(marked) > before else "misses"] += 1
        elif value not in (f"value-of-{key}", f"value-of-{key}".encode()):
            seen["wrong"] += 1
        mine.disconnect_all()
        time.sleep(0.2)


leave_idle()
print("idle", flush=True)
sys.stdin.readline()
until = time.monotonic() + SECONDS
threads = [threading.Thread(target=ask, args=(number, until)) for number in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(*(seen[name] for name in ("requests", "failures", "misses", "wrong")), flush=True)
