"""Writes without waiting for answers, sends quit, and checks what arrived: ROUNDS times.

Usage: last_writes.py text|binary ROUNDS. Prints how many rounds lacked the last value.
"""

import contextlib
import os
import socket
import sys

import pylibmc

SERVER = os.environ["APP_SERVER"]
WRITES = 2000


def write(number, binary):
    """libmemcached reads to the end of file as it disconnects, to know that all is written."""
    client = pylibmc.Client([SERVER], binary=binary,
                            behaviors={"_noreply": True, "buffer_requests": True})
    for value in range(WRITES):
        with contextlib.suppress(pylibmc.Error):  # it takes "buffered" for one
            client.set(f"last-{number}", str(value))
    client.disconnect_all()


def last_value(number):
    host, port = SERVER.split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"get last-%d\r\n" % number)
        answer = b""
        while not answer.endswith(b"END\r\n"):
            answer += connection.recv(4096)
    return answer


def main():
    late = 0
    for number in range(int(sys.argv[2])):
        write(number, sys.argv[1] == "binary")
        late += b"\r\n%d\r\n" % (WRITES - 1) not in last_value(number)
    print(late)


if __name__ == "__main__":
    main()
