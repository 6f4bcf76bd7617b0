"""Logs in to a memcached -Y as its protocol wants it, by a `set` that is none; several times over.

Usage: login.py. The credentials must never be found in the cache: on a connection that is logged in
already the same `set` would store them.
"""

import os
import socket

HOST, PORT = os.environ["APP_SERVER"].split(":")


def ask(connection, request, wanted):
    connection.sendall(request)
    answer = b""
    while len(answer) < len(wanted):
        answer += connection.recv(len(wanted) - len(answer))
    assert answer == wanted, answer


def session():
    with socket.create_connection((HOST, int(PORT)), 10) as connection:
        ask(connection, b"set login 0 0 10\r\nbob secret\r\n", b"STORED\r\n")
        ask(connection, b"get login\r\n", b"END\r\n")
        ask(connection, b"set key 0 0 1\r\nx\r\n", b"STORED\r\n")
        ask(connection, b"get key\r\n", b"VALUE key 0 1\r\nx\r\nEND\r\n")
        return connection.getsockname()[1]


def refused():
    """Without a login nothing is answered, and the connection is no proof of the opposite."""
    with socket.create_connection((HOST, int(PORT)), 10) as connection:
        ask(connection, b"get key\r\n", b"CLIENT_ERROR unauthenticated\r\n")


ports = []
for _ in range(5):
    ports.append(session())
    refused()
assert len(set(ports)) == len(ports), ports
