"""Python's socket module in its ways: timeouts, files, duplicates, errors."""

import errno
import os
import select
import socket
import sys

SERVER = ("127.0.0.1", int(sys.argv[1]))
NO_SERVER = ("127.0.0.1", int(sys.argv[2]))


def say(what, call, *arguments):
    try:
        print(what, call(*arguments))
    except OSError as error:
        print(what, type(error).__name__, errno.errorcode.get(error.errno, error))


def ask(connection, key):
    connection.sendall(b"get %s\r\n" % key)
    answer = b""
    while not answer.endswith(b"END\r\n"):
        answer += connection.recv(4096)
    return answer


def park():
    with socket.create_connection(SERVER) as connection:
        ask(connection, b"parked")


for timeout in None, 5, 0.001:
    park()
    connection = socket.socket()
    connection.settimeout(timeout if timeout != 0.001 else 5)
    say("connect", connection.connect, SERVER)
    say("timeout", connection.gettimeout)
    say("number", connection.fileno)
    say("peer", lambda: connection.getpeername() == SERVER)
    say("ask", ask, connection, b"one")
    connection.settimeout(timeout)
    if timeout:
        connection.settimeout(0.05)
        say("impatient", connection.recv, 1)
    say("blocking", connection.getblocking)
    say("close", connection.close)
    say("again", connection.recv, 1)

park()
connection = socket.socket()
connection.setblocking(False)
print("connect_ex", connection.connect_ex(SERVER) in (0, errno.EINPROGRESS))
say("writable", lambda: len(select.select([], [connection], [], 5)[1]))
print("connect_ex", connection.connect_ex(SERVER) in (0, errno.EISCONN))
say("error", connection.getsockopt, socket.SOL_SOCKET, socket.SO_ERROR)
say("recv", connection.recv, 1)
connection.setblocking(True)
say("ask", ask, connection, b"one")
say("detach", connection.detach)
os.close(3)

park()
connection = socket.create_connection(SERVER)
lines = connection.makefile("rwb")
lines.write(b"get one\r\n")
lines.flush()
for _ in range(3):
    print(lines.readline())
say("close", connection.close)
say("number", connection.fileno)
lines.write(b"get two\r\n")
lines.flush()
print(lines.readline(), lines.readline(), lines.readline())
lines.close()

park()
connection = socket.create_connection(SERVER)
copy = connection.dup()
connection.close()
say("copy", ask, copy, b"one")
copy.close()

say("refused", socket.create_connection, NO_SERVER)
with socket.create_connection(SERVER, 5, ("127.0.0.3", 0)) as connection:
    say("bound", lambda: connection.getsockname()[0])
for how in socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR:
    connection = socket.create_connection(SERVER)
    say("ask", ask, connection, b"one")
    say("shutdown", connection.shutdown, how)
    say("end", connection.recv, 1)
    connection.close()

park()
with socket.create_connection(SERVER, 5) as connection:
    wanted = select.poll()
    wanted.register(connection, select.POLLIN)
    connection.sendall(b"get one\r\n")
    print(wanted.poll(5000) == [(connection.fileno(), select.POLLIN)])
    buffer = bytearray(35)
    say("into", connection.recv_into, buffer, 35, socket.MSG_WAITALL)
    print(bytes(buffer))
park()
print(sorted(map(int, os.listdir("/proc/self/fd")))[:4])
