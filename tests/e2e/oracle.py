"""Greenlets that give up at random moments; every value must name its key.

Usage: oracle.py HOST:PORT SEED OPERATIONS KEYS [SECONDS]. Prints one line of JSON. A greenlet makes a client of
its own, asks for some keys and is ended by a gevent.Timeout, a kill, its client's socket timeout,
or not at all. Half of them are python-memcached's clients, half pymemcache's.
"""

from gevent import monkey

monkey.patch_all()

import json
import random
import socket
import struct
import sys

import gevent
import gevent.pool
import memcache
from pymemcache.client.base import Client

SERVER = sys.argv[1]
SEED, OPERATIONS, KEYS = map(int, sys.argv[2:5])
SECONDS = int(sys.argv[5]) if len(sys.argv) > 5 else 60
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


class Raw:
    """Clients that send more requests than they wait for, and close without a quit or with one."""

    def __init__(self, timeout):
        self.socket = socket.create_connection((HOST, int(PORT)), timeout)
        self.broken = False

    def read(self, length):
        answer = b""
        while len(answer) < length:
            chunk = self.socket.recv(length - len(answer))
            if not chunk:
                raise ConnectionError("the server hung up")
            answer += chunk
        return answer

    def get(self, key):
        """None when the connection is broken, as the other clients return."""
        if self.broken:
            return None
        try:
            if chance.random() < 0.3:
                self.socket.sendall(self.QUIET)
            return self.ask(key)
        except OSError:
            self.broken = True
            return None

    def close(self):
        try:
            way = chance.random()
            if way < 0.2:
                self.socket.sendall(self.QUIET)
            elif way < 0.4:
                self.socket.sendall(chance.choice(self.QUITS))
            elif way < 0.5:
                self.socket.sendall(self.QUIET + chance.choice(self.QUITS))
            elif way < 0.6:
                self.socket.shutdown(socket.SHUT_WR)
            elif way < 0.7:
                self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()


class Text(Raw):
    QUIET = b"delete nothing noreply\r\n"
    QUITS = (b"quit\r\n",)

    def ask(self, key):
        value = f"value-of-{key}"
        expected = len(f"VALUE {key} 0 {len(value)}\r\n{value}\r\nEND\r\n")
        self.socket.sendall(f"get {key}\r\n".encode())
        return self.read(expected).split(b"\r\n")[1]


class Binary(Raw):
    HEADER = struct.Struct(">BBHBBHIIQ")
    QUIET = HEADER.pack(0x80, 0x14, 7, 0, 0, 0, 7, 0, 0) + b"nothing"
    QUITS = (HEADER.pack(0x80, 0x07, 0, 0, 0, 0, 0, 0, 0),
                HEADER.pack(0x80, 0x17, 0, 0, 0, 0, 0, 0, 0))

    def ask(self, key):
        name = key.encode()
        self.socket.sendall(self.HEADER.pack(0x80, 0x00, len(name), 0, 0, 0, len(name), 0, 0)
                            + name)
        while True:
            _, opcode, _, extras, _, _, body, _, _ = self.HEADER.unpack(self.read(24))
            value = self.read(body)[extras:]
            if opcode == 0x00:
                return value


def look_up(kind, timeout, keys):
    """Asks for KEYS with a client of its own, which is closed in any case."""
    try:
        client = kind(timeout)
    except OSError:
        return
    try:
        for key in keys:
            seen["operations"] += 1
            check(key, client.get(key))
    finally:
        client.close()


def someone():
    keys = [f"key-{chance.randrange(KEYS)}" for _ in range(chance.randint(1, 4))]
    kind = chance.choice((Plain, Other, Text, Binary))
    patience = chance.uniform(0.001, 0.05)
    way = chance.random()
    if way < 0.3:
        with gevent.Timeout(patience, False):
            look_up(kind, None, keys)
            return
        seen["given_up"] += 1
    elif way < 0.45:
        greenlet = gevent.spawn(look_up, kind, None, keys)
        gevent.sleep(patience)
        seen["given_up"] += not greenlet.dead
        greenlet.kill()
    elif way < 0.6:
        look_up(kind, patience, keys)
    else:
        look_up(kind, None, keys)


def main():
    pool = gevent.pool.Pool(CONCURRENCY)
    while seen["operations"] < OPERATIONS:
        pool.spawn(someone)
    pool.join(timeout=SECONDS)
    print(json.dumps(dict(seen, seed=SEED)))


if __name__ == "__main__":
    main()
