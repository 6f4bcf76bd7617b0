"""Rounds of twenty greenlets: all are answered, all give up on a stopped server, and so on.

Usage: recover.py HOST:PORT PID ROUNDS, where PID is the memcached, which is stopped and continued.
Every greenlet has a client of its own, every key its own value. Prints one line of JSON.
"""

import json
import os
import signal
import sys

from stall import SERVER, PID, stop_server

import gevent
import memcache

ROUNDS = int(sys.argv[3])
GREENLETS = 20
SPARED = 1.2  # a thread does not get back for a second what it gave up

seen = {"operations": 0, "answered": 0, "given_up": 0, "wrong": 0}


def look_up(key, patience):
    client = memcache.Client([SERVER], socket_timeout=20)
    seen["operations"] += 1
    try:
        with gevent.Timeout(patience):
            value = client.get(key)
        seen["answered"] += 1
        seen["wrong"] += value != f"value-of-{key}".encode()
    except gevent.Timeout:
        seen["given_up"] += 1
    client.disconnect_all()


def one_round(number, patience):
    gevent.joinall([gevent.spawn(look_up, f"key-{number * GREENLETS + n}", patience)
                    for n in range(GREENLETS)])


def main():
    for number in range(ROUNDS):
        one_round(2 * number, 20)
        stop_server()
        try:
            one_round(2 * number + 1, 0.1)
        finally:
            os.kill(PID, signal.SIGCONT)
        gevent.sleep(SPARED)
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
