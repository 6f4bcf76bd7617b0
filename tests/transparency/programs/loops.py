"""Python's event loops and children: selectors, asyncio, threads, subprocesses."""

import asyncio
import os
import selectors
import socket
import subprocess
import sys
import threading

SERVER = ("127.0.0.1", int(sys.argv[1]))
NO_SERVER = ("127.0.0.1", int(sys.argv[2]))


def select_with(kind):
    selector = kind()
    for key in b"one", b"two":
        connection = socket.create_connection(SERVER)
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ, key)
        connection.sendall(b"get %s\r\n" % key)
        answer = b""
        while not answer.endswith(b"END\r\n"):
            for found, events in selector.select(5):
                print(kind.__name__, found.data, events)
                answer += connection.recv(35)
        print(answer, selector.select(0))
        selector.unregister(connection)
        connection.close()
    selector.close()


for kind in selectors.SelectSelector, selectors.PollSelector, selectors.EpollSelector:
    select_with(kind)


async def ask(key):
    reader, writer = await asyncio.open_connection(*SERVER)
    writer.write(b"get %s\r\n" % key)
    answer = await reader.readuntil(b"END\r\n")
    writer.close()
    await writer.wait_closed()
    return answer


async def talk():
    for key in b"one", b"two":
        print(await ask(key))
    print(sorted(await asyncio.gather(*(ask(b"key-%d" % i) for i in range(5)))))
    try:
        await asyncio.open_connection(*NO_SERVER)
    except OSError as error:
        print(type(error).__name__, error.errno)
    try:
        await asyncio.wait_for(ask(b"never"), 0.1)
    except asyncio.TimeoutError:
        print("given up")
    print(await ask(b"three"))


asyncio.run(talk())


def in_a_thread(key):
    with socket.create_connection(SERVER) as connection:
        connection.sendall(b"get %s\r\n" % key)
        answers.append(connection.recv(35, socket.MSG_WAITALL))


answers = []
for i in range(10):
    thread = threading.Thread(target=in_a_thread, args=(b"k-%d" % i,))
    thread.start()
    thread.join()
print(answers)

for options in {}, {"close_fds": False}, {"preexec_fn": os.getpid}, {"start_new_session": True}:
    print(subprocess.run(["sh", "-c", "echo /proc/self/fd/[3-9]"], **options, stdout=subprocess.PIPE))
child = os.fork()
if child == 0:
    in_a_thread(b"kid")
    print(answers[-1], flush=True)
    os._exit(3)
print(os.waitpid(child, 0)[1])
in_a_thread(b"end")
print(answers[-1])
