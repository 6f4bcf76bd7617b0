"""A family whose processes have been busy and wait: member.py HOST PORT PROCESSES WIDTH. Each process opens WIDTH
connections at once, uses and closes them; then "quiet" is printed, and all wait until the input ends."""

import os
import select
import socket
import sys

HOST, PORT, PROCESSES, WIDTH = sys.argv[1], *map(int, sys.argv[2:])


def ask(connection, key):
    connection.sendall(f"get {key}\r\n".encode())
    answer = b""
    while not answer.endswith(b"END\r\n"):
        answer += connection.recv(4096)
    assert answer == f"VALUE {key} 0 {len(key) + 9}\r\nvalue-of-{key}\r\nEND\r\n".encode(), answer


def burst():
    opened = [socket.create_connection((HOST, PORT), 20) for _ in range(WIDTH)]
    for number, connection in enumerate(opened):
        ask(connection, f"key-{number}")
    for connection in opened:
        connection.close()


def main():
    waiting, waker = os.pipe()
    said, saying = os.pipe()
    for _ in range(PROCESSES - 1):
        if os.fork() == 0:
            os.close(waker)
            os.close(0)
            burst()
            os.write(saying, b".")
            select.select([waiting], [], [])
            os._exit(0)
    burst()
    for _ in range(PROCESSES - 1):
        os.read(said, 1)
    print("quiet", flush=True)
    select.select([0], [], [])


main()
