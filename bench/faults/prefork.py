"""A web server of workers that were forked and block in accept(); each asks memcached on a new connection and
answers with its pid. Usage: prefork.py PORT WORKERS"""

import os
import signal
import socket
import sys

PORT, WORKERS = map(int, sys.argv[1:])
HOST, MEMCACHED = os.environ["APP_SERVER"].split(":")


def serve(listener):
    while True:
        client, _ = listener.accept()
        with client, socket.create_connection((HOST, int(MEMCACHED))) as cache:
            if not client.recv(4096):
                continue
            cache.sendall(b"get key-7\r\n")
            answer = b""
            while not answer.endswith(b"END\r\n"):
                answer += cache.recv(256)
            assert b"value-of-key-7" in answer
            body = str(os.getpid()).encode()
            client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
                           % (len(body), body))


def main():
    parent = os.getpid()
    with socket.create_server(("127.0.0.1", PORT), backlog=128) as listener:
        children = []
        for _ in range(WORKERS):
            pid = os.fork()
            if pid == 0:
                serve(listener)
            children.append(pid)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            signal.pause()
        finally:
            if os.getpid() == parent:
                for pid in children:
                    os.kill(pid, signal.SIGKILL)


main()
