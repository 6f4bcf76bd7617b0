"""Logs in to a memcached -S with SASL's mechanism PLAIN, several times over.

Usage: sasl.py. A second login on a connection that is logged in would end the first.
"""

import os
import socket
import struct

HOST, PORT = os.environ["APP_SERVER"].split(":")
HEADER = struct.Struct(">BBHBBHIIQ")
SASL_LIST, SASL_AUTH, NOOP = 0x20, 0x21, 0x0A


def ask(connection, opcode, key=b"", value=b""):
    """The status of the answer."""
    connection.sendall(HEADER.pack(0x80, opcode, len(key), 0, 0, 0, len(key) + len(value), 0, 0)
                       + key + value)
    answers = connection.makefile("rb")
    fields = HEADER.unpack(answers.read(HEADER.size))
    answers.read(fields[6])
    return fields[5]


def session():
    with socket.create_connection((HOST, int(PORT)), 10) as connection:
        assert ask(connection, SASL_LIST) == 0
        assert ask(connection, SASL_AUTH, b"PLAIN", b"\0bob\0secret") == 0
        assert ask(connection, NOOP) == 0
        return connection.getsockname()[1]


def refused():
    with socket.create_connection((HOST, int(PORT)), 10) as connection:
        assert ask(connection, NOOP) == 0x20


ports = []
for _ in range(5):
    ports.append(session())
    refused()
assert len(set(ports)) == len(ports), ports
