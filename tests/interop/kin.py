"""What the tests of families share: a program that forks and looks things up, and whether this library shares."""

import os
import subprocess
import sys

from beside import LIBRARY, PYTHON, TESTS, die_with_parent, preloaded

BENCH = os.path.join(TESTS, "..", "bench")

with open(LIBRARY, "rb") as _library:
    # A library without the setting shares nothing: then only what must not go wrong is asserted.
    SHARES = b"\0SHARE\0" in _library.read()

# A user and a group that have nothing else.
USER = 61235

# The value of a key says which key it is of. Every program ends by its alarm at the latest.
PRELUDE = """
import ctypes, os, resource, select, signal, socket, sys, time
signal.alarm(50)
PORT = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)

def ask(connection, key):
    connection.sendall(f"get {key}\\r\\n".encode())
    answer = b""
    while not answer.endswith(b"END\\r\\n"):
        answer += connection.recv(4096)
    assert answer == f"VALUE {key} 0 {len(key) + 9}\\r\\nvalue-of-{key}\\r\\nEND\\r\\n".encode(), answer

def look_up(number=0):
    connection = socket.create_connection(("127.0.0.1", PORT), 10)
    ask(connection, f"key-{number % 100}")
    connection.close()

def burst(width):
    opened = [socket.create_connection(("127.0.0.1", PORT), 10) for _ in range(width)]
    for number, connection in enumerate(opened):
        ask(connection, f"key-{number % 100}")
    for connection in opened:
        connection.close()

def in_child(*steps):
    pid = os.fork()
    if pid == 0:
        for step in steps:
            step()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

def say(*words):
    print(*words, flush=True)

def hear():
    return sys.stdin.readline().strip()
"""

VALUES = {f"key-{number}": f"value-of-key-{number}" for number in range(1000)}


class Program:
    """PRELUDE and what follows, told and heard by lines."""

    def __init__(self, body, server, library=LIBRARY, before=(), **more):
        environment = preloaded(None, None, MCPOOL_SERVERS=server.address, **more)
        preload = [f"LD_PRELOAD={library}"] if library else []
        self.process = subprocess.Popen([*before, "env", *preload, PYTHON, "-c", PRELUDE + body, str(server.port)],
                                        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        preexec_fn=die_with_parent)

    def hear(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the program ended with {self.process.wait(60)}")
        return line.strip()

    def tell(self, word=""):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def end(self):
        """What it still says. It must end well."""
        said, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        return said

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def run(body, server, library=LIBRARY, **more):
    """What a program says until it ends well."""
    with Program(body, server, library, **more) as program:
        return program.end()
