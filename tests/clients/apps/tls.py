"""Speaks to a memcached -Z, several times over. Usage: tls.py."""

import os
import socket
import ssl

HOST, PORT = os.environ["APP_SERVER"].split(":")


def session():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((HOST, int(PORT)), 10) as connection:
        port = connection.getsockname()[1]
        with context.wrap_socket(connection) as wrapped:
            wrapped.sendall(b"get nothing\r\n")
            assert wrapped.recv(5) == b"END\r\n"
    return port


ports = [session() for _ in range(5)]
assert len(set(ports)) == len(ports), ports
