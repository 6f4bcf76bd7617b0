"""Opens 16 connections at once, uses and closes them, says so, and goes quiet: quiet.py PORT HOW [COMMAND]. Runs
COMMAND before."""

import ctypes
import select
import socket
import subprocess
import sys
import time

SECONDS = 120


def burst(port):
    opened = [socket.create_connection(("127.0.0.1", port)) for _ in range(16)]
    for number, connection in enumerate(opened):
        key = b"key%d" % number
        connection.sendall(b"set %s 0 0 %d\r\n%s\r\n" % (key, len(key), key))
        assert connection.recv(100) == b"STORED\r\n"
        connection.sendall(b"get %s\r\n" % key)
        assert connection.recv(100) == b"VALUE %s 0 %d\r\n%s\r\nEND\r\n" % (key, len(key), key)
    for connection in opened:
        connection.close()


def wait_in_accept():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.accept()


port, how = int(sys.argv[1]), sys.argv[2]
waits = {"epoll_wait": lambda: epoll.poll(0.5), "poll": lambda: poll.poll(500),
         "select": lambda: select.select([], [], [], 0.5), "accept": wait_in_accept,
         "sleep": lambda: time.sleep(60), "libc_sleep": lambda: ctypes.CDLL(None).sleep(60),
         "usleep": lambda: ctypes.CDLL(None).usleep(60000000), "short_sleep": lambda: time.sleep(5)}
epoll, poll = select.epoll(), select.poll()
if sys.argv[3:]:
    subprocess.run(sys.argv[3:], check=True)
burst(port)
print("quiet", flush=True)
end = time.monotonic() + SECONDS
while time.monotonic() < end:
    waits[how]()
