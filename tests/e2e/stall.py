"""Twenty greenlets give up on a stopped server, and twenty others come. Then it goes on.

Usage: stall.py HOST:PORT PID, where PID is the memcached, which is stopped and continued. Every
key has its own value. Prints one line of JSON: how many of the others got another key's value.
"""

from gevent import monkey

monkey.patch_all()

import glob
import json
import os
import signal
import sys

import gevent
import memcache

SERVER, PID = sys.argv[1], int(sys.argv[2])
GREENLETS = 20


def look_up(number, patience, values):
    client = memcache.Client([SERVER], socket_timeout=20)
    with gevent.Timeout(patience, False):
        values[number] = client.get(f"key-{number}")
    client.disconnect_all()


def store_all():
    client = memcache.Client([SERVER])
    for number in range(2 * GREENLETS):
        client.set(f"key-{number}", f"value-of-key-{number}")
    client.disconnect_all()


def stop_server():
    """The signal is sent at once, but each thread stops a little later."""
    os.kill(PID, signal.SIGSTOP)
    for thread in glob.glob(f"/proc/{PID}/task/*/status"):
        while "State:\tT" not in open(thread, encoding="ascii").read():
            gevent.sleep(0.001)


def main():
    values = {}
    store_all()
    stop_server()
    try:
        gevent.joinall([gevent.spawn(look_up, n, 0.1, values) for n in range(GREENLETS)])
        others = [gevent.spawn(look_up, n, None, values)
                  for n in range(GREENLETS, 2 * GREENLETS)]
        gevent.sleep(0.1)
    finally:
        os.kill(PID, signal.SIGCONT)
    gevent.joinall(others)
    wrong = sum(value != f"value-of-key-{number}" for number, value in values.items())
    print(json.dumps({"answered": len(values), "wrong": wrong}))


if __name__ == "__main__":
    main()
